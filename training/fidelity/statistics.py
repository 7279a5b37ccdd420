"""Bootstrap confidence intervals. Whole groups (conversations) are resampled, as their messages are not independent.

Percentile bootstrap, 95 % (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13).
"""

from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from doppel.reports.metrics import Interval

ROUNDS = 1000
_PERCENTILES = (2.5, 97.5)
_Z_95 = 1.959964
_MAX_BLOCKS = 40

Array = NDArray[np.float64]
RowIndices = NDArray[np.intp]


def ratio(numerators: Sequence[float], denominators: Sequence[float], seed: int = 0) -> Interval:
    """Sum of the numerators over the sum of the denominators, one of each per group; NaN if the latter is 0."""
    return _bootstrap_sums(np.array([numerators, denominators], dtype=float), lambda sums: sums[0] / sums[1], seed)


def mean(values: Sequence[float], groups: Sequence[Hashable] | None = None, seed: int = 0) -> Interval:
    """Mean of values, resampled by group; without groups, each value is its own group."""
    if groups is None:
        return ratio(values, [1.0] * len(values), seed)
    return ratio(sums_by_group(values, groups), sums_by_group([1.0] * len(values), groups), seed)


def share(outcomes: Sequence[bool | float], groups: Sequence[Hashable]) -> Interval:
    """A share of outcomes, each from 0 to 1, resampled by group.

    If all of n groups agree, resampling shows no spread: the interval then reaches 3 / n from the end (Hanley and
    Lippman-Hand, If nothing goes wrong, is everything all right?, 1983).
    """
    interval = mean([float(outcome) for outcome in outcomes], groups)
    margin = min(1.0, 3 / max(1, len(set(groups))))
    if interval.value == 0:
        return Interval(0.0, 0.0, margin)
    return Interval(1.0, 1.0 - margin, 1.0) if interval.value == 1 else interval


def relative_change(after: Sequence[float], before: Sequence[float], seed: int = 0) -> Interval:
    """Relative change of a sum, `after / before - 1`. Both have one number per group, in the same order."""
    return _bootstrap_sums(np.array([after, before], dtype=float), lambda sums: sums[0] / sums[1] - 1, seed)


def difference_of_changes(
    first: tuple[Sequence[float], Sequence[float]], second: tuple[Sequence[float], Sequence[float]], seed: int = 0
) -> Interval:
    """`relative_change(*first) - relative_change(*second)` of two independent sets of groups."""
    rng = np.random.default_rng(seed)
    resampled = [_resample_sums(np.array(pair, dtype=float), rng) for pair in (first, second)]
    changes = [sums[0] / sums[1] - 1 for sums in resampled]
    values = [sum(after) / sum(before) - 1 for after, before in (first, second)]
    return _percentile_interval(values[0] - values[1], changes[0] - changes[1])


def bootstrap(
    groups: Sequence[Hashable], statistic: Callable[[RowIndices], float], rounds: int = 200, seed: int = 0
) -> Interval:
    """Any statistic of rows.

    Args:
        groups: the group of each row.
        statistic: computes the value from row indices, some of which repeat.
        rounds: how often to resample; slow statistics need to make do with fewer.
        seed: of the resampling.
    """
    rows_of: dict[Hashable, list[int]] = {}
    for row, group in enumerate(groups):
        rows_of.setdefault(group, []).append(row)
    members = [np.array(rows, dtype=np.intp) for rows in rows_of.values()]
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(rounds):
        chosen = rng.integers(0, len(members), len(members))
        values.append(statistic(np.concatenate([members[index] for index in chosen])))
    value = statistic(np.arange(len(groups), dtype=np.intp))
    return _percentile_interval(value, np.array(values))


def jackknife(
    groups: Sequence[Hashable], statistic: Callable[[RowIndices], float], blocks: int = _MAX_BLOCKS
) -> Interval:
    """Like `bootstrap`, for statistics that repeated rows would distort, such as variety: rows are only left out.

    Efron and Tibshirani, ch. 11, over at most `blocks` blocks of groups, with a normal interval.
    """
    block_of = {group: index % blocks for index, group in enumerate(dict.fromkeys(groups))}
    block = np.array([block_of[group] for group in groups])
    value = statistic(np.arange(len(groups), dtype=np.intp))
    count = min(blocks, len(block_of))
    without_block = np.array([statistic(np.flatnonzero(block != number)) for number in range(count)])
    if count < 2 or not np.isfinite(without_block).all():
        return Interval.unknown(value)
    margin = _Z_95 * float(np.sqrt((count - 1) * without_block.var()))
    return Interval(value, value - margin, value + margin)


def sums_by_group(values: Sequence[float], groups: Sequence[Hashable]) -> list[float]:
    """The sum of each group's values, in order of first appearance."""
    totals: dict[Hashable, float] = {}
    for value, group in zip(values, groups, strict=True):
        totals[group] = totals.get(group, 0.0) + value
    return list(totals.values())


def _bootstrap_sums(rows: Array, statistic: Callable[[Array], Array], seed: int) -> Interval:
    """A statistic of the sums of `rows` (K, groups)."""
    if not rows.shape[1]:
        return Interval.unknown()
    with np.errstate(divide="ignore", invalid="ignore"):
        resampled = statistic(_resample_sums(rows, np.random.default_rng(seed)))
        return _percentile_interval(float(statistic(rows.sum(1))), resampled)


def _resample_sums(rows: Array, rng: np.random.Generator) -> Array:
    """Sums (K, ROUNDS) of rows (K, groups) over as many groups, drawn with replacement."""
    count = rows.shape[1]
    multiplicity = rng.multinomial(count, np.full(count, 1 / count), size=ROUNDS)
    sums: Array = rows @ multiplicity.T
    return sums


def _percentile_interval(value: float, resampled: Array) -> Interval:
    finite = resampled[np.isfinite(resampled)]
    if not len(finite) or not np.isfinite(value):
        return Interval.unknown(value)
    low, high = np.percentile(finite, _PERCENTILES)
    return Interval(float(value), float(low), float(high))
