"""The transformers engine on a tiny model: streams, cancels, keeps its bounds, and survives what fails."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from doppel.config import parse_config
from doppel.engine import EngineBusy, EngineError, PrefixCaching, Request, Sampling, Token
from doppel.engine.local.engine import TransformersEngine
from doppel.errors import UserError
from doppel.models import quantize
from doppel.models.base import identify, load_model, load_tokenizer
from doppel.transcript import Header, Turn
from tests.conftest import PublishAdapter
from tests.doppel.conftest import Open

GREEDY = Sampling(temperature=0, max_tokens=24)


@pytest.fixture
def engine(open_engine: Open) -> TransformersEngine:
    return open_engine()


def ask(engine: TransformersEngine, text: str = "hello", **options: object) -> Request:
    prompt = engine.transcript.prompt(Header(year="2018"), [Turn("Ramito", (text,))])
    return Request(**{"prompt": prompt, "sampling": GREEDY, "stop_ids": frozenset(), **options})


async def ids(tokens: AsyncIterator[Token]) -> list[int]:
    return [token.id async for token in tokens]


def sampled(seed: int | None = 0, **options: object) -> Sampling:
    return Sampling(**{"temperature": 1.0, "max_tokens": 24, "seed": seed, **options})


async def test_greedy_equals_plain_generate(engine: TransformersEngine, tiny_base: Path) -> None:
    model = load_model(tiny_base, torch.float32)
    for text in ("hi", "a longer one, past the sliding window of 32 tokens " * 3):
        request = ask(engine, text)
        expected = model.generate(
            torch.tensor([request.prompt]),
            do_sample=False,
            max_new_tokens=24,
            eos_token_id=-1,
            suppress_tokens=sorted(engine.transcript.forbidden_ids),
        )
        assert await ids(engine.generate(request)) == expected[0, len(request.prompt) :].tolist()


async def test_a_prompt_longer_than_a_prefill_step(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("doppel.engine.local.decoding._PREFILL_TOKENS", 50)
    model = load_model(tiny_base, torch.float32)
    engine = TransformersEngine(model, load_tokenizer(tiny_base), identify(tiny_base, "tiny"))
    request = ask(engine, "seventy and more " * 12)
    assert len(request.prompt) > 150
    try:
        actual = await ids(engine.generate(request))
    finally:
        engine.close()
    expected = model.generate(
        torch.tensor([request.prompt]),
        do_sample=False,
        max_new_tokens=24,
        eos_token_id=-1,
        suppress_tokens=sorted(engine.transcript.forbidden_ids),
    )
    assert actual == expected[0, len(request.prompt) :].tolist()


def test_the_head_gets_packed_hidden_states(tiny_base: Path) -> None:
    """A slice with the prompt's stride makes torch copy a frozen head: seconds, where 0.2 s are due."""
    strides = []
    model = load_model(tiny_base, torch.float32)
    model.get_output_embeddings().register_forward_pre_hook(lambda _, inputs: strides.append(inputs[0].stride()))
    with torch.inference_mode():
        model(torch.ones(1, 39, dtype=torch.long), logits_to_keep=1)
    assert strides == [(32, 32, 1)]


async def test_a_seed_gives_the_same_tokens_in_any_batch(engine: TransformersEngine) -> None:
    alone = await ids(engine.generate(ask(engine, sampling=sampled(5))))
    others = [ids(engine.generate(ask(engine, f"other {n}", sampling=sampled(n)))) for n in range(3)]
    together = await asyncio.gather(ids(engine.generate(ask(engine, sampling=sampled(5)))), *others)
    assert together[0] == alone
    assert await ids(engine.generate(ask(engine, sampling=sampled(6)))) != alone


async def test_stops_at_a_stop_id_and_streams_it(engine: TransformersEngine) -> None:
    whole = await ids(engine.generate(ask(engine)))
    stop = whole[5]
    until = whole[: whole.index(stop) + 1]
    assert await ids(engine.generate(ask(engine, stop_ids=frozenset({stop})))) == until


async def test_ends_at_the_end_of_the_context(engine: TransformersEngine) -> None:
    prompt = ask(engine).prompt
    prompt += [10] * (engine.context_length - len(prompt) - 3)
    assert len(await ids(engine.generate(ask(engine, prompt=prompt)))) == 3
    for wrong in ([], [10] * engine.context_length):
        with pytest.raises(EngineError, match="the prompt has"):
            await ids(engine.generate(ask(engine, prompt=wrong)))


async def test_requests_take_turns(open_engine: Open) -> None:
    engine = open_engine(max_active=2)
    order: list[str] = []

    async def run(name: str, count: int) -> None:
        async for _ in engine.generate(ask(engine, name, sampling=sampled(max_tokens=count))):
            order.append(name)

    await asyncio.gather(run("long", 60), run("short", 5), run("third", 5))
    assert order.count("long") == 60
    assert order[-1] == "long"
    assert order.index("third") > max(place for place, name in enumerate(order) if name == "short")


async def test_closing_stops_within_a_token(engine: TransformersEngine) -> None:
    forwards = count_forwards(engine)
    async with aclosing(engine.generate(ask(engine, sampling=sampled(max_tokens=400)))) as tokens:
        async for _ in tokens:
            if forwards() >= 5:
                break
    at_close = forwards()
    await ids(engine.generate(ask(engine, sampling=sampled(max_tokens=1))))
    assert forwards() <= at_close + 2  # at most the step under way, and the next request's only one


async def test_cancelling_the_task_stops_it(engine: TransformersEngine) -> None:
    begun = asyncio.Event()

    async def read() -> None:
        async for _ in engine.generate(ask(engine, sampling=sampled(max_tokens=400))):
            begun.set()

    task = asyncio.create_task(read())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    forwards = count_forwards(engine)
    await ids(engine.generate(ask(engine, sampling=sampled(max_tokens=3))))
    assert forwards() <= 4


async def test_the_prefix_cache_can_be_cleared_also_of_a_cancelled_request(engine: TransformersEngine) -> None:
    await ids(engine.generate(ask(engine, sampling=sampled(max_tokens=3))))
    assert engine.stats().prefix_cache_bytes > 0
    async with aclosing(engine.generate(ask(engine, "another one", sampling=sampled(max_tokens=400)))) as tokens:
        await anext(tokens)
    await engine.clear_prefix_cache()
    assert await engine.base_log_probabilities([1, 2], [[3]])  # another task of the thread, after the cancelled request
    assert engine.stats().prefix_cache_bytes == 0
    await ids(engine.generate(ask(engine, sampling=sampled(max_tokens=3))))
    assert engine.stats().reused_tokens == 0
    assert isinstance(engine, PrefixCaching)


async def test_a_deadline_keeps_the_tokens_so_far(open_engine: Open) -> None:
    ticks = itertools.count()
    engine = open_engine(clock=lambda: float(next(ticks)))  # every look at the clock takes a second
    tokens = await ids(engine.generate(ask(engine, sampling=sampled(max_tokens=400), deadline_seconds=30)))
    assert 5 < len(tokens) < 30


async def test_a_waiting_request_ends_at_its_deadline(open_engine: Open) -> None:
    seconds = [0.0]
    engine = open_engine(max_active=1, clock=lambda: seconds[0])
    async with aclosing(engine.generate(ask(engine, sampling=sampled(max_tokens=480)))) as first:
        await anext(first)
        late = asyncio.create_task(ids(engine.generate(ask(engine, deadline_seconds=10))))
        await asyncio.sleep(0)
        seconds[0] = 11
        with pytest.raises(EngineBusy, match="no turn within the time limit"):
            await late


async def test_a_full_queue_is_refused_at_once(open_engine: Open) -> None:
    engine = open_engine(max_active=1, max_waiting=2)
    async with aclosing(engine.generate(ask(engine, sampling=sampled(max_tokens=480)))) as first:
        await anext(first)
        queued = [asyncio.create_task(ids(engine.generate(ask(engine)))) for _ in range(2)]
        await asyncio.sleep(0)
        assert engine.stats().waiting == 2
        with pytest.raises(EngineError, match="too many requests"):
            await ids(engine.generate(ask(engine)))
    assert [len(tokens) for tokens in await asyncio.gather(*queued)] == [24, 24]


async def test_a_failing_step_ends_its_request_only(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = engine._thread._decoder.forward

    def fail(ids: list[list[int]], *arguments: object, **masks: object) -> object:
        if ids[0][:3] == [5, 6, 7]:
            raise RuntimeError("a bad kernel\nand a long trace")
        return forward(ids, *arguments, **masks)

    monkeypatch.setattr(engine._thread._decoder, "forward", fail)
    good = asyncio.create_task(ids(engine.generate(ask(engine))))
    with pytest.raises(EngineError, match=r"^the model failed: a bad kernel$"):
        await ids(engine.generate(ask(engine, prompt=[5, 6, 7, 8])))
    assert len(await good) == 24
    assert engine.health().ready


async def test_an_internal_error_ends_only_active_requests(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = iter([AssertionError("a bug")])
    forget = engine._thread._remove_retired

    def fail_once() -> None:
        if fault := next(faults, None):
            raise fault
        forget()

    monkeypatch.setattr(engine._thread, "_remove_retired", fail_once)
    with pytest.raises(EngineError, match="the model failed: a bug"):
        await ids(engine.generate(ask(engine)))
    assert len(await ids(engine.generate(ask(engine)))) == 24
    assert engine.health().ready


async def test_when_the_thread_dies_every_request_ends(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise AssertionError("a bug")

    monkeypatch.setattr(engine._thread, "_remove_retired", fail)
    for _ in range(3):
        with pytest.raises(EngineError, match="a bug"):
            await ids(engine.generate(ask(engine)))
    await asyncio.to_thread(engine._thread._thread.join, 5)
    assert not engine.health().ready
    with pytest.raises(EngineError, match="closed"):
        await ids(engine.generate(ask(engine)))


async def test_closing_the_engine_ends_requests(open_engine: Open) -> None:
    engine = open_engine(max_active=1)
    tasks = [asyncio.create_task(ids(engine.generate(ask(engine, sampling=sampled(max_tokens=480))))) for _ in "ab"]
    await asyncio.sleep(0)
    engine.close()
    for task in tasks:
        with pytest.raises(EngineError, match="closed"):
            await task
    with pytest.raises(EngineError, match="closed"):
        await ids(engine.generate(ask(engine)))
    assert not engine.health().ready


async def test_open_reads_the_configuration(tiny_base: Path, tmp_path: Path) -> None:
    config = parse_config({"model": {"base": str(tiny_base), "dtype": "float32"}}, tmp_path / "config.yaml")
    engine = TransformersEngine.open(config, pytest.fail)
    try:
        assert engine.base == identify(tiny_base, str(tiny_base))
        assert engine.context_length == 512
        assert len(await ids(engine.generate(ask(engine)))) == 24
    finally:
        engine.close()


async def test_limits_come_from_the_configuration(tiny_base: Path, tmp_path: Path) -> None:
    engine_settings = {"max_concurrent": 3, "max_queue": 2, "context_length": 300, "prefix_cache_gb": 0}
    content = {"model": {"base": str(tiny_base), "dtype": "float32"}, "engine": engine_settings}
    engine = TransformersEngine.open(parse_config(content, tmp_path / "config.yaml"), pytest.fail)
    try:
        assert engine.context_length == 300
        assert engine.stats().max_active == 3
        found = await asyncio.gather(*(ids(engine.generate(ask(engine))) for _ in range(9)), return_exceptions=True)
        assert any(isinstance(reply, EngineError) for reply in found)
        assert engine.stats().prefix_cache_bytes == 0
    finally:
        engine.close()


@pytest.mark.filterwarnings("ignore:.*:FutureWarning")
async def test_a_quantised_base_is_served_with_an_adapter(
    tmp_path: Path, publish_tiny_adapter: PublishAdapter, tiny_base: Path
) -> None:
    content = {"model": {"base": str(tiny_base), "dtype": "float32", "device": "cpu"}, "engine": {"quantize": "int8"}}
    engine = TransformersEngine.open(parse_config(content, tmp_path / "config.yaml"), pytest.fail)
    try:
        name = await engine.load_adapter(publish_tiny_adapter(tmp_path / "adapters"))
        alone = [await ids(engine.generate(ask(engine, adapter=adapter_name))) for adapter_name in (None, name)]
        together = await asyncio.gather(
            *(ids(engine.generate(ask(engine, adapter=adapter_name))) for adapter_name in (None, name))
        )
        assert together == alone
        assert alone[0] != alone[1]
    finally:
        engine.close()


def test_unsupported_hardware_is_a_clear_error(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_(**settings: object) -> None:
        content = {"model": {"base": str(tiny_base)}, "engine": settings}
        TransformersEngine.open(parse_config(content, tmp_path / "config.yaml"), pytest.fail)

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match=r"engine\.split: needs at least 2 GPUs, found 1"):
        open_(split=True)
    monkeypatch.setattr(quantize, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"engine\.quantize: needs bitsandbytes"):
        open_(quantize="nf4")
    with pytest.raises(UserError, match="leave out quantize or split"):
        open_(quantize="nf4", split=True)


async def test_a_base_can_be_split_over_devices(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, publish_tiny_adapter: PublishAdapter
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    content = {"model": {"base": str(tiny_base), "dtype": "float32", "device": "cpu"}, "engine": {"split": True}}
    with monkeypatch.context() as patch:
        asked: list[object] = []
        original = AutoModelForCausalLM.from_pretrained

        def note(*arguments: object, device_map: str, **options: object) -> object:
            asked.append(device_map)
            return original(*arguments, **options)  # as `auto` does where there is only one device

        patch.setattr(AutoModelForCausalLM, "from_pretrained", note)
        engine = TransformersEngine.open(parse_config(content, tmp_path / "config.yaml"), pytest.fail)
    try:
        assert asked == ["auto"]
        name = await engine.load_adapter(publish_tiny_adapter(tmp_path / "adapters"))
        assert await ids(engine.generate(ask(engine, adapter=name)))
    finally:
        engine.close()


def count_forwards(engine: TransformersEngine) -> Callable[[], int]:
    """A function that tells how often the model ran since now."""
    count = [0]

    def hook(*_: object) -> None:
        count[0] += 1

    engine._thread._model.register_forward_pre_hook(hook)
    return lambda: count[0]
