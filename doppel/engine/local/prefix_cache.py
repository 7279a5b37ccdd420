"""What was read and written lately, kept so that the next turn of a chat reads only what is new in it.

Found by content: whichever conversation begins with the same tokens, under the same adapter, goes on from there. Chats
need no names, and nothing of one can reach another: the same beginning gives the same keys and values whoever wrote it.
Bounded in bytes; what was not used for longest goes first. Belongs on the thread that runs the model.
"""

from collections.abc import Sequence

import msgspec
import torch
from transformers import Cache

from doppel.engine.local.kv_cache import Row, bytes_of, gather
from doppel.engine.local.request import Job

_LEAST = 16  # tokens in common below which copying is not worth it


class _Kept(msgspec.Struct):
    adapter: str | None
    ids: torch.Tensor
    cache: Cache
    size: int


class Prefixes:
    """An LRU of caches of one row each.

    Args:
        most_bytes: that they may hold together; 0 keeps nothing.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._kept: list[_Kept] = []  # the one used last is last
        self.bytes = 0
        self.reused = 0
        """Tokens that need not be read again, so far."""

    def find(self, adapter: str | None, ids: Sequence[int], room: int) -> tuple[Cache, int] | None:
        """A copy of the longest beginning of `ids` that is kept, with its length; the last token is always new.

        Args:
            adapter: under which it was computed.
            ids: a prompt.
            room: columns that will be needed after it.
        """
        wanted = torch.tensor(ids[:-1])
        best, common = None, _LEAST - 1
        for one in self._kept:
            if one.adapter == adapter and (length := _common(one.ids, wanted)) > common:
                best, common = one, length
        if best is None:
            return None
        self._kept = [*(one for one in self._kept if one is not best), best]
        self.reused += common
        return gather([Row(best.cache)], room, common)[0], common

    def would_serve(self, one: Job, other: Job) -> bool:
        """Whether most of what is to be read of a request is the beginning of another, under the same adapter."""
        if one.request.adapter != other.request.adapter or not self._most_bytes:
            return False
        common = _common(torch.tensor(one.request.prompt), torch.tensor(other.ids[:-1]))
        return common >= _LEAST and 2 * common > len(other.ids)

    def keep(self, adapter: str | None, ids: Sequence[int], row: Row) -> None:
        """Keeps a copy of a row whose tokens are `ids`, in the place of what it continues."""
        if len(ids) < _LEAST or not self._most_bytes:
            return
        new = torch.tensor(ids)
        for one in [one for one in self._kept if one.adapter == adapter]:
            common = _common(one.ids, new)
            if common == len(new):  # nothing new
                return
            if 2 * common > len(one.ids):  # the same chat, further on
                self._remove(one)
        cache, _ = gather([row], 0)
        kept = _Kept(adapter, new, cache, bytes_of(cache))
        self._kept.append(kept)
        self.bytes += kept.size
        while self.bytes > self._most_bytes:
            self._remove(self._kept[0])

    def drop(self, adapter: str | None) -> None:
        """Forgets what was computed under an adapter."""
        for one in [one for one in self._kept if one.adapter == adapter]:
            self._remove(one)

    def clear(self) -> None:
        """Forgets everything."""
        self._kept.clear()
        self.bytes = 0

    def _remove(self, one: _Kept) -> None:
        self._kept = [other for other in self._kept if other is not one]
        self.bytes -= one.size


def _common(one: torch.Tensor, other: torch.Tensor) -> int:
    """How many tokens two sequences have in common at the beginning."""
    length = min(len(one), len(other))
    differing = (one[:length] != other[:length]).nonzero()
    return int(differing[0]) if len(differing) else length
