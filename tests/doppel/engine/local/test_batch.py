"""Many chats in one batch, and chats that go on from what was kept: the same tokens as alone and from the start."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from transformers import DynamicCache, Lfm2Config, Lfm2ForCausalLM

from doppel.engine import EngineError, Request, Sampling, Token
from doppel.engine.local.engine import TransformersEngine
from doppel.engine.local.kv_cache import (
    CacheRow,
    attention_windows,
    cache_bytes,
    cache_length,
    copy_rows,
    crop,
    new_cache,
)
from doppel.models.base import BaseIdentity, load_model, load_tokenizer
from tests.conftest import PublishAdapter
from tests.doppel.conftest import Open
from tests.families import FAMILIES, save_family, save_seeing
from tests.tiny import CONTEXT_LENGTH, build_tokenizer

WINDOW = 32  # of the tiny model's sliding layers


def prompt_of(length: int, seed: int = 0) -> list[int]:
    draw = random.Random(seed)
    return [2, *(draw.randrange(10, 200) for _ in range(length - 1))]


def ask(prompt: Sequence[int], *, seed: int = 0, tokens: int = 24, **options: Any) -> Request:
    settings = {name: options.pop(name) for name in list(options) if name in Sampling.__struct_fields__}
    sampling = Sampling(**{"temperature": 1.0, "max_tokens": tokens, "seed": seed, **settings})
    return Request(prompt=list(prompt), sampling=sampling, stop_ids=frozenset(), **options)


async def ids(tokens: AsyncIterator[Token]) -> list[int]:
    return [token.id async for token in tokens]


def widths(engine: TransformersEngine) -> list[tuple[int, int]]:
    """(rows, tokens) of every run of the model since now."""
    seen: list[tuple[int, int]] = []
    engine._thread._model.register_forward_pre_hook(
        lambda _, __, given: seen.append(tuple(given["input_ids"].shape)), with_kwargs=True
    )
    return seen


async def test_a_batch_of_different_lengths_equals_single_requests(open_engine: Open) -> None:
    alone, together = open_engine(max_active=1, prefix_cache_bytes=0), open_engine(max_active=8, prefix_cache_bytes=0)
    lengths = (3, 200, WINDOW - 1, WINDOW, WINDOW + 1, 90, 31, 5, 60, 17)
    requests = [ask(prompt_of(length, length), seed=length, tokens=10 + length % 50) for length in lengths]
    expected = [await ids(alone.generate(request)) for request in requests]
    runs = widths(together)
    assert await asyncio.gather(*(ids(together.generate(request)) for request in requests)) == expected
    assert max(rows for rows, _ in runs) == 8
    assert len(runs) < sum(map(len, expected)) / 3


async def test_log_probabilities_are_the_models(open_engine: Open, tiny_base: Path) -> None:
    engine, model = open_engine(), load_model(tiny_base, torch.float32)
    requests = [ask(prompt_of(length), seed=length, top_k=5) for length in (10, 50)]

    async def all_of(request: Request) -> list[Token]:
        return [token async for token in engine.generate(request)]

    for request, tokens in zip(requests, await asyncio.gather(*map(all_of, requests)), strict=True):
        said = [*request.prompt, *(token.id for token in tokens)]
        with torch.no_grad():
            expected = model(torch.tensor([said])).logits[0].log_softmax(-1)
        for place, token in enumerate(tokens, len(request.prompt) - 1):
            assert token.model_logprob == pytest.approx(float(expected[place, token.id]), abs=1e-3)
            assert token.logprob >= token.model_logprob - 1e-4  # what the filters leave is likelier for it


async def test_adapters_share_a_batch(open_engine: Open, publish_tiny_adapter: PublishAdapter, tmp_path: Path) -> None:
    engine = open_engine(prefix_cache_bytes=0)
    names = [await engine.load_adapter(publish_tiny_adapter(tmp_path, seed=seed)) for seed in range(3)]
    requests = [
        ask(prompt_of(20 + 9 * place, place), adapter=name) for place, name in enumerate([*names, None, *names])
    ]
    expected = [await ids(engine.generate(request)) for request in requests]
    runs = widths(engine)
    assert await asyncio.gather(*(ids(engine.generate(request)) for request in requests)) == expected
    assert (7, 1) in runs


@pytest.mark.parametrize("length", [10, 25, 40, 150])
async def test_the_next_turn_prefills_only_what_is_new(open_engine: Open, length: int) -> None:
    engine, afresh = open_engine(), open_engine(prefix_cache_bytes=0)
    first = ask(prompt_of(length))
    reply = await ids(engine.generate(first))
    assert reply == await ids(afresh.generate(first))
    for cut in (0, 3):  # the reply as it was said, and as a tokenizer might spell its end otherwise
        said = [*first.prompt, *reply[: len(reply) - cut], *prompt_of(12, 7)]
        runs = widths(engine)
        second = ask(said, seed=9)
        assert await ids(engine.generate(second)) == await ids(afresh.generate(second))
        assert runs[0][1] <= 12 + 1
    assert engine.stats().reused_tokens >= 2 * (length + 20)
    assert afresh.stats() == msgspec.structs.replace(afresh.stats(), prefix_cache_bytes=0, reused_tokens=0)


async def test_continuing_chats_in_a_batch_equals_starting_over(open_engine: Open) -> None:
    engine, afresh = open_engine(), open_engine(prefix_cache_bytes=0, max_active=1)
    prompts = [prompt_of(length, length) for length in (20, 45, 100)]
    for turn in range(4):
        requests = [ask(prompt, seed=turn + place) for place, prompt in enumerate(prompts)]
        replies = await asyncio.gather(*(ids(engine.generate(request)) for request in requests))
        assert replies == [await ids(afresh.generate(request)) for request in requests]
        prompts = [[*prompt, *reply, 11, 12, 13 + turn] for prompt, reply in zip(prompts, replies, strict=True)]
    assert engine.stats().reused_tokens > 3 * 165


async def test_candidates_share_one_prefill(open_engine: Open) -> None:
    engine, afresh = open_engine(), open_engine(prefix_cache_bytes=0, max_active=1)
    requests = [ask(prompt_of(200), seed=seed) for seed in range(4)]
    runs = widths(engine)
    assert await asyncio.gather(*(ids(engine.generate(request)) for request in requests)) == [
        await ids(afresh.generate(request)) for request in requests
    ]
    assert sum(width > 1 for _, width in runs) == 1


async def test_prefix_cache_entries_belong_to_one_adapter(
    open_engine: Open, publish_tiny_adapter: PublishAdapter, tmp_path: Path
) -> None:
    engine = open_engine()
    old, new = [await engine.load_adapter(publish_tiny_adapter(tmp_path, seed=seed)) for seed in (0, 1)]
    prompt = prompt_of(80)
    expected = await ids(engine.generate(ask(prompt, adapter=new)))
    await ids(engine.generate(ask(prompt, adapter=old)))
    held = engine.stats().prefix_cache_bytes
    assert await ids(engine.generate(ask(prompt, adapter=new))) == expected
    await engine.drop_adapter(old)
    await ids(engine.generate(ask(prompt, adapter=new)))
    assert 0 < engine.stats().prefix_cache_bytes < held


async def test_the_prefix_cache_is_bounded(open_engine: Open) -> None:
    engine = open_engine(prefix_cache_bytes=200_000)  # about 800 tokens of the tiny model
    for seed in range(20):
        await ids(engine.generate(ask(prompt_of(150, seed))))
        assert engine.stats().prefix_cache_bytes <= 200_000
    before = engine.stats().reused_tokens
    await ids(engine.generate(ask(prompt_of(150, 19))))
    assert engine.stats().reused_tokens == before + 149
    await ids(engine.generate(ask(prompt_of(150, 0))))
    assert engine.stats().reused_tokens == before + 149


async def test_a_cancelled_reply_is_cached_as_far_as_it_got(open_engine: Open) -> None:
    engine, afresh = open_engine(), open_engine(prefix_cache_bytes=0)
    async with aclosing(engine.generate(ask(prompt_of(60), tokens=300))) as stream:
        said = [(await anext(stream)).id for _ in range(5)]
    second = ask([*prompt_of(60), *said, 20, 21])
    assert await ids(engine.generate(second)) == await ids(afresh.generate(second))
    assert engine.stats().reused_tokens >= 60


async def test_models_with_other_caches_are_decoded_one_by_one(
    open_engine: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    batched = open_engine()
    monkeypatch.setattr("doppel.engine.local.decoding.attention_windows", lambda model: None)
    engine = open_engine()
    requests = [ask(prompt_of(length, length), seed=length) for length in (5, 70, 40)]
    runs = widths(engine)
    assert await asyncio.gather(*(ids(engine.generate(request)) for request in requests)) == await asyncio.gather(
        *(ids(batched.generate(request)) for request in requests)
    )
    assert {rows for rows, _ in runs} == {1}
    assert engine.stats().prefix_cache_bytes == 0


def no_memory_beyond(engine: TransformersEngine, rows: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lets the model run out of memory with more rows; the returned list has those that failed."""
    failed: list[int] = []

    def run_out(module: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        if len(arguments[0]) > rows:
            failed.append(len(arguments[0]))
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    engine._thread._model.model.layers[1].mlp.register_forward_pre_hook(run_out)  # half way through the layers
    return failed


async def test_out_of_memory_continues_with_fewer_rows(open_engine: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, roomy = open_engine(), open_engine()
    requests = [ask(prompt_of(20 + length, length), seed=length, no_repeat_ngram=3) for length in range(7)]
    expected = [await ids(roomy.generate(request)) for request in requests]
    failed = no_memory_beyond(engine, 2, monkeypatch)
    assert await asyncio.gather(*(ids(engine.generate(request)) for request in requests)) == expected
    assert failed == [7, 3]
    assert engine.health().ready


async def test_out_of_memory_with_one_row_is_a_clear_error(open_engine: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_engine()
    failed = no_memory_beyond(engine, 0, monkeypatch)
    with pytest.raises(EngineError, match="not enough memory for this reply"):
        await ids(engine.generate(ask(prompt_of(20))))
    assert failed == [1, 1]  # tried once more, in smaller pieces
    assert engine.health().ready


@pytest.mark.parametrize("family", [*FAMILIES, "glm", "seeing", "hybrid"])
async def test_every_family_equals_transformers_in_a_batch_and_with_a_cached_prefix(
    family: str, tmp_path: Path
) -> None:
    if family == "seeing":
        save_seeing(tmp_path)
    elif family == "hybrid":
        save_hybrid(tmp_path)
    else:
        save_family(family, tmp_path)
    model = load_model(tmp_path, torch.float32)
    engine = TransformersEngine(load_model(tmp_path, torch.float32), load_tokenizer(tmp_path), BaseIdentity("tiny", ""))
    try:
        prompts = [prompt_of(length, length) for length in (7, 60, 33)]
        for _ in range(2):
            requests = [ask(prompt, temperature=0.0) for prompt in prompts]
            replies = await asyncio.gather(*(ids(engine.generate(request)) for request in requests))
            for prompt, reply in zip(prompts, replies, strict=True):
                given = torch.tensor([prompt])
                expected = model.generate(
                    given,
                    attention_mask=torch.ones_like(given),
                    do_sample=False,
                    max_new_tokens=24,
                    eos_token_id=-1,
                    suppress_tokens=sorted(engine.transcript.forbidden_ids),
                )
                assert reply == expected[0, len(prompt) :].tolist()
            prompts = [[*prompt, *reply, 50, 51] for prompt, reply in zip(prompts, replies, strict=True)]
        assert (engine.stats().reused_tokens > 100) == (family != "hybrid")
    finally:
        engine.close()


def save_hybrid(folder: Path) -> None:
    """A random model with convolutions between its layers of attention."""
    tokenizer = build_tokenizer()
    config = Lfm2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        layer_types=["conv", "full_attention", "conv"],
        initializer_range=0.2,
        max_position_embeddings=CONTEXT_LENGTH,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        Lfm2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def test_a_cropped_and_copied_cache_equals_a_fresh_prefill(tiny_base: Path) -> None:
    model = load_model(tiny_base, torch.float32)
    windows = attention_windows(model)
    assert windows == (WINDOW, WINDOW, None)
    long, short = prompt_of(90, 1), prompt_of(20, 2)
    with torch.inference_mode():
        caches = []
        for prompt in (long, short):
            caches.append(new_cache(windows, 8))
            model(torch.tensor([prompt]), past_key_values=caches[-1])
        crop(caches[0], 60)
        joined, paddings = copy_rows([CacheRow(cache) for cache in caches], 4)
        assert (cache_length(joined), paddings) == (60, [0, 40])
        back, _ = copy_rows([CacheRow(joined, 1, 40)], 0)
        for cache, ids_, kept in ((back, short, 20), (caches[0], long, 60)):
            actual = model(torch.tensor([[77]]), past_key_values=cache).logits
            reference = DynamicCache(config=model.config)
            model(torch.tensor([ids_[:kept]]), past_key_values=reference)
            assert torch.allclose(actual, model(torch.tensor([[77]]), past_key_values=reference).logits, atol=1e-4)
        assert cache_bytes(back) == 3 * 2 * (20 + 64 + 1) * 16 * 4
