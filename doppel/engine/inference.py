"""The thread that runs the model: takes turns among requests, one step of each at a time.

Up to `max_active` requests are under way at once, each with its own KV cache, and each gets one step a round:
a short reply overtakes a long one, and everybody's first words come soon. The rest wait in order. A step is
one token, or at most 512 tokens of a prompt; between steps a request may be cancelled, run out of time,
or an adapter may come or go. Knows nothing of asyncio: results leave through a callback.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel

from doppel.adapter import AdapterRefused
from doppel.engine import EngineError, Request, Sampling, Token
from doppel.engine.lora import Adapters, Lora
from doppel.engine.sampling import Sampler, candidates
from doppel.engine.scoring import log_probabilities
from doppel.i18n import tr

_log = logging.getLogger(__name__)

_PREFILL = 512
_CANARY_TOKENS = 4
_LAST_STEP_SECONDS = 8.0  # the process may then end all the same: the thread is a daemon

Result = TypeVar("Result")
Deliver = Callable[[Token | Exception | None], None]
"""Takes each token; then None for a good end, or what went wrong. Called on the thread; must not block."""


class Job:
    """One request on its way through the thread.

    Args:
        request: what to generate.
        deadline: when it must end, in the thread's clock.
        deliver: where the results go.
    """

    def __init__(self, request: Request, deadline: float, deliver: Deliver) -> None:
        self.request = request
        self.deadline = deadline
        self.deliver = deliver
        self.cancelled = False
        self.pending = request.prompt
        self.produced = 0
        self.cache: Cache | None = None
        self.sampler = Sampler(request.sampling, request.prompt)


class InferenceThread:
    """Owns the model and everything that touches it.

    Args:
        model: a causal language model in evaluation mode.
        context_length: most tokens of prompt and reply together.
        canary: token ids a new adapter is tried with.
        clock: seconds, monotonic.
        max_active: requests under way at once.
        max_waiting: requests waiting beyond those; one more is refused.
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
    ) -> None:
        self._model = model
        self._adapters = Adapters(model)
        self._context_length = context_length
        self._canary = canary
        self._clock = clock
        self._max_active = max_active
        self._max_waiting = max_waiting
        self._changed = threading.Condition()
        self._errands: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._waiting: deque[Job] = deque()
        self._active: list[Job] = []
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
        try:
            while self._wait_for_work():
                self._do_errands()
                self._admit()
                for job in list(self._active):
                    self._advance(job)
                self._forget_retired()
        except Exception:  # noqa: BLE001 logged; what matters is that nobody waits for a dead thread
            _log.exception("the inference thread failed")
        finally:
            self._end()

    def _wait_for_work(self) -> bool:
        """Sleeps while there is nothing to do; False once the engine is closing."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closing or self._errands or self._waiting or self._active or self._retiring
            )
            return not self._closing

    def _do_errands(self) -> None:
        """Attaches the adapters that came since the last step, and scores what was asked about."""
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

    def _end(self) -> None:
        """Tells everybody who still waits that nothing will come."""
        with self._changed:
            self._closing = True
        for job in [*self._active, *self._waiting]:
            job.deliver(EngineError(tr("the engine is closed")))
        for _, future in self._errands:
            if future.set_running_or_notify_cancel():
                future.set_exception(EngineError(tr("the engine is closed")))

    def _admit(self) -> None:
        """Lets waiting requests begin, in order, and ends those that nobody waits for any more."""
        with self._changed:
            ended = [job for job in self._waiting if self._has_ended(job)]
            for job in ended:
                self._waiting.remove(job)
            while self._waiting and len(self._active) < self._max_active:
                self._active.append(self._waiting.popleft())
        for job in ended:
            job.deliver(None)

    def _has_ended(self, job: Job) -> bool:
        return job.cancelled or self._clock() >= job.deadline

    def _advance(self, job: Job) -> None:
        """One step of a request, which ends it or not. Whatever goes wrong is the request's end, not ours."""
        try:
            if self._has_ended(job):
                self._finish(job, None)
                return
            token = self._step(job)
            if token is None:
                return
            job.deliver(token)
            if (
                token.id in job.request.stop_ids
                or job.produced >= job.request.sampling.max_tokens
                or len(job.request.prompt) + job.produced >= self._context_length
            ):
                self._finish(job, None)
        except EngineError as error:
            self._finish(job, error)
        except Exception as error:  # noqa: BLE001 out of memory, a bug in a kernel, ...
            self._finish(job, EngineError(tr("the model failed: {reason}", reason=_first_line(error))))

    def _finish(self, job: Job, error: EngineError | None) -> None:
        self._active.remove(job)
        job.cache = None
        job.deliver(error)

    def _step(self, job: Job) -> Token | None:
        """Feeds the next tokens to the model; None while the prompt is not all in."""
        chunk, job.pending = job.pending[:_PREFILL], job.pending[_PREFILL:]
        self._adapters.activate(job.request.adapter)
        logits, job.cache = self._forward(chunk, job.cache)
        if job.pending:
            return None
        token = job.sampler.draw(logits)
        job.produced += 1
        job.pending = [token.id]
        return token

    @torch.inference_mode()
    def _forward(self, ids: Sequence[int], cache: Cache | None) -> tuple[Tensor, Cache]:
        """Logits after the last of `ids`, shape (vocabulary,), and the cache with all of them in it."""
        output = self._model(
            input_ids=torch.tensor([ids], device=self._model.device),
            past_key_values=cache,  # None: the model makes the kind it needs (sliding, full, ...)
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[0, -1], output.past_key_values

    def _score(self, prompt: Sequence[int], answers: Sequence[Sequence[int]]) -> list[list[float]]:
        self._adapters.activate(None)
        try:
            return log_probabilities(self._model, prompt, answers)
        except Exception as error:
            raise EngineError(tr("the model failed: {reason}", reason=_first_line(error))) from error

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
                tr("{path}: cannot be attached to the base model: {error}", path=lora.folder, error=_first_line(error))
            ) from error
        try:
            self._try_out(lora)
        except Exception as error:
            self._adapters.detach(lora.name)
            raise AdapterRefused(
                tr("{path}: failed its trial run: {error}", path=lora.folder, error=_first_line(error))
            ) from error
        with self._changed:
            self._loaded.append(lora.name)

    def _try_out(self, lora: Lora) -> None:
        """Generates a few tokens. Raises EngineError when what comes out are no finite numbers."""
        self._adapters.activate(lora.name)
        ids, cache = self._canary, None
        for _ in range(_CANARY_TOKENS):
            logits, cache = self._forward(ids, cache)
            ids = candidates(logits, Sampling(temperature=0))[0].tolist()

    def _forget_retired(self) -> None:
        with self._changed:
            used = {job.request.adapter for job in (*self._active, *self._waiting)}
            unused = self._retiring - used
            self._retiring -= unused
            for name in unused:
                self._loaded.remove(name)
        for name in unused:
            self._adapters.detach(name)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
