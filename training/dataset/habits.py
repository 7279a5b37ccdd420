"""Measures the owner's habits: how many bubbles a turn has, and how fast they follow one another."""

from array import array
from collections.abc import Sequence
from itertools import pairwise
from statistics import median, quantiles

import msgspec

from doppel.adapters.habits import Habits
from training.archives.message import Mark
from training.dataset.sessions import SessionMessage


class HabitsCollector:
    """Collects sessions with `add`, then computes the habits."""

    def __init__(self) -> None:
        self._gaps = array("d")
        self._seconds_per_character = array("d")
        self._bubbles = 0
        self._turns = 0

    def add(self, session: Sequence[SessionMessage]) -> None:
        """Measures one session of a conversation, not of public posts. Reactions are skipped: they have no own time."""
        messages = [message for message in session if message.message.mark != Mark.REACTION]
        if not messages:
            return
        self._bubbles += sum(message.is_mine for message in messages)
        self._turns += messages[0].is_mine
        for before, after in pairwise(messages):
            if not after.is_mine:
                continue
            if not before.is_mine:
                self._turns += 1
                continue
            gap = (after.message.sent_at - before.message.sent_at).total_seconds()
            self._gaps.append(gap)
            self._seconds_per_character.append(gap / len(after.message.text))

    def habits(self) -> Habits:
        """The habits; defaults where there are too few messages, or times are only precise to the minute."""
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
