"""An engine on a server with OpenAI's completions API, preferably one that accepts token ids.

vLLM, SGLang and llama.cpp's server are recognised and get their additional settings; the first two also load
adapters while they run.
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
from doppel.engine import EngineBusy, EngineError, EngineStats, EngineUnavailable, Health, Request, Sampling, Token
from doppel.engine.adapter_transcript import adapter_transcript
from doppel.engine.remote.client import ServerClient, ServerError
from doppel.engine.remote.discovery import ServerCapabilities, discover_and_close
from doppel.engine.remote.prompt_text import prompt_text
from doppel.engine.remote.sampling import check_reply, parameters, refusal
from doppel.engine.remote.stream import CompletionStream
from doppel.errors import DoppelError
from doppel.i18n import tr
from doppel.models.base import BaseIdentity, identify, load_tokenizer, prepare_tokenizer
from doppel.secrets import ENGINE_KEY, read_secret
from doppel.transcript import FORMAT, FORMATS, Header, Transcript, open_transcript

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

MAX_REQUESTS = 64

log = logging.getLogger(__name__)


class OpenAIEngine:
    """One base model on a server, with its adapters; an `Engine`.

    A token's `logprob` is NaN where the server does not send it; most only send that of the model's distribution.

    Args:
        client: the connection to the server.
        capabilities: from `discover`.
        tokenizer: the base's own, fast.
        base: the identity that adapters must have been trained for.
        transcript: name of the transcript's format for the base model alone.
        context_length: the base's; the server's applies where it is shorter.
        vocabulary_size: of the base's head, which may be smaller than the tokenizer; None: every token has a logit.
        fixed_adapter: the server was started with the persona's adapter and loads no other.
        server_path: an adapter folder's path on the server; None: the same path as here.
        clock: seconds, monotonic; used for deadlines.
        max_context: maximum tokens of prompt and reply together; None: the limit of base and server.
        max_requests: active requests; further ones are refused.
    """

    def __init__(
        self,
        client: ServerClient,
        capabilities: ServerCapabilities,
        tokenizer: "PreTrainedTokenizerBase",
        base: BaseIdentity,
        *,
        transcript: str = FORMAT,
        context_length: int,
        vocabulary_size: int | None = None,
        fixed_adapter: bool = False,
        server_path: Callable[[Path], str] | None = None,
        clock: Callable[[], float] = time.monotonic,
        max_context: int | None = None,
        max_requests: int = MAX_REQUESTS,
    ) -> None:
        self.base = base
        self.transcript = open_transcript(tokenizer, transcript)
        """The transcript for the base model alone."""
        limits = (context_length, capabilities.context_length, max_context)
        self.context_length = min(limit for limit in limits if limit is not None)
        self._vocabulary_size = vocabulary_size
        self._client = client
        self._capabilities = capabilities
        self._fixed_adapter = fixed_adapter
        self._server_path = server_path or str
        self._clock = clock
        self._max_requests = max_requests
        self._loaded: dict[str, Lora] = {}
        self._transcripts: dict[str, Transcript] = {}
        self._retiring: set[str] = set()
        self._users: Counter[str | None] = Counter()
        self._waiting = 0
        self._is_closed = False

    @classmethod
    def open(cls, config: Config, on_progress: Callable[[str], None]) -> "OpenAIEngine":
        """Connects to the configured server; downloads the base model's tokenizer first if necessary. Blocks.

        Raises:
            UserError: no such model here or on the server, or a sampling setting that it does not support.
            DoppelError: no response.
        """
        settings = config.engine
        folder = prepare_tokenizer(config.model, on_progress)
        text_config = text_config_of(folder)
        has_weights = any(folder.glob("*.safetensors"))
        if has_weights:
            identity = identify(folder, config.model.base)
        else:
            identity = _identity_of_adapter(config.adapters_dir, config.model.base)
        tokenizer = load_tokenizer(folder)
        address = settings.url.rstrip("/").removesuffix("/v1")
        key = read_secret(ENGINE_KEY, os.environ)
        capabilities = asyncio.run(discover_and_close(ServerClient(address, key), settings.remote_model, tokenizer))
        check_reply(capabilities.dialect, config.reply)
        return cls(
            ServerClient(address, key),
            capabilities,
            tokenizer,
            identity,
            transcript=FORMATS[config.transcript],
            context_length=text_config.max_position_embeddings,
            vocabulary_size=text_config.vocab_size,
            fixed_adapter=settings.adapter == "fixed",
            server_path=_server_path(config.root / config.adapters, settings.remote_adapters_path)
            if settings.remote_adapters_path
            else None,
            max_context=settings.context_length,
            max_requests=settings.max_concurrent or MAX_REQUESTS,
        )

    def transcript_of(self, adapter: str | None) -> Transcript:
        """The transcript that an adapter was trained with; None: the one for the base model alone."""
        return self._transcripts.get(adapter or "", self.transcript)

    def unsupported(self, sampling: Sampling) -> str | None:
        """The settings that the server does not support, in one line; None: it supports all."""
        return refusal(self._capabilities.dialect, sampling)

    def generate(self, request: Request) -> AsyncGenerator[Token]:
        """Streams tokens until a stop token, `max_tokens`, the end of the context, or the deadline, counted from now.

        Closing the generator (or cancelling its task) closes the connection, which ends the generation on the server.

        Raises:
            EngineUnavailable: too many requests, an adapter that is not loaded, no response after several attempts, or
                one that breaks off. EngineError: the prompt is empty or too long, the server does not support a
                sampling setting, or refuses the request.
        """
        return self._stream(request, self._clock() + request.deadline_seconds)

    async def load_adapter(self, folder: Path) -> str:
        """Verifies an adapter, has the server load it, and tests it; returns its name.

        Raises:
            AdapterRefused: it is damaged or for another base, or the server refuses it. EngineError: no response.
        """
        lora = await asyncio.to_thread(read_lora, folder, self.base)
        transcript = adapter_transcript(lora, [self.transcript])
        if lora.name in self._loaded:
            self._retiring.discard(lora.name)
            return lora.name
        if self._fixed_adapter and self._loaded:
            raise AdapterRefused(
                tr("{path}: engine.adapter is fixed; restart the server with this adapter, then doppel", path=folder)
            )
        if not self._fixed_adapter:
            await self._load_on_server(lora)
        self._loaded[lora.name] = lora
        self._transcripts[lora.name] = transcript
        try:
            await self._test(lora.name)
        except EngineError as error:
            await self._unload(lora.name)
            raise AdapterRefused(tr("{path}: failed its test run: {error}", path=folder, error=error)) from None
        return lora.name

    async def drop_adapter(self, name: str) -> None:
        """Refuses new requests for an adapter, and has the server unload it once the active ones are done."""
        if name in self._loaded:
            self._retiring.add(name)
            await self._unload_if_unused(name)

    def health(self) -> Health:
        """A snapshot; never blocks."""
        adapters = tuple(name for name in self._loaded if name not in self._retiring)
        return Health(not self._is_closed and not self._client.breaker.seconds_left, adapters)

    def stats(self) -> EngineStats:
        """A snapshot; never blocks. Requests without a token yet count as waiting, as the server does not say more."""
        active = self._users.total() - self._waiting
        return EngineStats(active=active, max_active=self._max_requests, waiting=self._waiting)

    def close(self) -> None:
        """Refuses new requests; active ones end with EngineError at their next token."""
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
                            raise EngineUnavailable(tr("the engine is closed")) from None
                        raise
                    except TimeoutError:
                        if is_waiting:
                            raise EngineUnavailable(tr("{url} did not respond in time", url=self._client.url)) from None
                        return
                    if self._is_closed:
                        raise EngineUnavailable(tr("the engine is closed"))
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
                await self._unload_if_unused(adapter)

    async def _next(self, tokens: AsyncGenerator[Token], deadline: float) -> Token | None:
        """The next token; None at the end. Raises TimeoutError at the deadline."""
        left = deadline - self._clock()
        if left <= 0:
            raise TimeoutError
        async with asyncio.timeout(left):
            return await anext(tokens, None)

    def _check(self, request: Request) -> None:
        if self._is_closed:
            raise EngineUnavailable(tr("the engine is closed"))
        if not 0 < len(request.prompt) < self.context_length:
            raise EngineError(
                tr(
                    "the prompt has {count} tokens; this model takes 1 to {max_count}",
                    count=len(request.prompt),
                    max_count=self.context_length - 1,
                )
            )
        if request.adapter is not None and (request.adapter not in self._loaded or request.adapter in self._retiring):
            raise EngineUnavailable(tr("adapter {name} is not loaded", name=request.adapter))
        if self._users.total() >= self._max_requests:
            raise EngineBusy(tr("too many requests ({count} active)", count=self._users.total()))
        if reason := self.unsupported(request.sampling):
            raise EngineError(reason)

    async def _tokens(self, request: Request) -> AsyncGenerator[Token]:
        """The server's tokens. If it no longer has the adapter, as after a restart, loads it once more."""
        try:
            async with aclosing(self._attempt(request)) as tokens:
                async for token in tokens:
                    yield token
                return
        except ServerError as error:
            if error.status != 404 or request.adapter is None or self._fixed_adapter:
                raise
        await self._load_on_server(self._loaded[request.adapter])
        async with aclosing(self._attempt(request)) as tokens:
            async for token in tokens:
                yield token

    async def _attempt(self, request: Request) -> AsyncGenerator[Token]:
        server, transcript = self._capabilities, self.transcript_of(request.adapter)
        completion = CompletionStream(transcript, request.stop_ids, server.dialect, sends_text=server.sends_text)
        async with aclosing(self._client.stream("/v1/completions", self._body(request))) as events:
            async for event in events:
                for token in completion.tokens(event):
                    yield token
        if not completion.is_finished:
            raise EngineUnavailable(tr("{url} stopped in the middle of a response", url=self._client.url))

    def _body(self, request: Request) -> dict[str, Any]:
        dialect, tokenizer = self._capabilities.dialect, self.transcript.safe_tokenizer
        forbidden = self._forbidden_ids(self.transcript_of(request.adapter))
        room = self.context_length - len(request.prompt)
        sampling = msgspec.structs.replace(request.sampling, max_tokens=min(request.sampling.max_tokens, room))
        body = parameters(dialect, sampling, tokenizer, forbidden)
        body |= {"model": self._model_name(request.adapter), "stream": True}
        accepts_token_ids = self._capabilities.accepts_token_ids
        body["prompt"] = request.prompt if accepts_token_ids else prompt_text(tokenizer, request.prompt)
        if dialect == "vllm":
            body |= {"return_token_ids": True, "return_tokens_as_token_ids": True, "logprobs": 0}
            body["stop_token_ids"] = sorted(request.stop_ids)
        elif dialect == "sglang":
            body["stop_token_ids"] = sorted(request.stop_ids)
        elif dialect == "llamacpp":
            body |= {"n_probs": 1, "post_sampling_probs": True, "cache_prompt": True}
        return body

    def _forbidden_ids(self, transcript: Transcript) -> list[int]:
        """Tokens that the server must not sample, without those that its model has no logit for: it may refuse them."""
        size = self._vocabulary_size
        return sorted(token for token in transcript.forbidden_ids if size is None or token < size)

    def _model_name(self, adapter: str | None) -> str:
        """The server's name for the base model with an adapter."""
        base = self._capabilities.model
        if adapter is None or self._fixed_adapter:
            return base
        return f"{base}:{adapter}" if self._capabilities.dialect == "sglang" else adapter

    async def _load_on_server(self, lora: Lora) -> None:
        body = {"lora_name": lora.name, "lora_path": self._server_path(lora.folder.resolve())}
        try:
            # vLLM refuses an adapter, for its rank say, with 500.
            await self._client.request("POST", self._adapter_path("load"), body, no_retry=frozenset({500}))
        except ServerError as error:
            if "already" in str(error):
                return
            if error.status in (404, 405):
                raise AdapterRefused(
                    tr(
                        "{url} cannot load adapters while running: start vLLM with --enable-lora and "
                        "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, or start any server with this adapter and set "
                        "`engine: {{adapter: fixed}}` in config.yaml",
                        url=self._client.url,
                    )
                ) from None
            if 400 <= error.status < 500 or error.status == 500:
                raise AdapterRefused(tr("{path}: {error}", path=lora.folder, error=error)) from None
            raise

    def _adapter_path(self, verb: str) -> str:
        return f"{'' if self._capabilities.dialect == 'sglang' else '/v1'}/{verb}_lora_adapter"

    async def _test(self, name: str) -> None:
        """Generates one token, so that a broken adapter is refused now and not at the next reply."""
        prompt = self.transcript_of(name).prompt(Header(), [])
        sampling = Sampling(temperature=0, top_k=0, top_p=1.0, min_p=0.0, max_tokens=1)
        canary = Request(prompt=prompt, sampling=sampling, stop_ids=frozenset(), adapter=name)
        async with aclosing(self.generate(canary)) as tokens:
            async for _ in tokens:
                pass

    async def _unload_if_unused(self, name: str) -> None:
        if not self._users[name]:
            await self._unload(name)

    async def _unload(self, name: str) -> None:
        self._retiring.discard(name)
        if self._loaded.pop(name, None) is None:
            return
        self._transcripts.pop(name, None)
        if self._fixed_adapter:
            return
        try:
            await self._client.request("POST", self._adapter_path("unload"), {"lora_name": name})
        except EngineError as error:  # it only takes memory there
            log.warning(tr("could not unload adapter {name} from the server: {error}", name=name, error=error))


def text_config_of(folder: Path) -> "PreTrainedConfig":
    """The configuration of a base's language model, with its context length and vocabulary size."""
    from transformers import AutoConfig

    config: PreTrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=True).get_text_config()
    return config


def _identity_of_adapter(adapters_dir: Path, base_id: str) -> BaseIdentity:
    """The base's identity if its weights are not on this machine: the one in the current adapter's manifest."""
    with suppress(DoppelError, OSError):
        folder = current_version(adapters_dir)
        manifest = read_manifest(folder) if folder else None
        if manifest is not None and manifest.base.id == base_id:
            return manifest.base
    return BaseIdentity(base_id, "")


def _server_path(adapters: Path, remote_root: str) -> Callable[[Path], str]:
    """Maps the path of an adapter's folder to the server's file system."""

    def map_path(folder: Path) -> str:
        root = adapters.resolve()
        return f"{remote_root}/{folder.relative_to(root).as_posix()}" if folder.is_relative_to(root) else str(folder)

    return map_path
