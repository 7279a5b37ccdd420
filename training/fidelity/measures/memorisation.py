"""Memorisation: does the adapter recite what its owner once wrote, more than the owner repeats themselves?

For every generated reply the longest run of words that stands in the training messages, against the same for the
owner's real later replies. Runs are looked up by rolling hashes, so that nothing is compared letter by letter.
"""

from collections.abc import Iterable, Sequence
from statistics import quantiles

import numpy as np
from numpy.typing import NDArray

from doppel.reports.metrics import Interval, Metric
from training.fidelity.generate import Reply
from training.fidelity.measures.habits import words
from training.fidelity.statistics import mean, resampled

LONGEST = 64
"""Words of a run beyond which it is not measured further: that is a recitation."""
LONG_RUN = 8
"""Words from which a run that is found again says that it was learned by heart."""

_BASE = np.uint64(1_000_003)
_APART = np.uint64(0)  # between two messages: no run goes over it


class Runs:
    """The runs of words of a body of texts.

    Args:
        texts: the body.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._numbers: dict[str, int] = {}
        body = [self._known(words(text)) for text in texts]
        self._body = np.concatenate([np.append(one, _APART) for one in body]) if body else np.zeros(0, np.uint64)
        self._sets: dict[int, NDArray[np.uint64]] = {}

    def longest(self, text: str) -> int:
        """Words of the longest run of `text` that stands in the body, up to `LONGEST`."""
        found = np.array([self._numbers.get(word, -1) for word in words(text)], dtype=np.int64)
        known = np.where(found < 0, np.iinfo(np.int32).max, found).astype(np.uint64)
        low, high = 0, min(LONGEST, len(known))
        while low < high:  # what holds a run of n words holds one of n - 1
            middle = (low + high + 1) // 2
            if _is_any_in(_hashes(known, middle), self._set(middle)):
                low = middle
            else:
                high = middle - 1
        return low

    def _known(self, found: list[str]) -> NDArray[np.uint64]:
        numbers = self._numbers
        return np.array([numbers.setdefault(word, len(numbers) + 1) for word in found], dtype=np.uint64)

    def _set(self, order: int) -> NDArray[np.uint64]:
        if order not in self._sets:
            apart = np.convolve(self._body == _APART, np.ones(order, dtype=np.int64), mode="valid")
            hashes = _hashes(self._body, order)
            self._sets[order] = np.unique(hashes[apart == 0]) if len(hashes) else hashes
        return self._sets[order]


def memorisation(written: Sequence[Reply], actual: Sequence[Reply], training: Iterable[str]) -> list[Metric]:
    """Figure 7 of a report: mean and 99th percentile of the longest run, and the share of long ones.

    Args:
        written: the adapter's replies.
        actual: the owner's to the same situations, the baseline.
        training: what the owner wrote in the training split.
    """
    runs = Runs(training)
    generated, real = (_lengths(runs, replies) for replies in (written, actual))
    groups, real_groups = ([one.situation.session for one in replies if one.bubbles] for replies in (written, actual))
    return [
        Metric(
            name="verbatim_run",
            estimate=mean(generated, groups),
            floor=None,
            ceiling=mean(real, real_groups),
            lower_is_better=True,
            unit="count",
        ),
        Metric(
            name="verbatim_run_99",
            estimate=_extreme(generated, groups),
            ceiling=_extreme(real, real_groups),
            lower_is_better=True,
            unit="count",
        ),
        Metric(
            name="recited",
            estimate=_share_of_long(generated, groups),
            ceiling=_share_of_long(real, real_groups),
            lower_is_better=True,
            unit="share",
        ),
    ]


def _lengths(runs: Runs, replies: Sequence[Reply]) -> list[float]:
    return [float(runs.longest(one.text)) for one in replies if one.bubbles]


def _share_of_long(lengths: Sequence[float], groups: Sequence[str]) -> Interval:
    """With none among n, the interval ends at 3 / n (Hanley and Lippman-Hand, If nothing goes wrong, 1983)."""
    found = mean([float(one >= LONG_RUN) for one in lengths], groups)
    return Interval(0.0, 0.0, min(1.0, 3 / len(lengths))) if found.value == 0 else found


def _extreme(lengths: Sequence[float], groups: Sequence[str]) -> Interval:
    if len(lengths) < 2:
        return Interval(float("nan"), float("nan"), float("nan"))
    return resampled(groups, lambda rows: quantiles([lengths[row] for row in rows] * 2, n=100)[98])


def _is_any_in(numbers: NDArray[np.uint64], body: NDArray[np.uint64]) -> bool:
    """Whether any of them stands in the body, which is in order: `numpy.isin` would put it in order each time."""
    places = np.searchsorted(body, numbers)
    places, numbers = places[places < len(body)], numbers[places < len(body)]
    return bool((body[places] == numbers).any())


def _hashes(numbers: NDArray[np.uint64], order: int) -> NDArray[np.uint64]:
    """Hash of every run of `order` numbers: a polynomial modulo 2^64."""
    if order < 1 or len(numbers) < order:
        return np.zeros(0, np.uint64)
    count = len(numbers) - order + 1
    hashes = np.zeros(count, np.uint64)
    with np.errstate(over="ignore"):
        for place in range(order):
            hashes = hashes * _BASE + numbers[place : place + count] * np.uint64(0x9E3779B97F4A7C15)
    return hashes
