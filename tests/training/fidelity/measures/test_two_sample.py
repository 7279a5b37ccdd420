"""A classifier that tries to tell the adapter's replies from the owner's."""

import numpy as np
import pytest

from doppel.reports.metrics import by_name
from tests.training.fidelity.cases import casual, formal
from training.fidelity.adapted_model import AdaptedModel
from training.fidelity.generate import EvaluationReply
from training.fidelity.measures.detector import cross_validated_auc, within_fold_auc
from training.fidelity.measures.two_sample import (
    best_of_metric,
    curve_metrics,
    informed_metric,
    two_sample_metrics,
)


def test_the_same_author_is_the_ceiling_and_another_the_floor() -> None:
    metric = by_name(two_sample_metrics(casual(90, 1), formal(90), casual(90, 2), casual(90, 3)))["two_sample_auc"]
    assert metric.floor is not None
    assert metric.ceiling is not None
    assert metric.estimate.value < 0.65
    assert metric.ceiling.value < 0.65
    assert metric.floor.value > 0.95


def test_another_person_takes_the_place_of_the_prompted_base_as_the_floor() -> None:
    replies = casual(90, 1), casual(90, 4), casual(90, 2), casual(90, 3)
    without, with_other = by_name(two_sample_metrics(*replies)), by_name(two_sample_metrics(*replies, formal(90)))
    prompted = with_other["two_sample_auc_prompted"].estimate
    assert without["two_sample_auc"].floor == without["two_sample_auc_prompted"].estimate == prompted
    assert with_other["two_sample_auc"].estimate == without["two_sample_auc"].estimate
    assert with_other["two_sample_auc"].floor is not None
    assert with_other["two_sample_auc"].floor.value > 2 * with_other["two_sample_auc"].estimate.value - 0.5


def test_a_single_reply_is_the_floor_of_the_best_of_several() -> None:
    metric = best_of_metric(casual(60), formal(60), casual(60, 1), casual(60, 2))
    assert metric.floor is not None
    assert metric.estimate.value < 0.7 < metric.floor.value


def test_only_pairs_of_one_fold_are_compared() -> None:
    truth, folds = np.array([1, 0, 1, 0, 1, 0]), np.array([0, 0, 1, 1, -1, -1])
    assert within_fold_auc(truth, np.array([0.2, 0.1, 9.0, 8.0, 0.0, 5.0]), folds) == 1
    assert within_fold_auc(truth, np.array([0.2, 0.1, 8.0, 8.0, 0.0, 5.0]), folds) == 0.75
    assert np.isnan(within_fold_auc(truth[::2], np.zeros(3), folds[::2]))


def test_with_matched_lengths_the_length_gives_nothing_away() -> None:
    def replies(*texts: str) -> list[EvaluationReply]:
        return [EvaluationReply(reply.exchange, (texts[number % 2],)) for number, reply in enumerate(casual(90))]

    short, long = replies("ab", "ab ab"), replies("ab", "ab ab ab ab ab")
    metrics = by_name(two_sample_metrics(long, long, short, short))
    assert metrics["two_sample_auc_matched"].estimate.value < metrics["two_sample_auc"].estimate.value


def test_lengths_are_matched_within_each_fold() -> None:
    # One side writes long in three of the four conversations, the other in one: only what both have there is left.
    groups = [group for group in "abcd" for _ in range(40)]
    texts, labels = [], []
    for group in "abcd":
        for number in range(40):
            is_mine = number % 2 == 0
            is_long = number % 20 < 2 if is_mine == (group == "a") else number % 20 >= 2
            texts.append("hm " * (9 if is_long else 1))
            labels.append(int(is_mine))
    assert cross_validated_auc(texts, labels, groups).value != pytest.approx(0.5, abs=0.05)
    assert cross_validated_auc(texts, labels, groups, match_lengths=True).value == pytest.approx(0.5)


def test_numbers_tell_apart_what_words_do_not() -> None:
    texts, groups = ["the same words"] * 120, [str(number // 6) for number in range(120)]
    labels = [number % 2 for number in range(120)]
    numbers = np.array([[float(label), 1.0] for label in labels])
    assert cross_validated_auc(texts, labels, groups).value == pytest.approx(0.5)
    assert cross_validated_auc(texts, labels, groups, numbers=numbers).value == 1


def test_the_interval_of_chance_holds_one_half() -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(["ab", "cd", "ef", "gh"], 4)) for _ in range(160)]
    interval = cross_validated_auc(texts, [number % 2 for number in range(160)], [str(n // 4) for n in range(160)])
    assert interval.low < 0.5 < interval.high
    assert interval.high - interval.low > 0.1


def test_fewer_replies_are_compared_for_the_curve() -> None:
    names = [metric.name for metric in curve_metrics(casual(80, 1), casual(80, 2), casual(80, 3))]
    assert names == ["two_sample_auc_20_replies", "two_sample_auc_40_replies"]


def test_the_stronger_detector_asks_the_base(adapted: AdaptedModel) -> None:
    metric = informed_metric(adapted, formal(40), casual(40, 2), casual(40, 3))
    assert metric.ceiling is not None
    assert metric.estimate.value > 0.9
    assert metric.ceiling.value < 0.7
