"""Bits per byte: how well the adapter expects what the owner wrote, and whether it is the owner it learned.

Base, base with a prompt of the owner's earlier messages, and adapter read the same held-out text. So do they read
what other people wrote in the same conversations: what improves there is the platform, not the person.
"""

import math
from collections.abc import Sequence

from doppel.reports.metrics import Interval, Metric
from training.fidelity.judge import Scored, Subject
from training.fidelity.neutral import neutral_examples
from training.fidelity.stages import Begin, silent
from training.fidelity.statistics import change, difference, ratio
from training.fidelity.texts import HeldOut, few_shot, others_examples, owner_examples, with_prompt

_PROMPT_TOKENS = 256
_LENGTH = 256
"""Tokens of a piece, as in a first training: many short pieces say more than few long ones that begin alike."""


def likelihood(subject: Subject, held: HeldOut, tokens: int, begin: Begin = silent) -> list[Metric]:
    """Figures 1 (bits per byte, specificity) and 8 (forgetting) of a report.

    Args:
        subject: the adapter.
        held: what it has not seen.
        tokens: of the owner and of others to read, about; of the past half as much.
        begin: hears how many tokens are to be read, and then how many were.
    """
    transcript = subject.transcript
    own = owner_examples(held.future, transcript, _LENGTH, tokens)
    others = others_examples(held.future, transcript, _LENGTH, tokens)
    past = owner_examples(held.past, transcript, _LENGTH, tokens // 2)
    neutral = neutral_examples(transcript)
    primed = with_prompt(few_shot(held.past, transcript, _PROMPT_TOKENS), own)
    twice = [*own, *others, *neutral]
    advance = begin(sum(len(one.ids) for one in [*twice, *twice, *primed, *past]))
    with subject.base_alone():
        before, others_before, neutral_before = (subject.score(one, advance) for one in (own, others, neutral))
        prompted = subject.score(primed, advance)
    after, others_after, neutral_after = (subject.score(one, advance) for one in (own, others, neutral))
    ceiling = bits(subject.score(past, advance))
    improvement = _change(after, before)
    elsewhere = _change(others_after, others_before)
    return [
        _bits("bits_per_byte", after, floor=bits(before), ceiling=ceiling),
        _bits("bits_per_byte_base", before),
        _bits("bits_per_byte_prompted", prompted),
        Metric(name="bits_change", estimate=improvement, floor=elsewhere, lower_is_better=True, unit="change"),
        Metric(name="bits_change_prompted", estimate=_change(after, prompted), lower_is_better=True, unit="change"),
        Metric(
            name="specificity",
            estimate=difference(_sums(others_after, others_before), _sums(after, before)),
            unit="change",
        ),
        Metric(name="forgetting", estimate=_change(neutral_after, neutral_before), lower_is_better=True, unit="change"),
    ]


def bits(scores: Sequence[Scored]) -> Interval:
    """Bits per byte of text over examples."""
    return ratio([one.text / math.log(2) for one in scores], [float(one.text_bytes) for one in scores])


def _bits(
    name: str, scores: Sequence[Scored], floor: Interval | None = None, ceiling: Interval | None = None
) -> Metric:
    return Metric(name=name, estimate=bits(scores), floor=floor, ceiling=ceiling, lower_is_better=True, unit="bits")


def _change(after: Sequence[Scored], before: Sequence[Scored]) -> Interval:
    return change(*_sums(after, before))


def _sums(after: Sequence[Scored], before: Sequence[Scored]) -> tuple[list[float], list[float]]:
    return [one.text for one in after], [one.text for one in before]
