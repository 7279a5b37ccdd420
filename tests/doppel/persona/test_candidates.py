"""Several replies of which one is given: what is asked of the engine, and that the numbers are the models' own."""

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path

import pytest
import torch

from doppel.engine import EngineError, Request, Sampling, ScoringEngine, Token
from doppel.engine.local.engine import TransformersEngine
from doppel.engine.local.scoring import log_probabilities
from doppel.models.base import identify, load_model, load_tokenizer
from doppel.persona import GeneratedBubble, speak
from doppel.persona.candidates import best_reply
from doppel.persona.ranking import log_likelihood_gain
from doppel.transcript import ME, Header, Transcript, Turn
from tests.conftest import PublishAdapter
from tests.families import FAMILIES, save_family
from tests.tiny import build_transcript

TURNS = [Turn("Ramito", ("hello",))]


@pytest.fixture
def engine(tiny_base: Path) -> Iterator[TransformersEngine]:
    model = load_model(tiny_base, torch.float32)
    engine = TransformersEngine(model, load_tokenizer(tiny_base), identify(tiny_base, str(tiny_base)))
    yield engine
    engine.close()


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_of_any_length_are_scored_as_if_alone(
    tmp_path: Path, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("doppel.engine.local.scoring._POSITIONS", 3)
    monkeypatch.setattr("doppel.engine.local.scoring._PREFILL_TOKENS", 4)
    model = load_model(save_family(family, tmp_path / "base"), torch.float32)
    prompt, answers = [2, 20, 21, 22, 23, 24], [[30, 31, 32, 33, 34, 35, 36], [40], [], [41, 42, 43, 44]]
    scores_by_answer = log_probabilities(model, prompt, answers)
    assert [len(scores) for scores in scores_by_answer] == [7, 1, 0, 4]
    for answer, values in zip(answers, scores_by_answer, strict=True):
        if answer:
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
            expected = logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None])[:, 0].tolist()
            assert values == pytest.approx(expected, abs=1e-4)
    assert log_probabilities(model, prompt, [[], []]) == [[], []]


async def test_the_best_of_several_is_one_of_them(
    engine: TransformersEngine, publish_tiny_adapter: PublishAdapter, tmp_path: Path
) -> None:
    assert isinstance(engine, ScoringEngine)
    name = await engine.load_adapter(publish_tiny_adapter(tmp_path / "adapters"))
    transcript = engine.transcript_of(name)
    request = Request(
        prompt=transcript.prompt(Header(), TURNS),
        sampling=Sampling(max_tokens=16, seed=5),
        stop_ids=transcript.stop_ids,
        adapter=name,
    )
    alone = [
        await best_reply(engine, _with_seed(request, seed), 1)  # one candidate is what a seed gives
        for seed in (5, 6, 7)
    ]
    assert len({tuple(candidate.ids) for candidate in alone}) == 3
    chosen = await best_reply(engine, request, 3)
    assert chosen.ids in [candidate.ids for candidate in alone]
    base = await engine.base_log_probabilities(request.prompt, [candidate.ids for candidate in alone])
    gains = [
        log_likelihood_gain(candidate.adapter or [], theirs) for candidate, theirs in zip(alone, base, strict=True)
    ]
    assert min(gains) > -20
    assert len(set(gains)) == 3
    assert await best_reply(engine, request, 3) == chosen


def _with_seed(request: Request, seed: int) -> Request:
    sampling = Sampling(max_tokens=request.sampling.max_tokens, seed=seed)
    return Request(prompt=request.prompt, sampling=sampling, stop_ids=request.stop_ids, adapter=request.adapter)


async def test_a_closed_engine_cannot_score(engine: TransformersEngine) -> None:
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        await engine.base_log_probabilities([2], [[3]])


async def test_a_scoring_error_does_not_stop_the_engine(engine: TransformersEngine) -> None:
    with pytest.raises(EngineError, match="the model failed"):
        await engine.base_log_probabilities([10**9], [[3]])
    assert len((await engine.base_log_probabilities([2], [[3, 4]]))[0]) == 2


class ScriptedEngine:
    """An engine that generates the next of `turns`; it cannot score them."""

    context_length = 500

    def __init__(self, turns: Sequence[Sequence[str]]) -> None:
        self.transcript: Transcript = build_transcript()
        self.turns = list(turns)
        self.requests: list[Request] = []
        self.closed = 0

    def transcript_of(self, adapter: str | None) -> Transcript:
        return self.transcript

    async def generate(self, request: Request) -> AsyncGenerator[Token]:
        self.requests.append(request)
        turn = self.turns.pop(0)
        if turn == ["fail"]:
            raise EngineError("failed")
        whole = self.transcript.encode(Header(), [Turn(ME, tuple(turn))]).ids
        try:
            for token in whole[len(self.transcript.prompt(Header(), [])) :]:
                yield Token(token, -1.0, -1.0)
        finally:
            self.closed += 1


class EngineWithScores(ScriptedEngine):
    """The base finds the second answer least likely."""

    async def base_log_probabilities(
        self, prompt: Sequence[int], answers: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        return [[-5.0 if place == 1 else -1.0] * len(answer) for place, answer in enumerate(answers)]


async def reply_bubbles(engine: ScriptedEngine, turns: Sequence[Turn] = TURNS, **options: object) -> list[str]:
    words = speak(engine, "a", Header(), turns, Sampling(seed=1), **{"candidates": 3, **options})  # type: ignore[arg-type]
    async with aclosing(words) as events:
        return [event.text async for event in events if isinstance(event, GeneratedBubble)]


async def test_candidates_are_requested_together_and_only_the_best_is_yielded() -> None:
    engine = EngineWithScores([["one"], ["two", "more"], ["three"]])
    assert await reply_bubbles(engine) == ["two", "more"]
    assert [request.sampling.seed for request in engine.requests] == [1, 2, 3]
    assert len({tuple(request.prompt) for request in engine.requests}) == 1
    assert await reply_bubbles(EngineWithScores([["one"], ["two", "more"], ["three"]]), max_bubbles=1) == ["two"]


class EngineWithContextScores(ScriptedEngine):
    """The base finds the last answer likelier with the context than without; all others equally likely."""

    score_calls = 0

    async def base_log_probabilities(
        self, prompt: Sequence[int], answers: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        self.score_calls += 1
        is_alone = self.score_calls > 1 and list(prompt) == self.transcript.prompt(Header(), [])
        last = len(answers) - 1
        return [[-9.0 if is_alone and place == last else -1.0] * len(answer) for place, answer in enumerate(answers)]


async def test_relevance_counts_only_in_a_conversation() -> None:
    engine, unscored = (EngineWithContextScores([["one"], ["two"], ["three"]]) for _ in range(2))
    assert await reply_bubbles(engine) == ["three"]
    assert await reply_bubbles(unscored, turns=[]) == ["one"]
    assert (engine.score_calls, unscored.score_calls) == (2, 1)


async def test_a_repetition_is_not_chosen() -> None:
    before = [Turn("Ramito", ("hi",)), Turn(ME, ("two",)), *TURNS]
    assert await reply_bubbles(EngineWithScores([["one"], ["two"], ["three"]]), before) != ["two"]


async def test_without_scoring_novelty_decides() -> None:
    engine = ScriptedEngine([["two"], ["something else"], ["two"]])
    assert not isinstance(engine, ScoringEngine)
    assert await reply_bubbles(engine, [Turn(ME, ("two",)), *TURNS]) == ["something else"]


async def test_a_failed_candidate_cancels_the_others() -> None:
    engine = ScriptedEngine([["one"], ["fail"], ["three"]])
    with pytest.raises(EngineError, match="failed"):
        await reply_bubbles(engine)
    assert engine.closed == 2
