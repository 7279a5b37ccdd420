"""Measures how long each phase of a training takes, to compare with the forecast."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from doppel.i18n import tr

PHASES = (
    "load",
    "score_before",
    "measure",
    "steps",
    "validations",
    "samples",
    "checkpoints",
    "score_after",
    "publish",
)


class PhaseTimer:
    """Adds up seconds by phase; at most one phase is current at any time.

    Args:
        clock: returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._current: str | None = None
        self._since = 0.0
        self.seconds = dict.fromkeys(PHASES, 0.0)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Makes `name` the current phase within the block, and the one before current again after it."""
        outer = self._current
        self.switch_to(name)
        try:
            yield
        finally:
            self.switch_to(outer)

    def switch_to(self, name: str | None) -> None:
        """Makes `name` the current phase; None means no phase."""
        now = self._clock()
        if self._current is not None:
            self.seconds[self._current] += now - self._since
        self._current, self._since = name, now


def phase_title(name: str) -> str:
    """The name of a phase for people."""
    return {
        "load": tr("loading data and model"),
        "score_before": tr("scoring the base model"),
        "measure": tr("measuring this machine"),
        "steps": tr("training steps"),
        "validations": tr("validation"),
        "samples": tr("sample replies"),
        "checkpoints": tr("checkpoints"),
        "score_after": tr("scoring the adapter"),
        "publish": tr("publishing"),
    }[name]
