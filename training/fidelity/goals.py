"""The goals of a fidelity report, and the gate: the goals that a new version must meet to come into use."""

from collections.abc import Iterable, Mapping

from doppel.reports.metrics import GoalResult, Metric, by_name, check_goal

MAX_SILENT = 0.1
"""Of the replies, at the lower end of the interval: a version that says nothing is of no use."""


def check_goals(metrics: Iterable[Metric]) -> list[GoalResult]:
    """The goals of a good doppelgänger. Being more like the owner than the owner is a caricature, and no success."""
    named = by_name(metrics)
    bits = named["bits_change"]
    owner_change, others_change = bits.estimate.value, bits.floor.value if bits.floor else 0.0
    change_ratio = others_change / owner_change if owner_change < 0 else float("inf")
    results = [
        check_goal("bits per byte against the base", owner_change, "<= -0.06"),
        check_goal("bits per byte against the base with a prompt", named["bits_change_prompted"].estimate.value, "< 0"),
        check_goal("improvement on others over improvement on the owner", change_ratio, "<= 0.5"),
    ]
    if "choice" in named:
        results += [
            check_goal("choice among four", named["choice"].estimate.value, ">= 0.48"),
            check_goal("choice among three, strangers' distractors", named["choice_others"].estimate.value, ">= 0.62"),
        ]
    habits, base_habits = (named[name].estimate.value for name in ("habits_distance", "habits_distance_prompted"))
    results.append(check_goal("distance of habits over the prompted base's", habits / base_habits, "<= 0.5"))
    results.append(check_goal("habits within the owner's own range", named["habits_within"].estimate.value, ">= 1"))
    detector = named["two_sample_auc_informed"]
    if detector.ceiling is not None:
        excess = detector.estimate.value - detector.ceiling.value
        results.append(check_goal("stronger detector, above the owner's own", excess, "<= 0.05"))
    if "authorship" in named and named["authorship"].ceiling is not None:
        excess = named["authorship"].estimate.value - named["authorship"].ceiling.high
        results.append(check_goal("attributed beyond the owner's own", excess, "<= 0"))
    return results


def check_gate(metrics: Iterable[Metric]) -> list[GoalResult]:
    """What a version must reach to come into use, by the ends of the intervals.

    It must be shown to be better than the base; and must not be shown to know other people better than the owner, to
    recite, repeat or give a stock reply more than the owner, or to say nothing.
    """
    named = by_name(metrics)
    return [
        check_goal("bits per byte against the base", named["bits_change"].estimate.high, "< 0"),
        check_goal("specificity", named["specificity"].estimate.high, "> 0"),
        *_check_copying(named),
        check_goal("silent", named["silent"].estimate.low, f"<= {MAX_SILENT}"),
    ]


def _check_copying(named: Mapping[str, Metric]) -> Iterable[GoalResult]:
    for name, goal in (
        ("recited", "recited beyond the owner's own repeating"),
        ("recited_from_contacts", "recited from contacts beyond the owner's own repeating"),
        ("parroted", "repeated what it answers more than the owner does"),
        ("commonest_reply", "gave its commonest reply more than the owner does"),
    ):
        metric = named[name]
        baseline = metric.ceiling.high if metric.ceiling is not None else 0.0
        yield check_goal(goal, metric.estimate.low - baseline, "<= 0")
