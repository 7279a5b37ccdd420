"""Finds the messages that two copies of a chat have in common.

Ids of the service come first. Messages without them are the same if text and writer are, in the same order, at the same
time: within the precision of the clocks, after the shift between two time zones. The same words said twice are two
messages; two copies of them are not.
"""

from collections import Counter

import msgspec
import numpy as np
from numpy.typing import NDArray

from training.dataset.timeline import Timeline

MAX_SHIFT = 15 * 3600.0
"""Seconds between the local times of two time zones, with summer time."""

_SHIFT_STEP = 900.0
"""Time zones differ by multiples of 15 minutes."""
_ONE_HOUR = 4
"""In steps: summer time."""
_MIN_SHIFTED = 3
"""So many different texts must agree on a shift."""
_MANY_SHIFTED = 10
_TOLERANCES = (1.5, 61.5, 121.5)
"""Seconds by which copies of a message may differ; the smallest is used that explains nearly all of them."""
_MIN_EXPLAINED = 0.9
_ONE_SECOND = 1.0
_CHUNK = 512
_WINDOW = 14
"""Messages of each copy that are compared where the copies differ."""
_ABSENT = -1

Places = NDArray[np.int64]
"""Positions in a timeline."""


class Fit(msgspec.Struct):
    """How the times and writers of one copy correspond to those of another.

    Attributes:
        shifts: seconds to subtract from each time of the second copy.
        shift: the most frequent of them.
        other_shifts: for each time of the second copy the shift of the other half of the year, if there is one.
        tolerance: seconds by which copies of a message may then differ.
        is_by_minute: whether to compare minutes.
        sides: the account in the first copy of each account in the second, as positions; -1 if it is not there.
        votes: how many different texts, or ids, are the same in both at that shift.
        contradictions: how many of them have writers that do not correspond.
    """

    shifts: NDArray[np.float64]
    shift: float
    other_shifts: NDArray[np.float64] | None
    tolerance: float
    is_by_minute: bool
    sides: NDArray[np.int32]
    votes: int
    contradictions: int

    def compared_times(
        self, first: Timeline, second: Timeline, shifts: NDArray[np.float64] | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The times of both copies as they are compared, with other shifts if these are given."""
        times = second.times - (self.shifts if shifts is None else shifts)
        return (first.times // 60 * 60, times // 60 * 60) if self.is_by_minute else (first.times, times)


def fit(first: Timeline, second: Timeline) -> Fit:
    """Compares the clocks and writers of two copies by the messages that occur once in each."""
    is_by_minute = first.is_by_minute or second.is_by_minute
    in_first, in_second = _common(first, second)
    times = (first.times // 60 * 60, second.times // 60 * 60) if is_by_minute else (first.times, second.times)
    distances = times[1][in_second] - times[0][in_first]
    steps = np.rint(distances / _SHIFT_STEP).astype(np.int64)
    rest = np.abs(distances - steps * _SHIFT_STEP)
    is_near = (np.abs(distances) <= MAX_SHIFT) & (rest <= _TOLERANCES[-1])
    in_first, in_second, steps, rest = in_first[is_near], in_second[is_near], steps[is_near], rest[is_near]
    main, chosen = _shift_steps(steps)
    is_chosen = np.isin(steps, chosen)
    in_first, in_second, steps, rest = in_first[is_chosen], in_second[is_chosen], steps[is_chosen], rest[is_chosen]
    sides, contradictions = _sides(first, second, in_first, in_second)
    shifts = _shifts(second, in_second, steps, main) * _SHIFT_STEP
    return Fit(
        shifts=shifts,
        shift=main * _SHIFT_STEP,
        other_shifts=sum(chosen) * _SHIFT_STEP - shifts if len(chosen) > 1 else None,
        tolerance=next((size for size in _TOLERANCES if np.mean(rest <= size) >= _MIN_EXPLAINED), _TOLERANCES[-1])
        if len(rest)
        else _TOLERANCES[0],
        is_by_minute=is_by_minute,
        sides=sides,
        votes=len(steps),
        contradictions=contradictions,
    )


def _common(first: Timeline, second: Timeline) -> tuple[Places, Places]:
    """The places of messages whose text occurs once in each copy."""
    once_first, once_second = _once(first.texts), _once(second.texts)
    _, a, b = np.intersect1d(first.texts[once_first], second.texts[once_second], True, True)
    return once_first[a], once_second[b]


def _once(hashes: NDArray[np.int64]) -> Places:
    """The places of those that occur once."""
    _, places, counts = np.unique(hashes, return_index=True, return_counts=True)
    once: Places = np.sort(places[counts == 1])
    return once


def _shift_steps(steps: NDArray[np.int64]) -> tuple[int, list[int]]:
    """The main shift, and all that occur: in half of the year it may be an hour more or less."""
    if not len(steps):
        return 0, [0]
    counts = Counter(steps.tolist())
    main = max(counts, key=lambda step: (counts[step] + (step == 0), -abs(step)))
    if main and counts[main] < _MIN_SHIFTED:
        return 0, [0]
    # An export may end soon after the clocks are changed, so that few messages show it.
    needed = 1 if main and counts[main] >= _MANY_SHIFTED else _MIN_SHIFTED
    beside = [step for step in (main - _ONE_HOUR, main + _ONE_HOUR) if counts[step] >= needed]
    if len(beside) == 2:
        beside = [max(beside, key=counts.__getitem__)]
    chosen = [main, *beside]
    is_certain = not main or 2 * sum(map(counts.__getitem__, chosen)) >= len(steps)
    return (main, chosen) if is_certain else (0, [0])


def _shifts(second: Timeline, places: Places, steps: NDArray[np.int64], main: int) -> NDArray[np.float64]:
    """The shift of every message, in steps: that of the nearest message for which it is known."""
    if not len(places) or (steps == main).all():
        return np.full(len(second), float(main))
    order = np.argsort(places)
    known, steps = places[order], steps[order]
    after = np.searchsorted(known, np.arange(len(second))).clip(0, len(known) - 1)
    before = (after - 1).clip(0)
    times = second.times
    is_before = np.abs(times - times[known[before]]) < np.abs(times[known[after]] - times)
    nearest: NDArray[np.float64] = np.where(is_before, steps[before], steps[after]).astype(np.float64)
    return nearest


def _sides(first: Timeline, second: Timeline, a: Places, b: Places) -> tuple[NDArray[np.int32], int]:
    """Which accounts correspond: those of one name, then by most messages."""
    sides = np.full(len(second.accounts), _ABSENT, dtype=np.int32)
    places = {account: place for place, account in enumerate(first.accounts)}
    taken = set()
    for place, account in enumerate(second.accounts):
        if account in places:
            sides[place] = places[account]
            taken.add(places[account])
    votes = Counter(zip(second.senders[b].tolist(), first.senders[a].tolist(), strict=True))
    contradictions = 0
    for (side, other), count in votes.most_common():
        if sides[side] == other:
            continue
        if sides[side] == _ABSENT and other not in taken:
            sides[side] = other
            taken.add(other)
        else:
            contradictions += count
    return sides, contradictions


def same_messages(first: Timeline, second: Timeline, how: Fit) -> tuple[Places, Places]:
    """The messages that both copies have, as places in the first and in the second, ascending in the second."""
    times, other_times = how.compared_times(first, second)
    partner = np.full(len(second), _ABSENT, dtype=np.int64)
    is_taken = np.zeros(len(first), dtype=np.bool_)
    a, b = _same_ids(first, second, times, other_times)
    partner[b], is_taken[a] = a, True
    codes, other_codes = _codes(first, second, how.sides)
    left, other_left = np.flatnonzero(~is_taken), np.flatnonzero(partner == _ABSENT)
    if len(left) and len(other_left):
        pairs = _in_order(codes[left], times[left], other_codes[other_left], other_times[other_left], how.tolerance)
        partner[other_left[pairs[1]]], is_taken[left[pairs[0]]] = left[pairs[0]], True
        for moved in (None, how.other_shifts) if how.other_shifts is not None else (None,):
            other_times = how.compared_times(first, second, moved)[1]
            left, other_left = np.flatnonzero(~is_taken), np.flatnonzero(partner == _ABSENT)
            pairs = _out_of_order(
                codes[left], times[left], other_codes[other_left], other_times[other_left], how.tolerance
            )
            partner[other_left[pairs[1]]], is_taken[left[pairs[0]]] = left[pairs[0]], True
    found = np.flatnonzero(partner != _ABSENT)
    return partner[found], found


def _same_ids(
    first: Timeline, second: Timeline, times: NDArray[np.float64], other_times: NDArray[np.float64]
) -> tuple[Places, Places]:
    """Messages of one id, which occurs once in each copy: the service's id, or any id with the same time or text."""
    once, other_once = _once(first.ids), _once(second.ids)
    _, a, b = np.intersect1d(first.ids[once], second.ids[other_once], True, True)
    a, b = once[a], other_once[b]
    distances = np.abs(times[a] - other_times[b])
    is_same = (
        (first.is_global[a] & second.is_global[b])
        | (distances <= _ONE_SECOND)
        | ((first.texts[a] == second.texts[b]) & (distances <= MAX_SHIFT))
    )
    return a[is_same], b[is_same]


def _codes(first: Timeline, second: Timeline, sides: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Text and writer of each message in one number. Nobody in the first copy has the codes of unknown writers."""
    mixed = np.where(sides == _ABSENT, len(first.accounts) + np.arange(len(sides)), sides).astype(np.int64)
    salt = np.int64(0x9E3779B97F4A7C15 - (1 << 64))
    with np.errstate(over="ignore"):
        return (
            first.texts ^ ((first.senders.astype(np.int64) + 1) * salt),
            second.texts ^ ((mixed[second.senders] + 1) * salt),
        )


def _in_order(
    codes: NDArray[np.int64],
    times: NDArray[np.float64],
    other_codes: NDArray[np.int64],
    other_times: NDArray[np.float64],
    tolerance: float,
) -> tuple[Places, Places]:
    """Goes through both copies at once, as a diff does."""
    pairs: list[tuple[Places, Places]] = []
    i, j, size, other_size = 0, 0, len(codes), len(other_codes)
    while i < size and j < other_size:
        count = min(_CHUNK, size - i, other_size - j)
        is_equal = (codes[i : i + count] == other_codes[j : j + count]) & (
            np.abs(times[i : i + count] - other_times[j : j + count]) <= tolerance
        )
        run = count if is_equal.all() else int(np.argmin(is_equal))
        if run:
            span = np.arange(run)
            pairs.append((i + span, j + span))
            i, j = i + run, j + run
            continue
        distance = other_times[j] - times[i]
        if distance > tolerance:  # the first copy has more here: go on where the second may continue
            i += max(1, int(np.searchsorted(times[i:], other_times[j] - tolerance)))
        elif distance < -tolerance:
            j += max(1, int(np.searchsorted(other_times[j:], times[i] - tolerance)))
        else:
            window = slice(i, i + _WINDOW), slice(j, j + _WINDOW)
            found, steps = _longest_common(
                codes[window[0]].tolist(),
                times[window[0]].tolist(),
                other_codes[window[1]].tolist(),
                other_times[window[1]].tolist(),
                tolerance,
            )
            if found:
                pairs.append((i + np.array([a for a, _ in found]), j + np.array([b for _, b in found])))
            i, j = i + steps[0], j + steps[1]
    if not pairs:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    return np.concatenate([a for a, _ in pairs]), np.concatenate([b for _, b in pairs])


def _longest_common(
    codes: list[int], times: list[float], other_codes: list[int], other_times: list[float], tolerance: float
) -> tuple[list[tuple[int, int]], tuple[int, int]]:
    """The longest common sequence of two short lists up to its middle, and how much of each list is then done."""
    rows, columns = len(codes), len(other_codes)
    best = [[0] * (columns + 1) for _ in range(rows + 1)]
    for i in range(rows - 1, -1, -1):
        row, below, code, time = best[i], best[i + 1], codes[i], times[i]
        for j in range(columns - 1, -1, -1):
            if code == other_codes[j] and abs(time - other_times[j]) <= tolerance:
                row[j] = below[j + 1] + 1
            else:
                row[j] = below[j] if below[j] >= row[j + 1] else row[j + 1]
    found = []
    i = j = 0
    while i < rows and j < columns and best[i][j]:
        if codes[i] == other_codes[j] and abs(times[i] - other_times[j]) <= tolerance:
            found.append((i, j))
            i, j = i + 1, j + 1
            if len(found) * 2 >= best[0][0]:
                return found, (i, j)
        elif best[i + 1][j] >= best[i][j + 1]:
            i += 1
        else:
            j += 1
    if times[-1] <= other_times[-1]:  # nothing in common: the one that ends first is done
        return found, (rows, max(0, int(np.searchsorted(other_times, times[-1] - tolerance))))
    return found, (max(0, int(np.searchsorted(times, other_times[-1] - tolerance))), columns)


def _out_of_order(
    codes: NDArray[np.int64],
    times: NDArray[np.float64],
    other_codes: NDArray[np.int64],
    other_times: NDArray[np.float64],
    tolerance: float,
) -> tuple[Places, Places]:
    """Matches what is left, for exports that order the messages of a moment differently."""
    by_code: dict[int, list[int]] = {}
    for place in np.flatnonzero(np.isin(codes, other_codes)).tolist():
        by_code.setdefault(int(codes[place]), []).append(place)
    begins = dict.fromkeys(by_code, 0)
    pairs: list[tuple[int, int]] = []
    for place in np.flatnonzero(np.isin(other_codes, codes)).tolist():
        code, time = int(other_codes[place]), other_times[place]
        candidates, begin = by_code[code], begins[code]
        while begin < len(candidates) and times[candidates[begin]] < time - tolerance:
            begin += 1
        if begin < len(candidates) and times[candidates[begin]] <= time + tolerance:
            pairs.append((candidates[begin], place))
            begin += 1
        begins[code] = begin
    return np.array([a for a, _ in pairs], dtype=np.int64), np.array([b for _, b in pairs], dtype=np.int64)
