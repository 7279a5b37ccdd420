"""Habits of writing: how far the distributions of what can be counted in generated replies are from the owner's.

Lengths, bubbles, emoji, punctuation, case and scripts by Wasserstein distance, in standard deviations of the owner's
own; opening and closing words by Jensen-Shannon divergence, in bits. Spread and variety are looked at apart from
means: a doppelgänger that is right on average and always the same is a caricature.
"""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from statistics import fmean, pstdev

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wasserstein_distance

from doppel.reports.metrics import Interval, Metric
from training.fidelity.generate import Reply
from training.fidelity.statistics import jackknife, resampled

_WORD = re.compile(r"[\u3400-\u9fff\u3040-\u30ff\uac00-\ud7af]|[^\W_]+(?:['’][^\W_]+)*")
_ROUNDS = 100
_SELF_BLEU_SAMPLE = 120
Rows = NDArray[np.intp]


def _emoji(text: str) -> float:
    return float(sum(unicodedata.category(sign) == "So" for sign in text))


def _punctuation(text: str) -> float:
    return sum(unicodedata.category(sign).startswith("P") for sign in text) / max(1, len(text))


def _upper(text: str) -> float:
    letters = [sign for sign in text if sign.isalpha() and sign.lower() != sign.upper()]
    return sum(map(str.isupper, letters)) / len(letters) if letters else 0.0


def _eastern(text: str) -> float:
    letters = [sign for sign in text if sign.isalpha()]
    return sum(sign >= "\u2e80" for sign in letters) / len(letters) if letters else 0.0


def _opens_upper(text: str) -> float:
    return float(text[:1].isupper())


def _ends_plain(text: str) -> float:
    return float(text[-1:].isalnum())


HABITS: dict[str, Callable[[Reply], float]] = {
    "length": lambda reply: math.log1p(len(reply.text)),
    "bubbles": lambda reply: float(len(reply.bubbles)),
    "words_a_bubble": lambda reply: fmean(len(words(bubble)) for bubble in reply.bubbles),
    "emoji": lambda reply: _emoji(reply.text),
    "punctuation": lambda reply: _punctuation(reply.text),
    "case": lambda reply: _upper(reply.text),
    "opening_capital": lambda reply: _opens_upper(reply.text),
    "plain_ending": lambda reply: _ends_plain(reply.text),
    "script": lambda reply: _eastern(reply.text),
}


def words(text: str) -> list[str]:
    """Words in lower case; every Chinese, Japanese or Korean sign is one."""
    return _WORD.findall(text.lower())


def writing(
    written: Sequence[Reply],
    prompted: Sequence[Reply],
    actual: Sequence[Reply],
    past: Sequence[Reply],
    other: Sequence[Reply] = (),
) -> list[Metric]:
    """Figure 4 of a report; arguments as `twosample.two_sample`."""
    truth = [one for one in actual if one.bubbles]
    mine, base, earlier, somebody = (
        [one for one in replies if one.bubbles] for replies in (written, prompted, past, other)
    )
    found = [_distances(side, truth) for side in (mine, somebody or base, earlier)]
    names = found[0].keys()
    floor, ceiling = found[1:]
    figures = [
        Metric(name=name, estimate=found[0][name], floor=floor[name], ceiling=ceiling[name], lower_is_better=True)
        for name in names
    ]
    plain = _distances(base, truth) if somebody else floor
    return [
        *figures,
        Metric(name="habits_distance_prompted", estimate=plain["habits_distance"], lower_is_better=True),
        *_variety((mine, somebody or base, earlier), truth),
    ]


def _distances(side: Sequence[Reply], truth: Sequence[Reply]) -> dict[str, Interval]:
    """Each distance by the name of its figure; the first is the mean of the others."""
    found = {f"habit_{name}": _wasserstein(measure, side, truth) for name, measure in HABITS.items()}
    for name, place in (("opening_words", 0), ("closing_words", -1)):
        found[f"habit_{name}"] = _divergence(place, side, truth)
    parts = (fmean(getattr(one, part) for one in found.values()) for part in ("value", "low", "high"))
    return {"habits_distance": Interval(*parts), **found}


def _wasserstein(measure: Callable[[Reply], float], side: Sequence[Reply], truth: Sequence[Reply]) -> Interval:
    left, right = np.array([measure(one) for one in side]), np.array([measure(one) for one in truth])
    scale = pstdev(right) if len(right) > 1 else 0.0
    return _resampled(side, lambda rows: float(wasserstein_distance(left[rows], right)) / (scale or 1.0))


def _divergence(place: int, side: Sequence[Reply], truth: Sequence[Reply]) -> Interval:
    right = Counter(_word_at(one, place) for one in truth)
    left = [_word_at(one, place) for one in side]
    return _resampled(side, lambda rows: jensen_shannon(Counter(left[row] for row in rows), right))


def _word_at(reply: Reply, place: int) -> str:
    found = words(reply.text)
    return found[place] if found else reply.text[:1]


def jensen_shannon(left: Counter[str], right: Counter[str]) -> float:
    """Jensen-Shannon divergence in bits, 0 (the same) to 1 (nothing in common). Lin, 1991."""
    total_left, total_right = left.total() or 1, right.total() or 1
    value = 0.0
    for key in left.keys() | right.keys():
        p, q = left[key] / total_left, right[key] / total_right
        middle = (p + q) / 2
        value += sum(part / 2 * math.log2(part / middle) for part in (p, q) if part)
    return value


def _variety(sides: Sequence[Sequence[Reply]], truth: Sequence[Reply]) -> list[Metric]:
    """Distinct pairs of words and self-BLEU as ratios to the owner's, and the spread of lengths; 1 is the owner's."""
    figures = []
    for name, measure in (("distinct_2", distinct), ("self_bleu", self_bleu), ("length_spread", _length_spread)):
        own = measure([one.text for one in truth]) or 1.0
        values = [_left_out(side, _of_texts(measure, side, own)) for side in sides]
        figures.append(Metric(name=name, estimate=values[0], floor=values[1], ceiling=values[2]))
    return figures


def _of_texts(measure: Callable[[Sequence[str]], float], side: Sequence[Reply], own: float) -> Callable[[Rows], float]:
    return lambda rows: measure([side[row].text for row in rows]) / own


def distinct(texts: Sequence[str], order: int = 2) -> float:
    """Share of different n-grams of words among all (Li and others, 2016)."""
    grams = [gram for text in texts for gram in _grams(words(text), order)]
    return len(set(grams)) / len(grams) if grams else 0.0


def self_bleu(texts: Sequence[str], order: int = 2) -> float:
    """How much of each text's pairs of words stands in the others (after Zhu and others, Texygen, 2018)."""
    sample = [set(_grams(words(text), order)) for text in texts[:_SELF_BLEU_SAMPLE]]
    counts = Counter(gram for grams in sample for gram in grams)
    shares = [sum(counts[gram] > 1 for gram in grams) / len(grams) for grams in sample if grams]
    return fmean(shares) if shares else 0.0


def _length_spread(texts: Sequence[str]) -> float:
    return pstdev(math.log1p(len(text)) for text in texts) if len(texts) > 1 else 0.0


def _grams(found: Sequence[str], order: int) -> list[tuple[str, ...]]:
    return [tuple(found[place : place + order]) for place in range(len(found) - order + 1)]


def _resampled(side: Sequence[Reply], statistic: Callable[[Rows], float]) -> Interval:
    if not side:
        return Interval(float("nan"), float("nan"), float("nan"))
    return resampled([one.situation.session for one in side], statistic, _ROUNDS)


def _left_out(side: Sequence[Reply], statistic: Callable[[Rows], float]) -> Interval:
    if not side:
        return Interval(float("nan"), float("nan"), float("nan"))
    return jackknife([one.situation.session for one in side], statistic)
