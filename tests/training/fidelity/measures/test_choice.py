"""Multiple choice: distractors of similar length, and a model whose answers are known."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from doppel.reports.metrics import by_name
from doppel.transcript import ME, Header
from tests.training.fidelity.cases import make_session
from training.fidelity.adapted_model import AdaptedModel, Continuations
from training.fidelity.measures.choice import choice_metrics, combine, make_questions
from training.fidelity.texts import EvaluationData, Exchange


def evaluation_data() -> EvaluationData:
    """Forty conversations in which somebody asks and the owner answers, no two alike."""
    sessions = [
        make_session(number, ("Ramito", f"how is number {number} today"), (ME, f"number {number} is quite well"))
        for number in range(40)
    ]
    exchanges = [Exchange(session.id, Header(), session.turns[:1], session.turns[1]) for session in sessions]
    return EvaluationData([], sessions, exchanges)


class PerfectModel:
    """Prefers the right reply when its adapter is enabled and the context is given; otherwise all replies equally.

    It is scored with the questions in context first.
    """

    def __init__(self, adapted: AdaptedModel, question_count: int) -> None:
        self.transcript = adapted.transcript
        self._question_count = question_count
        self._is_enabled = True

    @contextmanager
    def adapter_disabled(self) -> Iterator[None]:
        self._is_enabled = False
        yield
        self._is_enabled = True

    def log_probabilities(self, questions: Sequence[Continuations], advance: Callable[[int], None]) -> list[Any]:
        advance(sum(question.token_count for question in questions))
        is_right = self._is_enabled and len(questions) == self._question_count
        return [np.array([5.0 * is_right, *[0.0] * (len(question.options) - 1)]) for question in questions]


def test_options_are_of_similar_length_and_all_different() -> None:
    for question in make_questions(evaluation_data(), 40):
        texts = ["\n".join(turn.bubbles) for turn in question.options]
        assert len(set(texts)) == len(texts) == 4
        assert texts[0] == question.exchange.text
        assert all(0.6 * len(texts[0]) <= len(text) <= 1.6 * len(texts[0]) + 4 for text in texts)
        assert all(turn.speaker == ME for turn in question.options)


def test_a_model_that_recognises_the_reply_by_its_context_is_always_right(adapted: AdaptedModel) -> None:
    done: list[int] = []
    total: list[int] = []

    def start(count: int) -> Callable[[int], None]:
        total.append(count)
        return done.append

    metrics = by_name(choice_metrics(PerfectModel(adapted, 40), evaluation_data(), 40, start))  # type: ignore[arg-type]
    assert metrics["choice_questions"].estimate.value == 40
    for name, chance in (("choice", 0.25), ("choice_others", 1 / 3)):
        assert metrics[name].estimate.value == metrics[f"{name}_context"].estimate.value == 1
        assert metrics[f"{name}_context"].floor.value == pytest.approx(chance)  # type: ignore[union-attr]
        assert metrics[f"{name}_base"].estimate.value == pytest.approx(chance)
        assert metrics[name].floor.value <= chance + 0.2  # type: ignore[union-attr]
    assert sum(done) == sum(total)


def test_without_exchanges_there_are_no_questions(adapted: AdaptedModel) -> None:
    assert choice_metrics(PerfectModel(adapted, 1), EvaluationData([], [], []), 10) == []  # type: ignore[arg-type]


def test_combining_features_finds_the_one_that_distinguishes_the_right_option() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 4, 3))
    features[:, 0, 1] -= 2.0  # the second feature is low for the right option
    groups = [str(number // 4) for number in range(200)]
    scores = combine(features, groups)
    assert (scores.argmax(1) == 0).mean() > 0.7
    assert (combine(rng.normal(size=(200, 4, 3)), groups).argmax(1) == 0).mean() < 0.45
