"""llama.cpp in this process: fast without a large GPU. The base is a quantised GGUF file.

llama.cpp loads adapters only when it starts, so each adapter has an instance of its own; the base's weights, mapped
from one file, are in memory once. Each instance is used like a server, by an `OpenAIEngine`, but without a network.
"""

import asyncio
import importlib.util
import os
import secrets
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from doppel.adapters.export.base_gguf import prepare_gguf
from doppel.adapters.export.gguf import write_gguf
from doppel.adapters.lora_file import Lora, read_lora
from doppel.adapters.versions import AdapterRefused
from doppel.config import Config, cache_dir
from doppel.engine import EngineError, EngineStats, EngineUnavailable, Health, Request, Sampling, Token
from doppel.engine.adapter_transcript import adapter_transcript
from doppel.engine.llamacpp.in_process import InProcessTransport
from doppel.engine.remote.client import ServerClient
from doppel.engine.remote.discovery import ServerCapabilities
from doppel.engine.remote.engine import OpenAIEngine, text_config_of
from doppel.engine.remote.sampling import Dialect, check_reply, refusal
from doppel.errors import DoppelError, UserError
from doppel.i18n import tr
from doppel.models.base import BaseIdentity, identify, load_tokenizer, prepare_base
from doppel.system.stale_files import remove_stale
from doppel.transcript import FORMAT, FORMATS, Header, Transcript, open_transcript

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SLOTS = 8  # each takes memory for a whole context
MAX_CONTEXT = 4096
_DIALECT: Dialect = "llamacpp"
_CANARY_TOKENS = 2
_MAX_AGE = timedelta(days=30)  # converted adapters that were not used for longer are deleted
_READ_SECONDS = 5  # to receive a request: `stop` waits for requests that are still arriving


class LlamaCppInstance:
    """One running llama.cpp: the base, with or without an adapter. Construct it in a thread, as it blocks.

    Args:
        base: the model as GGUF.
        lora: the adapter as GGUF.
        context_length: of each request.
        slots: active requests; others wait.
        on_cpu: whether to ignore the GPU.
        threads: for computing; None: llama.cpp's default.
        prefix_cache_bytes: memory for the KV caches of earlier turns.
    """

    def __init__(
        self,
        base: Path,
        lora: Path | None,
        *,
        context_length: int,
        slots: int,
        on_cpu: bool,
        threads: int | None,
        prefix_cache_bytes: int,
    ) -> None:
        import xllamacpp

        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(base)
        if lora is not None:
            parameters.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(lora), 1.0)]
        parameters.n_ctx = context_length * slots
        parameters.n_parallel = slots
        parameters.swa_full = True  # needed to reuse the prefix of an earlier prompt
        parameters.cache_ram_mib = prefix_cache_bytes >> 20
        parameters.warmup = False
        parameters.verbosity = -1
        parameters.ui = False
        parameters.endpoint_slots = False
        parameters.timeout_read = _READ_SECONDS
        self.key = secrets.token_hex(16)
        parameters.api_keys = [self.key]  # it opens a local port in any case, which nobody else can use then
        if on_cpu:
            parameters.n_gpu_layers = 0
        if threads is not None:
            parameters.cpuparams.n_threads = threads
            parameters.cpuparams_batch.n_threads = threads
        self._server: Any = xllamacpp.Server(parameters)
        self.url: str = self._server.listening_address
        self._transport = InProcessTransport(self._server.handle_completions, slots)
        self.client = ServerClient("http://llama.cpp", transport=self._transport)

    def stop(self) -> None:
        """Ends active requests and frees the memory."""
        self._transport.stop()
        self._server = None


def check_installed() -> None:
    """Raises UserError when the `llamacpp` extra is not installed."""
    if importlib.util.find_spec("xllamacpp") is None:
        raise UserError(tr("engine.backend: llamacpp needs `pip install 'doppel[llamacpp]'`"))


class LlamaCppEngine:
    """One base model with its adapters, each in its own llama.cpp instance; an `Engine`.

    Args:
        gguf: the base as GGUF.
        base_folder: the prepared base; only its configuration is read.
        tokenizer: the base's own, fast.
        base: the identity that adapters must have been trained for.
        transcript: name of the transcript's format for the base model alone.
        clock: seconds, monotonic; used for deadlines.
        sends_text: whether the file has the base's own vocabulary.
        slots: active requests per adapter.
        on_cpu: whether to ignore the GPU.
        threads: of each instance; None: llama.cpp's default.
        max_waiting: requests per adapter that may wait beyond the slots; further ones are refused.
        max_context: maximum tokens of prompt and reply together, within the base's own limit.
        prefix_cache_bytes: memory for the KV caches of earlier turns, of each instance.
    """

    def __init__(
        self,
        gguf: Path,
        base_folder: Path,
        tokenizer: "PreTrainedTokenizerBase",
        base: BaseIdentity,
        *,
        transcript: str = FORMAT,
        clock: Callable[[], float] = time.monotonic,
        sends_text: bool = True,
        slots: int = SLOTS,
        on_cpu: bool = False,
        threads: int | None = None,
        max_waiting: int = 64,
        max_context: int = MAX_CONTEXT,
        prefix_cache_bytes: int = 1 << 29,
    ) -> None:
        self.base = base
        self.transcript = open_transcript(tokenizer, transcript)
        """The transcript for the base model alone."""
        text_config = text_config_of(base_folder)
        self.context_length = min(text_config.max_position_embeddings, max_context)
        self._vocabulary_size: int = text_config.vocab_size
        self._base_folder = base_folder
        self._tokenizer = tokenizer
        self._clock = clock
        self._slots = slots
        self._max_waiting = max_waiting
        self._sends_text = sends_text
        self._start_instance = partial(
            LlamaCppInstance,
            gguf,
            context_length=self.context_length,
            slots=slots,
            on_cpu=on_cpu,
            threads=threads,
            prefix_cache_bytes=prefix_cache_bytes,
        )
        self._running: dict[str | None, tuple[LlamaCppInstance, OpenAIEngine]] = {}
        self._retiring: set[str] = set()
        self._users: Counter[str | None] = Counter()
        self._starting = asyncio.Lock()
        self._is_closed = False

    @classmethod
    def open(cls, config: Config, on_progress: Callable[[str], None]) -> "LlamaCppEngine":
        """Opens the configured base model; downloads or converts it first if necessary. Blocks.

        Raises:
            UserError: the extra is not installed, llama.cpp does not support a sampling setting, or there is no such
                model or file. DoppelError: the file cannot be converted.
        """
        check_installed()
        check_reply(_DIALECT, config.reply)
        settings = config.engine
        folder = prepare_base(config.model, on_progress)
        gguf = prepare_gguf(config, folder, on_progress)
        return cls(
            gguf.path,
            folder,
            load_tokenizer(folder),
            identify(folder, config.model.base),
            transcript=FORMATS[config.transcript],
            sends_text=gguf.has_vocabulary,
            on_cpu=config.model.device == "cpu",
            slots=settings.max_concurrent or SLOTS,
            max_waiting=settings.max_queue,
            max_context=settings.context_length or MAX_CONTEXT,
            prefix_cache_bytes=int(settings.prefix_cache_gb * 2**30),
        )

    def transcript_of(self, adapter: str | None) -> Transcript:
        """The transcript that an adapter was trained with; None: the one for the base model alone."""
        running = self._running.get(adapter)
        return running[1].transcript if running else self.transcript

    def unsupported(self, sampling: Sampling) -> str | None:
        """The settings that llama.cpp does not support, in one line; None: it supports all."""
        return refusal(_DIALECT, sampling)

    def generate(self, request: Request) -> AsyncGenerator[Token]:
        """Streams tokens until a stop token, `max_tokens`, the end of the context, or the deadline, counted from now.

        Closing the generator (or cancelling its task) stops the generation within one token.

        Raises:
            EngineError: too many requests, an empty or too long prompt, an adapter that is not loaded, an unsupported
                sampling setting, or llama.cpp failed.
        """
        return self._stream(request, self._clock() + request.deadline_seconds)

    async def load_adapter(self, folder: Path) -> str:
        """Verifies an adapter, converts it, and starts an instance with it; returns its name.

        Raises:
            AdapterRefused: it is damaged, for another base, or llama.cpp refuses it.
        """
        lora = await asyncio.to_thread(read_lora, folder, self.base)
        transcript = adapter_transcript(lora, [self.transcript])
        if lora.name in self._running:
            self._retiring.discard(lora.name)
            return lora.name
        try:
            file = await asyncio.to_thread(self._convert, lora)
            await self._start(lora.name, file, transcript.format)
            await self._test(lora.name)
        except UserError as error:  # a layer or a family that llama.cpp does not support
            raise AdapterRefused(f"{folder}: {error}") from None
        except EngineError as error:
            await self._stop(lora.name)
            raise AdapterRefused(tr("{path}: failed its test run: {error}", path=folder, error=error)) from None
        return lora.name

    async def drop_adapter(self, name: str) -> None:
        """Refuses new requests for an adapter, and stops its instance once the active ones are done."""
        if name in self._running:
            self._retiring.add(name)
            await self._stop_if_unused(name)

    def health(self) -> Health:
        """A snapshot; never blocks."""
        names = tuple(name for name in self._running if name is not None and name not in self._retiring)
        return Health(not self._is_closed, names)

    def stats(self) -> EngineStats:
        """A snapshot; never blocks. Requests without a token yet count as waiting."""
        instances = [engine.stats() for _, engine in self._running.values()]
        return EngineStats(
            active=sum(stats.active for stats in instances),
            max_active=self._slots * max(1, len(instances)),
            waiting=sum(stats.waiting for stats in instances),
        )

    def close(self) -> None:
        """Ends requests with EngineError and stops every instance."""
        self._is_closed = True
        for instance, engine in self._running.values():
            engine.close()
            instance.stop()
        self._running.clear()

    async def _stream(self, request: Request, deadline: float) -> AsyncGenerator[Token]:
        name = request.adapter
        if self._is_closed:
            raise EngineUnavailable(tr("the engine is closed"))
        if name is not None and (name not in self._running or name in self._retiring):
            raise EngineUnavailable(tr("adapter {name} is not loaded", name=name))
        self._users[name] += 1
        try:
            if name not in self._running:
                await self._start(None, None, self.transcript.format)
            seconds_left = deadline - self._clock()
            forwarded = msgspec.structs.replace(request, adapter=None, deadline_seconds=seconds_left)
            async with aclosing(self._running[name][1].generate(forwarded)) as tokens:
                async for token in tokens:
                    yield token
        finally:
            self._users[name] -= 1
            if name in self._retiring:
                await self._stop_if_unused(name)

    async def _start(self, name: str | None, file: Path | None, transcript: str) -> None:
        """Starts an instance for an adapter, unless it runs already. Raises EngineError."""
        async with self._starting:
            if name in self._running:
                return
            try:
                instance = await asyncio.to_thread(self._start_instance, file)
            except (RuntimeError, OSError) as error:
                reason = next(iter(str(error).splitlines()), type(error).__name__)
                raise EngineUnavailable(tr("llama.cpp failed to start: {reason}", reason=reason)) from None
            if self._is_closed:
                instance.stop()
                raise EngineUnavailable(tr("the engine is closed"))
            capabilities = ServerCapabilities(
                model="base", dialect=_DIALECT, accepts_token_ids=True, sends_text=self._sends_text
            )
            engine = OpenAIEngine(
                instance.client,
                capabilities,
                self._tokenizer,
                self.base,
                transcript=transcript,
                context_length=self.context_length,
                vocabulary_size=self._vocabulary_size,
                clock=self._clock,
                max_requests=self._slots + self._max_waiting,
            )
            self._running[name] = (instance, engine)

    async def _test(self, name: str) -> None:
        """Generates a few tokens, so that a broken adapter is refused now and not at the next reply."""
        prompt = self.transcript_of(name).prompt(Header(), [])
        sampling = Sampling(temperature=0, max_tokens=_CANARY_TOKENS)
        canary = Request(prompt=prompt, sampling=sampling, stop_ids=frozenset(), adapter=name)
        async with aclosing(self.generate(canary)) as tokens:
            async for _ in tokens:
                pass

    async def _stop_if_unused(self, name: str) -> None:
        if not self._users[name]:
            await self._stop(name)

    async def _stop(self, name: str) -> None:
        self._retiring.discard(name)
        running = self._running.pop(name, None)
        if running is not None:
            running[1].close()
            await asyncio.to_thread(running[0].stop)

    def _convert(self, lora: Lora) -> Path:
        """The adapter as GGUF, from the cache if possible; also deletes entries that were not used for long."""
        folder = cache_dir() / "llamacpp" / "adapters"
        file = folder / f"{lora.name}-{self.base.digest[:12]}.gguf"
        with suppress(OSError):  # it does not exist yet, or belongs to another user
            os.utime(file)
        remove_stale(folder, "", datetime.now(UTC), _MAX_AGE)
        if not file.is_file():
            try:
                write_gguf(lora, self._base_folder, file)
            except DoppelError:
                if not file.is_file():  # else another process has just written it
                    raise
        return file
