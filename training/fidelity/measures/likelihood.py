"""Bits per byte: how well the adapter predicts the owner's messages, and whether it learned the owner in particular.

The base, the base with a prompt of the owner's earlier messages, and the adapter read the same unseen text. They also
read what other people wrote in the same conversations: an improvement there is due to the platform, not the person.
"""

import math
from collections.abc import Sequence

from doppel.reports.metrics import Interval, Metric
from training.fidelity.adapted_model import AdaptedModel, ExampleLoss
from training.fidelity.neutral_texts import neutral_examples
from training.fidelity.stages import StartProgress, no_progress
from training.fidelity.statistics import difference_of_changes, ratio, relative_change
from training.fidelity.texts import EvaluationData, few_shot_prompt, other_examples, owner_examples, prepend_prompt

_PROMPT_TOKENS = 256
_MAX_LENGTH = 256
"""Tokens of an example, as in a first training: many short examples say more than few long ones that begin alike."""


def likelihood_metrics(
    adapted: AdaptedModel, data: EvaluationData, tokens: int, start: StartProgress = no_progress
) -> list[Metric]:
    """Metrics 1 (bits per byte, specificity) and 8 (forgetting) of a report.

    Args:
        adapted: the adapter.
        data: what to read.
        tokens: of the owner and of others in the test split, about; half as many of the training split.
        start: shows the progress, in tokens.
    """
    transcript = adapted.transcript
    owner = owner_examples(data.test, transcript, _MAX_LENGTH, tokens)
    others = other_examples(data.test, transcript, _MAX_LENGTH, tokens)
    trained_on = owner_examples(data.train, transcript, _MAX_LENGTH, tokens // 2)
    neutral = neutral_examples(transcript)
    prompted = prepend_prompt(few_shot_prompt(data.train, transcript, _PROMPT_TOKENS), owner)
    twice = [*owner, *others, *neutral]
    on_progress = start(sum(len(example.ids) for example in [*twice, *twice, *prompted, *trained_on]))
    with adapted.adapter_disabled():
        owner_base, others_base, neutral_base = (
            adapted.example_losses(examples, on_progress) for examples in (owner, others, neutral)
        )
        owner_prompted = adapted.example_losses(prompted, on_progress)
    owner_adapter, others_adapter, neutral_adapter = (
        adapted.example_losses(examples, on_progress) for examples in (owner, others, neutral)
    )
    ceiling = bits_per_byte(adapted.example_losses(trained_on, on_progress))
    return [
        _bits_metric("bits_per_byte", owner_adapter, floor=bits_per_byte(owner_base), ceiling=ceiling),
        _bits_metric("bits_per_byte_base", owner_base),
        _bits_metric("bits_per_byte_prompted", owner_prompted),
        _change_metric("bits_change", owner_adapter, owner_base, floor=_change(others_adapter, others_base)),
        _change_metric("bits_change_prompted", owner_adapter, owner_prompted),
        Metric(
            name="specificity",
            estimate=difference_of_changes(_sums(others_adapter, others_base), _sums(owner_adapter, owner_base)),
            unit="change",
        ),
        _change_metric("forgetting", neutral_adapter, neutral_base),
    ]


def bits_per_byte(losses: Sequence[ExampleLoss]) -> Interval:
    """Bits per byte of text over the examples."""
    return ratio([loss.text / math.log(2) for loss in losses], [float(loss.text_bytes) for loss in losses])


def _bits_metric(
    name: str, losses: Sequence[ExampleLoss], floor: Interval | None = None, ceiling: Interval | None = None
) -> Metric:
    estimate = bits_per_byte(losses)
    return Metric(name=name, estimate=estimate, floor=floor, ceiling=ceiling, lower_is_better=True, unit="bits")


def _change_metric(
    name: str, after: Sequence[ExampleLoss], before: Sequence[ExampleLoss], floor: Interval | None = None
) -> Metric:
    return Metric(name=name, estimate=_change(after, before), floor=floor, lower_is_better=True, unit="change")


def _change(after: Sequence[ExampleLoss], before: Sequence[ExampleLoss]) -> Interval:
    return relative_change(*_sums(after, before))


def _sums(after: Sequence[ExampleLoss], before: Sequence[ExampleLoss]) -> tuple[list[float], list[float]]:
    return [loss.text for loss in after], [loss.text for loss in before]
