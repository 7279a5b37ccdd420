"""The report of `benchmarks/fidelity.py`: every goal of the examination, and how long it took."""

from typing import Any

from benchmarks.fidelity import summary


def examined(*, quick: bool, questions: float = 520) -> dict[str, Any]:
    return {
        "quick": quick,
        "seconds": {"read": 1.0},
        "floor": {"speaker": True, "replies": 160},
        "figures": {"choice_questions": {"value": questions}},
        "checks": [{"name": "choice among four", "value": 0.5, "goal": ">= 0.48", "ok": True}],
    }


def goals(report: dict[str, Any]) -> dict[str, bool]:
    return {check["name"]: check["ok"] for check in report["checks"]}


def test_time_and_questions_are_goals_beside_those_of_the_examination() -> None:
    report = summary(examined(quick=False), 15 * 60.0, 1000.0)
    assert list(goals(report).values()) == [True, True, True]
    assert goals(summary(examined(quick=False, questions=499), 15 * 60.0 + 1, 1000.0)) == {
        "choice among four": True,
        "multiple-choice questions": False,
        "minutes of the whole evaluation": False,
    }


def test_a_rough_one_has_less_time_and_may_ask_less() -> None:
    assert goals(summary(examined(quick=True, questions=40), 3 * 60.0, 300.0)) == {
        "choice among four": True,
        "minutes of the whole evaluation": True,
    }
    assert not goals(summary(examined(quick=True), 3 * 60.0 + 1, 300.0))["minutes of the whole evaluation"]
