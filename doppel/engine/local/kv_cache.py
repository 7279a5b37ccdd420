"""A KV cache whose rows are conversations of different lengths: they join, leave and are kept for the next turn.

transformers' own cache copies all it holds for every token, and forgets what a sliding window has passed, so that
it cannot be cut back to a common beginning. This one writes in place and keeps everything; layers with a window are
shown only that much. Rows end at the same column and begin with padding. Knows layers that attend; models with
others (linear attention, state spaces) get `None` from `windows_of`, and are served one request at a time.
"""

import inspect
from collections.abc import Sequence
from typing import cast

import msgspec
import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer

_ROOM = 64  # columns added at once when a cache is full, at least

Windows = tuple[int | None, ...]
"""How far each layer looks back, in tokens; None: all the way."""


def windows_of(model: PreTrainedModel) -> Windows | None:
    """The windows of a model's layers; None when its cache holds anything but keys and values."""
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


class RowsLayer(CacheLayerMixin):
    """Keys and values of one layer, each (rows, heads, columns, width), of which `length` columns are used.

    Args:
        window: how far the layer looks back; None: all the way.
        reserve: columns that will be needed.
    """

    is_croppable = True

    def __init__(self, window: int | None, reserve: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.window = window
        self.is_sliding = window is not None
        self.reserve = reserve
        self.length = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Makes room for `reserve` columns."""
        self.keys, self.values = (
            states.new_empty((*states.shape[:2], self.reserve, states.shape[3]))
            for states in (key_states, value_states)
        )
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Takes the states of new tokens; returns those that the new tokens may look at."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None
        assert self.values is not None
        start, self.length = self.length, self.length + key_states.shape[2]
        if self.length > self.keys.shape[2]:
            room = self.length - start + max(_ROOM, start // 4)
            self.keys = torch.cat([self.keys[:, :, :start], self.keys.new_empty(self._shape(self.keys, room))], dim=2)
            self.values = torch.cat(
                [self.values[:, :, :start], self.values.new_empty(self._shape(self.values, room))], dim=2
            )
        self.keys[:, :, start : self.length] = key_states
        self.values[:, :, start : self.length] = value_states
        first = self._first(start)
        return self.keys[:, :, first : self.length], self.values[:, :, first : self.length]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns that `update` will return, and the first of them."""
        first = self._first(self.length)
        return self.length + query_length - first, first

    def get_seq_length(self) -> int:
        """Columns in use."""
        return self.length

    def get_max_length(self) -> int:
        """No limit."""
        return -1

    def _first(self, seen: int) -> int:
        """The first column that a token after `seen` others may look at."""
        return 0 if self.window is None else max(0, seen - self.window + 1)

    @staticmethod
    def _shape(states: Tensor, columns: int) -> tuple[int, int, int, int]:
        return states.shape[0], states.shape[1], columns, states.shape[3]


class Row(msgspec.Struct, frozen=True):
    """One conversation in a cache: its row, and the columns before it begins."""

    cache: Cache
    row: int = 0
    padding: int = 0


def new_cache(windows: Windows, reserve: int) -> Cache:
    """An empty cache with room for `reserve` tokens."""
    return Cache(layers=[RowsLayer(window, reserve) for window in windows])


def length_of(cache: Cache) -> int:
    """Columns in use, padding included."""
    return int(cache.get_seq_length())


def bytes_of(cache: Cache) -> int:
    """Memory that a cache holds."""
    return sum(states.nbytes for layer in _layers(cache) for states in (layer.keys, layer.values) if states is not None)


def rewind(cache: Cache, length: int) -> None:
    """Forgets all columns from `length` on, also where a step broke off half way."""
    for layer in _layers(cache):
        layer.length = min(layer.length, length)


def gather(rows: Sequence[Row], room: int, most: int | None = None) -> tuple[Cache, list[int]]:
    """A new cache with copies of these rows, ending at the same column.

    Args:
        rows: of one model's caches.
        room: columns left free for what comes.
        most: tokens taken of each row, the first; None takes all.

    Returns:
        the cache, and the padding of each row in it.
    """
    lengths = [length_of(one.cache) - one.padding for one in rows]
    if most is not None:
        lengths = [min(most, length) for length in lengths]
    longest = max(lengths)
    made = []
    for number, first in enumerate(_layers(rows[0].cache)):
        layer = RowsLayer(first.window, longest + room)
        if first.keys is not None and first.values is not None:
            sources = [_layers(one.cache)[number] for one in rows]
            layer.keys = _joined([source.keys for source in sources], rows, lengths, longest + room)
            layer.values = _joined([source.values for source in sources], rows, lengths, longest + room)
            layer.is_initialized = True
        layer.length = longest
        made.append(layer)
    return Cache(layers=list(made)), [longest - length for length in lengths]


def _joined(sources: Sequence[Tensor | None], rows: Sequence[Row], lengths: Sequence[int], columns: int) -> Tensor:
    first = sources[0]
    assert first is not None
    joined = first.new_empty((len(rows), first.shape[1], columns, first.shape[3]))
    longest = max(lengths)
    for place, (source, one, length) in enumerate(zip(sources, rows, lengths, strict=True)):
        assert source is not None
        joined[place, :, : longest - length] = 0  # looked at by nobody, but a NaN would still spread
        joined[place, :, longest - length : longest] = source[one.row, :, one.padding : one.padding + length]
    return joined


def _layers(cache: Cache) -> list[RowsLayer]:
    return cast("list[RowsLayer]", cache.layers)
