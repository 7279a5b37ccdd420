"""Metrics on the scale from floor to ceiling, and goals."""

from doppel.reports.metrics import Interval, Metric, check_goal


def test_a_metric_is_normalized_between_its_floor_and_its_ceiling() -> None:
    low, middle, high = (Interval(value, value, value) for value in (1.0, 2.0, 3.0))
    assert Metric(name="x", estimate=middle, floor=low, ceiling=high).normalized == 0.5
    assert Metric(name="x", estimate=middle, floor=high, ceiling=low).normalized == 0.5
    assert Metric(name="x", estimate=middle).normalized is None


def test_a_value_that_could_not_be_measured_meets_no_goal() -> None:
    assert check_goal("x", 0.5, ">= 0.5").ok
    assert not check_goal("x", 0.5, "> 0.5").ok
    assert not check_goal("x", float("nan"), "<= 1").ok
