"""Prefill and batched decoding of the active requests.

Each prompt is prefilled alone, at most 512 tokens per step, starting after its cached prefix. Its last token is left
to the batch, which decodes one token of every request in a single forward pass, whatever their adapters: the output
head, the largest layer of a small model, is then computed once for all. An error ends only the requests it affects.
Runs on the inference thread.
"""

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel

from doppel.engine import EngineError
from doppel.engine.local.batch import DecodeBatch
from doppel.engine.local.kv_cache import CacheRow, attention_windows, new_cache
from doppel.engine.local.lora import LoraAdapters
from doppel.engine.local.out_of_memory import BatchLimit, first_line, is_out_of_memory
from doppel.engine.local.prefix_cache import PrefixCache
from doppel.engine.local.request import ActiveRequest
from doppel.engine.local.sampling import sample
from doppel.i18n import tr

_log = logging.getLogger(__name__)

_PREFILL_TOKENS = 512
_RETRY_PREFILL_TOKENS = 64  # after a prefill ran out of memory


class BatchDecoder:
    """A model and the requests that it generates.

    Args:
        model: a causal language model in evaluation mode.
        adapters: attached to it.
        context_length: maximum tokens of prompt and reply together.
        max_active: maximum requests at once.
        prefix_cache_bytes: memory for the KV caches of earlier turns.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        adapters: LoraAdapters,
        *,
        context_length: int,
        max_active: int,
        prefix_cache_bytes: int,
    ) -> None:
        self._model = model
        self._adapters = adapters
        self._windows = attention_windows(model)
        self._context_length = context_length
        self._batch = DecodeBatch()
        self._limit = BatchLimit(max_active)
        self.requests: list[ActiveRequest] = []
        """The active requests, in order of arrival."""
        self.prefix_cache = PrefixCache(prefix_cache_bytes)

    @property
    def free_slots(self) -> int:
        """How many more requests may start."""
        return self._limit.rows - len(self.requests)

    @torch.inference_mode()
    def step(
        self, has_ended: Callable[[ActiveRequest], bool], between_passes: Callable[[], None]
    ) -> list[ActiveRequest]:
        """Advances each request by one step; returns those that must be queued again because memory ran out.

        Args:
            has_ended: whether a request was cancelled or has passed its deadline.
            between_passes: called between forward passes, so that other work need not wait for the whole step. It
                may add requests, which then take part in this step.
        """
        for request in [request for request in self.requests if has_ended(request)]:
            self._finish(request)
        prefilled: list[ActiveRequest] = []
        while pending := [request for request in self.requests if self._needs_prefill(request, prefilled)]:
            prefilled.append(pending[0])
            self._prefill(pending[0])
            between_passes()
        decoding = [request for request in self.requests if request.is_decoding]
        if self._windows is not None:
            return self._decode(decoding)
        for request in decoding:
            self._decode([request])
        return []

    def _needs_prefill(self, request: ActiveRequest, prefilled: Sequence[ActiveRequest]) -> bool:
        """Whether a request has prompt tokens left to prefill in this step."""
        return not request.is_decoding and request not in prefilled and not self._waits_for_prefix(request)

    def _waits_for_prefix(self, request: ActiveRequest) -> bool:
        """Whether an earlier request is prefilling the same prefix; this one then waits and prefills only the rest."""
        if self._windows is None or request.cached:
            return False
        earlier = self.requests[: self.requests.index(request)]
        return any(not first.is_decoding and self.prefix_cache.would_share(first, request) for first in earlier)

    def _prefill(self, request: ActiveRequest) -> None:
        """Prefills the next chunk of a prompt. After the last one the request joins the batch."""
        try:
            logits = self._prefill_chunk(request)
        except Exception as error:  # noqa: BLE001 whatever went wrong ends this request, not the engine
            if not is_out_of_memory(error) or request.ran_out_of_memory:
                self.fail([request], error)
                return
            request.ran_out_of_memory = True
            request.restart()
            self._free_memory()
            return
        if logits is not None:
            self._sample([request], logits)

    def _prefill_chunk(self, request: ActiveRequest) -> Tensor | None:
        """Logits of the first token where it is sampled at once, which is fastest for a request that is alone."""
        if request.cached == 0 and self._windows is not None:
            columns = len(request.ids) + request.reserve
            hit = self.prefix_cache.find(request.adapter, request.ids, columns)
            request.cache, request.cached = hit or (new_cache(self._windows, columns), 0)
        is_alone = self._windows is None or len(self.requests) == 1 or len(request.ids) == 1
        end = len(request.ids) if is_alone else len(request.ids) - 1
        size = _RETRY_PREFILL_TOKENS if request.ran_out_of_memory else _PREFILL_TOKENS
        chunk = request.ids[request.cached : min(end, request.cached + size)]
        logits = None
        if chunk:
            is_last = request.cached + len(chunk) == len(request.ids)
            with self._adapters.use_rows([request.adapter]):
                logits, request.cache = self.forward([chunk], request.cache, logits=is_last)
            request.cached += len(chunk)
        request.is_decoding = request.cached >= end
        later = [waiting for waiting in self.requests if waiting is not request and not waiting.cached]
        if (
            request.is_decoding
            and not is_alone
            and any(self.prefix_cache.would_share(request, waiting) for waiting in later)
        ):
            assert request.cache is not None
            self.prefix_cache.store(request.adapter, request.ids[: request.cached], CacheRow(request.cache))
        return logits

    def _decode(self, requests: list[ActiveRequest]) -> list[ActiveRequest]:
        """Decodes one token of each request; returns those that must be queued again."""
        try:
            if self._windows is not None:
                self._batch.set_requests(requests)
            if not requests:
                return []
            logits = self._decode_logits(requests)
        except Exception as error:  # noqa: BLE001 out of memory, a bug in a kernel, ...
            self._batch.undo_step()
            if is_out_of_memory(error) and len(requests) > 1:
                return self._preempt_half(requests)
            self.fail(requests, error)
            return []
        self._limit.step_succeeded()
        for request in requests:
            request.cached += 1
        self._sample(requests, logits)
        return []

    def _decode_logits(self, requests: list[ActiveRequest]) -> Tensor:
        tokens = [request.ids[-1:] for request in requests]
        with self._adapters.use_rows([request.adapter for request in requests]):
            if self._windows is None:
                logits, requests[0].cache = self.forward(tokens, requests[0].cache)
            else:
                inputs = self._batch.padding_inputs(self._model.device)
                logits, _ = self.forward(tokens, self._batch.cache, **inputs)
                self._batch.advance()
        assert logits is not None
        return logits

    def _preempt_half(self, requests: list[ActiveRequest]) -> list[ActiveRequest]:
        """Memory does not suffice for all: returns the later half, which is queued and prefilled again."""
        kept, preempted = requests[: len(requests) // 2], requests[len(requests) // 2 :]
        _log.warning("out of memory with %d replies at once; continuing with %d", len(requests), len(kept))
        self._limit.lower(len(kept))
        for request in preempted:
            request.restart()
            self.requests.remove(request)
        self._free_memory()
        return preempted

    def _free_memory(self) -> None:
        """Frees what only serves speed."""
        self.prefix_cache.clear()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _sample(self, requests: list[ActiveRequest], logits: Tensor) -> None:
        """Samples and delivers one token of each request, and finishes those that are complete."""
        try:
            tokens = sample([request.sampler for request in requests], logits)
        except Exception as error:  # noqa: BLE001 as in `_decode`
            self.fail(requests, error)
            return
        for request, token in zip(requests, tokens, strict=True):
            if isinstance(token, EngineError):
                self.fail([request], token)
                continue
            request.ids.append(token.id)
            request.deliver(token)
            if (
                token.id in request.request.stop_ids
                or request.generated >= request.request.sampling.max_tokens
                or len(request.ids) >= self._context_length
            ):
                self._finish(request)

    def _finish(self, request: ActiveRequest) -> None:
        """Ends a request without an error; its KV cache is stored for the next turn."""
        self.requests.remove(request)
        if self._windows is not None and request.cached and request.keeps_cache:
            try:
                ids = request.ids[: request.cached]
                self.prefix_cache.store(request.adapter, ids, self._batch.row_of(request))
            except Exception as error:  # noqa: BLE001 the reply is complete all the same
                _log.warning("could not store the KV cache of a turn: %s", first_line(error))
                self._free_memory()
        request.cache = None
        request.deliver(None)

    def fail(self, requests: Sequence[ActiveRequest], error: Exception) -> None:
        """Ends requests with an error."""
        if is_out_of_memory(error):
            self._free_memory()
            error = EngineError(tr("not enough memory for this reply; lower reply.history or use a smaller base model"))
        elif not isinstance(error, EngineError):
            error = EngineError(tr("the model failed: {reason}", reason=first_line(error)))
        for request in requests:
            self.requests.remove(request)
            request.cache = None
            request.deliver(error)

    def forward(
        self, ids: Sequence[Sequence[int]], cache: Cache | None, *, logits: bool = True, **inputs: Tensor
    ) -> tuple[Tensor | None, Cache]:
        """One forward pass: logits after the last token of each row, shape (rows, vocabulary), and the cache.

        Args:
            ids: rows of equal length.
            cache: of the tokens before them; None: there are none.
            logits: False skips the output head.
            inputs: further inputs of the model.
        """
        output = self._model(
            input_ids=torch.tensor(ids, device=self._model.device),
            past_key_values=cache,  # None: the model makes the kind it needs
            use_cache=True,
            logits_to_keep=1 if logits else torch.empty(0, dtype=torch.long, device=self._model.device),
            **inputs,
        )
        return output.logits[:, -1] if logits else None, output.past_key_values
