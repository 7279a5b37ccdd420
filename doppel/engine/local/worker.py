"""The thread that runs the model: a queue before it, and a round at a time of what is under way.

Up to `max_active` requests are under way at once; the rest wait in order. Between rounds a request may join, end,
be cancelled or run out of time, and an adapter may come or go. Knows nothing of asyncio: results leave through a
callback.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

import torch
from transformers import PreTrainedModel

from doppel.adapters.lora_file import Lora
from doppel.adapters.versions import AdapterRefused
from doppel.engine import EngineError, Sampling
from doppel.engine.local.decoding import Decoding
from doppel.engine.local.lora import Adapters
from doppel.engine.local.out_of_memory import first_line
from doppel.engine.local.request import Job
from doppel.engine.local.sampling import candidates
from doppel.engine.local.scoring import log_probabilities
from doppel.i18n import tr

_log = logging.getLogger(__name__)

_LAST_STEP_SECONDS = 8.0  # the process may then end all the same: the thread is a daemon
_FAILED_ROUNDS = 3  # in a row, by a fault of our own: then there is no use in going on

Result = TypeVar("Result")


class InferenceThread:
    """Owns the model and everything that touches it.

    Args:
        model: a causal language model in evaluation mode.
        context_length: most tokens of prompt and reply together.
        canary: token ids a new adapter is tried with.
        clock: seconds, monotonic.
        max_active: requests under way at once.
        max_waiting: requests waiting beyond those; one more is refused.
        keep_bytes: memory for what was read in earlier turns.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        context_length: int,
        canary: Sequence[int],
        clock: Callable[[], float],
        max_active: int,
        max_waiting: int,
        keep_bytes: int,
    ) -> None:
        self._model = model
        self._adapters = Adapters(model)
        self._decoding = Decoding(
            model, self._adapters, context_length=context_length, most=max_active, keep_bytes=keep_bytes
        )
        self._canary = canary
        self._clock = clock
        self.max_active = max_active
        self._max_waiting = max_waiting
        self._changed = threading.Condition()
        self._errands: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._waiting: deque[Job] = deque()
        self._loaded: list[str] = []
        self._retiring: set[str] = set()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="doppel-inference", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Puts a request in the queue. Raises EngineError when it is full, closed, or the adapter unknown."""
        with self._changed:
            if self._closing:
                raise EngineError(tr("the engine is closed"))
            adapter = job.request.adapter
            if adapter is not None and adapter not in self.adapters:
                raise EngineError(tr("the adapter {name} is not loaded", name=adapter))
            if len(self._waiting) >= self._max_waiting:
                raise EngineError(tr("too many requests at once ({count} are waiting)", count=len(self._waiting)))
            self._waiting.append(job)
            self._changed.notify()

    def attach(self, lora: Lora) -> "Future[None]":
        """Attaches an adapter and tries it with a few tokens; the future fails with AdapterRefused."""
        return self._between_steps(lambda: self._attach(lora))

    def score(self, prompt: Sequence[int], answers: Sequence[Sequence[int]]) -> "Future[list[list[float]]]":
        """log p of every token of each answer, by the base model alone; the future fails with EngineError."""
        return self._between_steps(lambda: self._score(prompt, answers))

    def _between_steps(self, errand: Callable[[], Result]) -> "Future[Result]":
        """Has the thread do something before its next step."""
        future: Future[Result] = Future()
        with self._changed:
            if self._closing:
                future.set_exception(EngineError(tr("the engine is closed")))
            else:
                self._errands.append((errand, future))
                self._changed.notify()
        return future

    def retire(self, name: str) -> None:
        """Refuses new requests for an adapter and forgets it once no request uses it."""
        with self._changed:
            if name in self._loaded:
                self._retiring.add(name)
                self._changed.notify()

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of the adapters that requests may use."""
        return tuple(name for name in tuple(self._loaded) if name not in self._retiring)

    @property
    def waiting(self) -> int:
        """Requests that have not begun."""
        return len(self._waiting)

    @property
    def active(self) -> int:
        """Requests under way."""
        return len(self._decoding.jobs)

    @property
    def kept_bytes(self) -> int:
        """Memory that earlier turns hold."""
        return self._decoding.prefixes.bytes

    @property
    def reused_tokens(self) -> int:
        """Tokens that need not be read again, so far."""
        return self._decoding.prefixes.reused

    @property
    def alive(self) -> bool:
        return self._thread.is_alive() and not self._closing

    def close(self) -> None:
        """Ends every request with EngineError and the thread with it; waits for the step under way."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join(_LAST_STEP_SECONDS)

    def _run(self) -> None:
        failed = 0
        try:
            while failed < _FAILED_ROUNDS and self._wait_for_work():
                try:
                    self._round()
                    failed = 0
                except Exception as error:  # noqa: BLE001 logged; what matters is that nobody waits in vain
                    _log.exception("a round of the inference thread failed")
                    failed += 1
                    self._decoding.give_up(list(self._decoding.jobs), error)
        finally:
            self._end()

    def _wait_for_work(self) -> bool:
        """Sleeps while there is nothing to do; False once the engine is closing."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closing or self._errands or self._waiting or self._decoding.jobs or self._retiring
            )
            return not self._closing

    def _round(self) -> None:
        """Each request under way gets one step."""
        self._between_runs()
        again = self._decoding.step(self._has_ended, self._between_runs)
        with self._changed:
            self._waiting.extendleft(reversed(again))
        self._forget_retired()

    def _between_runs(self) -> None:
        """What need not wait for the end of a round."""
        self._run_errands()
        self._admit()

    def _run_errands(self) -> None:
        """Does what was asked for since the model last ran: adapters that came, texts to be weighed."""
        while self._errands:
            errand, future = self._errands.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = errand()
            except Exception as error:  # noqa: BLE001 whoever waits for it is told
                future.set_exception(error)
            else:
                future.set_result(result)

    def _admit(self) -> None:
        """Lets waiting requests begin, in order, and ends those that nobody waits for any more."""
        with self._changed:
            ended = [job for job in self._waiting if self._has_ended(job)]
            for job in ended:
                self._waiting.remove(job)
            while self._waiting and self._decoding.room > 0:
                self._decoding.jobs.append(self._waiting.popleft())
        for job in ended:
            job.deliver(None)

    def _has_ended(self, job: Job) -> bool:
        return job.cancelled or self._clock() >= job.deadline

    def _end(self) -> None:
        """Tells everybody who still waits that nothing will come."""
        with self._changed:
            self._closing = True
        for job in [*self._decoding.jobs, *self._waiting]:
            job.deliver(EngineError(tr("the engine is closed")))
        for _, future in self._errands:
            if future.set_running_or_notify_cancel():
                future.set_exception(EngineError(tr("the engine is closed")))

    def _attach(self, lora: Lora) -> None:
        with self._changed:
            if lora.name in self._loaded:
                self._retiring.discard(lora.name)
                return
        try:
            self._adapters.attach(lora)
        except AdapterRefused:
            raise
        except Exception as error:
            raise AdapterRefused(
                tr("{path}: cannot be attached to the base model: {error}", path=lora.folder, error=first_line(error))
            ) from error
        try:
            self._try_out(lora)
        except Exception as error:
            self._adapters.detach(lora.name)
            raise AdapterRefused(
                tr("{path}: failed its trial run: {error}", path=lora.folder, error=first_line(error))
            ) from error
        with self._changed:
            self._loaded.append(lora.name)

    def _score(self, prompt: Sequence[int], answers: Sequence[Sequence[int]]) -> list[list[float]]:
        self._adapters.activate(None)
        try:
            return log_probabilities(self._model, prompt, answers)
        except Exception as error:
            raise EngineError(tr("the model failed: {reason}", reason=first_line(error))) from error

    def _try_out(self, lora: Lora) -> None:
        """Reads a short prompt; every chat waits meanwhile. Raises EngineError when no finite numbers come out."""
        with torch.inference_mode(), self._adapters.in_rows([lora.name]):
            logits, _ = self._decoding.forward([self._canary], None)
            assert logits is not None
            candidates(logits[0], Sampling(temperature=0))

    def _forget_retired(self) -> None:
        with self._changed:
            used = {job.request.adapter for job in (*self._decoding.jobs, *self._waiting)}
            unused = self._retiring - used
            self._retiring -= unused
            for name in unused:
                self._loaded.remove(name)
        for name in unused:
            self._decoding.prefixes.drop(name)
            self._adapters.detach(name)
