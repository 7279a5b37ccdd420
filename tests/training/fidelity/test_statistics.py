"""Confidence intervals by resampling."""

import numpy as np
import pytest

from training.fidelity.statistics import bootstrap, difference_of_changes, jackknife, mean, ratio, relative_change


def test_a_ratio_is_of_the_sums_and_lies_in_its_interval() -> None:
    estimate = ratio([1.0, 3.0, 2.0, 2.0] * 20, [1.0, 1.0, 1.0, 1.0] * 20)
    assert estimate.value == 2.0
    assert estimate.low < 2.0 < estimate.high


def test_more_data_gives_a_narrower_interval() -> None:
    few, many = (mean([0.0, 1.0] * count) for count in (10, 1000))
    assert many.high - many.low < few.high - few.low


def test_groups_of_similar_values_give_a_wider_interval() -> None:
    values = [0.0] * 50 + [1.0] * 50
    alone, grouped = mean(values), mean(values, [number // 25 for number in range(100)])
    assert grouped.high - grouped.low > alone.high - alone.low


def test_changes_are_relative() -> None:
    assert relative_change([1.0, 1.0], [2.0, 2.0]).value == -0.5
    assert difference_of_changes(([3.0] * 9, [4.0] * 9), ([2.0] * 9, [4.0] * 9)).value == pytest.approx(0.25)


def test_the_mean_of_nothing_is_nan() -> None:
    assert np.isnan(mean([]).value)


def test_any_statistic_can_be_bootstrapped() -> None:
    values = np.arange(50.0)
    estimate = bootstrap(list(range(50)), lambda rows: float(np.median(values[rows])))
    assert estimate.low < 24.5 < estimate.high


def test_the_jackknife_interval_of_a_mean_is_the_textbook_one() -> None:
    assert jackknife(["one"] * 5, lambda rows: 1.0).value == 1.0
    values = np.random.default_rng(0).normal(size=400)
    interval = jackknife(list(range(400)), lambda rows: float(values[rows].mean()))
    assert interval.high - interval.low == pytest.approx(2 * 1.96 / 400**0.5, rel=0.3)
