"""A classifier that learns to tell two sets of replies apart, and is tested on conversations that it has not seen.

Character n-grams and logistic regression, and whatever numbers are known of each reply. Its interval counts what the
classifier itself owes to the sample: it is fitted again without each part of the conversations.
"""

import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack
from scipy.stats import rankdata
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold

from doppel.reports.metrics import Interval
from training.fidelity.statistics import jackknife

_FOLDS = 5
_REFITS = 16
_SCALE = 3.0
"""Standard deviations of a number that weigh as much as all n-grams of a text, whose squares sum to 1."""
_NOT_SCORED = -1  # the fold of texts whose classifier would have been trained on one label only


def cross_validated_auc(
    texts: Sequence[str],
    labels: Sequence[int],
    groups: Sequence[str],
    *,
    numbers: NDArray[np.float64] | None = None,
    match_lengths: bool = False,
) -> Interval:
    """AUC of telling label 1 from label 0, from folds that share no group; 0.5 is chance.

    Only texts of the same fold are compared. Scores of different classifiers are on different scales, and a fold with
    more of a label leaves less of it to train on, so that comparing across folds would give less than chance.

    Args:
        texts: of both labels.
        labels: 1 or 0 for each text.
        groups: the group of each text; a group is never split between folds.
        numbers: (texts, features) what else is known of each text.
        match_lengths: whether to keep equally many of each label in every length class, so that length tells nothing.
    """
    truth = np.array(labels)
    positives = int(truth.sum())
    fold_count = min(_FOLDS, len(set(groups)), positives, len(labels) - positives)
    if fold_count < 2:
        return Interval.unknown()
    split = StratifiedGroupKFold(fold_count, shuffle=True, random_state=0).split(texts, truth, groups)
    fold_of = np.full(len(texts), _NOT_SCORED)
    for number, (_, rows) in enumerate(split):
        fold_of[_match_lengths(texts, truth, rows) if match_lengths else rows] = number
    features = _features(texts, numbers)
    interval = jackknife(groups, lambda rows: _auc(features[rows], truth[rows], fold_of[rows]), _REFITS)
    return Interval(interval.value, max(0.0, interval.low), min(1.0, interval.high))


def _features(texts: Sequence[str], numbers: NDArray[np.float64] | None) -> csr_matrix:
    """(texts, features) without labels, so that they may be made once for all folds."""
    vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(1, 4), lowercase=False, sublinear_tf=True, min_df=2)
    try:
        grams = vectorizer.fit_transform(texts)
    except ValueError:  # no two texts have a character in common
        grams = csr_matrix((len(texts), 1))
    if numbers is None:
        return grams
    spread = numbers.std(0)
    scaled = (numbers - numbers.mean(0)) / np.where(spread > 0, spread, 1)
    return hstack([grams, csr_matrix(scaled / _SCALE)]).tocsr()


def _auc(features: csr_matrix, truth: NDArray[np.intp], fold_of: NDArray[np.intp]) -> float:
    """The area under the curve of classifiers fitted on the other folds."""
    scores = np.zeros(len(truth))
    folds = fold_of.copy()
    for fold in set(fold_of.tolist()) - {_NOT_SCORED}:
        test, train = fold_of == fold, (fold_of != fold) & (fold_of != _NOT_SCORED)
        if len(set(truth[train])) < 2:
            folds[test] = _NOT_SCORED
            continue
        classifier = LogisticRegression(C=10.0, max_iter=1000, class_weight="balanced")
        scores[test] = classifier.fit(features[train], truth[train]).decision_function(features[test])
    return within_fold_auc(truth, scores, folds)


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
