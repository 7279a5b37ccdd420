"""Authorship verification: would somebody who knows the owner's old messages take a pile of new ones for theirs?

A classifier of character n-grams learns the owner against everybody else from the past, and judges piles of replies
of the future. The owner's own piles give the ceiling, other people's the floor. It saw no generated text.
"""

import math
from collections.abc import Sequence
from statistics import fmean

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

from doppel.reports.metrics import Interval, Metric
from training.fidelity.generate import Reply
from training.fidelity.statistics import mean
from training.fidelity.texts import HeldOut, texts_of_others, texts_of_owner

_PILE = 400
"""Characters of a pile: one chat message has no author that could be told."""
_MOST_PILES = 3000
_FEWEST_PILES = 4


def authorship(written: Sequence[Reply], prompted: Sequence[Reply], held: HeldOut) -> list[Metric]:
    """Figure 5 of a report: mean probability that a pile is the owner's; none where there is nobody else."""
    own, others = _piles(texts_of_owner(held.past)), _piles(texts_of_others(held.past))
    strangers = _piles(texts_of_others(held.future))
    if min(len(own), len(others)) < _FEWEST_PILES or not strangers:
        return []
    judge = make_pipeline(
        TfidfVectorizer(analyzer="char", ngram_range=(2, 4), lowercase=False, sublinear_tf=True, max_features=30_000),
        LogisticRegression(C=10.0, max_iter=1000, class_weight="balanced"),
    )
    judge.fit([*own, *others], [1] * len(own) + [0] * len(others))
    return [
        Metric(
            name="authorship",
            estimate=_verdict(judge, [one.text for one in written]),
            floor=_verdict(judge, texts_of_others(held.future)),
            ceiling=_verdict(judge, texts_of_owner(held.future)),
            unit="share",
        ),
        Metric(
            name="authorship_prompted",
            estimate=_verdict(judge, [one.text for one in prompted]),
            unit="share",
        ),
    ]


def _verdict(judge: Pipeline, texts: Sequence[str]) -> Interval:
    piles = _piles(texts)
    if not piles:
        return Interval(math.nan, math.nan, math.nan)
    chances = [float(one) for one in judge.predict_proba(piles)[:, 1]]
    return mean(chances) if len(chances) > 1 else Interval(fmean(chances), math.nan, math.nan)


def _piles(texts: Sequence[str]) -> list[str]:
    """Texts joined until they are long enough to judge, in order; a short rest is left out."""
    piles: list[str] = []
    lines: list[str] = []
    size = 0
    for text in texts:
        if not text:
            continue
        lines.append(text)
        size += len(text) + 1
        if size >= _PILE:
            piles.append("\n".join(lines))
            lines, size = [], 0
    step = max(1, len(piles) // _MOST_PILES)
    return piles[::step]
