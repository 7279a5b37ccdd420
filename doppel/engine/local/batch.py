"""The requests that are decoded together, as rows of one KV cache."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import Cache

from doppel.engine.local.kv_cache import CacheRow, cache_length, copy_rows, crop
from doppel.engine.local.request import ActiveRequest


class DecodeBatch:
    """One cache row per request; shorter rows are padded on the left."""

    def __init__(self) -> None:
        self.requests: list[ActiveRequest] = []
        self.cache: Cache | None = None
        self._paddings: list[int] = []
        self._length = 0

    def set_requests(self, requests: Sequence[ActiveRequest]) -> None:
        """Makes these requests the rows: new ones bring their own cache, missing ones leave the batch."""
        if list(requests) == self.requests:
            return
        if not requests:
            self.__init__()  # type: ignore[misc]
            return
        if len(requests) == 1 and requests[0].cache is not None:
            self.cache, self._paddings = requests[0].cache, [0]
        else:
            reserve = max(request.reserve for request in requests) + 1
            self.cache, self._paddings = copy_rows([self.row_of(request) for request in requests], reserve)
        self.requests = list(requests)
        self._length = cache_length(self.cache)
        for request in requests:
            request.cache = None

    def row_of(self, request: ActiveRequest) -> CacheRow:
        """A request's keys and values, in its own cache or in the batch's."""
        if request.cache is not None:
            return CacheRow(request.cache)
        row = self.requests.index(request)
        assert self.cache is not None
        return CacheRow(self.cache, row, self._paddings[row])

    def padding_inputs(self, device: torch.device) -> dict[str, Any]:
        """Attention mask and positions of the next token of each row; empty when no row is padded."""
        if not any(self._paddings):
            return {}
        paddings = torch.tensor(self._paddings, device=device)[:, None]
        columns = torch.arange(self._length + 1, device=device)
        return {"attention_mask": (columns >= paddings).long(), "position_ids": columns[-1:] - paddings}

    def advance(self) -> None:
        """Records that the model has processed one more token of each row."""
        self._length += 1

    def undo_step(self) -> None:
        """Removes what an unfinished step wrote into the cache."""
        if self.cache is not None:
            crop(self.cache, self._length)
