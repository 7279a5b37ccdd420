"""An engine elsewhere: any server that speaks OpenAI's completions protocol, best one that takes token ids.

vLLM, SGLang and llama.cpp's server are known by name, with more settings than the protocol itself has, and the
first two load adapters while they run. Knows what is sent and what comes back; the failing and trying again is
`remote`'s, the names of settings are `remote_sampling`'s.
"""

import asyncio
import logging
import os
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from doppel.adapters.lora_file import Lora, read_lora
from doppel.adapters.versions import AdapterRefused, current_version, read_manifest
from doppel.config import Config
from doppel.engine import EngineError, Health, Load, Request, Sampling, Token
from doppel.engine.remote.client import Server, ServerError
from doppel.engine.remote.discovery import Abilities, look
from doppel.engine.remote.prompt_text import prompt_text
from doppel.engine.remote.sampling import check_reply, parameters, refusal
from doppel.engine.remote.stream import Reader
from doppel.errors import DoppelError, UserError
from doppel.i18n import tr
from doppel.models.base import BaseIdentity, identify, load_tokenizer, prepare_tokenizer
from doppel.transcript import FORMAT, FORMATS, Header, Transcript, open_transcript

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

KEY_VARIABLE = "DOPPEL_ENGINE_KEY"
MAX_REQUESTS = 64

log = logging.getLogger(__name__)


class OpenAIEngine:
    """One base model on a server, with its adapters; an `Engine`.

    A token's `logprob` is NaN where the server does not tell, as most do not tell that of the distribution sampled.

    Args:
        server: the connection; its address ends before `/v1`.
        abilities: from `discover`.
        tokenizer: the base's own, fast.
        base: the identity that adapters must have been trained for.
        transcript: name of the transcript's format for the base model alone.
        context_length: the base's; the server's counts where it is shorter.
        vocabulary_size: of the base's head, which may be smaller than the tokenizer; None: every token has a logit.
        is_fixed: the server was started with the persona's adapter and loads no other.
        place: where the server sees an adapter's folder; None: at the same path.
        clock: seconds, monotonic; deadlines are kept by it.
        longest: most tokens of prompt and reply together; None: what base and server take.
        max_requests: under way at once; one more is refused.
    """

    def __init__(
        self,
        server: Server,
        abilities: Abilities,
        tokenizer: "PreTrainedTokenizerBase",
        base: BaseIdentity,
        *,
        transcript: str = FORMAT,
        context_length: int,
        vocabulary_size: int | None = None,
        is_fixed: bool = False,
        place: Callable[[Path], str] | None = None,
        clock: Callable[[], float] = time.monotonic,
        longest: int | None = None,
        max_requests: int = MAX_REQUESTS,
    ) -> None:
        self.base = base
        self.transcript = open_transcript(tokenizer, transcript)
        """The transcript for the base model alone."""
        self.context_length = min(one for one in (context_length, abilities.context_length, longest) if one is not None)
        self._vocabulary_size = vocabulary_size
        self._server = server
        self._abilities = abilities
        self._is_fixed = is_fixed
        self._place = place or str
        self._clock = clock
        self._max_requests = max_requests
        self._loaded: dict[str, Lora] = {}
        self._transcripts: dict[str, Transcript] = {}
        self._retiring: set[str] = set()
        self._users: Counter[str | None] = Counter()
        self._waiting = 0
        self._is_closed = False

    @classmethod
    def open(cls, config: Config, report: Callable[[str], None]) -> "OpenAIEngine":
        """The engine for the configured server; fetches the base model's tokenizer first if need be. Blocks.

        Raises:
            UserError: no such model here or there, or a setting that the server lacks. DoppelError: no answer.
        """
        settings = config.engine
        folder = prepare_tokenizer(config.model, report)
        text_config = text_config_of(folder)
        has_weights = any(folder.glob("*.safetensors"))
        identity = identify(folder, config.model.base) if has_weights else _identity_of_adapter(config)
        tokenizer = load_tokenizer(folder)
        address = settings.url.rstrip("/").removesuffix("/v1")
        key = os.environ.get(KEY_VARIABLE, "")
        abilities = asyncio.run(look(Server(address, key), settings.remote_model, tokenizer))
        check_reply(abilities.dialect, config.reply)
        return cls(
            Server(address, key),
            abilities,
            tokenizer,
            identity,
            transcript=FORMATS[config.transcript],
            context_length=text_config.max_position_embeddings,
            vocabulary_size=text_config.vocab_size,
            is_fixed=settings.adapter == "fixed",
            place=_mapped(config) if settings.remote_adapters_path else None,
            longest=settings.context_length,
            max_requests=settings.max_concurrent or MAX_REQUESTS,
        )

    def transcript_of(self, adapter: str | None) -> Transcript:
        """The transcript that an adapter was trained with; None: the one to use with the base model alone."""
        return self._transcripts.get(adapter or "", self.transcript)

    def unsupported(self, sampling: Sampling) -> str | None:
        """The settings that the server does not support, in one line; None: it supports all."""
        return refusal(self._abilities.dialect, sampling)

    def generate(self, request: Request) -> AsyncGenerator[Token]:
        """Streams tokens until a stop id, `max_tokens`, the context's end or the deadline, which counts from now.

        Closing the generator (or cancelling its task) closes the connection, which ends the work there.

        Raises:
            EngineError: too many requests at once, a prompt too long or empty, an adapter that is not loaded, a
                setting that the server lacks; no answer, also after several attempts; an answer that breaks off.
        """
        return self._stream(request, self._clock() + request.deadline_seconds)

    async def load_adapter(self, folder: Path) -> str:
        """Verifies an adapter, lets the server load it, and tries it; returns its name.

        Raises:
            AdapterRefused: it is damaged or of another base, or the server does not take it. EngineError: no answer.
        """
        lora = await asyncio.to_thread(read_lora, folder, self.base)
        transcript = transcript_for(lora, self.transcript)
        if lora.name in self._loaded:
            self._retiring.discard(lora.name)
            return lora.name
        if self._is_fixed and self._loaded:
            raise AdapterRefused(
                tr("{path}: engine.adapter is fixed; start the server with this adapter, then doppel", path=folder)
            )
        if not self._is_fixed:
            await self._load(lora)
        self._loaded[lora.name] = lora
        self._transcripts[lora.name] = transcript
        try:
            await self._try(lora.name)
        except EngineError as error:
            await self._forget(lora.name)
            raise AdapterRefused(tr("{path}: does not work: {error}", path=folder, error=error)) from None
        return lora.name

    async def drop_adapter(self, name: str) -> None:
        """Takes no new request for an adapter, and lets the server forget it once those under way are done."""
        if name in self._loaded:
            self._retiring.add(name)
            await self._forget_retired(name)

    def health(self) -> Health:
        """A snapshot; never blocks."""
        adapters = tuple(name for name in self._loaded if name not in self._retiring)
        return Health(not self._is_closed and not self._server.breaker.seconds_left, adapters)

    def load(self) -> Load:
        """A snapshot; never blocks. Those that have no token yet count as waiting: the server does not say more."""
        return Load(self._users.total() - self._waiting, self._max_requests, self._waiting)

    def close(self) -> None:
        """Takes no new request; those under way end with EngineError at their next token."""
        self._is_closed = True

    async def _stream(self, request: Request, deadline: float) -> AsyncGenerator[Token]:
        self._check(request)
        adapter = request.adapter
        self._users[adapter] += 1
        self._waiting += 1
        is_waiting = True
        try:
            async with aclosing(self._tokens(request)) as tokens:
                while True:
                    try:
                        token = await self._next(tokens, deadline)
                    except ServerError:
                        if self._is_closed:
                            raise EngineError(tr("the engine is closed")) from None
                        raise
                    except TimeoutError:
                        if is_waiting:
                            raise EngineError(tr("{url} gave no answer in time", url=self._server.url)) from None
                        return
                    if self._is_closed:
                        raise EngineError(tr("the engine is closed"))
                    if token is None:
                        return
                    if is_waiting:
                        is_waiting = False
                        self._waiting -= 1
                    yield token
                    if token.id in request.stop_ids:
                        return
        finally:
            self._waiting -= is_waiting
            self._users[adapter] -= 1
            if adapter in self._retiring:
                await self._forget_retired(adapter)

    async def _next(self, tokens: AsyncGenerator[Token], deadline: float) -> Token | None:
        """The next token; None at the end. Raises TimeoutError at the deadline."""
        left = deadline - self._clock()
        if left <= 0:
            raise TimeoutError
        async with asyncio.timeout(left):
            return await anext(tokens, None)

    def _check(self, request: Request) -> None:
        if self._is_closed:
            raise EngineError(tr("the engine is closed"))
        if not 0 < len(request.prompt) < self.context_length:
            raise EngineError(
                tr(
                    "a prompt of {count} tokens; this model takes 1 to {most}",
                    count=len(request.prompt),
                    most=self.context_length - 1,
                )
            )
        if request.adapter is not None and (request.adapter not in self._loaded or request.adapter in self._retiring):
            raise EngineError(tr("the adapter {name} is not loaded", name=request.adapter))
        if self._users.total() >= self._max_requests:
            raise EngineError(tr("too many requests at once ({count} are waiting)", count=self._users.total()))
        if reason := self.unsupported(request.sampling):
            raise EngineError(reason)

    async def _tokens(self, request: Request) -> AsyncGenerator[Token]:
        """The server's tokens; an adapter that it has forgotten (it was started again) is loaded again, once."""
        try:
            async with aclosing(self._attempt(request)) as tokens:
                async for token in tokens:
                    yield token
                return
        except ServerError as error:
            if error.status != 404 or request.adapter is None or self._is_fixed:
                raise
        await self._load(self._loaded[request.adapter])
        async with aclosing(self._attempt(request)) as tokens:
            async for token in tokens:
                yield token

    async def _attempt(self, request: Request) -> AsyncGenerator[Token]:
        abilities, transcript = self._abilities, self.transcript_of(request.adapter)
        reader = Reader(transcript, request.stop_ids, abilities.dialect, spells=abilities.spells)
        async with aclosing(self._server.stream("/v1/completions", self._body(request))) as events:
            async for event in events:
                for token in reader.read(event):
                    yield token
        if not reader.is_finished:
            raise EngineError(tr("{url} broke off in the middle of an answer", url=self._server.url))

    def _body(self, request: Request) -> dict[str, Any]:
        abilities, pieces = self._abilities, self.transcript.safe_tokenizer
        forbidden = self._forbidden_ids(self.transcript_of(request.adapter))
        room = self.context_length - len(request.prompt)
        sampling = msgspec.structs.replace(request.sampling, max_tokens=min(request.sampling.max_tokens, room))
        body = parameters(abilities.dialect, sampling, pieces, forbidden)
        body |= {"model": self._name_there(request.adapter), "stream": True}
        body["prompt"] = request.prompt if abilities.takes_ids else prompt_text(pieces, request.prompt)
        if abilities.dialect == "vllm":
            body |= {"return_token_ids": True, "return_tokens_as_token_ids": True, "logprobs": 0}
            body["stop_token_ids"] = sorted(request.stop_ids)
        elif abilities.dialect == "sglang":
            body["stop_token_ids"] = sorted(request.stop_ids)
        elif abilities.dialect == "llamacpp":
            body |= {"n_probs": 1, "post_sampling_probs": True, "cache_prompt": True}
        return body

    def _forbidden_ids(self, transcript: Transcript) -> list[int]:
        """Tokens that the server must not sample; it may refuse ids that its model has no logit for."""
        size = self._vocabulary_size
        return sorted(token for token in transcript.forbidden_ids if size is None or token < size)

    def _name_there(self, adapter: str | None) -> str:
        if adapter is None or self._is_fixed:
            return self._abilities.model
        return f"{self._abilities.model}:{adapter}" if self._abilities.dialect == "sglang" else adapter

    async def _load(self, lora: Lora) -> None:
        body = {"lora_name": lora.name, "lora_path": self._place(lora.folder.resolve())}
        try:
            # 500 is how vLLM refuses one, for its rank for example.
            await self._server.ask("POST", self._adapter_path("load"), body, final=frozenset({500}))
        except ServerError as error:
            if "already" in str(error):
                return
            if error.status in (404, 405):
                raise AdapterRefused(
                    tr(
                        "{url} loads no adapters while it runs: start vLLM with --enable-lora and "
                        "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True; or start any server with this adapter and write "
                        "`engine: {{adapter: fixed}}` in config.yaml",
                        url=self._server.url,
                    )
                ) from None
            if 400 <= error.status < 500 or error.status == 500:
                raise AdapterRefused(tr("{path}: {error}", path=lora.folder, error=error)) from None
            raise

    def _adapter_path(self, verb: str) -> str:
        return f"{'' if self._abilities.dialect == 'sglang' else '/v1'}/{verb}_lora_adapter"

    async def _try(self, name: str) -> None:
        """One token, so that an adapter that does not work is refused now and not at the next reply."""
        prompt = self.transcript_of(name).prompt(Header(), [])
        sampling = Sampling(temperature=0, top_k=0, top_p=1.0, min_p=0.0, max_tokens=1)
        canary = Request(prompt=prompt, sampling=sampling, stop_ids=frozenset(), adapter=name)
        async with aclosing(self.generate(canary)) as tokens:
            async for _ in tokens:
                pass

    async def _forget_retired(self, name: str) -> None:
        if not self._users[name]:
            await self._forget(name)

    async def _forget(self, name: str) -> None:
        self._retiring.discard(name)
        if self._loaded.pop(name, None) is None:
            return
        self._transcripts.pop(name, None)
        if self._is_fixed:
            return
        try:
            await self._server.ask("POST", self._adapter_path("unload"), {"lora_name": name})
        except EngineError as error:  # it takes room there, and nothing else
            log.warning(tr("the adapter {name} stays loaded on the server: {error}", name=name, error=error))


def transcript_for(lora: Lora, opened: Transcript) -> Transcript:
    """The transcript an adapter was trained with. Raises AdapterRefused when the base cannot have it any more."""
    try:
        transcript = opened if opened.format == lora.transcript else open_transcript(opened.tokenizer, lora.transcript)
    except UserError as error:
        raise AdapterRefused(f"{lora.folder}: {error}") from None
    if lora.template and lora.template != transcript.template:
        raise AdapterRefused(
            tr("{path}: the base model's chat template has changed since; train it again", path=lora.folder)
        )
    return transcript


def text_config_of(folder: Path) -> "PreTrainedConfig":
    """The configuration of a base's language model, which has its context length and vocabulary size."""
    from transformers import AutoConfig

    config: PreTrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=True).get_text_config()
    return config


def _identity_of_adapter(config: Config) -> BaseIdentity:
    """The base's identity where its weights are not on this machine: the one that the adapter in use names."""
    with suppress(DoppelError, OSError):
        folder = current_version(config.adapters_dir)
        manifest = read_manifest(folder) if folder else None
        if manifest is not None and manifest.base.id == config.model.base:
            return manifest.base
    return BaseIdentity(config.model.base, "")


def _mapped(config: Config) -> Callable[[Path], str]:
    there = config.engine.remote_adapters_path

    def place(folder: Path) -> str:
        here = (config.root / config.adapters).resolve()
        return f"{there}/{folder.relative_to(here).as_posix()}" if folder.is_relative_to(here) else str(folder)

    return place
