"""Questions of choice: distractors of like lengths, and a subject whose answers are known."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from doppel.reports.metrics import by_name
from doppel.transcript import ME, Header
from tests.training.fidelity.test_floors import session
from tests.training.fidelity.test_floors import subject as subject  # noqa: PLC0414 a fixture
from training.fidelity.adapted_model import AdaptedModel, Continuations
from training.fidelity.measures.choice import choice_metrics, make_questions
from training.fidelity.texts import EvaluationData, Exchange


def held_out() -> EvaluationData:
    """Forty conversations in which somebody asks and the owner answers, no two alike."""
    sessions = [
        session(number, ("Ramito", f"how is number {number} today"), (ME, f"number {number} is quite well"))
        for number in range(40)
    ]
    asked = [Exchange(session.id, Header(), session.turns[:1], session.turns[1]) for session in sessions]
    return EvaluationData([], sessions, asked)


class Knowing:
    """Likes the reply best where there is a context, if its adapter is in force; otherwise all the same.

    Its first questions of each reading are those with context.
    """

    def __init__(self, subject: AdaptedModel, questions: int) -> None:
        self.transcript = subject.transcript
        self._questions = questions
        self._is_adapted = True

    @contextmanager
    def adapter_disabled(self) -> Iterator[None]:
        self._is_adapted = False
        yield
        self._is_adapted = True

    def log_probabilities(self, questions: Sequence[Continuations], advance: Callable[[int], None]) -> list[Any]:
        advance(sum(question.token_count for question in questions))
        knows = self._is_adapted and len(questions) == self._questions
        return [np.array([5.0 * knows, *[0.0] * (len(question.options) - 1)]) for question in questions]


def test_candidates_are_of_like_lengths_and_all_different() -> None:
    for question in make_questions(held_out(), 40):
        texts = ["\n".join(turn.bubbles) for turn in question.options]
        assert len(set(texts)) == len(texts) == 4
        assert texts[0] == question.exchange.text
        assert all(0.6 * len(texts[0]) <= len(text) <= 1.6 * len(texts[0]) + 4 for text in texts)
        assert all(turn.speaker == ME for turn in question.options)


def test_one_who_knows_the_reply_from_its_context_finds_it(subject: AdaptedModel) -> None:
    heard: list[int] = []
    total: list[int] = []

    def begin(count: int) -> Callable[[int], None]:
        total.append(count)
        return heard.append

    figures = by_name(choice_metrics(Knowing(subject, 40), held_out(), 40, begin))  # type: ignore[arg-type]
    assert figures["choice_questions"].estimate.value == 40
    for name, chance in (("choice", 0.25), ("choice_others", 1 / 3)):
        assert figures[name].estimate.value == figures[f"{name}_context"].estimate.value == 1
        assert figures[f"{name}_context"].floor.value == pytest.approx(chance)  # type: ignore[union-attr]
        assert figures[f"{name}_base"].estimate.value == pytest.approx(chance)
        assert figures[name].floor.value <= chance + 0.2  # type: ignore[union-attr]
    assert sum(heard) == sum(total)


def test_without_anybody_else_nothing_is_asked(subject: AdaptedModel) -> None:
    alone = EvaluationData([], [], [])
    assert choice_metrics(Knowing(subject, 1), alone, 10) == []  # type: ignore[arg-type]
