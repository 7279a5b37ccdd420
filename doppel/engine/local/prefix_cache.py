"""Keeps the KV caches of recent chats, so that the next turn only prefills what is new.

Entries are found by content: a prompt that begins with the same tokens under the same adapter reuses them. So chats
need no names, and nothing leaks between them, as equal prefixes have equal keys and values. The cache is an LRU with a
limit in bytes, and is used only on the inference thread.
"""

from collections.abc import Sequence

import msgspec
import torch
from transformers import Cache

from doppel.engine.local.kv_cache import CacheRow, cache_bytes, copy_rows
from doppel.engine.local.request import ActiveRequest

_MIN_SHARED = 16  # shorter common prefixes are not worth a copy


class _Entry(msgspec.Struct):
    adapter: str | None
    ids: torch.Tensor
    cache: Cache
    size: int


class PrefixCache:
    """An LRU of caches of one row each.

    Args:
        max_bytes: size of all entries together; 0 disables the cache.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: list[_Entry] = []  # least recently used first
        self.bytes = 0
        self.reused_tokens = 0
        """Tokens that did not have to be prefilled again, in total."""

    def find(self, adapter: str | None, ids: Sequence[int], reserve: int) -> tuple[Cache, int] | None:
        """A copy of the longest cached prefix of `ids`, and its length; it never includes the last token.

        Args:
            adapter: the adapter of the request.
            ids: the prompt.
            reserve: positions to leave free after the prefix.
        """
        prompt = torch.tensor(ids[:-1])
        best, shared = None, _MIN_SHARED - 1
        for entry in self._entries:
            if entry.adapter == adapter and (length := _shared_length(entry.ids, prompt)) > shared:
                best, shared = entry, length
        if best is None:
            return None
        self._entries = [*(entry for entry in self._entries if entry is not best), best]
        self.reused_tokens += shared
        return copy_rows([CacheRow(best.cache)], reserve, shared)[0], shared

    def would_share(self, first: ActiveRequest, second: ActiveRequest) -> bool:
        """Whether the prompt of `first`, under the same adapter, covers over half of what `second` must prefill."""
        if first.adapter != second.adapter or not self._max_bytes:
            return False
        shared = _shared_length(torch.tensor(first.request.prompt), torch.tensor(second.ids[:-1]))
        return shared >= _MIN_SHARED and 2 * shared > len(second.ids)

    def store(self, adapter: str | None, ids: Sequence[int], row: CacheRow) -> None:
        """Stores a copy of a row with the tokens `ids`, in place of the entry for an earlier state of the same chat."""
        if len(ids) < _MIN_SHARED or not self._max_bytes:
            return
        new_ids = torch.tensor(ids)
        for entry in [entry for entry in self._entries if entry.adapter == adapter]:
            shared = _shared_length(entry.ids, new_ids)
            if shared == len(new_ids):  # nothing new
                return
            if 2 * shared > len(entry.ids):  # the same chat, further on
                self._remove(entry)
        cache, _ = copy_rows([row], 0)
        entry = _Entry(adapter, new_ids, cache, cache_bytes(cache))
        self._entries.append(entry)
        self.bytes += entry.size
        while self.bytes > self._max_bytes:
            self._remove(self._entries[0])

    def drop(self, adapter: str | None) -> None:
        """Removes an adapter's entries."""
        for entry in [entry for entry in self._entries if entry.adapter == adapter]:
            self._remove(entry)

    def clear(self) -> None:
        """Removes everything."""
        self._entries.clear()
        self.bytes = 0

    def _remove(self, removed: _Entry) -> None:
        self._entries = [entry for entry in self._entries if entry is not removed]
        self.bytes -= removed.size


def _shared_length(first: torch.Tensor, second: torch.Tensor) -> int:
    """Length of the common prefix of two token sequences."""
    length = min(len(first), len(second))
    differing = (first[:length] != second[:length]).nonzero()
    return int(differing[0]) if len(differing) else length
