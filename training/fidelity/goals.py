"""What is asked of an adapter: the goals of a report, and the gate that a new adapter must pass to come into use."""

from collections.abc import Iterable

from doppel.reports.figures import Check, Figure, by_name, check


def goals(figures: Iterable[Figure]) -> list[Check]:
    """What a good doppelgänger reaches, each with its figure."""
    found = by_name(figures)
    bits = found["bits_change"]
    own, others = bits.value.value, bits.floor.value if bits.floor else 0.0
    checks = [
        check("bits per byte against the base", own, "<= -0.25"),
        check("bits per byte against the base with a prompt", found["bits_change_prompted"].value.value, "< 0"),
        check(
            "improvement on others over improvement on the owner", others / own if own < 0 else float("inf"), "<= 0.5"
        ),
    ]
    if "choice" in found:
        checks += [
            check("choice among four", found["choice"].value.value, ">= 0.48"),
            check("choice among three, strangers' distractors", found["choice_others"].value.value, ">= 0.62"),
        ]
    habits, base = (found[name].value.value for name in ("habits_distance", "habits_distance_prompted"))
    return [*checks, check("distance of habits over the prompted base's", habits / base, "<= 0.5")]


def gate(figures: Iterable[Figure]) -> list[Check]:
    """What an adapter must give to come into use: better than the base, on the owner most, and reciting nothing."""
    found = by_name(figures)
    checks = [
        check("bits per byte against the base", found["bits_change"].value.value, "< 0"),
        check("specificity", found["specificity"].value.value, "> 0"),
    ]
    recited = found["recited"]
    if recited.ceiling is not None:
        baseline = max(recited.ceiling.high, recited.ceiling.value)
        checks.append(check("recited beyond the owner's own repeating", recited.value.value - baseline, "<= 0"))
    return checks
