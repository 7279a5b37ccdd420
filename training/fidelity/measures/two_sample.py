"""Can a classifier tell generated replies from real ones? Character n-grams and logistic regression, by conversation.

An AUC of 0.5 says that it cannot (Lopez-Paz and Oquab, Revisiting classifier two-sample tests, 2017). The
owner's own earlier replies give the ceiling, somebody else's the floor, or the base model's with a prompt.
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
from training.fidelity.generate import Reply
from training.fidelity.statistics import resampled

_FOLDS = 5
_ROUNDS = 200
_UNJUDGED = -1  # its classifier would have seen one side only


def two_sample(
    written: Sequence[Reply],
    prompted: Sequence[Reply],
    actual: Sequence[Reply],
    past: Sequence[Reply],
    other: Sequence[Reply] = (),
) -> list[Metric]:
    """Figure 3 of a report.

    Args:
        written: the adapter's replies.
        prompted: the base's, with a prompt, to the same situations.
        actual: the owner's, to the same situations.
        past: the owner's, to as many earlier situations.
        other: somebody else's, who is the floor; without them the prompted base is.
    """
    figures = []
    for name, matched in (("two_sample_auc", False), ("two_sample_auc_matched", True)):
        base = _told_apart(prompted, actual, matched=matched)
        floor = _told_apart(other, actual, matched=matched) if other else base
        value, ceiling = (_told_apart(side, actual, matched=matched) for side in (written, past))
        figures.append(Metric(name=name, estimate=value, floor=floor, ceiling=ceiling, lower_is_better=True))
        figures.append(Metric(name=f"{name}_prompted", estimate=base, lower_is_better=True))
    return figures


def candidates_told_apart(
    chosen: Sequence[Reply], first: Sequence[Reply], actual: Sequence[Reply], past: Sequence[Reply]
) -> Metric:
    """Figure 3 of a report for the best of several replies; what one reply gets is the floor.

    Args:
        chosen: the best of several of the adapter's.
        first: one of the adapter's to each of the same situations.
        actual: the owner's to them.
        past: as many of the owner's to earlier situations.
    """
    value, floor, ceiling = (_told_apart(side, actual) for side in (chosen, first, past))
    return Metric(name="candidates_two_sample_auc", estimate=value, floor=floor, ceiling=ceiling, lower_is_better=True)


def auc_between(first: Sequence[Reply], second: Sequence[Reply]) -> Interval:
    """How well two sides' replies, whatever their lengths, are told apart; those that say nothing are left out."""
    return _told_apart(first, second)


def auc_of(texts: Sequence[str], labels: Sequence[int], groups: Sequence[str], *, matched: bool = False) -> Interval:
    """AUC of telling label 1 from label 0, from folds that share no group; 0.5 by chance.

    Only texts of one fold are compared: what another classifier thinks of them is on another scale, and where it saw
    more of a label the rest has less, so that comparing across folds would give less than chance.

    Args:
        texts: of both sides.
        labels: 1 or 0 for each.
        groups: what must not be shared between folds, for each.
        matched: whether to keep as many of each label in every class of length, so that length gives nothing away.
    """
    truth = np.array(labels)
    count = int(truth.sum())
    folds = min(_FOLDS, len(set(groups)), count, len(labels) - count)
    if folds < 2:
        return Interval(float("nan"), float("nan"), float("nan"))
    scores = np.zeros(len(texts))
    fold_of = np.full(len(texts), _UNJUDGED)
    split = StratifiedGroupKFold(folds, shuffle=True, random_state=0).split(texts, truth, groups)
    tests = [_matched(texts, truth, test) if matched else test for _, test in split]
    for number, test in enumerate(tests):
        train = np.sort(np.concatenate(tests[:number] + tests[number + 1 :]))
        if len(set(truth[train])) < 2 or not len(test):
            continue
        fold_of[test] = number
        model = make_pipeline(
            TfidfVectorizer(analyzer="char", ngram_range=(1, 4), lowercase=False, sublinear_tf=True, min_df=2),
            LogisticRegression(C=10.0, max_iter=1000, class_weight="balanced"),
        )
        model.fit([texts[place] for place in train], truth[train])
        scores[test] = model.decision_function([texts[place] for place in test])

    def statistic(rows: NDArray[np.intp]) -> float:
        return area(truth[rows], scores[rows], fold_of[rows])

    return resampled(groups, statistic, _ROUNDS)


def area(truth: NDArray[np.intp], scores: NDArray[np.float64], folds: NDArray[np.intp]) -> float:
    """Area under the ROC curve over pairs within a fold, by the Mann-Whitney statistic; NaN where there are none.

    Args:
        truth: (N,) 1 or 0.
        scores: (N,) higher for what is taken for 1.
        folds: (N,) number of each one's fold; those of `_UNJUDGED` are left out.
    """
    above, pairs = 0.0, 0
    for fold in set(folds.tolist()) - {_UNJUDGED}:
        labels, values = truth[folds == fold], scores[folds == fold]
        count = int(labels.sum())
        pairs += count * (len(labels) - count)
        above += float(rankdata(values)[labels == 1].sum()) - count * (count + 1) / 2
    return above / pairs if pairs else float("nan")


def _told_apart(first: Sequence[Reply], second: Sequence[Reply], *, matched: bool = False) -> Interval:
    sides = [[one for one in side if one.bubbles] for side in (first, second)]
    both = [one for side in sides for one in side]
    texts = [f"\n{one.text}\n" for one in both]  # how a text begins and ends is part of it
    labels = [1] * len(sides[0]) + [0] * len(sides[1])
    return auc_of(texts, labels, [one.situation.session for one in both], matched=matched)


def _matched(texts: Sequence[str], truth: NDArray[np.intp], rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """Those of a fold's rows that leave as many of each label in every class of length (doubling).

    Within each fold: matched over all of them, what one fold has too much of a length, the others lack, and
    the classifier would learn the opposite of what holds where it is asked.
    """
    rng = random.Random(0)
    classes: dict[int, tuple[list[int], list[int]]] = {}
    for row in rows.tolist():
        classes.setdefault(len(texts[row]).bit_length(), ([], []))[truth[row]].append(row)
    return np.array(
        [row for sides in classes.values() for side in sides for row in rng.sample(side, min(map(len, sides)))],
        dtype=np.intp,
    )
