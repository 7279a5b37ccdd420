"""The default engine: a transformers model on a thread of its own, used from asyncio.

Requests and results cross between event loop and thread through queues, so the loop never waits for the model.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from doppel.adapters.lora_file import read_lora
from doppel.config import Config, EngineSettings
from doppel.engine import EngineError, EngineStats, Health, Request, Token
from doppel.engine.adapter_transcript import adapter_transcript
from doppel.engine.local.packed_weights import pack_weights
from doppel.engine.local.request import ActiveRequest
from doppel.engine.local.sampling import TokenMask
from doppel.engine.local.worker import InferenceThread
from doppel.errors import UserError
from doppel.i18n import tr
from doppel.models.base import (
    BaseIdentity,
    choose_device,
    choose_dtype,
    identify,
    load_model,
    load_tokenizer,
    prepare_base,
)
from doppel.models.quantize import check_quantization, load_quantized
from doppel.transcript import FORMAT, FORMATS, Header, Transcript, open_transcript

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


MAX_ACTIVE = 16
_MIN_GPUS = 2


class TransformersEngine:
    """One base model with its adapters; an `Engine`.

    Args:
        model: a causal language model in evaluation mode; from now on only the engine may use it.
        tokenizer: the model's own, fast.
        base: the identity that adapters must have been trained for.
        transcript: name of the transcript's format for the base model alone; an adapter's is in its manifest.
        clock: seconds, monotonic; used for deadlines.
        max_active: requests decoded together; more would slow each of them down.
        max_waiting: requests that may wait beyond those; further ones are refused.
        max_context: maximum tokens of prompt and reply together; None: the model's own limit, which always applies.
        prefix_cache_bytes: memory for the KV caches of earlier turns, so that the next turn of a chat only prefills
            what is new; 0 disables it.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        base: BaseIdentity,
        *,
        transcript: str = FORMAT,
        clock: Callable[[], float] = time.monotonic,
        max_active: int = MAX_ACTIVE,
        max_waiting: int = 64,
        max_context: int | None = None,
        prefix_cache_bytes: int = 1 << 29,
    ) -> None:
        self.base = base
        self.transcript = open_transcript(tokenizer, transcript)
        """The transcript for the base model alone."""
        self._transcripts: dict[str, Transcript] = {}
        self._masks: dict[str, TokenMask] = {}
        """By the transcript's format, so that the rows of a batch share one."""
        limit: int = model.config.get_text_config().max_position_embeddings
        self.context_length = min(limit, max_context or limit)
        self._clock = clock
        pack_weights(model)
        self._thread = InferenceThread(
            model,
            context_length=self.context_length,
            canary=self.transcript.prompt(Header(), []),
            clock=clock,
            max_active=max_active,
            max_waiting=max_waiting,
            prefix_cache_bytes=prefix_cache_bytes,
        )

    @classmethod
    def open(cls, config: Config, on_progress: Callable[[str], None]) -> "TransformersEngine":
        """Opens the configured base model; downloads or converts it first if necessary. Blocks.

        Args:
            on_progress: called with one line for the user before each slow step.

        Raises:
            UserError: no such model, or it cannot be quantised or split here. DoppelError: it cannot be prepared.
        """
        settings = config.engine
        device = choose_device(config.model.device)
        check_device(settings, device)
        folder = prepare_base(config.model, on_progress)
        return cls(
            _load_base(folder, config.model.dtype, settings, device),
            load_tokenizer(folder),
            identify(folder, config.model.base),
            transcript=FORMATS[config.transcript],
            max_active=settings.max_concurrent or MAX_ACTIVE,
            max_waiting=settings.max_queue,
            max_context=settings.context_length,
            prefix_cache_bytes=int(settings.prefix_cache_gb * 2**30),
        )

    def transcript_of(self, adapter: str | None) -> Transcript:
        """The transcript that an adapter was trained with; None: the one for the base model alone."""
        return self._transcripts.get(adapter or "", self.transcript)  # `generate` refuses unknown names

    def generate(self, request: Request) -> AsyncGenerator[Token]:
        """Streams tokens until a stop token, `max_tokens`, the end of the context, or the deadline, counted from now.

        Closing the generator (or cancelling its task) stops the generation within one token.

        Raises:
            EngineError: at the first step when the engine is full or closed, the prompt is empty or too long, or
                the adapter is not loaded; later when the model fails.
        """
        return self._stream(request, self._clock() + request.deadline_seconds)

    async def base_log_probabilities(
        self, prompt: Sequence[int], answers: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        """Log-probability of each answer's tokens under the base model alone, in nats. Raises EngineError."""
        return await asyncio.wrap_future(self._thread.score(prompt, answers))

    async def load_adapter(self, folder: Path) -> str:
        """Verifies, attaches and tests an adapter; returns its name. Equal content has an equal name.

        Raises:
            AdapterRefused: it is damaged, for another base, or not a plain LoRA, its output is not finite, or the
                base's chat template has changed since its training.
        """
        lora = await asyncio.to_thread(read_lora, folder, self.base)
        transcript = adapter_transcript(lora, [self.transcript, *self._transcripts.values()])
        await asyncio.wrap_future(self._thread.attach(lora))
        self._transcripts[lora.name] = transcript
        return lora.name

    async def drop_adapter(self, name: str) -> None:
        """Refuses new requests for an adapter, and removes it once the active ones are done."""
        self._thread.retire(name)

    async def clear_prefix_cache(self) -> None:
        """Drops the KV caches of earlier turns, also those of cancelled requests. Raises EngineUnavailable."""
        await asyncio.wrap_future(self._thread.clear_prefix_cache())

    def health(self) -> Health:
        """A snapshot; never blocks."""
        return Health(self._thread.alive, self._thread.adapters, self._thread.failure)

    def stats(self) -> EngineStats:
        """A snapshot; never blocks."""
        thread = self._thread
        return EngineStats(
            active=thread.active,
            max_active=thread.max_active,
            waiting=thread.waiting,
            prefix_cache_bytes=thread.prefix_cache_bytes,
            reused_tokens=thread.reused_tokens,
        )

    def close(self) -> None:
        """Ends requests with EngineError and stops the thread after its current step."""
        self._thread.close()

    def _mask_of(self, transcript: Transcript) -> TokenMask:
        if transcript.format not in self._masks:
            self._masks[transcript.format] = TokenMask(transcript.forbidden_ids)
        return self._masks[transcript.format]

    async def _stream(self, request: Request, deadline: float) -> AsyncGenerator[Token]:
        if not 0 < len(request.prompt) < self.context_length:
            raise EngineError(
                tr(
                    "the prompt has {count} tokens; this model takes 1 to {max_count}",
                    count=len(request.prompt),
                    max_count=self.context_length - 1,
                )
            )
        loop = asyncio.get_running_loop()
        results: asyncio.Queue[Token | Exception | None] = asyncio.Queue()

        def deliver(result: Token | Exception | None) -> None:
            try:
                loop.call_soon_threadsafe(results.put_nowait, result)
            except RuntimeError:  # the loop is closed
                active.cancelled = True

        active = ActiveRequest(request, deadline, deliver, self._mask_of(self.transcript_of(request.adapter)))
        self._thread.submit(active)
        try:
            while (result := await results.get()) is not None:
                if isinstance(result, Exception):
                    raise result
                await asyncio.sleep(0)  # lets a cancellation through: `get` need not suspend
                yield result
        finally:
            active.cancelled = True


def check_device(settings: EngineSettings, device: str) -> None:
    """Raises UserError when this machine cannot quantise or split the base as config.yaml says."""
    import torch

    if settings.quantize is not None:
        check_quantization(device, "engine.quantize")
    if settings.split and torch.cuda.device_count() < _MIN_GPUS:
        raise UserError(
            tr(
                "engine.split: needs at least {min_count} GPUs, found {count}; set it to false",
                min_count=_MIN_GPUS,
                count=torch.cuda.device_count(),
            )
        )


def _load_base(folder: Path, dtype: str, settings: EngineSettings, device: str) -> "PreTrainedModel":
    """Loads the base as config.yaml says: its type, quantised or split over GPUs."""
    chosen = choose_dtype(dtype, device, folder)
    if settings.quantize is None:
        return load_model(folder, chosen, device, split=settings.split)
    return load_quantized(folder, settings.quantize, chosen, device, "engine.quantize")
