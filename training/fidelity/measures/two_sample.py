"""Classifier two-sample test: can a classifier tell generated replies from real ones?

An AUC of 0.5 means that it cannot (Lopez-Paz and Oquab, Revisiting classifier two-sample tests, 2017). The owner's
earlier replies give the ceiling; another person's, or the base model's with a prompt, the floor. A second, stronger
detector also sees how likely the base model finds each reply after its conversation.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from doppel.reports.metrics import Interval, Metric
from training.fidelity.adapted_model import AdaptedModel, reply_continuations
from training.fidelity.generate import EvaluationReply
from training.fidelity.measures.detector import cross_validated_auc
from training.fidelity.stages import StartProgress, no_progress
from training.lora.examples import sample_evenly

_CURVE = (0.25, 0.5)
"""Shares of the replies for which the test is repeated: a detector that still improves would find more with more."""


def two_sample_metrics(
    adapter: Sequence[EvaluationReply],
    prompted: Sequence[EvaluationReply],
    actual: Sequence[EvaluationReply],
    earlier: Sequence[EvaluationReply],
    other: Sequence[EvaluationReply] = (),
) -> list[Metric]:
    """Metric 3 of a report.

    Args:
        adapter: the adapter's replies.
        prompted: the base's with a prompt, to the same exchanges.
        actual: the owner's, to the same exchanges.
        earlier: the owner's, to as many exchanges of the training split.
        other: another person's: the floor. Without them the prompted base is the floor.
    """
    metrics = []
    for name, match_lengths in (("two_sample_auc", False), ("two_sample_auc_matched", True)):
        base = classifier_auc(prompted, actual, match_lengths=match_lengths)
        floor = classifier_auc(other, actual, match_lengths=match_lengths) if other else base
        estimate, ceiling = (
            classifier_auc(replies, actual, match_lengths=match_lengths) for replies in (adapter, earlier)
        )
        metrics.append(Metric(name=name, estimate=estimate, floor=floor, ceiling=ceiling, lower_is_better=True))
        metrics.append(Metric(name=f"{name}_prompted", estimate=base, lower_is_better=True))
    return metrics


def curve_metrics(
    adapter: Sequence[EvaluationReply], actual: Sequence[EvaluationReply], earlier: Sequence[EvaluationReply]
) -> list[Metric]:
    """The test on fewer replies, in ascending order, to see how much of its outcome is due to their number."""
    metrics = []
    for part in _CURVE:
        count = int(part * len(adapter))
        sides = [sample_evenly(replies, count) for replies in (adapter, actual, earlier)]
        metrics.append(
            Metric(
                name=f"two_sample_auc_{count}_replies",
                estimate=classifier_auc(sides[0], sides[1]),
                ceiling=classifier_auc(sides[2], sides[1]),
                lower_is_better=True,
            )
        )
    return metrics


def informed_metric(
    adapted: AdaptedModel,
    adapter: Sequence[EvaluationReply],
    actual: Sequence[EvaluationReply],
    earlier: Sequence[EvaluationReply],
    start: StartProgress = no_progress,
) -> Metric:
    """The test by a detector that also sees the base's log-probabilities of the replies, each after its context.

    Args:
        adapted: the model whose base is asked.
        adapter: the adapter's replies.
        actual: the owner's, to the same exchanges.
        earlier: the owner's, to exchanges of the training split.
        start: shows the progress, in tokens.
    """
    sides = [[reply for reply in replies if reply.bubbles] for replies in (adapter, actual, earlier)]
    requests = [
        reply_continuations(adapted.transcript, reply.exchange, [reply.bubbles])
        for replies in sides
        for reply in replies
    ]
    with adapted.adapter_disabled():
        scored = adapted.token_log_probabilities(requests, start(sum(request.token_count for request in requests)))
    numbers = np.array([_summary(options[0]) for options in scored]).reshape(len(requests), -1)
    of_adapter, of_actual, of_earlier = np.split(numbers, np.cumsum([len(replies) for replies in sides])[:-1])
    return Metric(
        name="two_sample_auc_informed",
        estimate=classifier_auc(sides[0], sides[1], numbers=np.concatenate([of_adapter, of_actual])),
        ceiling=classifier_auc(sides[2], sides[1], numbers=np.concatenate([of_earlier, of_actual])),
        lower_is_better=True,
    )


def _summary(log_probabilities: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean and least log p of a reply's tokens, and its total: sampling avoids what is very unlikely."""
    return float(log_probabilities.mean()), float(log_probabilities.min()), float(log_probabilities.sum())


def best_of_metric(
    best: Sequence[EvaluationReply],
    single: Sequence[EvaluationReply],
    actual: Sequence[EvaluationReply],
    earlier: Sequence[EvaluationReply],
) -> Metric:
    """Metric 3 of a report for the best of several replies, with a single reply as the floor.

    Args:
        best: the best of several replies of the adapter's.
        single: one reply of the adapter's to each of the same exchanges.
        actual: the owner's replies to them.
        earlier: as many of the owner's replies in the training split.
    """
    estimate, floor, ceiling = (classifier_auc(replies, actual) for replies in (best, single, earlier))
    return Metric(
        name="candidates_two_sample_auc", estimate=estimate, floor=floor, ceiling=ceiling, lower_is_better=True
    )


def classifier_auc(
    first: Sequence[EvaluationReply],
    second: Sequence[EvaluationReply],
    *,
    numbers: NDArray[np.float64] | None = None,
    match_lengths: bool = False,
) -> Interval:
    """AUC of telling one set of replies from another; see `cross_validated_auc`.

    Args:
        first, second: the replies; empty ones are left out.
        numbers: (replies, features) of those that are not empty.
        match_lengths: whether length may tell them apart.
    """
    sides = [[reply for reply in replies if reply.bubbles] for replies in (first, second)]
    replies = [reply for side in sides for reply in side]
    texts = [f"\n{reply.text}\n" for reply in replies]  # n-grams see where a text begins and ends
    labels = [1] * len(sides[0]) + [0] * len(sides[1])
    groups = [reply.exchange.session_id for reply in replies]
    return cross_validated_auc(texts, labels, groups, numbers=numbers, match_lengths=match_lengths)
