"""The owner's rhythm, measured: how fast the bubbles of a burst follow one another, and how many there are."""

from array import array
from collections.abc import Sequence
from itertools import pairwise
from statistics import median, quantiles

import msgspec

from doppel.adapters.habits import Habits
from training.dataset.sessions import Line


class Rhythm:
    """Takes sessions of conversations, gives habits."""

    def __init__(self) -> None:
        self._gaps = array("d")
        self._seconds_per_character = array("d")
        self._bubbles = 0
        self._turns = 0

    def listen(self, lines: Sequence[Line]) -> None:
        """Measures one session. Posts are no conversation: leave them out. A reaction has no time of its own."""
        lines = [line for line in lines if line.message.mark != "reaction"]
        if not lines:
            return
        self._bubbles += sum(line.is_mine for line in lines)
        self._turns += lines[0].is_mine
        for before, after in pairwise(lines):
            if not after.is_mine:
                continue
            if not before.is_mine:
                self._turns += 1
                continue
            gap = (after.message.sent_at - before.message.sent_at).total_seconds()
            self._gaps.append(gap)
            self._seconds_per_character.append(gap / len(after.message.text))

    def habits(self) -> Habits:
        """The habits; defaults where there was too little, or no time finer than a minute, to measure."""
        habits = Habits()
        if self._turns:
            habits = msgspec.structs.replace(habits, bubbles_per_turn=round(self._bubbles / self._turns, 3))
        if len(self._gaps) < 2 or all(gap % 60 == 0 for gap in self._gaps):
            return habits
        return msgspec.structs.replace(
            habits,
            seconds_per_character=round(median(self._seconds_per_character), 4),
            bubble_gap_seconds=tuple(round(gap, 2) for gap in quantiles(self._gaps, n=10, method="inclusive")),
        )
