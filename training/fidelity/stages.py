"""A progress bar for each stage of an examination, and how long each took."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from doppel.terminal import progress

OnProgress = Callable[[int], None]
"""Called with the amount of work done since the last call."""

StartProgress = Callable[[int], OnProgress]
"""Called with the total amount of work, once it is known."""


def no_progress(_: int) -> OnProgress:
    """A `StartProgress` that shows nothing."""
    return lambda _: None


class StageProgress:
    """Shows a progress bar with rate and time left for each stage.

    Args:
        now: returns the time in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self.seconds: dict[str, float] = {}
        """Duration of each stage, by name."""

    @contextmanager
    def __call__(self, name: str, title: str, unit: str) -> Iterator[StartProgress]:
        """Runs a stage.

        Args:
            name: its key in `seconds`.
            title: shown beside the bar.
            unit: of the rate that is shown.
        """
        stage_start = self._now()
        with progress() as bar:
            task = bar.add_task(title, total=None, rate="")

            def start(total: int) -> OnProgress:
                work_start, done = self._now(), 0
                bar.update(task, total=total, completed=0)

                def on_progress(count: int) -> None:
                    nonlocal done
                    done += count
                    rate = done / max(1e-9, self._now() - work_start)
                    bar.update(task, completed=done, rate=f"{rate:.{0 if rate >= 10 else 1}f} {unit}/s")

                return on_progress

            yield start
        self.seconds[name] = round(self.seconds.get(name, 0.0) + self._now() - stage_start, 2)
