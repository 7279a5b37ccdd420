"""The figures of a fidelity report: what was measured, between which floor and ceiling, and what is asked of it.

Knows numbers and how people read them; knows no measure.
"""

import math
from collections.abc import Iterable
from typing import Any

import msgspec

FILE = "fidelity.json"
"""The outcome of an adapter's examinations, in its folder."""


class Estimate(msgspec.Struct, frozen=True):
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float

    def rounded(self, digits: int = 4) -> "Estimate":
        """The same with fewer digits, for reports."""
        return Estimate(*(round(one, digits) for one in (self.value, self.low, self.high)))


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement.

    Attributes:
        name: in `--json`, lower case.
        value: of the adapter.
        floor: what somebody else, or the base model, gets.
        ceiling: what the owner gets.
        lower_is_better: whether less is more like the owner.
        unit: `bits`, `share`, `change` (a relative one), `count` or empty.
    """

    name: str
    value: Estimate
    floor: Estimate | None = None
    ceiling: Estimate | None = None
    lower_is_better: bool = False
    unit: str = ""

    @property
    def likeness(self) -> float | None:
        """Where the value lies between floor (0) and ceiling (1), not cut off; None without both."""
        if self.floor is None or self.ceiling is None or self.ceiling.value == self.floor.value:
            return None
        return (self.value.value - self.floor.value) / (self.ceiling.value - self.floor.value)


class Check(msgspec.Struct, frozen=True):
    """One thing that is asked of the figures, and whether they give it."""

    name: str
    value: float
    goal: str
    ok: bool


def check(name: str, value: float, goal: str) -> Check:
    """A check whose goal is written `>= 0.5`, `> 0`, `<= 1` or `< 1`; what could not be measured fails."""
    sign, bound = goal.split()
    number = float(bound)
    ok = {">=": value >= number, ">": value > number, "<=": value <= number, "<": value < number}[sign]
    return Check(name, round(value, 4), goal, ok)


def wilson(count: int, total: int) -> Estimate:
    """A share of independent trials, by Wilson's score interval (1927), which holds for few and for none too."""
    if not total:
        return Estimate(float("nan"), float("nan"), float("nan"))
    share, z = count / total, 1.959964
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return Estimate(share, max(0.0, middle - half), min(1.0, middle + half))


def by_name(figures: Iterable[Figure]) -> dict[str, Figure]:
    """Figures by their names."""
    return {figure.name: figure for figure in figures}


def as_json(figures: Iterable[Figure]) -> dict[str, Any]:
    """What `--json` has of the figures: value, interval, floor and ceiling by name."""
    return {
        figure.name: {
            **_numbers(figure.value),
            "floor": _numbers(figure.floor),
            "ceiling": _numbers(figure.ceiling),
            "unit": figure.unit,
            "lower_is_better": figure.lower_is_better,
        }
        for figure in figures
    }


def shown(figure: Figure, estimate: Estimate | None, *, with_interval: bool = False) -> str:
    """A number of a figure for people."""
    if estimate is None or estimate.value != estimate.value:
        return "–"
    text = _number(figure, estimate.value)
    if with_interval and estimate.low == estimate.low:
        text += f" [{_number(figure, estimate.low)}, {_number(figure, estimate.high)}]"
    return text


def share_of(estimate: Estimate) -> str:
    """A share and its interval for people."""
    return shown(Figure(name="", value=estimate, unit="share"), estimate, with_interval=True)


def _number(figure: Figure, value: float) -> str:
    if figure.unit == "change":
        return f"{value:+.1%}"
    if figure.unit == "share":
        return f"{value:.1%}"
    return f"{value:.1f}" if figure.unit == "count" else f"{value:.3f}"


def _numbers(estimate: Estimate | None) -> Any:
    return None if estimate is None else msgspec.structs.asdict(estimate.rounded(5))
