"""Where the time of a training goes, part by part, so that a forecast can be held against what happened."""

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
    """Seconds by part; at any time one part is being counted, or none. `now` gives seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._counted: str | None = None
        self._since = 0.0
        self.seconds = dict.fromkeys(PHASES, 0.0)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Counts what happens in the block as part `name`, and what comes after it as before."""
        around = self._counted
        self.enter(name)
        try:
            yield
        finally:
            self.enter(around)

    def enter(self, name: str | None) -> None:
        """Counts what happens from here on as part `name`; None: as none."""
        now = self._now()
        if self._counted is not None:
            self.seconds[self._counted] += now - self._since
        self._counted, self._since = name, now


def phase_title(name: str) -> str:
    """What a part is called for people."""
    return {
        "load": tr("loading data and model"),
        "score_before": tr("scoring the untrained base"),
        "measure": tr("measuring this machine"),
        "steps": tr("training steps"),
        "validations": tr("validations"),
        "samples": tr("samples"),
        "checkpoints": tr("checkpoints"),
        "score_after": tr("scoring the adapter"),
        "publish": tr("publishing"),
    }[name]
