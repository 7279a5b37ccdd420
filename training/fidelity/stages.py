"""The stages of an examination: a progress bar with rate and time left for each, and how long it took."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from doppel.terminal import progress

Advance = Callable[[int], None]
"""Hears how much more is done."""

Begin = Callable[[int], Advance]
"""Hears how much there is to do, once that is known."""


def silent(_: int) -> Advance:
    """Shows nothing."""
    return lambda _: None


class Stages:
    """Shows how far each measure is, and keeps how long it took.

    Args:
        now: gives seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self.seconds: dict[str, float] = {}
        """By the name of the stage."""

    @contextmanager
    def __call__(self, name: str, title: str, unit: str) -> Iterator[Begin]:
        """A stage.

        Args:
            name: in `seconds`.
            title: for people.
            unit: what is counted, for people; after the rate.
        """
        began = self._now()
        with progress() as bar:
            task = bar.add_task(title, total=None, rate="")

            def begin(total: int) -> Advance:
                started, done = self._now(), 0
                bar.update(task, total=total, completed=0)

                def advance(count: int) -> None:
                    nonlocal done
                    done += count
                    rate = done / max(1e-9, self._now() - started)
                    bar.update(task, completed=done, rate=f"{rate:.{0 if rate >= 10 else 1}f} {unit}/s")

                return advance

            yield begin
        self.seconds[name] = round(self.seconds.get(name, 0.0) + self._now() - began, 2)
