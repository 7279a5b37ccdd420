"""LoraAdapters in the engine: kept apart, switched live, refused when anything is wrong with them."""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from doppel.adapters.versions import MANIFEST, PEFT_CONFIG, WEIGHTS, AdapterRefused, Manifest, publishing
from doppel.engine import EngineError, Request, Sampling
from doppel.engine.local.engine import TransformersEngine
from doppel.engine.local.lora_layers import ActiveAdapters, LoraLinear
from doppel.models.base import identify, load_model, load_tokenizer
from doppel.transcript import Header
from tests.conftest import PublishAdapter
from tests.families import random_lora
from tests.tiny import build_base, publish_adapter, save_lora


@pytest.fixture
def engine(tiny_base: Path) -> Iterator[TransformersEngine]:
    model = load_model(tiny_base, torch.float32)
    engine = TransformersEngine(model, load_tokenizer(tiny_base), identify(tiny_base, "tiny"))
    yield engine
    engine.close()


async def reply(engine: TransformersEngine, adapter: str | None, *, seed: int | None = None) -> list[int]:
    """32 tokens after an empty conversation: the likeliest, or drawn when there is a seed."""
    sampling = Sampling(temperature=0 if seed is None else 1.0, max_tokens=32, seed=seed)
    prompt = engine.transcript.prompt(Header(), [])
    request = Request(prompt=prompt, sampling=sampling, stop_ids=frozenset(), adapter=adapter)
    return [token.id async for token in engine.generate(request)]


def adapted(engine: TransformersEngine) -> list[LoraLinear]:
    layers = [module for module in engine._thread._model.modules() if isinstance(module, LoraLinear)]
    assert layers
    return layers


def publish_changed(
    base: Path,
    adapters_dir: Path,
    *,
    weights: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]] = dict,
    settings: dict[str, Any] | None = None,
) -> Path:
    """Publishes a well-formed, correctly signed adapter whose content was changed first."""
    with publishing(adapters_dir, Manifest(persona="sample", base=identify(base, "tiny"))) as staging:
        save_lora(base, staging)
        save_file(weights(load_file(staging / WEIGHTS)), staging / WEIGHTS)
        found = json.loads((staging / PEFT_CONFIG).read_text())
        (staging / PEFT_CONFIG).write_text(json.dumps({**found, **(settings or {})}))
    return adapters_dir / (adapters_dir / "current").read_text().strip()


async def test_greedy_tokens_are_those_of_peft(engine: TransformersEngine, tiny_base: Path, tmp_path: Path) -> None:
    folder = publish_adapter(tiny_base, tmp_path)
    name = await engine.load_adapter(folder)
    assert engine.health().adapters == (name,)
    model = PeftModel.from_pretrained(load_model(tiny_base, torch.float32), folder)
    prompt = engine.transcript.prompt(Header(), [])
    expected = model.generate(
        input_ids=torch.tensor([prompt]),
        do_sample=False,
        max_new_tokens=32,
        eos_token_id=-1,
        suppress_tokens=sorted(engine.transcript.forbidden_ids),
    )
    assert await reply(engine, name) == expected[0, len(prompt) :].tolist()


async def test_interleaved_adapters_equal_single_requests(
    engine: TransformersEngine, publish_tiny_adapter: PublishAdapter, tmp_path: Path
) -> None:
    base_alone = await reply(engine, None, seed=3)
    names = [await engine.load_adapter(publish_tiny_adapter(tmp_path, seed=seed)) for seed in range(3)]
    alone = [await reply(engine, name, seed=3) for name in names]
    together = await asyncio.gather(*(reply(engine, name, seed=3) for name in [*names, None]))
    assert together == [*alone, base_alone]
    assert len({tuple(tokens) for tokens in together}) == 4


async def test_the_same_content_is_loaded_once(
    engine: TransformersEngine, publish_tiny_adapter: PublishAdapter, tmp_path: Path
) -> None:
    folder = publish_tiny_adapter(tmp_path)
    assert await engine.load_adapter(folder) == await engine.load_adapter(folder)
    assert len(engine.health().adapters) == 1
    assert await engine.load_adapter(publish_tiny_adapter(tmp_path)) not in {"", engine.health().adapters[0]}


async def test_a_dropped_adapter_finishes_its_requests(
    engine: TransformersEngine, publish_tiny_adapter: PublishAdapter, tmp_path: Path
) -> None:
    old, new = [await engine.load_adapter(publish_tiny_adapter(tmp_path, seed=seed)) for seed in (0, 1)]
    expected = await reply(engine, old, seed=1)
    running = asyncio.create_task(reply(engine, old, seed=1))
    await asyncio.sleep(0)
    await engine.drop_adapter(old)
    assert engine.health().adapters == (new,)
    with pytest.raises(EngineError, match="not loaded"):
        await reply(engine, old)
    assert await running == expected
    await reply(engine, new)  # whatever the thread does for the old one is done when this is
    assert {name for layer in adapted(engine) for name in layer.loras} == {new}
    assert await engine.load_adapter(tmp_path / "0001") == old
    assert await reply(engine, old, seed=1) == expected


async def test_dropping_an_adapter_does_not_affect_others(
    engine: TransformersEngine, publish_tiny_adapter: PublishAdapter, tmp_path: Path
) -> None:
    old, new = [await engine.load_adapter(publish_tiny_adapter(tmp_path, seed=seed)) for seed in (0, 1)]
    expected = await reply(engine, new, seed=1)
    request = Request(
        prompt=engine.transcript.prompt(Header(), []),
        sampling=Sampling(temperature=1.0, max_tokens=32, seed=1),
        stop_ids=frozenset(),
        adapter=new,
    )
    tokens = []
    async with aclosing(engine.generate(request)) as stream:
        async for token in stream:
            tokens.append(token.id)
            if len(tokens) == 5:
                await engine.drop_adapter(old)
            if len(tokens) == 10:
                await engine.load_adapter(publish_tiny_adapter(tmp_path, seed=2))
    assert tokens == expected


async def test_a_damaged_adapter_is_refused_and_the_old_one_stays(
    engine: TransformersEngine, publish_tiny_adapter: PublishAdapter, tmp_path: Path
) -> None:
    old = await engine.load_adapter(publish_tiny_adapter(tmp_path, seed=0))
    before = await reply(engine, old)
    damaged = publish_tiny_adapter(tmp_path, seed=1)
    content = bytearray((damaged / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (damaged / WEIGHTS).write_bytes(content)
    with pytest.raises(AdapterRefused, match="is damaged"):
        await engine.load_adapter(damaged)
    assert engine.health().adapters == (old,)
    assert await reply(engine, old) == before


async def test_an_adapter_of_another_base_is_refused(engine: TransformersEngine, tmp_path: Path) -> None:
    other = build_base(tmp_path / "other", seed=9)
    with pytest.raises(AdapterRefused, match="another base model"):
        await engine.load_adapter(publish_adapter(other, tmp_path / "adapters"))


async def test_pickle_is_never_read(
    engine: TransformersEngine, publish_tiny_adapter: PublishAdapter, tmp_path: Path
) -> None:
    folder = publish_tiny_adapter(tmp_path)
    torch.save(load_file(folder / WEIGHTS), folder / "adapter_model.bin")
    (folder / WEIGHTS).unlink()
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest["files"][WEIGHTS]
    manifest["files"]["adapter_model.bin"] = "0" * 64
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(AdapterRefused):
        await engine.load_adapter(folder)


def _first(weights: dict[str, torch.Tensor], change: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, torch.Tensor]:
    key = next(key for key in weights if "lora_B" in key)
    return {**weights, key: change(weights[key]).contiguous()}


@pytest.mark.parametrize(
    ("weights", "settings", "message"),
    [
        (lambda w: _first(w, lambda b: b * float("nan")), {}, "failed its test run: the model's output is not finite"),
        (lambda w: _first(w, lambda b: b[:-1]), {}, "in the adapter but"),
        (lambda w: _first(w, lambda b: b[:, :-1]), {}, "which does not match rank 4 in"),
        (
            lambda w: {k.replace("layers.0", "layers.7"): v for k, v in w.items()},
            {},
            "this one has no layer model.layers.7",
        ),
        (lambda w: {**w, "base_model.model.model.norm.weight": torch.ones(32)}, {}, "norm.weight is not a LoRA weight"),
        (lambda w: dict(list(w.items())[1:]), {}, "has only one of its two LoRA matrices"),
        (lambda w: {}, {}, "cannot be read"),
        (dict, {"use_dora": True}, "use_dora is set"),
        (dict, {"rank_pattern": {"q_proj": 2}}, "rank_pattern is set"),
        (dict, {"init_lora_weights": "pissa"}, "init_lora_weights is set"),
        (dict, {"r": 8}, "which does not match rank 8 in"),
        (dict, {"lora_alpha": "many"}, "cannot be read"),
    ],
)
async def test_an_adapter_that_is_not_a_plain_lora_is_refused(
    engine: TransformersEngine,
    tiny_base: Path,
    publish_tiny_adapter: PublishAdapter,
    tmp_path: Path,
    weights: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]],
    settings: dict[str, Any],
    message: str,
) -> None:
    old = await engine.load_adapter(publish_tiny_adapter(tmp_path / "good"))
    before = await reply(engine, old)
    folder = publish_changed(tiny_base, tmp_path / "bad", weights=weights, settings=settings)
    with pytest.raises(AdapterRefused, match=message) as refusal:
        await engine.load_adapter(folder)
    assert "\n" not in str(refusal.value)
    assert str(folder) in str(refusal.value)
    assert engine.health().adapters == (old,)
    assert await reply(engine, old) == before


async def test_a_refused_first_adapter_leaves_the_base_as_it_was(
    engine: TransformersEngine, tiny_base: Path, publish_tiny_adapter: PublishAdapter, tmp_path: Path
) -> None:
    before = await reply(engine, None)
    broken = publish_changed(tiny_base, tmp_path / "bad", weights=lambda w: _first(w, lambda b: b * float("inf")))
    with pytest.raises(AdapterRefused):
        await engine.load_adapter(broken)
    assert await reply(engine, None) == before
    assert await reply(engine, await engine.load_adapter(publish_tiny_adapter(tmp_path / "good"))) != before


async def test_a_closed_engine_takes_no_adapter(
    engine: TransformersEngine, publish_tiny_adapter: PublishAdapter, tmp_path: Path
) -> None:
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        await engine.load_adapter(publish_tiny_adapter(tmp_path))


async def test_a_base_in_bfloat16_has_its_loras_computed_in_float32_on_a_cpu(
    tiny_base: Path, publish_tiny_adapter: PublishAdapter, tmp_path: Path
) -> None:
    model = load_model(tiny_base, torch.bfloat16)
    engine = TransformersEngine(model, load_tokenizer(tiny_base), identify(tiny_base, "tiny"))
    try:
        name = await engine.load_adapter(publish_tiny_adapter(tmp_path))
        assert len(await reply(engine, name)) == 32
        assert {half.dtype for layer in adapted(engine) for half in layer.loras[name]} == {torch.float32}
    finally:
        engine.close()


def test_a_model_that_mixes_rows_cannot_use_several_adapters() -> None:
    active = ActiveAdapters()
    layer = LoraLinear(torch.nn.Linear(4, 4), active)
    layer.attach("one", torch.ones(2, 4), torch.ones(4, 2), 1.0, torch.float32)
    active.set_rows(["one", None])
    layer(torch.ones(2, 1, 4))
    with pytest.raises(RuntimeError, match="several adapters"):
        layer(torch.ones(3, 4))


async def test_an_adapter_is_attached_between_prefills(
    engine: TransformersEngine, tiny_base: Path, tmp_path: Path
) -> None:
    lora = random_lora(tiny_base, tmp_path)
    rows: list[int] = []
    done: list[int] = []

    def ask_once(*_: object) -> None:
        rows.append(1)
        if len(rows) == 1:
            engine._thread.attach(lora).add_done_callback(lambda _: done.append(len(rows)))

    engine._thread._model.register_forward_hook(ask_once)
    await asyncio.gather(*(reply(engine, None, seed=seed) for seed in range(6)))
    assert done == [1 + 1]  # one prompt of six, and the trial
    assert lora.name in engine.health().adapters
