"""The inference thread: a queue of requests, and a loop that advances the active ones step by step.

Up to `max_active` requests are active at once; the others wait in order. Between steps a request may start, finish,
be cancelled or pass its deadline, and adapters may be added or removed. Results are delivered by callbacks.
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
from doppel.engine import EngineBusy, EngineError, EngineUnavailable, Sampling
from doppel.engine.local.decoding import BatchDecoder
from doppel.engine.local.lora import LoraAdapters
from doppel.engine.local.out_of_memory import first_line
from doppel.engine.local.request import ActiveRequest
from doppel.engine.local.sampling import candidates
from doppel.engine.local.scoring import log_probabilities
from doppel.i18n import tr

_log = logging.getLogger(__name__)

_CLOSE_SECONDS = 8.0  # to wait for the last step; the thread is a daemon, so the process can end anyway
_MAX_FAILED_STEPS = 3  # in a row, by an unexpected error; then the thread stops

Result = TypeVar("Result")


class InferenceThread:
    """Owns the model and everything that uses it.

    Args:
        model: a causal language model in evaluation mode.
        context_length: maximum tokens of prompt and reply together.
        canary: the prompt that a new adapter is tested with.
        clock: seconds, monotonic.
        max_active: maximum active requests.
        max_waiting: maximum requests that wait beyond those; further ones are refused.
        prefix_cache_bytes: memory for the KV caches of earlier turns.
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
        prefix_cache_bytes: int,
    ) -> None:
        self._model = model
        self._adapters = LoraAdapters(model)
        self._decoder = BatchDecoder(
            model,
            self._adapters,
            context_length=context_length,
            max_active=max_active,
            prefix_cache_bytes=prefix_cache_bytes,
        )
        self._canary = canary
        self._clock = clock
        self.max_active = max_active
        self._max_waiting = max_waiting
        self._changed = threading.Condition()
        self._tasks: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._waiting: deque[ActiveRequest] = deque()
        self._loaded: list[str] = []
        self._retiring: set[str] = set()
        self._closing = False
        self._failure: str | None = None
        self._thread = threading.Thread(target=self._run, name="doppel-inference", daemon=True)
        self._thread.start()

    def submit(self, request: ActiveRequest) -> None:
        """Queues a request.

        Raises:
            EngineBusy: the queue is full. EngineUnavailable: the engine is closed, or the adapter is not loaded.
        """
        with self._changed:
            if self._closing:
                raise EngineUnavailable(tr("the engine is closed"))
            if request.adapter is not None and request.adapter not in self.adapters:
                raise EngineUnavailable(tr("adapter {name} is not loaded", name=request.adapter))
            if len(self._waiting) >= self._max_waiting:
                raise EngineBusy(tr("too many requests ({count} waiting)", count=len(self._waiting)))
            self._waiting.append(request)
            self._changed.notify()

    def attach(self, lora: Lora) -> "Future[None]":
        """Attaches an adapter and tests it with a short prompt; the future fails with AdapterRefused."""
        return self._schedule(lambda: self._attach(lora))

    def score(self, prompt: Sequence[int], answers: Sequence[Sequence[int]]) -> "Future[list[list[float]]]":
        """Log-probability of each answer's tokens under the base model; the future fails with EngineError."""
        return self._schedule(lambda: self._score(prompt, answers))

    def clear_prefix_cache(self) -> "Future[None]":
        """Drops the KV caches of earlier turns; those of cancelled requests are not kept, either."""
        return self._schedule(self._clear_prefix_cache)

    def _schedule(self, task: Callable[[], Result]) -> "Future[Result]":
        """Runs a function on the thread before its next step."""
        future: Future[Result] = Future()
        with self._changed:
            if self._closing:
                future.set_exception(EngineUnavailable(tr("the engine is closed")))
            else:
                self._tasks.append((task, future))
                self._changed.notify()
        return future

    def retire(self, name: str) -> None:
        """Refuses new requests for an adapter, and removes it once no request uses it."""
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
        """Requests that have not started."""
        return len(self._waiting)

    @property
    def active(self) -> int:
        """Requests that have started."""
        return len(self._decoder.requests)

    @property
    def prefix_cache_bytes(self) -> int:
        """Memory that the KV caches of earlier turns take."""
        return self._decoder.prefix_cache.bytes

    @property
    def reused_tokens(self) -> int:
        """Prompt tokens found in the prefix cache, in total."""
        return self._decoder.prefix_cache.reused_tokens

    @property
    def failure(self) -> str | None:
        """Why the thread ended although nobody closed the engine; None while it runs."""
        return self._failure

    @property
    def alive(self) -> bool:
        return self._thread.is_alive() and not self._closing

    def close(self) -> None:
        """Ends every request with EngineError and stops the thread; waits for the current step."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        failed = 0
        try:
            while failed < _MAX_FAILED_STEPS and self._wait_for_work():
                try:
                    self._step()
                    failed = 0
                except Exception as error:  # noqa: BLE001 logged; every caller must get an answer
                    _log.exception("a step of the inference thread failed")
                    failed += 1
                    self._decoder.fail(list(self._decoder.requests), error)
                    if failed == _MAX_FAILED_STEPS:
                        self._failure = tr("the model failed: {reason}", reason=first_line(error))
        except BaseException as error:
            self._failure = tr("the model failed: {reason}", reason=repr(error))
            raise
        finally:
            self._end()

    def _wait_for_work(self) -> bool:
        """Sleeps while there is nothing to do; False once the engine is closing."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closing or self._tasks or self._waiting or self._decoder.requests or self._retiring
            )
            return not self._closing

    def _step(self) -> None:
        """Advances every active request by one step."""
        self._between_passes()
        preempted = self._decoder.step(self._has_ended, self._between_passes)
        with self._changed:
            self._waiting.extendleft(reversed(preempted))
        self._remove_retired()

    def _between_passes(self) -> None:
        """Runs scheduled tasks and starts waiting requests, which need not wait for the end of a step."""
        self._run_tasks()
        self._start_waiting()

    def _run_tasks(self) -> None:
        """Runs scheduled functions: attaching adapters, scoring texts."""
        while self._tasks:
            task, future = self._tasks.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = task()
            except Exception as error:  # noqa: BLE001 passed on to the caller
                future.set_exception(error)
            else:
                future.set_result(result)

    def _start_waiting(self) -> None:
        """Starts waiting requests in order while there are free slots; drops those that were cancelled or expired."""
        with self._changed:
            ended = [request for request in self._waiting if self._has_ended(request)]
            for request in ended:
                self._waiting.remove(request)
            while self._waiting and self._decoder.free_slots > 0:
                self._decoder.requests.append(self._waiting.popleft())
        for request in ended:
            request.deliver(EngineBusy(tr("too many requests: no turn within the time limit")))

    def _has_ended(self, request: ActiveRequest) -> bool:
        return request.cancelled or self._clock() >= request.deadline

    def _end(self) -> None:
        """Ends everything that is still pending with an error."""
        with self._changed:
            self._closing = True
        for request in [*self._decoder.requests, *self._waiting]:
            request.deliver(EngineUnavailable(tr("the engine is closed")))
        for _, future in self._tasks:
            if future.set_running_or_notify_cancel():
                future.set_exception(EngineUnavailable(tr("the engine is closed")))

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
                tr("{path}: does not fit the base model: {error}", path=lora.folder, error=first_line(error))
            ) from error
        try:
            self._test(lora)
        except Exception as error:
            self._adapters.detach(lora.name)
            raise AdapterRefused(
                tr("{path}: failed its test run: {error}", path=lora.folder, error=first_line(error))
            ) from error
        with self._changed:
            self._loaded.append(lora.name)

    def _score(self, prompt: Sequence[int], answers: Sequence[Sequence[int]]) -> list[list[float]]:
        self._adapters.activate(None)
        try:
            return log_probabilities(self._model, prompt, answers)
        except Exception as error:
            raise EngineError(tr("the model failed: {reason}", reason=first_line(error))) from error

    def _clear_prefix_cache(self) -> None:
        for request in self._decoder.requests:
            request.keeps_cache = request.keeps_cache and not request.cancelled
        self._decoder.prefix_cache.clear()

    def _test(self, lora: Lora) -> None:
        """Runs a short prompt, while all requests wait. Raises EngineError when the logits are not finite."""
        with torch.inference_mode(), self._adapters.use_rows([lora.name]):
            logits, _ = self._decoder.forward([self._canary], None)
            assert logits is not None
            candidates(logits[0], Sampling(temperature=0))

    def _remove_retired(self) -> None:
        with self._changed:
            used = {request.adapter for request in (*self._decoder.requests, *self._waiting)}
            unused = self._retiring - used
            self._retiring -= unused
            for name in unused:
                self._loaded.remove(name)
        for name in unused:
            self._decoder.prefix_cache.drop(name)
            self._adapters.detach(name)
