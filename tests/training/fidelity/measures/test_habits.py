"""Distances between writing habits, and the variety of replies."""

from collections import Counter

import pytest

from doppel.reports.metrics import by_name
from tests.training.fidelity.cases import casual, formal
from training.fidelity.generate import EvaluationReply
from training.fidelity.measures.habits import distinct, habit_metrics, jensen_shannon, self_bleu, words


def test_the_same_author_is_near_and_another_far() -> None:
    metrics = by_name(habit_metrics(casual(90, 1), formal(90), casual(90, 2), casual(90, 3)))
    distance = metrics["habits_distance"]
    assert distance.floor is not None
    assert distance.normalized is not None
    assert distance.estimate.value < 0.35 * distance.floor.value
    assert distance.normalized > 0.8
    for name in ("habit_emoji", "habit_opening_words", "habit_length"):
        metric = metrics[name]
        assert metric.floor is not None
        assert metric.estimate.value < metric.floor.value


def test_another_person_takes_the_place_of_the_prompted_base_as_the_floor() -> None:
    replies = casual(90, 1), casual(90, 4), casual(90, 2), casual(90, 3)
    without, with_other = by_name(habit_metrics(*replies)), by_name(habit_metrics(*replies, formal(90)))
    prompted = with_other["habits_distance_prompted"].estimate
    assert without["habits_distance"].floor == without["habits_distance_prompted"].estimate == prompted
    assert with_other["habits_distance"].estimate == without["habits_distance"].estimate
    assert with_other["habits_distance"].floor is not None
    assert with_other["habits_distance"].floor.value > 2 * with_other["habits_distance"].estimate.value - 0.5


def test_always_the_same_reply_shows_in_the_variety() -> None:
    constant = [EvaluationReply(reply.exchange, ("sounds good to me",)) for reply in casual(90)]
    metrics = by_name(habit_metrics(constant, formal(90), casual(90, 2), casual(90, 3)))
    assert metrics["distinct_2"].estimate.value < 0.5
    assert metrics["length_spread"].estimate.value == 0
    assert metrics["self_bleu"].estimate.value > 1


def test_the_variety_lies_in_its_interval() -> None:
    metrics = by_name(habit_metrics(casual(90, 1), formal(90), casual(90, 2), casual(90, 3)))
    estimate = metrics["distinct_2"].estimate
    assert estimate.low < estimate.value < estimate.high


def test_divergence_is_between_zero_and_one() -> None:
    assert jensen_shannon(Counter("ab"), Counter("ab")) == 0
    assert jensen_shannon(Counter("a"), Counter("b")) == 1


def test_words_of_several_scripts() -> None:
    assert words("Don't, 你好 OK_2!") == ["don't", "你", "好", "ok", "2"]
    assert distinct(["a b a b"]) == pytest.approx(2 / 3)
    assert self_bleu(["a b", "a b", "c d"]) == pytest.approx(2 / 3)
