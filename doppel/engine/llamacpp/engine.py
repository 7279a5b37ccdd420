"""llama.cpp in this process: the quick way without a large GPU. The base is a GGUF file, quantised.

llama.cpp takes adapters at its start only, so each has an instance of its own, and the weights of the base, mapped
from one file, are in memory once. An instance is spoken to as a server is, which is `openai`'s, but without a network.
Knows GGUF files and instances.
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
from doppel.engine import EngineError, Health, Load, Request, Sampling, Token
from doppel.engine.llamacpp.in_process import Inside
from doppel.engine.remote.client import Server
from doppel.engine.remote.discovery import Abilities
from doppel.engine.remote.engine import OpenAIEngine, text_config_of, transcript_for
from doppel.engine.remote.sampling import Dialect, check_reply, refusal
from doppel.errors import DoppelError, UserError
from doppel.i18n import tr
from doppel.models.base import BaseIdentity, identify, load_tokenizer, prepare_base
from doppel.system.stale_files import remove_stale
from doppel.transcript import FORMAT, FORMATS, Header, Transcript, open_transcript

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SLOTS = 8  # each takes memory for a whole context
LONGEST_CONTEXT = 4096
_DIALECT: Dialect = "llamacpp"
_CANARY_TOKENS = 2
_UNUSED = timedelta(days=30)  # after which a converted adapter is converted anew when it is wanted again
_READ_SECONDS = 5  # for a request to arrive: `stop` would wait for one that never does


class Instance:
    """One running llama.cpp: the base, perhaps with an adapter. Made in a thread, as that blocks.

    Args:
        base: the model as GGUF.
        lora: the adapter as GGUF.
        context_length: of each request.
        slots: requests under way at once; the others wait.
        on_cpu: whether to leave the GPU alone.
        threads: to compute with; None: llama.cpp's own choice.
        keep_bytes: memory for earlier turns of chats.
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
        keep_bytes: int,
    ) -> None:
        import xllamacpp

        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(base)
        if lora is not None:
            parameters.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(lora), 1.0)]
        parameters.n_ctx = context_length * slots
        parameters.n_parallel = slots
        parameters.swa_full = True  # a prompt that goes on from the one before is then not computed again
        parameters.cache_ram_mib = keep_bytes >> 20
        parameters.warmup = False
        parameters.verbosity = -1
        parameters.ui = False
        parameters.endpoint_slots = False
        parameters.timeout_read = _READ_SECONDS
        self.key = secrets.token_hex(16)
        parameters.api_keys = [self.key]  # it listens on this machine all the same, but nobody else has this
        if on_cpu:
            parameters.n_gpu_layers = 0
        if threads is not None:
            parameters.cpuparams.n_threads = threads
            parameters.cpuparams_batch.n_threads = threads
        self._server: Any = xllamacpp.Server(parameters)
        self.url: str = self._server.listening_address
        self._transport = Inside(self._server.handle_completions, slots)
        self.connection = Server("http://llama.cpp", transport=self._transport)

    def stop(self) -> None:
        """Ends what is under way, and frees it."""
        self._transport.end()
        self._server = None


def check_installed() -> None:
    """Raises UserError where the extra is not installed."""
    if importlib.util.find_spec("xllamacpp") is None:
        raise UserError(tr("engine.backend: llamacpp needs `pip install 'doppel[llamacpp]'`"))


class LlamaCppEngine:
    """One base model with its adapters, each in an instance of its own; an `Engine`.

    Args:
        gguf: the base as GGUF.
        base_folder: the prepared base; only its configuration is read.
        tokenizer: the base's own, fast.
        base: the identity that adapters must have been trained for.
        transcript: name of the transcript's format for the base model alone.
        clock: seconds, monotonic; deadlines are kept by it.
        spells: whether the file has the base's own vocabulary.
        slots: requests under way at once with one adapter.
        on_cpu: whether to leave the GPU alone.
        threads: of each instance; None: llama.cpp's own choice.
        waiting: requests that may wait beyond the slots, with one adapter; one more is refused.
        longest: most tokens of prompt and reply together; the base's own where that is less.
        keep_bytes: memory for earlier turns of chats, of each instance.
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
        spells: bool = True,
        slots: int = SLOTS,
        on_cpu: bool = False,
        threads: int | None = None,
        waiting: int = 64,
        longest: int = LONGEST_CONTEXT,
        keep_bytes: int = 1 << 29,
    ) -> None:
        self.base = base
        self.transcript = open_transcript(tokenizer, transcript)
        """The transcript for the base model alone."""
        text_config = text_config_of(base_folder)
        self.context_length = min(text_config.max_position_embeddings, longest)
        self._vocabulary_size: int = text_config.vocab_size
        self._base_folder = base_folder
        self._tokenizer = tokenizer
        self._clock = clock
        self._slots = slots
        self._waiting = waiting
        self._spells = spells
        self._launch = partial(
            Instance,
            gguf,
            context_length=self.context_length,
            slots=slots,
            on_cpu=on_cpu,
            threads=threads,
            keep_bytes=keep_bytes,
        )
        self._running: dict[str | None, tuple[Instance, OpenAIEngine]] = {}
        self._retiring: set[str] = set()
        self._users: Counter[str | None] = Counter()
        self._starting = asyncio.Lock()
        self._is_closed = False

    @classmethod
    def open(cls, config: Config, report: Callable[[str], None]) -> "LlamaCppEngine":
        """The engine for the configured base model; converts or fetches it first if need be. Blocks.

        Raises:
            UserError: the extra is not installed, or there is no such model or file. DoppelError: it cannot be made.
        """
        check_installed()
        check_reply(_DIALECT, config.reply)
        settings = config.engine
        folder = prepare_base(config.model, report)
        gguf = prepare_gguf(config, folder, report)
        return cls(
            gguf.path,
            folder,
            load_tokenizer(folder),
            identify(folder, config.model.base),
            transcript=FORMATS[config.transcript],
            spells=gguf.has_vocabulary,
            on_cpu=config.model.device == "cpu",
            slots=settings.max_concurrent or SLOTS,
            waiting=settings.max_queue,
            longest=settings.context_length or LONGEST_CONTEXT,
            keep_bytes=int(settings.prefix_cache_gb * 2**30),
        )

    def transcript_of(self, adapter: str | None) -> Transcript:
        """The transcript that an adapter was trained with; None: the one to use with the base model alone."""
        running = self._running.get(adapter)
        return running[1].transcript if running else self.transcript

    def unsupported(self, sampling: Sampling) -> str | None:
        """The settings that llama.cpp does not support, in one line; None: it supports all."""
        return refusal(_DIALECT, sampling)

    def generate(self, request: Request) -> AsyncGenerator[Token]:
        """Streams tokens until a stop id, `max_tokens`, the context's end or the deadline, which counts from now.

        Closing the generator (or cancelling its task) stops the model within one token.

        Raises:
            EngineError: too many requests at once, a prompt too long or empty, an adapter that is not loaded, a
                setting that llama.cpp lacks, or it failed.
        """
        return self._stream(request, self._clock() + request.deadline_seconds)

    async def load_adapter(self, folder: Path) -> str:
        """Verifies an adapter, converts it, and starts an instance with it; returns its name.

        Raises:
            AdapterRefused: it is damaged, of another base, or llama.cpp does not take it.
        """
        lora = await asyncio.to_thread(read_lora, folder, self.base)
        transcript = transcript_for(lora, self.transcript)
        if lora.name in self._running:
            self._retiring.discard(lora.name)
            return lora.name
        try:
            file = await asyncio.to_thread(self._converted, lora)
            await self._start(lora.name, file, transcript.format)
            await self._try(lora.name)
        except UserError as error:  # a layer or a family that llama.cpp does not know
            raise AdapterRefused(f"{folder}: {error}") from None
        except EngineError as error:
            await self._stop(lora.name)
            raise AdapterRefused(tr("{path}: does not work: {error}", path=folder, error=error)) from None
        return lora.name

    async def drop_adapter(self, name: str) -> None:
        """Takes no new request for an adapter, and stops its instance once those under way are done."""
        if name in self._running:
            self._retiring.add(name)
            await self._stop_retired(name)

    def health(self) -> Health:
        """A snapshot; never blocks."""
        names = tuple(name for name in self._running if name is not None and name not in self._retiring)
        return Health(not self._is_closed, names)

    def load(self) -> Load:
        """A snapshot; never blocks. Those that have no token yet count as waiting."""
        inner = [engine.load() for _, engine in self._running.values()]
        active, waiting = sum(one.active for one in inner), sum(one.waiting for one in inner)
        return Load(active, self._slots * max(1, len(inner)), waiting)

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
            raise EngineError(tr("the engine is closed"))
        if name is not None and (name not in self._running or name in self._retiring):
            raise EngineError(tr("the adapter {name} is not loaded", name=name))
        self._users[name] += 1
        try:
            if name not in self._running:
                await self._start(None, None, self.transcript.format)
            left = deadline - self._clock()
            inner = msgspec.structs.replace(request, adapter=None, deadline_seconds=left)
            async with aclosing(self._running[name][1].generate(inner)) as tokens:
                async for token in tokens:
                    yield token
        finally:
            self._users[name] -= 1
            if name in self._retiring:
                await self._stop_retired(name)

    async def _start(self, name: str | None, file: Path | None, transcript: str) -> None:
        """Starts an instance, if there is none of that name. Raises EngineError."""
        async with self._starting:
            if name in self._running:
                return
            try:
                instance = await asyncio.to_thread(self._launch, file)
            except (RuntimeError, OSError) as error:
                reason = next(iter(str(error).splitlines()), type(error).__name__)
                raise EngineError(tr("llama.cpp does not start: {reason}", reason=reason)) from None
            if self._is_closed:
                instance.stop()
                raise EngineError(tr("the engine is closed"))
            abilities = Abilities(model="base", dialect=_DIALECT, takes_ids=True, spells=self._spells)
            engine = OpenAIEngine(
                instance.connection,
                abilities,
                self._tokenizer,
                self.base,
                transcript=transcript,
                context_length=self.context_length,
                vocabulary_size=self._vocabulary_size,
                clock=self._clock,
                max_requests=self._slots + self._waiting,
            )
            self._running[name] = (instance, engine)

    async def _try(self, name: str) -> None:
        """A few tokens, so that an adapter that computes nothing is refused now and not at the next reply."""
        prompt = self.transcript_of(name).prompt(Header(), [])
        sampling = Sampling(temperature=0, max_tokens=_CANARY_TOKENS)
        canary = Request(prompt=prompt, sampling=sampling, stop_ids=frozenset(), adapter=name)
        async with aclosing(self.generate(canary)) as tokens:
            async for _ in tokens:
                pass

    async def _stop_retired(self, name: str) -> None:
        if not self._users[name]:
            await self._stop(name)

    async def _stop(self, name: str) -> None:
        self._retiring.discard(name)
        running = self._running.pop(name, None)
        if running is not None:
            running[1].close()
            await asyncio.to_thread(running[0].stop)

    def _converted(self, lora: Lora) -> Path:
        """The adapter as GGUF, from the cache if it was converted before; what has long been of no use leaves it."""
        folder = cache_dir() / "llamacpp" / "adapters"
        file = folder / f"{lora.name}-{self.base.digest[:12]}.gguf"
        with suppress(OSError):  # there is none yet, or it is somebody else's
            os.utime(file)
        remove_stale(folder, "", datetime.now(UTC), _UNUSED)
        if not file.is_file():
            try:
                write_gguf(lora, self._base_folder, file)
            except DoppelError:
                if not file.is_file():  # else another process was quicker
                    raise
        return file
