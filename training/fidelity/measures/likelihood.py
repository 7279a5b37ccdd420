"""Bits per byte: how well the adapter predicts the owner's messages, and whether it learned the owner in particular.

The base, the base with a prompt of the owner's latest conversations, and the adapter read the same unseen replies after
the daemon's own prompts. They also read what other people wrote in the same conversations: an improvement there is due
to the platform, not the person. The same is shown for short prompts, which are easier, and for the newest messages.
"""

import math
from collections.abc import Callable, Sequence
from itertools import accumulate

from doppel.reports.metrics import Interval, Metric
from training.fidelity.adapted_model import AdaptedModel, TurnLoss
from training.fidelity.neutral_texts import neutral_examples
from training.fidelity.served import ServedWindow, served_windows
from training.fidelity.stages import StartProgress, no_progress
from training.fidelity.statistics import difference_of_changes, ratio, relative_change, sums_by_group
from training.fidelity.texts import EvaluationData, few_shot_prompt, owner_pieces
from training.lora.examples import sample_by_size

PROMPT_TOKENS = 1536
"""Of the base model's prompt: about a dozen of the owner's latest conversations."""
_FAR = 256
"""Tokens of a prompt from which a conversation has gone on for a while."""
_SHORT_LENGTH = 256
"""Tokens of a piece of text in the regime of short prompts."""
_NEWEST = 0.5
"""Of the test split, which is the newest tenth of the owner's messages."""


def likelihood_metrics(
    adapted: AdaptedModel, data: EvaluationData, tokens: int, start: StartProgress = no_progress
) -> list[Metric]:
    """Metrics 1 (bits per byte, specificity) and 8 (forgetting) of a report.

    Args:
        adapted: the adapter.
        data: what to read.
        tokens: of the owner's unseen replies, about; of others', with a prompt, and of the training split less than
            half as many.
        start: shows the progress, in tokens.
    """
    transcript = adapted.transcript
    owner = served_windows(data.exchanges, transcript, tokens)
    others = served_windows(data.other_exchanges, transcript, tokens // 3)
    trained_on = served_windows(data.trained_exchanges, transcript, tokens // 6)
    numbers = sample_by_size(range(len(owner)), tokens // 5, lambda number: owner[number].example.supervised)
    for_prompt = [owner[number] for number in numbers]
    prompt = few_shot_prompt(data.train, transcript, PROMPT_TOKENS)
    pieces = owner_pieces(data.test, transcript, _SHORT_LENGTH, tokens)
    groups, short, neutral = (
        [session for session, _ in pieces],
        [piece for _, piece in pieces],
        neutral_examples(transcript),
    )
    twice = [*(window.example for window in (*owner, *others)), *short, *neutral]
    once = [*(window.example for window in trained_on), *(window.example for window in for_prompt)]
    on_progress = start(sum(len(example.ids) for example in (*twice, *twice, *once)) + len(prompt) * len(for_prompt))
    with adapted.adapter_disabled():
        owner_base, others_base = (adapted.turn_losses(windows, on_progress) for windows in (owner, others))
        short_base, neutral_base = (adapted.example_losses(examples, on_progress) for examples in (short, neutral))
        prompted = adapted.turn_losses(for_prompt, on_progress, prompt=prompt)
    owner_adapter, others_adapter = (adapted.turn_losses(windows, on_progress) for windows in (owner, others))
    short_adapter, neutral_adapter = (adapted.example_losses(examples, on_progress) for examples in (short, neutral))
    ceiling = bits_per_byte(adapted.turn_losses(trained_on, on_progress))
    newest = {exchange.session_id for exchange in data.exchanges[int(len(data.exchanges) * _NEWEST) :]}
    return [
        _bits_metric("bits_per_byte", owner_adapter, floor=bits_per_byte(owner_base), ceiling=ceiling),
        _bits_metric("bits_per_byte_base", owner_base),
        _bits_metric("bits_per_byte_prompted", prompted),
        _change_metric("bits_change", owner_adapter, owner_base, floor=_change(others_adapter, others_base)),
        _change_metric("bits_change_near", *_where(lambda turn: turn.context_tokens < _FAR, owner_adapter, owner_base)),
        _change_metric("bits_change_far", *_where(lambda turn: turn.context_tokens >= _FAR, owner_adapter, owner_base)),
        _change_metric(
            "bits_change_newest", *_where(lambda turn: turn.session_id in newest, owner_adapter, owner_base)
        ),
        Metric(
            name="bits_change_short",
            estimate=relative_change(
                sums_by_group([loss.text for loss in short_adapter], groups),
                sums_by_group([loss.text for loss in short_base], groups),
            ),
            lower_is_better=True,
            unit="change",
        ),
        _change_metric("bits_change_prompted", _of_windows(owner, numbers, owner_adapter), prompted),
        _change_metric("prompt_change", prompted, _of_windows(owner, numbers, owner_base)),
        Metric(
            name="specificity",
            estimate=difference_of_changes(_sums(others_adapter, others_base), _sums(owner_adapter, owner_base)),
            unit="change",
        ),
        Metric(
            name="forgetting",
            estimate=relative_change([loss.text for loss in neutral_adapter], [loss.text for loss in neutral_base]),
            lower_is_better=True,
            unit="change",
        ),
        Metric(
            name="scored_tokens",
            estimate=Interval.exact(float(sum(window.example.supervised for window in owner))),
            unit="count",
        ),
    ]


def bits_per_byte(losses: Sequence[TurnLoss]) -> Interval:
    """Bits per byte of text over the replies."""
    groups = [loss.session_id for loss in losses]
    return ratio(
        sums_by_group([loss.text / math.log(2) for loss in losses], groups),
        sums_by_group([float(loss.text_bytes) for loss in losses], groups),
    )


def _of_windows(windows: Sequence[ServedWindow], numbers: Sequence[int], losses: Sequence[TurnLoss]) -> list[TurnLoss]:
    """The losses on the replies of some of the windows, given those of all of them."""
    ends = list(accumulate(len(window.exchanges) for window in windows))
    return [loss for number in numbers for loss in losses[ends[number] - len(windows[number].exchanges) : ends[number]]]


def _where(
    applies: Callable[[TurnLoss], bool], after: Sequence[TurnLoss], before: Sequence[TurnLoss]
) -> tuple[list[TurnLoss], list[TurnLoss]]:
    return [loss for loss in after if applies(loss)], [loss for loss in before if applies(loss)]


def _bits_metric(
    name: str, losses: Sequence[TurnLoss], floor: Interval | None = None, ceiling: Interval | None = None
) -> Metric:
    estimate = bits_per_byte(losses)
    return Metric(name=name, estimate=estimate, floor=floor, ceiling=ceiling, lower_is_better=True, unit="bits")


def _change_metric(
    name: str, after: Sequence[TurnLoss], before: Sequence[TurnLoss], floor: Interval | None = None
) -> Metric:
    return Metric(name=name, estimate=_change(after, before), floor=floor, lower_is_better=True, unit="change")


def _change(after: Sequence[TurnLoss], before: Sequence[TurnLoss]) -> Interval:
    return relative_change(*_sums(after, before))


def _sums(after: Sequence[TurnLoss], before: Sequence[TurnLoss]) -> tuple[list[float], list[float]]:
    """Nats of each conversation; both sides have the same replies in the same order."""
    groups = [loss.session_id for loss in after]
    return sums_by_group([loss.text for loss in after], groups), sums_by_group([loss.text for loss in before], groups)
