"""Classifier two-sample test: can a classifier tell generated replies from real ones?

Character n-grams and logistic regression, cross-validated by conversation. An AUC of 0.5 means that it cannot
(Lopez-Paz and Oquab, Revisiting classifier two-sample tests, 2017). The owner's earlier replies give the ceiling;
another person's, or the base model's with a prompt, the floor.
"""

import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline

from doppel.reports.metrics import Interval, Metric
from training.fidelity.generate import EvaluationReply
from training.fidelity.statistics import bootstrap

_FOLDS = 5
_ROUNDS = 200
_NOT_SCORED = -1  # the fold of texts whose classifier would have been trained on one label only


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
    first: Sequence[EvaluationReply], second: Sequence[EvaluationReply], *, match_lengths: bool = False
) -> Interval:
    """AUC of telling one set of replies from another; empty replies are left out. See `cross_validated_auc`."""
    sides = [[reply for reply in replies if reply.bubbles] for replies in (first, second)]
    replies = [reply for side in sides for reply in side]
    texts = [f"\n{reply.text}\n" for reply in replies]  # n-grams see where a text begins and ends
    labels = [1] * len(sides[0]) + [0] * len(sides[1])
    groups = [reply.exchange.session_id for reply in replies]
    return cross_validated_auc(texts, labels, groups, match_lengths=match_lengths)


def cross_validated_auc(
    texts: Sequence[str], labels: Sequence[int], groups: Sequence[str], *, match_lengths: bool = False
) -> Interval:
    """AUC of telling label 1 from label 0, from folds that share no group; 0.5 is chance.

    Only texts of the same fold are compared. Scores of different classifiers are on different scales, and a fold with
    more of a label leaves less of it to train on, so that comparing across folds would give less than chance.

    Args:
        texts: of both labels.
        labels: 1 or 0 for each text.
        groups: the group of each text; a group is never split between folds.
        match_lengths: whether to keep equally many of each label in every length class, so that length tells nothing.
    """
    truth = np.array(labels)
    positives = int(truth.sum())
    fold_count = min(_FOLDS, len(set(groups)), positives, len(labels) - positives)
    if fold_count < 2:
        return Interval.unknown()
    scores = np.zeros(len(texts))
    fold_of = np.full(len(texts), _NOT_SCORED)
    split = StratifiedGroupKFold(fold_count, shuffle=True, random_state=0).split(texts, truth, groups)
    folds = [_match_lengths(texts, truth, rows) if match_lengths else rows for _, rows in split]
    for number, test in enumerate(folds):
        train = np.sort(np.concatenate(folds[:number] + folds[number + 1 :]))
        if len(set(truth[train])) < 2 or not len(test):
            continue
        fold_of[test] = number
        model = make_pipeline(
            TfidfVectorizer(analyzer="char", ngram_range=(1, 4), lowercase=False, sublinear_tf=True, min_df=2),
            LogisticRegression(C=10.0, max_iter=1000, class_weight="balanced"),
        )
        model.fit([texts[row] for row in train], truth[train])
        scores[test] = model.decision_function([texts[row] for row in test])

    def statistic(rows: NDArray[np.intp]) -> float:
        return within_fold_auc(truth[rows], scores[rows], fold_of[rows])

    return bootstrap(groups, statistic, _ROUNDS)


def within_fold_auc(truth: NDArray[np.intp], scores: NDArray[np.float64], folds: NDArray[np.intp]) -> float:
    """Area under the ROC curve over pairs of the same fold, by the Mann-Whitney statistic; NaN without any pair.

    Args:
        truth: (N,) 1 or 0.
        scores: (N,) higher for what is classified as 1.
        folds: (N,) the fold of each; `_NOT_SCORED` is left out.
    """
    wins, pairs = 0.0, 0
    for fold in set(folds.tolist()) - {_NOT_SCORED}:
        labels, values = truth[folds == fold], scores[folds == fold]
        positives = int(labels.sum())
        pairs += positives * (len(labels) - positives)
        wins += float(rankdata(values)[labels == 1].sum()) - positives * (positives + 1) / 2
    return wins / pairs if pairs else float("nan")


def _match_lengths(texts: Sequence[str], truth: NDArray[np.intp], rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """A fold's rows, reduced to equally many of each label in every length class (powers of two).

    Within each fold: if lengths were matched over all folds, the others would lack what one has too much of, and the
    classifier would learn the opposite of what holds in the fold it scores.
    """
    rng = random.Random(0)
    classes: dict[int, tuple[list[int], list[int]]] = {}
    for row in rows.tolist():
        classes.setdefault(len(texts[row]).bit_length(), ([], []))[truth[row]].append(row)
    return np.array(
        [row for sides in classes.values() for side in sides for row in rng.sample(side, min(map(len, sides)))],
        dtype=np.intp,
    )
