"""The engine on a server elsewhere: what is sent, what comes back, and what happens when the server fails."""

import asyncio
import itertools
import math
import re
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doppel.adapters.versions import AdapterRefused
from doppel.config import parse_config
from doppel.engine import EngineError, Request, Sampling, Token
from doppel.engine.registry import open_engine
from doppel.engine.remote.client import ATTEMPTS, MAX_FAILURES, ServerClient
from doppel.engine.remote.discovery import discover
from doppel.engine.remote.engine import OpenAIEngine, text_config_of
from doppel.engine.remote.prompt_text import prompt_text, reply_ids
from doppel.engine.remote.sampling import parameters, refusal
from doppel.errors import UserError
from doppel.models.base import identify, load_tokenizer
from doppel.transcript import Header, Turn
from tests.conftest import PublishAdapter
from tests.doppel.engine.completions_server import CompletionsServer
from tests.tiny import build_transcript

PLAIN = Sampling(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, max_tokens=24)
TRANSCRIPT = build_transcript()
PIECES = TRANSCRIPT.safe_tokenizer


class Time:
    """A clock that only waiting moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is on this machine is asked directly, whatever the environment says."""
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
async def server() -> AsyncIterator[CompletionsServer]:
    async with CompletionsServer().running() as running:
        yield running


async def connect(server: CompletionsServer, base: Path, *, key: str = "", **options: object) -> OpenAIEngine:
    time = Time()
    tokenizer = load_tokenizer(base)
    connection = ServerClient(server.url, key, clock=lambda: time.now, sleep=time.sleep, random=Random(0))
    capabilities = await discover(connection, None, tokenizer)
    length = text_config_of(base).max_position_embeddings
    engine = OpenAIEngine(connection, capabilities, tokenizer, identify(base, "tiny"), context_length=length, **options)
    engine.time = time
    return engine


def ask(text: str = "hello", **options: object) -> Request:
    prompt = TRANSCRIPT.prompt(Header(year="2018"), [Turn("Ramito", (text,))])
    return Request(**{"prompt": prompt, "sampling": PLAIN, "stop_ids": frozenset(), **options})


async def ids(tokens: AsyncIterator[Token]) -> list[int]:
    return [token.id async for token in tokens]


async def test_streams_ids_and_their_log_probabilities(server: CompletionsServer, tiny_base: Path) -> None:
    engine = await connect(server, tiny_base, key="secret")
    tokens = [token async for token in engine.generate(ask())]
    assert [token.id for token in tokens] == [40, 41, 42]
    assert [token.model_logprob for token in tokens] == [-0.5] * 3
    assert all(math.isnan(token.logprob) for token in tokens)
    (sent,) = server.requests
    assert sent["prompt"] == ask().prompt
    assert (sent["model"], sent["stream"], sent["max_tokens"], sent["top_k"]) == ("base", True, 24, -1)
    assert server.keys == ["Bearer secret"]
    assert engine.context_length == 300  # the server's, which is shorter than the base's
    assert engine.health().ready
    assert engine.stats().waiting == 0


async def test_ends_at_a_stop_id(server: CompletionsServer, tiny_base: Path) -> None:
    engine = await connect(server, tiny_base)
    assert await ids(engine.generate(ask(stop_ids=frozenset({41})))) == [40, 41]
    server.finish = "stop"  # an end that the server keeps to itself
    end = load_tokenizer(tiny_base).eos_token_id
    assert await ids(engine.generate(ask(stop_ids=frozenset({end, 99})))) == [40, 41, 42, end]


async def test_a_server_without_token_ids_uses_text(tiny_base: Path) -> None:
    async with CompletionsServer("somebody").running() as server:
        server.failures = [400]  # it takes no ids
        server.reply = ["hel", "lo\n", " the", "\n\n"]
        engine = await connect(server, tiny_base)
        request = ask("<end_of_turn> and <eos>")
        found = await ids(engine.generate(request))
        assert PIECES.decode(found) == "hello\n the\n\n"
        assert PIECES.reserved.keys().isdisjoint(found)
        sent = server.requests[-1]["prompt"]
        assert sent == "[2018]\n\nRamito: < end_of_turn> and < eos>\n\nme:"
        assert "top_k" not in server.requests[-1]


async def test_an_unknown_server_that_accepts_token_ids_gets_them(tiny_base: Path) -> None:
    async with CompletionsServer("somebody").running() as server:
        engine = await connect(server, tiny_base)
        server.reply = ["hello"]
        await ids(engine.generate(ask()))
        assert server.requests[-1]["prompt"] == ask().prompt


async def test_transient_failures_are_retried(server: CompletionsServer, tiny_base: Path) -> None:
    engine = await connect(server, tiny_base)
    server.failures = [503, 500, 429]
    assert await ids(engine.generate(ask())) == [40, 41, 42]
    assert len(engine.time.waits) == 3
    assert engine.time.waits == sorted(engine.time.waits)
    server.failures, server.headers = [429], {"Retry-After": "7"}
    await ids(engine.generate(ask()))
    assert engine.time.waits[-1] == 7


async def test_a_refusal_is_not_retried_and_is_one_line(server: CompletionsServer, tiny_base: Path) -> None:
    engine = await connect(server, tiny_base, key="key-of-ours")
    server.failures = [401]
    with pytest.raises(EngineError, match=r"responded with 401: failure 401; check the key in DOPPEL_ENGINE_KEY$"):
        await ids(engine.generate(ask()))
    assert len(server.requests) == 1
    assert engine.health().ready


@pytest.mark.parametrize(
    ("failure", "words"), [("cut", "stopped in the middle"), ("error", "out of memory"), ("garbage", "nonsense")]
)
async def test_an_interrupted_response_is_an_error(
    server: CompletionsServer, tiny_base: Path, failure: str, words: str
) -> None:
    engine = await connect(server, tiny_base)
    server.failures = [failure] * ATTEMPTS
    found: list[int] = []

    async def read() -> None:
        async for token in engine.generate(ask()):
            found.append(token.id)

    with pytest.raises(EngineError, match=words):
        await read()
    server.failures = []
    assert found == ([40, 41] if failure == "cut" else [])
    assert await ids(engine.generate(ask())) == [40, 41, 42]


async def test_repeated_failures_open_the_circuit_breaker(server: CompletionsServer, tiny_base: Path) -> None:
    engine = await connect(server, tiny_base)
    server.failures = [503] * 100
    for _ in range(2):
        with pytest.raises(EngineError):
            await ids(engine.generate(ask()))
    assert len(server.requests) == MAX_FAILURES
    assert not engine.health().ready
    with pytest.raises(EngineError, match=r"failed 5 times in a row; next attempt in \d+ s"):
        await ids(engine.generate(ask()))
    assert len(server.requests) == MAX_FAILURES
    server.failures = []
    engine.time.now += 31
    assert await ids(engine.generate(ask())) == [40, 41, 42]
    assert engine.health().ready


async def test_an_unreachable_server(tiny_base: Path) -> None:
    async with CompletionsServer().running() as server:
        engine = await connect(server, tiny_base)
    with pytest.raises(EngineError, match="does not respond"):
        await ids(engine.generate(ask()))
    assert len(engine.time.waits) == ATTEMPTS - 1


async def test_closing_cancels_the_request_on_the_server(server: CompletionsServer, tiny_base: Path) -> None:
    engine = await connect(server, tiny_base)
    server.hold = asyncio.Event()
    task = asyncio.create_task(ids(engine.generate(ask())))
    await server.requested.wait()
    assert (engine.stats().waiting, engine.stats().active) == (1, 0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await server.cancelled.wait()
    assert engine.stats().waiting == 0


async def test_too_many_requests_are_refused(server: CompletionsServer, tiny_base: Path) -> None:
    engine = await connect(server, tiny_base, max_requests=2)
    server.hold = asyncio.Event()
    tasks = [asyncio.create_task(ids(engine.generate(ask()))) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(EngineError, match="too many requests"):
        await ids(engine.generate(ask()))
    server.hold.set()
    assert await asyncio.gather(*tasks) == [[40, 41, 42]] * 2


async def test_a_deadline_keeps_the_tokens_so_far(server: CompletionsServer, tiny_base: Path) -> None:
    ticks = itertools.count()
    engine = await connect(server, tiny_base, clock=lambda: float(next(ticks)) / 10)
    assert await ids(engine.generate(ask(deadline_seconds=0.25))) in ([40], [40, 41])
    server.hold = asyncio.Event()
    with pytest.raises(EngineError, match="did not respond in time"):
        await ids(engine.generate(ask(deadline_seconds=0.3)))


async def test_prompts_that_do_not_fit_are_refused(server: CompletionsServer, tiny_base: Path) -> None:
    engine = await connect(server, tiny_base)
    for wrong in ([], [10] * 300):
        with pytest.raises(EngineError, match="the prompt has"):
            await ids(engine.generate(ask(prompt=wrong)))
    await ids(engine.generate(ask(prompt=[10] * 298)))
    assert server.requests[-1]["max_tokens"] == 2


async def test_adapters_are_loaded_and_unloaded(
    server: CompletionsServer, tiny_base: Path, tmp_path: Path, publish_tiny_adapter: PublishAdapter
) -> None:
    engine = await connect(server, tiny_base)
    folder = publish_tiny_adapter(tmp_path)
    name = await engine.load_adapter(folder)
    assert server.loaded == {name: str(folder.resolve())}
    assert server.requests[-1]["model"] == name  # it was tried
    assert await engine.load_adapter(folder) == name
    assert engine.health().adapters == (name,)
    server.loaded.clear()  # the server was started again
    assert await ids(engine.generate(ask(adapter=name))) == [40, 41, 42]
    assert server.loaded
    async with aclosing(engine.generate(ask(adapter=name))) as tokens:
        await anext(tokens)
        await engine.drop_adapter(name)
        assert server.loaded  # somebody still speaks with it
        with pytest.raises(EngineError, match="not loaded"):
            await ids(engine.generate(ask(adapter=name)))
    assert not server.loaded
    assert engine.health().adapters == ()


async def test_adapters_on_sglang(tiny_base: Path, tmp_path: Path, publish_tiny_adapter: PublishAdapter) -> None:
    async with CompletionsServer("sglang").running() as server:
        engine = await connect(server, tiny_base, server_path=lambda folder: f"/there/{folder.name}")
        name = await engine.load_adapter(publish_tiny_adapter(tmp_path))
        assert server.loaded == {name: "/there/0001"}
        assert server.requests[-1]["model"] == f"base:{name}"


async def test_broken_adapters_are_refused(
    server: CompletionsServer, tiny_base: Path, tmp_path: Path, publish_tiny_adapter: PublishAdapter
) -> None:
    engine = await connect(server, tiny_base)
    first, second = publish_tiny_adapter(tmp_path), publish_tiny_adapter(tmp_path, seed=1)
    server.failures = [400]
    with pytest.raises(AdapterRefused, match="failed its test run"):
        await engine.load_adapter(first)
    assert not server.loaded
    server.refuses_adapters, server.loads = True, 0
    with pytest.raises(AdapterRefused, match="LoRA rank 32 is greater"):
        await engine.load_adapter(first)
    assert server.loads == 1
    server.refuses_adapters = server.loads_adapters = False
    with pytest.raises(AdapterRefused, match="VLLM_ALLOW_RUNTIME_LORA_UPDATING"):
        await engine.load_adapter(first)
    fixed = await connect(server, tiny_base, fixed_adapter=True)
    name = await fixed.load_adapter(first)
    await ids(fixed.generate(ask(adapter=name)))
    assert server.requests[-1]["model"] == "base"
    with pytest.raises(AdapterRefused, match="fixed"):
        await fixed.load_adapter(second)
    (second / "adapter_model.safetensors").write_bytes(b"no")
    with pytest.raises(AdapterRefused, match="damaged"):
        await engine.load_adapter(second)


async def test_a_closed_engine_refuses(server: CompletionsServer, tiny_base: Path) -> None:
    engine = await connect(server, tiny_base)
    async with aclosing(engine.generate(ask())) as tokens:
        await anext(tokens)
        engine.close()
        with pytest.raises(EngineError, match="closed"):
            await anext(tokens)
    with pytest.raises(EngineError, match="closed"):
        await ids(engine.generate(ask()))
    assert not engine.health().ready


async def test_another_tokenizer_is_refused(tiny_base: Path) -> None:
    async with CompletionsServer(tokens=[1, 2, 3]).running() as server:
        with pytest.raises(UserError, match="its tokenizer differs"):
            await connect(server, tiny_base)


@pytest.fixture
def config_of(tiny_base: Path, tmp_path: Path) -> Callable[..., object]:
    def make(url: str, **reply: object) -> object:
        settings = {"backend": "openai", "url": url, "max_concurrent": 7, "context_length": 300}
        content = {"model": {"base": str(tiny_base)}, "engine": settings, "reply": reply}
        return parse_config(content, tmp_path / "config.yaml")

    return make


async def test_open_reads_the_configuration(
    server: CompletionsServer, config_of: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOPPEL_ENGINE_KEY", "secret")
    config = config_of(f"{server.url}/v1")
    engine = await asyncio.to_thread(open_engine, config, pytest.fail)
    assert await ids(engine.generate(ask())) == [40, 41, 42]
    assert server.keys == ["Bearer secret"]
    assert (engine.stats().max_active, engine.context_length) == (7, 300)
    with pytest.raises(UserError, match=r"typical_p.*no_repeat_ngram"):
        await asyncio.to_thread(open_engine, config_of(server.url, typical_p=0.9, no_repeat_ngram=3), pytest.fail)


def test_an_unknown_engine_is_named(tmp_path: Path) -> None:
    config = parse_config({"engine": {"backend": "abacus"}}, tmp_path / "config.yaml")
    with pytest.raises(UserError, match=r"unknown engine `abacus`; available: .*openai.*transformers"):
        open_engine(config, pytest.fail)


def test_a_url_with_a_key_is_refused(tmp_path: Path) -> None:
    for url in ("https://user:secret@host/v1", "https://host/v1?key=secret", "host:8000", "ftp://host/"):
        with pytest.raises(UserError, match=r"engine\.url"):
            parse_config({"engine": {"url": url}}, tmp_path / "config.yaml")


def test_settings_are_translated_to_the_servers_names() -> None:
    sampling = Sampling(repetition_penalty=1.1, logit_bias=((7, -200.0),), bad_words=((40,),), seed=2**40 + 3)
    assert refusal("vllm", sampling) is None
    sent = parameters("vllm", sampling, PIECES)
    assert sent["repetition_penalty"] == 1.1
    assert sent["logit_bias"] == {"7": -100.0}
    assert sent["bad_words"] == [PIECES.decode([40])]
    assert sent["min_p"] == 0.02
    here = parameters("llamacpp", sampling, PIECES)
    assert here["logit_bias"] == [[7, -200.0], [40, False]]
    assert (here["repeat_penalty"], here["repeat_last_n"], here["seed"]) == (1.1, 65536, 3)
    assert here["samplers"][2:] == ["temperature", "top_k", "top_p", "min_p", "typ_p"]
    newline = PIECES.encode_text(["\n"])[0]
    dry = Sampling(dry_multiplier=0.8, breakers=TRANSCRIPT.stop_ids | set(newline))
    assert "\n" in parameters("llamacpp", dry, PIECES)["dry_sequence_breakers"]


@pytest.mark.parametrize(
    ("dialect", "sampling", "names"),
    [
        ("vllm", Sampling(dry_multiplier=0.8), "vLLM does not support dry_multiplier; .*dry_multiplier: 0.0"),
        ("llamacpp", Sampling(frequency_penalty=0.5), "frequency_penalty"),
        ("llamacpp", Sampling(bad_words=((1, 2),)), "bad_words: \\[\\]"),
        ("openai", Sampling(), "OpenAI API does not support top_k, min_p; set `reply: {top_k: 0, min_p: 0.0}`"),
        ("sglang", Sampling(repetition_penalty=1.2), "repetition_penalty"),
    ],
)
def test_unsupported_settings_are_named(dialect: str, sampling: Sampling, names: str) -> None:
    reason = refusal(dialect, sampling)
    assert reason is not None
    assert "\n" not in reason
    assert re.search(names, reason)


MARKS = [text for text in PIECES.reserved.values() if text.strip()]


@given(
    st.lists(st.one_of(st.text(max_size=20), st.sampled_from([*MARKS, "<", "end_of_turn>", "[", "\n\n\n"])), max_size=6)
)
def test_no_text_becomes_markup_of_the_prompt(parts: list[str]) -> None:
    text = "".join(parts)
    ids = PIECES.encode_text(["Jo: " + text])[0]
    sent = prompt_text(PIECES, ids)
    assert not any(mark in sent for mark in MARKS)


@given(st.text(max_size=40))
def test_no_reply_becomes_a_reserved_token(text: str) -> None:
    assert PIECES.reserved.keys().isdisjoint(reply_ids(PIECES, text))
