"""The figures of a fidelity report: what was measured, between which floor and ceiling, and what is asked of it."""

from collections.abc import Iterable
from typing import Any

import msgspec

from training.fidelity.intervals import Estimate


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


def _numbers(estimate: Estimate | None) -> Any:
    return None if estimate is None else msgspec.structs.asdict(estimate.rounded(5))
