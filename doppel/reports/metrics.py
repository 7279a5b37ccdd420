"""Metrics of a fidelity report: an estimate with its confidence interval, a floor, a ceiling, and goals for it."""

from collections.abc import Iterable
from typing import Any

import msgspec

FIDELITY_FILE = "fidelity.json"
"""The fidelity report of an adapter, in its folder."""


class Interval(msgspec.Struct, frozen=True):
    """An estimate with its 95 % confidence interval. All three are NaN when there was nothing to measure."""

    value: float
    low: float
    high: float

    @classmethod
    def exact(cls, value: float) -> "Interval":
        """A value without uncertainty: a count, or a chance level."""
        return cls(value, value, value)

    @classmethod
    def unknown(cls, value: float = float("nan")) -> "Interval":
        """A value whose interval could not be computed, or no value at all."""
        return cls(value, float("nan"), float("nan"))

    def rounded(self, digits: int = 4) -> "Interval":
        """The same with fewer digits, for reports."""
        return Interval(round(self.value, digits), round(self.low, digits), round(self.high, digits))


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement of an adapter.

    Attributes:
        name: its key in `--json`, in snake case.
        estimate: what the adapter reaches.
        floor: what another person, or the base model, reaches.
        ceiling: what the owner reaches.
        lower_is_better: whether a lower value is closer to the owner.
        unit: `bits`, `share`, `change` (relative), `count` or empty.
    """

    name: str
    estimate: Interval
    floor: Interval | None = None
    ceiling: Interval | None = None
    lower_is_better: bool = False
    unit: str = ""

    @property
    def normalized(self) -> float | None:
        """The estimate scaled so that the floor is 0 and the ceiling is 1, not clipped; None without both."""
        if self.floor is None or self.ceiling is None or self.ceiling.value == self.floor.value:
            return None
        return (self.estimate.value - self.floor.value) / (self.ceiling.value - self.floor.value)


class GoalResult(msgspec.Struct, frozen=True):
    """A goal for one value, and whether the value meets it."""

    name: str
    value: float
    goal: str
    ok: bool


def check_goal(name: str, value: float, goal: str) -> GoalResult:
    """Checks a value against a goal written as `>= 0.5`, `> 0`, `<= 1` or `< 1`. NaN fails every goal."""
    operator, bound = goal.split()
    threshold = float(bound)
    comparisons = {">=": value >= threshold, ">": value > threshold, "<=": value <= threshold, "<": value < threshold}
    return GoalResult(name, round(value, 4), goal, comparisons[operator])


def wilson_interval(successes: int, trials: int) -> Interval:
    """A share of independent trials with Wilson's score interval (1927), which also holds for few trials."""
    if not trials:
        return Interval.unknown()
    from scipy.stats import binomtest  # slow to import

    interval = binomtest(successes, trials).proportion_ci(method="wilson")
    return Interval(successes / trials, float(interval.low), float(interval.high))


def by_name(metrics: Iterable[Metric]) -> dict[str, Metric]:
    """Metrics by their names."""
    return {metric.name: metric for metric in metrics}


def metrics_to_json(metrics: Iterable[Metric]) -> dict[str, Any]:
    """The metrics as `--json` prints them and fidelity.json stores them, by name."""
    return {
        metric.name: {
            **_interval_to_json(metric.estimate),
            "floor": _interval_to_json(metric.floor),
            "ceiling": _interval_to_json(metric.ceiling),
            "unit": metric.unit,
            "lower_is_better": metric.lower_is_better,
        }
        for metric in metrics
    }


def format_value(metric: Metric, interval: Interval | None, *, with_interval: bool = False) -> str:
    """A value of a metric (its estimate, floor or ceiling) in the metric's unit, for people."""
    if interval is None or interval.value != interval.value:
        return "–"
    text = _format_number(metric.unit, interval.value)
    if with_interval and interval.low == interval.low:
        text += f" [{_format_number(metric.unit, interval.low)}, {_format_number(metric.unit, interval.high)}]"
    return text


def format_share(interval: Interval) -> str:
    """A share and its interval, for people."""
    return format_value(Metric(name="", estimate=interval, unit="share"), interval, with_interval=True)


def _format_number(unit: str, value: float) -> str:
    if unit == "change":
        return f"{value:+.1%}"
    if unit == "share":
        return f"{value:.1%}"
    return f"{value:.1f}" if unit == "count" else f"{value:.3f}"


def _interval_to_json(interval: Interval | None) -> Any:
    return None if interval is None else msgspec.structs.asdict(interval.rounded(5))
