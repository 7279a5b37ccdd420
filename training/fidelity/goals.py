"""What is asked of an adapter: the goals of a report, and the gate that a new adapter must pass to come into use."""

from collections.abc import Iterable

from doppel.reports.metrics import GoalResult, Metric, by_name, check_goal


def goals(figures: Iterable[Metric]) -> list[GoalResult]:
    """What a good doppelgänger reaches, each with its figure."""
    found = by_name(figures)
    bits = found["bits_change"]
    own, others = bits.estimate.value, bits.floor.value if bits.floor else 0.0
    checks = [
        check_goal("bits per byte against the base", own, "<= -0.25"),
        check_goal("bits per byte against the base with a prompt", found["bits_change_prompted"].estimate.value, "< 0"),
        check_goal(
            "improvement on others over improvement on the owner", others / own if own < 0 else float("inf"), "<= 0.5"
        ),
    ]
    if "choice" in found:
        checks += [
            check_goal("choice among four", found["choice"].estimate.value, ">= 0.48"),
            check_goal("choice among three, strangers' distractors", found["choice_others"].estimate.value, ">= 0.62"),
        ]
    habits, base = (found[name].estimate.value for name in ("habits_distance", "habits_distance_prompted"))
    return [*checks, check_goal("distance of habits over the prompted base's", habits / base, "<= 0.5")]


def gate(figures: Iterable[Metric]) -> list[GoalResult]:
    """What an adapter must give to come into use: better than the base, on the owner most, and reciting nothing."""
    found = by_name(figures)
    checks = [
        check_goal("bits per byte against the base", found["bits_change"].estimate.value, "< 0"),
        check_goal("specificity", found["specificity"].estimate.value, "> 0"),
    ]
    recited = found["recited"]
    if recited.ceiling is not None:
        baseline = max(recited.ceiling.high, recited.ceiling.value)
        checks.append(check_goal("recited beyond the owner's own repeating", recited.estimate.value - baseline, "<= 0"))
    return checks
