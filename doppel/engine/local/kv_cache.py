"""A KV cache whose rows are conversations of different lengths, which can be added, removed and copied.

transformers' own cache copies everything for every token, and drops what a sliding window has passed, so that it
cannot be cropped to a common prefix. This one writes in place and keeps every column; layers with a sliding window
only return the columns inside it. All rows end at the same column and are padded on the left. It holds attention
layers only: for models with others (linear attention, state spaces) `attention_windows` returns None, and their
requests are decoded one at a time.
"""

import inspect
from collections.abc import Sequence
from typing import cast

import msgspec
import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer

_MIN_GROWTH = 64  # columns added when a cache is full, at least

Windows = tuple[int | None, ...]
"""The attention window of each layer, in tokens; None: unlimited."""


def attention_windows(model: PreTrainedModel) -> Windows | None:
    """The attention windows of a model's layers; None when its cache holds anything but keys and values."""
    config = model.config.get_text_config(decoder=True)
    if "chunked_attention" in (getattr(config, "layer_types", None) or ()):
        return None
    if not {"position_ids", "attention_mask"} <= inspect.signature(model.forward).parameters.keys():
        return None
    windows: list[int | None] = []
    for layer in DynamicCache(config=config).layers:
        if type(layer) is DynamicSlidingWindowLayer:
            windows.append(layer.sliding_window)
        elif type(layer) is DynamicLayer:
            windows.append(None)
        else:
            return None
    return tuple(windows) or None


class KVCacheLayer(CacheLayerMixin):
    """Keys and values of one layer, each (rows, heads, columns, head size), of which `length` columns are used.

    Args:
        window: the layer's attention window; None: unlimited.
        reserve: columns to allocate at first.
    """

    is_croppable = True

    def __init__(self, window: int | None, reserve: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.window = window
        self.is_sliding = window is not None
        self.reserve = reserve
        self.length = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocates `reserve` columns."""
        self.keys, self.values = (
            states.new_empty((*states.shape[:2], self.reserve, states.shape[3]))
            for states in (key_states, value_states)
        )
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Appends the states of new tokens; returns those that the new tokens may attend to."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None
        assert self.values is not None
        start, self.length = self.length, self.length + key_states.shape[2]
        if self.length > self.keys.shape[2]:
            growth = self.length - start + max(_MIN_GROWTH, start // 4)
            self.keys = torch.cat([self.keys[:, :, :start], self.keys.new_empty(self._shape(self.keys, growth))], dim=2)
            self.values = torch.cat(
                [self.values[:, :, :start], self.values.new_empty(self._shape(self.values, growth))], dim=2
            )
        self.keys[:, :, start : self.length] = key_states
        self.values[:, :, start : self.length] = value_states
        first = self._first_visible(start)
        return self.keys[:, :, first : self.length], self.values[:, :, first : self.length]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """How many columns `update` will return, and the first of them."""
        first = self._first_visible(self.length)
        return self.length + query_length - first, first

    def get_seq_length(self) -> int:
        """Columns in use."""
        return self.length

    def get_max_length(self) -> int:
        """Unlimited."""
        return -1

    def _first_visible(self, position: int) -> int:
        """The first column that the token at `position` may attend to."""
        return 0 if self.window is None else max(0, position - self.window + 1)

    @staticmethod
    def _shape(states: Tensor, columns: int) -> tuple[int, int, int, int]:
        return states.shape[0], states.shape[1], columns, states.shape[3]


class CacheRow(msgspec.Struct, frozen=True):
    """One conversation in a cache: its row, and how many columns of padding it begins with."""

    cache: Cache
    row: int = 0
    padding: int = 0


def new_cache(windows: Windows, reserve: int) -> Cache:
    """An empty cache with room for `reserve` tokens."""
    return Cache(layers=[KVCacheLayer(window, reserve) for window in windows])


def cache_length(cache: Cache) -> int:
    """Columns in use, padding included."""
    return int(cache.get_seq_length())


def cache_bytes(cache: Cache) -> int:
    """Memory that a cache takes."""
    return sum(states.nbytes for layer in _layers(cache) for states in (layer.keys, layer.values) if states is not None)


def crop(cache: Cache, length: int) -> None:
    """Drops all columns from `length` on, also where a step stopped between two layers."""
    for layer in _layers(cache):
        layer.length = min(layer.length, length)


def copy_rows(rows: Sequence[CacheRow], reserve: int, max_tokens: int | None = None) -> tuple[Cache, list[int]]:
    """A new cache with copies of these rows, all ending at the same column.

    Args:
        rows: of one model's caches.
        reserve: free columns after them.
        max_tokens: copies only this many of each row, from its beginning; None copies all.

    Returns:
        the cache, and the padding of each row in it.
    """
    lengths = [cache_length(row.cache) - row.padding for row in rows]
    if max_tokens is not None:
        lengths = [min(max_tokens, length) for length in lengths]
    longest = max(lengths)
    layers = []
    for number, template in enumerate(_layers(rows[0].cache)):
        layer = KVCacheLayer(template.window, longest + reserve)
        if template.keys is not None and template.values is not None:
            sources = [_layers(row.cache)[number] for row in rows]
            layer.keys = _stacked([source.keys for source in sources], rows, lengths, longest + reserve)
            layer.values = _stacked([source.values for source in sources], rows, lengths, longest + reserve)
            layer.is_initialized = True
        layer.length = longest
        layers.append(layer)
    return Cache(layers=list(layers)), [longest - length for length in lengths]


def _stacked(
    sources: Sequence[Tensor | None], rows: Sequence[CacheRow], lengths: Sequence[int], columns: int
) -> Tensor:
    first = sources[0]
    assert first is not None
    stacked = first.new_empty((len(rows), first.shape[1], columns, first.shape[3]))
    longest = max(lengths)
    for number, (source, row, length) in enumerate(zip(sources, rows, lengths, strict=True)):
        assert source is not None
        stacked[number, :, : longest - length] = 0  # masked, but a NaN would still spread
        stacked[number, :, longest - length : longest] = source[row.row, :, row.padding : row.padding + length]
    return stacked


def _layers(cache: Cache) -> list[KVCacheLayer]:
    return cast("list[KVCacheLayer]", cache.layers)
