"""The conversations that are written on together, in one KV cache. Knows no model: it says what to feed one."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import Cache

from doppel.engine.local.kv_cache import Row, gather, length_of, rewind
from doppel.engine.local.request import Job


class Batch:
    """Rows of one cache, each a job; rows of different lengths begin with padding."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.cache: Cache | None = None
        self._paddings: list[int] = []
        self._length = 0

    def change(self, jobs: Sequence[Job]) -> None:
        """Makes these jobs its rows: new ones bring their cache, those that are not among them leave."""
        if list(jobs) == self.jobs:
            return
        if not jobs:
            self.__init__()  # type: ignore[misc]
            return
        if len(jobs) == 1 and jobs[0].cache is not None:
            self.cache, self._paddings = jobs[0].cache, [0]
        else:
            self.cache, self._paddings = gather([self.row(job) for job in jobs], max(job.room for job in jobs) + 1)
        self.jobs = list(jobs)
        self._length = length_of(self.cache)
        for job in jobs:
            job.cache = None

    def row(self, job: Job) -> Row:
        """Where a job's keys and values are: in its own cache, or here."""
        if job.cache is not None:
            return Row(job.cache)
        place = self.jobs.index(job)
        assert self.cache is not None
        return Row(self.cache, place, self._paddings[place])

    def masks(self, device: torch.device) -> dict[str, Any]:
        """What the model must be told about padding when one more token of each row is fed."""
        if not any(self._paddings):
            return {}
        paddings = torch.tensor(self._paddings, device=device)[:, None]
        columns = torch.arange(self._length + 1, device=device)
        return {"attention_mask": (columns >= paddings).long(), "position_ids": columns[-1:] - paddings}

    def advance(self) -> None:
        """A token of each row was fed."""
        self._length += 1

    def undo(self) -> None:
        """A step broke off: whatever it wrote into the cache is forgotten."""
        if self.cache is not None:
            rewind(self.cache, self._length)
