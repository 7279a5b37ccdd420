"""The outcome of an examination of one version, and of two beside each other."""

from pathlib import Path
from typing import Any

import msgspec

from doppel.reports.metrics import GoalResult, by_name, metrics_to_json
from training.fidelity.examine import Examination


class Fidelity(msgspec.Struct, frozen=True):
    """The outcome for one version."""

    version: str
    folder: Path
    is_quick: bool
    examination: Examination
    checks: list[GoalResult]
    gate: list[GoalResult]
    created_at: str

    @property
    def passed(self) -> bool:
        """Whether the version may come into use by itself."""
        return all(check.ok for check in self.gate)

    def result(self) -> dict[str, Any]:
        """What `--json` prints, and fidelity.json holds."""
        return {
            "version": self.version,
            "created_at": self.created_at,
            "quick": self.is_quick,
            "floor": {"speaker": bool(self.examination.other), "replies": len(self.examination.other)},
            "figures": metrics_to_json(self.examination.figures),
            "checks": [msgspec.structs.asdict(check) for check in self.checks],
            "gate": [msgspec.structs.asdict(check) for check in self.gate],
            "seconds": self.examination.seconds,
        }


def compare(first: Fidelity, second: Fidelity) -> dict[str, Any]:
    """Two outcomes beside each other, and which of the two is better in each figure beyond both intervals."""
    better: dict[str, str | None] = {}
    others = by_name(second.examination.figures)
    for figure in first.examination.figures:
        other = others.get(figure.name)
        if other is not None:
            left, right = figure.estimate, other.estimate
            apart = left.high < right.low or right.high < left.low
            is_first = (left.value < right.value) == figure.lower_is_better
            better[figure.name] = (first.version if is_first else second.version) if apart else None
    return {"versions": [first.result(), second.result()], "better": better}
