"""No engine samples or shows a markup token, however likely the model finds it; runs of line breaks are text."""

import importlib.util
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from random import Random

import pytest
import torch
from tokenizers import AddedToken
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from doppel.engine import Engine, Request, Sampling
from doppel.engine.local.engine import TransformersEngine
from doppel.engine.local.sampling import Sampler, TokenMask, sample
from doppel.engine.remote.client import ServerClient
from doppel.engine.remote.discovery import discover
from doppel.engine.remote.engine import OpenAIEngine
from doppel.engine.remote.prompt_text import reply_ids
from doppel.models.base import BaseIdentity, load_model, load_tokenizer
from doppel.persona import GeneratedBubble, speak
from doppel.transcript import Header, Transcript, Turn, TurnDecoder
from tests.doppel.engine.completions_server import CompletionsServer
from tests.families import FAMILIES, save_family
from tests.tiny import build_tokenizer

MARKUP = ("[multimodal]", "<start_of_image>", "<end_of_image>", "<unused12>", "<|im_start|>", "<table>")
BLANKS = ("\n\n\n\n", "  ", "\u2581\u2581\u2581", "\t\t")
SAMPLINGS = {
    "greedy": Sampling(temperature=0, max_tokens=24),
    "default": Sampling(max_tokens=24, seed=1),
    "everything": Sampling(temperature=5, top_k=0, top_p=1.0, min_p=0.0, max_tokens=24, seed=2),
    "typical": Sampling(temperature=2, top_k=0, top_p=0.9, typical_p=0.8, max_tokens=24, seed=3),
    "penalties": Sampling(
        repetition_penalty=1.3, presence_penalty=1, frequency_penalty=1, no_repeat_ngram=1, max_tokens=24, seed=4
    ),
}


def gemma_like_tokenizer() -> PreTrainedTokenizerFast:
    """The tiny tokenizer with added, not special, tokens as Gemma lists them."""
    tokenizer = build_tokenizer()
    tokenizer.add_tokens([AddedToken(text, special=False) for text in (*MARKUP, *BLANKS)])
    return tokenizer


TRANSCRIPT = Transcript(gemma_like_tokenizer())


def preferring(model: PreTrainedModel, ids: list[int]) -> PreTrainedModel:
    """The model, with these tokens by far the likeliest at every position."""

    def prefer(_: object, __: object, output: object) -> None:
        output.logits[..., ids] += 1000

    model.register_forward_hook(prefer)
    return model


@pytest.fixture
def open_family(tmp_path: Path) -> Iterator[Callable[..., TransformersEngine]]:
    opened = []

    def open_(family: str, ids: list[int]) -> TransformersEngine:
        save_family(family, tmp_path / family, tokenizer=gemma_like_tokenizer())
        model = preferring(load_model(tmp_path / family, torch.float32), ids)
        opened.append(TransformersEngine(model, load_tokenizer(tmp_path / family), BaseIdentity("tiny", "")))
        return opened[-1]

    yield open_
    for engine in opened:
        engine.close()


def ask(sampling: Sampling) -> Request:
    prompt = TRANSCRIPT.prompt(Header(year="2018"), [Turn("Ramito", ("hello",))])
    return Request(prompt=prompt, sampling=sampling, stop_ids=frozenset())


async def ids(engine: Engine, sampling: Sampling) -> list[int]:
    return [token.id async for token in engine.generate(ask(sampling))]


async def bubbles(engine: Engine) -> list[str]:
    turns = [Turn("Ramito", ("hello",))]
    async with aclosing(speak(engine, None, Header(), turns, SAMPLINGS["default"])) as events:
        return [event.text async for event in events if isinstance(event, GeneratedBubble)]


def test_markup_is_distinguished_from_text() -> None:
    forbidden = {TRANSCRIPT.tokenizer.convert_ids_to_tokens(token) for token in TRANSCRIPT.forbidden_ids}
    special = {"<bos>", "<pad>", "<start_of_turn>", "<end_of_turn>"}
    assert forbidden == {*MARKUP, *special, "<unused0>", "[toxicity=0]"}
    assert TRANSCRIPT.tokenizer.eos_token_id in TRANSCRIPT.stop_ids - TRANSCRIPT.forbidden_ids


@pytest.mark.parametrize("family", FAMILIES)
async def test_the_local_engine_samples_no_markup(family: str, open_family: Callable[..., TransformersEngine]) -> None:
    forbidden = sorted(TRANSCRIPT.forbidden_ids)
    engine = open_family(family, forbidden)
    for sampling in SAMPLINGS.values():
        sampled = await ids(engine, sampling)
        assert sampled
        assert TRANSCRIPT.forbidden_ids.isdisjoint(sampled)
    for text in await bubbles(engine):
        assert not any(markup in text for markup in MARKUP)


async def test_runs_of_line_breaks_can_be_sampled(open_family: Callable[..., TransformersEngine]) -> None:
    runs = [TRANSCRIPT.tokenizer.convert_tokens_to_ids(text) for text in ("\n\n\n", *BLANKS)]
    engine = open_family("gemma3", runs)
    assert set(await ids(engine, SAMPLINGS["everything"])) <= set(runs)


def test_a_logit_bias_cannot_allow_markup() -> None:
    mask = TokenMask([1, 3, 99])  # 99: of a tokenizer larger than the model's head
    sampling = Sampling(temperature=1, top_k=0, logit_bias=((1, 100.0), (3, 100.0)), seed=1)
    sampler = Sampler(sampling, [0], mask)
    assert {sampler.sample(torch.tensor([0.0, 9.0, 0.0, 9.0])).id for _ in range(50)} == {0, 2}


def test_rows_of_a_batch_may_have_different_masks() -> None:
    greedy = Sampling(temperature=0)
    samplers = [Sampler(greedy, [], mask) for mask in (TokenMask([3]), TokenMask([2, 3]), None)]
    assert [token.id for token in sample(samplers, torch.tensor([[0.0, 1.0, 2.0, 3.0]] * 3))] == [2, 1, 3]


def test_masked_tokens_count_in_the_models_own_distribution() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0])
    token = Sampler(Sampling(temperature=0), [], TokenMask([2])).sample(logits.clone())
    assert token.model_logprob == pytest.approx(float(logits.log_softmax(-1)[1]))


def test_the_decoder_drops_markup() -> None:
    decoder = TurnDecoder(TRANSCRIPT)
    text = TRANSCRIPT.safe_tokenizer.encode_text(["hi"])[0]
    unused = TRANSCRIPT.tokenizer.convert_tokens_to_ids("<unused12>")
    assert [bubble for token in [unused, *text, unused] for bubble in decoder.feed(token)] == []
    assert decoder.partial == "hi"
    assert decoder.close() == ["hi"]


@pytest.fixture(params=["vllm", "sglang", "llamacpp", "openai"])
async def remote(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[CompletionsServer, OpenAIEngine]]:
    monkeypatch.setenv("NO_PROXY", "*")
    tokenizer = gemma_like_tokenizer()
    async with CompletionsServer(request.param).running() as server:
        connection = ServerClient(server.url, random=Random(0))
        capabilities = await discover(connection, None, tokenizer)
        size = tokenizer.convert_tokens_to_ids("<table>")  # the head has no logit for the last ones
        yield (
            server,
            OpenAIEngine(
                connection,
                capabilities,
                tokenizer,
                BaseIdentity("tiny", ""),
                context_length=300,
                vocabulary_size=size,
            ),
        )
        await connection.close()


async def test_servers_are_sent_biases_and_their_markup_is_dropped(
    remote: tuple[CompletionsServer, OpenAIEngine],
) -> None:
    server, engine = remote
    names = [TRANSCRIPT.tokenizer.convert_tokens_to_ids(text) for text in MARKUP]
    word = TRANSCRIPT.safe_tokenizer.encode_text(["hi"])[0]
    if server.owner in ("llamacpp", "openai"):
        server.reply = [MARKUP[0], "h", MARKUP[3] + "i", MARKUP[5]]
    else:
        server.reply = [names[0], word[0], names[3], *word[1:], names[5]]
    plain = Sampling(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, max_tokens=24)
    assert TRANSCRIPT.safe_tokenizer.decode(await ids(engine, plain)) == "hi"
    biases = server.requests[-1].get("logit_bias")
    sent = sorted(TRANSCRIPT.forbidden_ids - {names[5]})
    expected = {
        "vllm": {str(token): -100.0 for token in sent},
        "sglang": {str(token): -100.0 for token in sent},
        "llamacpp": [[token, False] for token in sent],
        "openai": None,  # its tokens may be others than ours
    }
    assert biases == expected[server.owner]


def test_markup_in_a_servers_text_is_removed() -> None:
    pieces = TRANSCRIPT.safe_tokenizer
    assert pieces.decode(reply_ids(pieces, "a<table>b [multimodal]<unused12>c\n\n\n\nd")) == "ab c\n\n\n\nd"


@pytest.mark.skipif(importlib.util.find_spec("xllamacpp") is None, reason="needs the extra llamacpp")
async def test_llama_cpp_samples_no_markup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gguf

    from doppel.adapters.export import base_gguf
    from doppel.engine.llamacpp.engine import LlamaCppEngine

    monkeypatch.setattr(base_gguf, "_kind", lambda values: gguf.GGMLQuantizationType.F32)
    folder = save_family("qwen3", tmp_path / "base", tokenizer=gemma_like_tokenizer())
    base_gguf.write_base(folder, tmp_path / "base.gguf")
    engine = LlamaCppEngine(
        tmp_path / "base.gguf",
        folder,
        load_tokenizer(folder),
        BaseIdentity("tiny", ""),
        sends_text=False,
        threads=1,
        on_cpu=True,
    )
    try:
        forbidden = TRANSCRIPT.forbidden_ids
        wanted = Sampling(max_tokens=24, seed=1, logit_bias=tuple((token, 100.0) for token in sorted(forbidden)))
        sampled = await ids(engine, wanted)
        assert sampled
        assert forbidden.isdisjoint(sampled)
    finally:
        engine.close()
