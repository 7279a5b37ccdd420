"""Estimates with bootstrap intervals. Whole groups (conversations) are resampled: their messages are not independent.

Percentile bootstrap, 95 % (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13). Knows numbers only.
"""

from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from doppel.reports.metrics import Interval

ROUNDS = 1000
_TAILS = (2.5, 97.5)
_NORMAL = 1.959964
_BLOCKS = 40

Array = NDArray[np.float64]


def ratio(above: Sequence[float], below: Sequence[float], seed: int = 0) -> Interval:
    """Sum of `above` over sum of `below`, one number each a group; NaN where the second is 0."""
    return _statistic(np.array([above, below], dtype=float), lambda sums: sums[0] / sums[1], seed)


def mean(values: Sequence[float], groups: Sequence[Hashable] | None = None, seed: int = 0) -> Interval:
    """Mean of values, resampled by group; each its own group where none are given."""
    if groups is None:
        return ratio(values, [1.0] * len(values), seed)
    sums, counts = _by_group(values, groups)
    return ratio(sums, counts, seed)


def change(after: Sequence[float], before: Sequence[float], seed: int = 0) -> Interval:
    """Relative change of a sum, `after / before - 1`, where both are of the same groups in the same order."""
    return _statistic(np.array([after, before], dtype=float), lambda sums: sums[0] / sums[1] - 1, seed)


def difference(first: Sequence[Sequence[float]], second: Sequence[Sequence[float]], seed: int = 0) -> Interval:
    """`change(*first) - change(*second)` of two independent sets of groups, each an (after, before) pair."""
    rng = np.random.default_rng(seed)
    spread = [_resampled(np.array(one, dtype=float), rng) for one in (first, second)]
    changes = [sums[0] / sums[1] - 1 for sums in spread]
    values = [sum(one[0]) / sum(one[1]) - 1 for one in (first, second)]
    return _estimate(values[0] - values[1], changes[0] - changes[1])


def resampled(
    groups: Sequence[Hashable], statistic: Callable[[NDArray[np.intp]], float], rounds: int = 200, seed: int = 0
) -> Interval:
    """Any statistic of rows, given the numbers of the rows to take (some twice); slow ones may ask for fewer rounds."""
    places: dict[Hashable, list[int]] = {}
    for place, group in enumerate(groups):
        places.setdefault(group, []).append(place)
    members = [np.array(one, dtype=np.intp) for one in places.values()]
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(rounds):
        chosen = rng.integers(0, len(members), len(members))
        values.append(statistic(np.concatenate([members[one] for one in chosen])))
    whole = statistic(np.arange(len(groups), dtype=np.intp))
    return _estimate(whole, np.array(values))


def jackknife(groups: Sequence[Hashable], statistic: Callable[[NDArray[np.intp]], float]) -> Interval:
    """As `resampled`, for statistics that a repeated row would change, as variety: leaves groups out, repeats none.

    Efron and Tibshirani, ch. 11, on at most `_BLOCKS` blocks of groups; the interval is that of a normal distribution.
    """
    block_of = {group: place % _BLOCKS for place, group in enumerate(dict.fromkeys(groups))}
    blocks = np.array([block_of[group] for group in groups])
    whole = statistic(np.arange(len(groups), dtype=np.intp))
    count = min(_BLOCKS, len(block_of))
    if count < 2:
        return Interval(whole, float("nan"), float("nan"))
    left = np.array([statistic(np.flatnonzero(blocks != block)) for block in range(count)])
    half = _NORMAL * float(np.sqrt((count - 1) * left.var()))
    return Interval(whole, whole - half, whole + half)


def _by_group(values: Sequence[float], groups: Sequence[Hashable]) -> tuple[list[float], list[float]]:
    sums: dict[Hashable, list[float]] = {}
    for value, group in zip(values, groups, strict=True):
        entry = sums.setdefault(group, [0.0, 0.0])
        entry[0] += value
        entry[1] += 1
    return [one[0] for one in sums.values()], [one[1] for one in sums.values()]


def _statistic(rows: Array, statistic: Callable[[Array], Array], seed: int) -> Interval:
    """A statistic of the sums of `rows` (K, groups)."""
    if not rows.shape[1]:
        return Interval(float("nan"), float("nan"), float("nan"))
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = statistic(_resampled(rows, np.random.default_rng(seed)))
        return _estimate(float(statistic(rows.sum(1))), drawn)


def _resampled(rows: Array, rng: np.random.Generator) -> Array:
    """Sums (K, ROUNDS) of rows (K, groups) over as many groups drawn with replacement."""
    count = rows.shape[1]
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=ROUNDS)  # how often each group is taken
    sums: Array = rows @ drawn.T
    return sums


def _estimate(value: float, drawn: Array) -> Interval:
    usable = drawn[np.isfinite(drawn)]
    if not len(usable) or not np.isfinite(value):
        return Interval(value, float("nan"), float("nan"))
    low, high = np.percentile(usable, _TAILS)
    return Interval(float(value), float(low), float(high))
