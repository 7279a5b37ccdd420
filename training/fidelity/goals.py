"""The goals of a fidelity report, and the gate: the goals that a new version must meet to come into use."""

from collections.abc import Iterable

from doppel.reports.metrics import GoalResult, Metric, by_name, check_goal


def check_goals(metrics: Iterable[Metric]) -> list[GoalResult]:
    """The goals of a good doppelgänger."""
    named = by_name(metrics)
    bits = named["bits_change"]
    owner_change, others_change = bits.estimate.value, bits.floor.value if bits.floor else 0.0
    change_ratio = others_change / owner_change if owner_change < 0 else float("inf")
    results = [
        check_goal("bits per byte against the base", owner_change, "<= -0.25"),
        check_goal("bits per byte against the base with a prompt", named["bits_change_prompted"].estimate.value, "< 0"),
        check_goal("improvement on others over improvement on the owner", change_ratio, "<= 0.5"),
    ]
    if "choice" in named:
        results += [
            check_goal("choice among four", named["choice"].estimate.value, ">= 0.48"),
            check_goal("choice among three, strangers' distractors", named["choice_others"].estimate.value, ">= 0.62"),
        ]
    habits, base_habits = (named[name].estimate.value for name in ("habits_distance", "habits_distance_prompted"))
    return [*results, check_goal("distance of habits over the prompted base's", habits / base_habits, "<= 0.5")]


def check_gate(metrics: Iterable[Metric]) -> list[GoalResult]:
    """What a version must reach to come into use: better than the base, on the owner most of all, reciting nothing."""
    named = by_name(metrics)
    results = [
        check_goal("bits per byte against the base", named["bits_change"].estimate.value, "< 0"),
        check_goal("specificity", named["specificity"].estimate.value, "> 0"),
    ]
    recited = named["recited"]
    if recited.ceiling is not None:
        baseline = max(recited.ceiling.high, recited.ceiling.value)
        excess = recited.estimate.value - baseline
        results.append(check_goal("recited beyond the owner's own repeating", excess, "<= 0"))
    return results
