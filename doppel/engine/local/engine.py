"""The default engine: a transformers model on its own thread, spoken to from asyncio.

Requests and results cross between the event loop and the thread through queues, so the loop never waits for
the model. Knows the asyncio side only; the decoding is `inference`'s, the adapters are `lora`'s.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from doppel.adapters.lora_file import Lora, read_lora
from doppel.adapters.versions import AdapterRefused
from doppel.config import Config
from doppel.config import EngineSettings as Settings
from doppel.engine import EngineError, Health, Load, Request, Token
from doppel.engine.local.packed_weights import pack
from doppel.engine.local.request import Job
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
from doppel.models.quantize import check_quantization, choose_body_dtype, load_quantized
from doppel.transcript import FORMAT, FORMATS, Header, Transcript, open_transcript

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


MAX_ACTIVE = 16
_LEAST_GPUS = 2


class TransformersEngine:
    """One base model with its adapters; an `Engine`.

    Args:
        model: a causal language model in evaluation mode; from now on only the engine may touch it.
        tokenizer: the model's own, fast.
        base: the identity that adapters must have been trained for.
        transcript: name of the transcript's format for the base model alone; an adapter's is in its manifest.
        clock: seconds, monotonic; deadlines are kept by it.
        max_active: requests that are written on together; more would make each of them slow.
        max_waiting: requests that may wait beyond those before the next is refused.
        longest: most tokens of prompt and reply together; None: what the model takes, which is never exceeded.
        keep_bytes: memory for earlier turns of chats, whose next turn then reads only what is new; 0 keeps none.
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
        longest: int | None = None,
        keep_bytes: int = 1 << 29,
    ) -> None:
        self.base = base
        self.transcript = open_transcript(tokenizer, transcript)
        """The transcript for the base model alone."""
        self._transcripts: dict[str, Transcript] = {}
        self._masks: dict[str, TokenMask] = {}
        """By the transcript's format, so that the rows of a batch share one."""
        most: int = model.config.get_text_config().max_position_embeddings
        self.context_length = min(most, longest or most)
        self._clock = clock
        pack(model)
        self._thread = InferenceThread(
            model,
            context_length=self.context_length,
            canary=self.transcript.prompt(Header(), []),
            clock=clock,
            max_active=max_active,
            max_waiting=max_waiting,
            keep_bytes=keep_bytes,
        )

    @classmethod
    def open(cls, config: Config, report: Callable[[str], None]) -> "TransformersEngine":
        """The engine for the configured base model; converts or fetches it first if need be. Blocks.

        Args:
            report: takes one line for the user when something slow begins.

        Raises:
            UserError: no such model, or it cannot be quantised or split here. DoppelError: it cannot be prepared.
        """
        settings = config.engine
        device = choose_device(config.model.device)
        check_device(settings, device)
        folder = prepare_base(config.model, report)
        return cls(
            _load(folder, config, device),
            load_tokenizer(folder),
            identify(folder, config.model.base),
            transcript=FORMATS[config.transcript],
            max_active=settings.max_concurrent or MAX_ACTIVE,
            max_waiting=settings.max_queue,
            longest=settings.context_length,
            keep_bytes=int(settings.prefix_cache_gb * 2**30),
        )

    def transcript_of(self, adapter: str | None) -> Transcript:
        """The transcript that an adapter was trained with; None: the one to use with the base model alone."""
        return self._transcripts.get(adapter or "", self.transcript)  # `generate` refuses a name it does not know

    def generate(self, request: Request) -> AsyncGenerator[Token]:
        """Streams tokens until a stop id, `max_tokens`, the context's end or the deadline, which counts from now.

        Closing the generator (or cancelling its task) stops the model within one token.

        Raises:
            EngineError: on the first step, when the engine is full or closed, the prompt too long or empty
                or the adapter not loaded; later, when the model fails.
        """
        return self._stream(request, self._clock() + request.deadline_seconds)

    async def base_log_probabilities(
        self, prompt: Sequence[int], answers: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        """What the base model alone thinks of each answer's tokens, in nats. Raises EngineError."""
        return await asyncio.wrap_future(self._thread.score(prompt, answers))

    async def load_adapter(self, folder: Path) -> str:
        """Verifies, attaches and tries an adapter; returns its name. The same content has the same name.

        Raises:
            AdapterRefused: it is damaged, of another base, not plain LoRA, computes no finite numbers, or was
                trained with a chat template that the base has no more.
        """
        lora = await asyncio.to_thread(read_lora, folder, self.base)
        transcript = self._open_transcript(lora)
        await asyncio.wrap_future(self._thread.attach(lora))
        self._transcripts[lora.name] = transcript
        return lora.name

    async def drop_adapter(self, name: str) -> None:
        """Takes no new request for an adapter, and forgets it once those under way are done."""
        self._thread.retire(name)

    def health(self) -> Health:
        """A snapshot; never blocks."""
        return Health(self._thread.alive, self._thread.adapters)

    def load(self) -> Load:
        """A snapshot; never blocks."""
        thread = self._thread
        return Load(thread.active, thread.max_active, thread.waiting, thread.kept_bytes, thread.reused_tokens)

    def close(self) -> None:
        """Ends requests with EngineError and stops the thread, within the step it is at."""
        self._thread.close()

    def _open_transcript(self, lora: Lora) -> Transcript:
        opened = (self.transcript, *self._transcripts.values())
        transcript = next((one for one in opened if one.format == lora.transcript), None)
        try:
            transcript = transcript or open_transcript(self.transcript.tokenizer, lora.transcript)
        except UserError as error:
            raise AdapterRefused(f"{lora.folder}: {error}") from None
        if lora.template and lora.template != transcript.template:  # one made elsewhere does not say
            raise AdapterRefused(
                tr("{path}: the base model's chat template has changed since; train it again", path=lora.folder)
            )
        return transcript

    def _mask_of(self, transcript: Transcript) -> TokenMask:
        if transcript.format not in self._masks:
            self._masks[transcript.format] = TokenMask(transcript.forbidden_ids)
        return self._masks[transcript.format]

    async def _stream(self, request: Request, deadline: float) -> AsyncGenerator[Token]:
        if not 0 < len(request.prompt) < self.context_length:
            raise EngineError(
                tr(
                    "a prompt of {count} tokens; this model takes 1 to {most}",
                    count=len(request.prompt),
                    most=self.context_length - 1,
                )
            )
        loop = asyncio.get_running_loop()
        results: asyncio.Queue[Token | Exception | None] = asyncio.Queue()

        def deliver(result: Token | Exception | None) -> None:
            try:
                loop.call_soon_threadsafe(results.put_nowait, result)
            except RuntimeError:  # the loop is closed: nobody is listening
                job.cancelled = True

        job = Job(request, deadline, deliver, self._mask_of(self.transcript_of(request.adapter)))
        self._thread.submit(job)
        try:
            while (result := await results.get()) is not None:
                if isinstance(result, Exception):
                    raise result
                await asyncio.sleep(0)  # a cancelled task notices only where it waits, and `get` need not
                yield result
        finally:
            job.cancelled = True


def check_device(settings: Settings, device: str) -> None:
    """Raises UserError when the base cannot be quantised or split on this machine as config.yaml wants it."""
    import torch

    if settings.quantize is not None:
        check_quantization(device, "engine.quantize")
    if settings.split and torch.cuda.device_count() < _LEAST_GPUS:
        raise UserError(
            tr(
                "engine.split: needs {least} GPUs or more, here are {count}; write false",
                least=_LEAST_GPUS,
                count=torch.cuda.device_count(),
            )
        )


def _load(folder: Path, config: Config, device: str) -> "PreTrainedModel":
    """The base as config.yaml wants it."""
    quantize = config.engine.quantize
    if quantize is None:
        return load_model(folder, choose_dtype(config.model.dtype, device), device, split=config.engine.split)
    dtype = choose_body_dtype(config.model.dtype, device)
    return load_quantized(folder, quantize, dtype, device, "engine.quantize")
