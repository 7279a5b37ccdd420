"""The requests under way: reads their prompts, writes their replies in one batch, one token of each at a time.

A prompt is read by itself, at most 512 tokens a round, and from where a kept beginning of it ends; its last token is
left to the batch, whose rows, of any adapters, are written on together: what the head, the largest layer of a small
model, costs is then paid once for all. Whatever goes wrong ends the requests it happened to. Knows no queue and no
thread, but belongs on the one that owns the model.
"""

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel

from doppel.engine import EngineError
from doppel.engine.local.batch import Batch
from doppel.engine.local.kv_cache import Row, new_cache, windows_of
from doppel.engine.local.lora import Adapters
from doppel.engine.local.out_of_memory import Allowance, first_line, is_out_of_memory
from doppel.engine.local.prefix_cache import Prefixes
from doppel.engine.local.request import Job
from doppel.engine.local.sampling import draw
from doppel.i18n import tr

_log = logging.getLogger(__name__)

_PREFILL = 512
_PREFILL_AGAIN = 64  # after memory did not suffice for that


class Decoding:
    """A model and the requests that it works on.

    Args:
        model: a causal language model in evaluation mode.
        adapters: attached to it.
        context_length: most tokens of prompt and reply together.
        most: requests under way at once.
        keep_bytes: memory for what was read in earlier turns.
    """

    def __init__(
        self, model: PreTrainedModel, adapters: Adapters, *, context_length: int, most: int, keep_bytes: int
    ) -> None:
        self._model = model
        self._adapters = adapters
        self._windows = windows_of(model)
        self._context_length = context_length
        self._batch = Batch()
        self._allowance = Allowance(most)
        self.jobs: list[Job] = []
        """The requests under way, in the order of their arrival."""
        self.prefixes = Prefixes(keep_bytes)

    @property
    def room(self) -> int:
        """How many requests more may begin."""
        return self._allowance.rows - len(self.jobs)

    @torch.inference_mode()
    def step(self, has_ended: Callable[[Job], bool], between: Callable[[], None]) -> list[Job]:
        """Gives each request one step; returns those that memory does not suffice for, which are to wait again.

        Args:
            has_ended: whether nobody waits for a request any more.
            between: called between runs of the model, that nothing else need wait for the whole step. It may add
                requests, which are then part of this step.
        """
        for job in [job for job in self.jobs if has_ended(job)]:
            self._finish(job)
        seen: list[Job] = []
        while unread := [job for job in self.jobs if self._is_to_read(job, seen)]:
            seen.append(unread[0])
            self._read(unread[0])
            between()
        writing = [job for job in self.jobs if job.writing]
        if self._windows is not None:
            return self._write(writing)
        for job in writing:
            self._write([job])
        return []

    def _is_to_read(self, job: Job, seen: Sequence[Job]) -> bool:
        """Whether there is more of a prompt to read in this step."""
        return not job.writing and job not in seen and not self._is_read_for(job)

    def _is_read_for(self, job: Job) -> bool:
        """Whether an earlier request is being read that begins alike: then this one waits, and reads only the rest."""
        if self._windows is None or job.read:
            return False
        earlier = self.jobs[: self.jobs.index(job)]
        return any(not other.writing and self.prefixes.would_serve(other, job) for other in earlier)

    def _read(self, job: Job) -> None:
        """Reads on in a request's prompt; then it may write, or has written its first token already."""
        try:
            logits = self._read_on(job)
        except Exception as error:  # noqa: BLE001 whatever went wrong is the request's end, not ours
            if not is_out_of_memory(error) or job.retried:
                self.give_up([job], error)
                return
            job.retried = True
            job.start_over()
            self._free()
            return
        if logits is not None:
            self._say([job], logits)

    def _read_on(self, job: Job) -> Tensor | None:
        """Logits of the first token where that is drawn at once, as a request by itself is quickest."""
        if job.read == 0 and self._windows is not None:
            found = self.prefixes.find(job.request.adapter, job.ids, len(job.ids) + job.room)
            job.cache, job.read = found or (new_cache(self._windows, len(job.ids) + job.room), 0)
        is_alone = self._windows is None or len(self.jobs) == 1 or len(job.ids) == 1
        end = len(job.ids) if is_alone else len(job.ids) - 1
        chunk = job.ids[job.read : min(end, job.read + (_PREFILL_AGAIN if job.retried else _PREFILL))]
        logits = None
        if chunk:
            is_last = job.read + len(chunk) == len(job.ids)
            with self._adapters.in_rows([job.request.adapter]):
                logits, job.cache = self.forward([chunk], job.cache, logits=is_last)
            job.read += len(chunk)
        job.writing = job.read >= end
        others = [other for other in self.jobs if other is not job and not other.read]
        if job.writing and not is_alone and any(self.prefixes.would_serve(job, other) for other in others):
            assert job.cache is not None
            self.prefixes.keep(job.request.adapter, job.ids[: job.read], Row(job.cache))
        return logits

    def _write(self, jobs: list[Job]) -> list[Job]:
        """Feeds the last token of each request to the model and draws the next; returns who is to wait again."""
        try:
            if self._windows is not None:
                self._batch.change(jobs)
            if not jobs:
                return []
            logits = self._write_on(jobs)
        except Exception as error:  # noqa: BLE001 out of memory, a bug in a kernel, ...
            self._batch.undo()
            if is_out_of_memory(error) and len(jobs) > 1:
                return self._later_half(jobs)
            self.give_up(jobs, error)
            return []
        self._allowance.suffices()
        for job in jobs:
            job.read += 1
        self._say(jobs, logits)
        return []

    def _write_on(self, jobs: list[Job]) -> Tensor:
        tokens = [job.ids[-1:] for job in jobs]
        with self._adapters.in_rows([job.request.adapter for job in jobs]):
            if self._windows is None:
                logits, jobs[0].cache = self.forward(tokens, jobs[0].cache)
            else:
                logits, _ = self.forward(tokens, self._batch.cache, **self._batch.masks(self._model.device))
                self._batch.advance()
        assert logits is not None
        return logits

    def _later_half(self, jobs: list[Job]) -> list[Job]:
        """Memory does not suffice for all: the later half is to wait again, and is then read anew."""
        kept, others = jobs[: len(jobs) // 2], jobs[len(jobs) // 2 :]
        _log.warning("out of memory with %d replies at once; going on with %d", len(jobs), len(kept))
        self._allowance.limit(len(kept))
        for job in others:
            job.start_over()
            self.jobs.remove(job)
        self._free()
        return others

    def _free(self) -> None:
        """Gives memory back that is only of use for speed."""
        self.prefixes.clear()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _say(self, jobs: list[Job], logits: Tensor) -> None:
        """Draws and delivers a token of each request, which ends it or not."""
        try:
            tokens = draw([job.sampler for job in jobs], logits)
        except Exception as error:  # noqa: BLE001 as in a step
            self.give_up(jobs, error)
            return
        for job, token in zip(jobs, tokens, strict=True):
            if isinstance(token, EngineError):
                self.give_up([job], token)
                continue
            job.ids.append(token.id)
            job.deliver(token)
            if (
                token.id in job.request.stop_ids
                or job.produced >= job.request.sampling.max_tokens
                or len(job.ids) >= self._context_length
            ):
                self._finish(job)

    def _finish(self, job: Job) -> None:
        """A good end: what was read is kept for the next turn."""
        self.jobs.remove(job)
        if self._windows is not None and job.read:
            try:
                self.prefixes.keep(job.request.adapter, job.ids[: job.read], self._batch.row(job))
            except Exception as error:  # noqa: BLE001 the reply is complete all the same
                _log.warning("the turn is not kept: %s", first_line(error))
                self._free()
        job.cache = None
        job.deliver(None)

    def give_up(self, jobs: Sequence[Job], error: Exception) -> None:
        """These requests end with an error."""
        if is_out_of_memory(error):
            self._free()
            error = EngineError(tr("not enough memory for this reply; set reply.history lower, or take a smaller base"))
        elif not isinstance(error, EngineError):
            error = EngineError(tr("the model failed: {reason}", reason=first_line(error)))
        for job in jobs:
            self.jobs.remove(job)
            job.cache = None
            job.deliver(error)

    def forward(
        self, ids: Sequence[Sequence[int]], cache: Cache | None, *, logits: bool = True, **masks: Tensor
    ) -> tuple[Tensor | None, Cache]:
        """Logits after the last of each row of `ids`, shape (rows, vocabulary), and the cache with all of it.

        Args:
            ids: rows of equal length.
            cache: of what comes before; None: nothing.
            logits: whether they are wanted; else the head computes nothing.
            masks: what else the model is told.
        """
        output = self._model(
            input_ids=torch.tensor(ids, device=self._model.device),
            past_key_values=cache,  # None: the model makes the kind it needs
            use_cache=True,
            logits_to_keep=1 if logits else torch.empty(0, dtype=torch.long, device=self._model.device),
            **masks,
        )
        return output.logits[:, -1] if logits else None, output.past_key_values
