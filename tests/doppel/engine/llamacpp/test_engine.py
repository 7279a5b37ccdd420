"""llama.cpp in this process says what transformers says, takes up adapters without losing a request, and cancels."""

import asyncio
import importlib.util
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import gguf
import msgspec
import pytest
import torch

from doppel.adapters.export import base_gguf
from doppel.adapters.versions import AdapterRefused
from doppel.config import cache_dir, parse_config
from doppel.engine import EngineError, Request, Sampling, Token, unsupported
from doppel.engine.llamacpp.engine import LlamaCppEngine
from doppel.engine.local.lora import LoraAdapters
from doppel.engine.registry import open_engine
from doppel.engine.remote.engine import OpenAIEngine
from doppel.errors import UserError
from doppel.models.base import identify, load_model, load_tokenizer
from doppel.transcript import Header, Transcript, Turn
from tests.conftest import PublishAdapter
from tests.families import random_lora, save_family
from tests.tiny import build_base

GREEDY = Sampling(temperature=0, max_tokens=24)
Open = Callable[..., LlamaCppEngine]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_family("qwen3", tmp_path_factory.mktemp("llamacpp") / "base")


@pytest.fixture(scope="module")
def exact(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base as GGUF with nothing rounded."""
    file = tmp_path_factory.mktemp("llamacpp") / "base.gguf"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base_gguf, "_kind", lambda values: gguf.GGMLQuantizationType.F32)
        base_gguf.write_base(base, file)
    return file


@pytest.fixture
def open_it(base: Path, exact: Path) -> Iterator[Open]:
    """`open_it(**options)` makes an engine on the exact base; closed after the test."""
    opened = []

    def open_(**options: object) -> LlamaCppEngine:
        tokenizer, identity = load_tokenizer(base), identify(base, "tiny")
        engine = LlamaCppEngine(
            exact, base, tokenizer, identity, **{"sends_text": False, "threads": 1, "on_cpu": True, **options}
        )
        opened.append(engine)
        return engine

    yield open_
    for engine in opened:
        engine.close()


@pytest.fixture
def engine(open_it: Open) -> LlamaCppEngine:
    return open_it()


def ask(engine: LlamaCppEngine, text: str = "hello", **options: object) -> Request:
    prompt = engine.transcript.prompt(Header(year="2018"), [Turn("Ramito", (text,))])
    return Request(**{"prompt": prompt, "sampling": GREEDY, "stop_ids": frozenset(), **options})


async def ids(tokens: AsyncIterator[Token]) -> list[int]:
    return [token.id async for token in tokens]


def sampled(seed: int = 0, **options: object) -> Sampling:
    return Sampling(**{"temperature": 1.0, "max_tokens": 24, "seed": seed, **options})


def greedy(model: torch.nn.Module, transcript: Transcript, prompt: list[int], count: int = 24) -> list[int]:
    """The likeliest continuation without markup tokens according to transformers."""
    found: list[int] = []
    with torch.no_grad():
        for _ in range(count):
            logits = model(torch.tensor([prompt + found])).logits[0, -1]
            logits[[token for token in transcript.forbidden_ids if token < len(logits)]] = -torch.inf
            found.append(int(logits.argmax()))
    return found


def agrees(actual: list[int], expected: list[int], end: int) -> bool:
    """Equal, where the end of text ends it."""
    return actual == (expected[: expected.index(end)] if end in expected else expected)


async def test_base_and_adapters_agree_with_transformers(engine: LlamaCppEngine, base: Path, tmp_path: Path) -> None:
    end = load_tokenizer(base).eos_token_id
    model = load_model(base, torch.float32)
    lora = random_lora(base, tmp_path)
    name = await engine.load_adapter(lora.folder)
    assert name == lora.name
    assert engine.health().adapters == (name,)
    for text in ("hi", "and a longer one, of several words and more " * 3):
        request = ask(engine, text)
        assert agrees(await ids(engine.generate(request)), greedy(model, engine.transcript, request.prompt), end)
    adapters = LoraAdapters(model)
    adapters.attach(lora)
    adapters.activate(lora.name)
    request = ask(engine, adapter=name)
    expected = greedy(model, engine.transcript, request.prompt)
    assert agrees(await ids(engine.generate(request)), expected, end)
    assert not agrees(await ids(engine.generate(ask(engine))), expected, end)


async def test_tokens_carry_their_sampling_log_probability(engine: LlamaCppEngine) -> None:
    tokens = [token async for token in engine.generate(ask(engine, sampling=sampled(top_k=3, top_p=1.0, min_p=0.0)))]
    assert all(token.logprob <= 0 for token in tokens)
    first = await ids(engine.generate(ask(engine, sampling=sampled(4))))
    assert await ids(engine.generate(ask(engine, sampling=sampled(4)))) == first


async def test_stops_at_a_stop_id_and_streams_it(engine: LlamaCppEngine) -> None:
    whole = await ids(engine.generate(ask(engine)))
    stop = whole[3]
    assert await ids(engine.generate(ask(engine, stop_ids=frozenset({stop})))) == whole[: whole.index(stop) + 1]


async def test_closing_the_generator_cancels_the_request(open_it: Open) -> None:
    engine = open_it(slots=1)
    never = {"logit_bias": ((load_tokenizer(engine._base_folder).eos_token_id, -100.0),)}
    async with aclosing(engine.generate(ask(engine, sampling=sampled(max_tokens=480, **never)))) as tokens:
        await anext(tokens)
    # The only slot is free again long before 480 tokens are over.
    assert await asyncio.wait_for(ids(engine.generate(ask(engine))), 30)


async def test_concurrent_requests_are_all_answered(engine: LlamaCppEngine) -> None:
    alone = [await ids(engine.generate(ask(engine, f"number {n}"))) for n in range(9)]
    together = await asyncio.gather(*(ids(engine.generate(ask(engine, f"number {n}"))) for n in range(9)))
    assert [len(reply) for reply in together] == [len(reply) for reply in alone]


async def test_replacing_an_adapter_loses_no_request(engine: LlamaCppEngine, base: Path, tmp_path: Path) -> None:
    never = sampled(max_tokens=200, logit_bias=((load_tokenizer(base).eos_token_id, -100.0),))
    old = await engine.load_adapter(random_lora(base, tmp_path / "a").folder)
    under_way = asyncio.create_task(ids(engine.generate(ask(engine, adapter=old, sampling=never))))
    new = await engine.load_adapter(random_lora(base, tmp_path / "b", r=2).folder)
    await engine.drop_adapter(old)
    assert engine.health().adapters == (new,)
    assert await ids(engine.generate(ask(engine, adapter=new)))
    assert len(await under_way) == 200
    assert old not in engine._running
    with pytest.raises(EngineError, match="not loaded"):
        await ids(engine.generate(ask(engine, adapter=old)))


async def test_adapters_are_converted_once(
    engine: LlamaCppEngine, open_it: Open, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lora = random_lora(base, tmp_path)
    name = await engine.load_adapter(lora.folder)
    assert await engine.load_adapter(lora.folder) == name
    (own,) = (cache_dir() / "llamacpp" / "adapters").glob(f"{name}-*.gguf")
    old = own.with_name("long-ago.gguf")
    old.touch()
    for file in (own, old):
        os.utime(file, (0, 0))
    monkeypatch.setattr("doppel.engine.llamacpp.engine.write_gguf", lambda *_: pytest.fail("converted again"))
    assert await open_it().load_adapter(lora.folder) == name
    assert own.is_file()  # it was wanted again
    assert not old.exists()


async def test_bad_adapters_are_refused(
    engine: LlamaCppEngine, base: Path, tmp_path: Path, publish_tiny_adapter: PublishAdapter
) -> None:
    with pytest.raises(AdapterRefused, match="another base"):
        await engine.load_adapter(publish_tiny_adapter(tmp_path / "other"))
    lora = random_lora(base, tmp_path / "broken")
    file = engine._convert(lora)
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(AdapterRefused, match=r"llama\.cpp failed to start"):
        await engine.load_adapter(lora.folder)
    assert engine.health().adapters == ()
    file.unlink()
    assert await engine.load_adapter(lora.folder) == lora.name


async def test_closing_the_engine_ends_requests(open_it: Open) -> None:
    engine = open_it(slots=1)
    tasks = [
        asyncio.create_task(ids(engine.generate(ask(engine, sampling=sampled(n, max_tokens=480))))) for n in range(3)
    ]
    await ids(engine.generate(ask(engine, sampling=sampled(max_tokens=1))))
    engine.close()
    ended = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 30)
    assert all(isinstance(reply, EngineError | list) for reply in ended)
    assert not engine.health().ready
    with pytest.raises(EngineError, match="closed"):
        await ids(engine.generate(ask(engine)))


@pytest.mark.parametrize("family", ["gemma3", "gemma4", "llama", "mistral", "qwen2", "qwen3_5", "glm4"])
async def test_every_family_is_converted(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_gguf, "_kind", lambda values: gguf.GGMLQuantizationType.F32)
    folder = save_family(family, tmp_path / "base", tied=family == "gemma3")
    base_gguf.write_base(folder, tmp_path / "base.gguf")
    tokenizer = load_tokenizer(folder)
    engine = LlamaCppEngine(
        tmp_path / "base.gguf", folder, tokenizer, identify(folder, "tiny"), sends_text=False, threads=1, on_cpu=True
    )
    try:
        request = ask(engine, "a prompt that is longer than the window of 32 tokens")
        model = load_model(folder, torch.float32)
        longer = [*request.prompt, 50, 51]
        continued = [longer, [*longer[:-8], 52]] if family in {"gemma4", "qwen3_5"} else []  # with states to take up
        for prompt in (request.prompt, *continued):
            expected = greedy(model, engine.transcript, prompt, 12)
            actual = await ids(engine.generate(msgspec.structs.replace(request, prompt=prompt)))
            assert agrees(actual[:12], expected, tokenizer.eos_token_id)
    finally:
        engine.close()


def test_a_model_that_llama_cpp_computes_differently_is_not_converted(tmp_path: Path) -> None:
    folder = build_base(tmp_path / "base")  # its full attention is where llama.cpp's gemma has none
    with pytest.raises(UserError, match=r"engine\.gguf"):
        base_gguf.write_base(folder, tmp_path / "base.gguf")


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("glm", {}),
        ("gemma4", {"num_kv_shared_layers": 1}),  # llama.cpp would share the values of other layers
        ("gemma4", {"attention_bias": True}),
        ("gemma4", {"vocab_size_per_layer_input": 100}),
        ("qwen3_5", {"linear_value_head_dim": 32}),
        ("qwen3_5", {"layer_types": ["full_attention", "linear_attention", "full_attention", "linear_attention"]}),
    ],
)
def test_a_configuration_that_llama_cpp_does_not_have_is_refused(
    family: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    folder = save_family(family, tmp_path / "base", **changes)
    with pytest.raises(UserError, match=r"engine\.gguf"):
        base_gguf.write_base(folder, tmp_path / "base.gguf")


async def test_open_reads_the_configuration(base: Path, tmp_path: Path) -> None:
    settings = {"backend": "llamacpp", "max_concurrent": 2, "context_length": 300, "prefix_cache_gb": 0}
    content = {"model": {"base": str(base), "device": "cpu"}, "engine": settings}
    config = parse_config(content, tmp_path / "config.yaml")
    lines: list[str] = []
    engine = await asyncio.to_thread(open_engine, config, lines.append)
    try:
        assert lines == [f"Converting {base} for llama.cpp, once …"]
        assert engine.base == identify(base, str(base))
        assert engine.context_length == 300
        assert await ids(engine.generate(ask(engine)))
        assert engine.stats().max_active == 2
    finally:
        engine.close()
    (await asyncio.to_thread(open_engine, config, pytest.fail)).close()


def test_missing_packages_and_files_are_named(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def config(**engine: object) -> object:
        content = {"model": {"base": str(base)}, "engine": {"backend": "llamacpp", **engine}}
        return parse_config(content, tmp_path / "config.yaml")

    with pytest.raises(UserError, match=r"engine\.gguf: .*none\.gguf cannot be read: No such file"):
        open_engine(config(gguf="none.gguf"), pytest.fail)
    (tmp_path / "text.gguf").write_text("no model")
    with pytest.raises(UserError, match="is not a GGUF file"):
        open_engine(config(gguf="text.gguf"), pytest.fail)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'doppel\[llamacpp\]'"):
        open_engine(config(), pytest.fail)


def test_unsupported_settings_are_refused_before_loading(tmp_path: Path) -> None:
    content = {"engine": {"backend": "llamacpp"}, "model": {"base": "nowhere"}, "reply": {"no_repeat_ngram": 3}}
    with pytest.raises(
        UserError, match=r"llama\.cpp does not support no_repeat_ngram; set `reply: {no_repeat_ngram: 0}`"
    ):
        open_engine(parse_config(content, tmp_path / "config.yaml"), pytest.fail)


def test_unsupported_settings_are_named(engine: LlamaCppEngine) -> None:
    assert unsupported(engine, Sampling()) is None
    assert "no_repeat_ngram" in str(unsupported(engine, Sampling(no_repeat_ngram=3)))


@pytest.mark.slow
async def test_the_bundled_base_in_process_and_as_a_server(
    bundled_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Emoji and Chinese are several tokens a character, of which llama.cpp sends only the last."""
    config = parse_config({"engine": {"backend": "llamacpp"}}, tmp_path / "config.yaml")
    engine = await asyncio.to_thread(open_engine, config, lambda line: None)
    try:
        pieces = engine.transcript.safe_tokenizer
        prompt = pieces.encode_markup("<bos>") + pieces.encode_text(["🦖🦕🦖🦕🦖🦕🦖🦕🦖🦕🦖🦕"])[0]
        request = Request(prompt=prompt, sampling=Sampling(temperature=0, max_tokens=12), stop_ids=frozenset())
        said = pieces.decode(await ids(engine.generate(request)))
        assert "🦖" in said
        assert "\ufffd" not in said
        (instance, _) = engine._running[None]
        monkeypatch.setenv("DOPPEL_ENGINE_KEY", instance.key)
        there = {"engine": {"backend": "openai", "url": f"{instance.url}/v1"}}
        remote = await asyncio.to_thread(open_engine, parse_config(there, tmp_path / "config.yaml"), pytest.fail)
        assert isinstance(remote, OpenAIEngine)
        assert pieces.decode(await ids(remote.generate(request))) == said
    finally:
        engine.close()
