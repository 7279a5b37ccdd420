"""The learning rate of a run: a short warm-up, then a cosine that reaches zero when the run ends.

A run ends after its planned steps or when its time is up, whichever comes first. Since nobody knows how fast a busy
machine will be, the rate follows the clock where there is a time limit: it is at zero in time, whatever the speed was.
"""

import math

import msgspec

WARM_UP = 0.03
"""Share of the run over which the rate rises."""


class Schedule(msgspec.Struct, frozen=True):
    """When a run ends, and its learning rate until then.

    Attributes:
        peak: the highest learning rate.
        steps: optimizer steps after which the run ends.
        seconds: of training after which it ends; None: no time limit.
        step_seconds: expected time of the first step.
    """

    peak: float
    steps: int
    seconds: float | None = None
    step_seconds: float = 0.0

    def progress(self, step: int, seconds: float) -> float:
        """The share of the run that is over in the middle of the next step; from 1 on that step is not taken.

        Args:
            step: steps done.
            seconds: of training so far, everything between the steps included.
        """
        by_steps = (step + 0.5) / self.steps
        if self.seconds is None:
            return by_steps
        if not step:  # however little time there is, one step is taken
            return max(by_steps, min(0.99, self.step_seconds / 2 / self.seconds))
        return max(by_steps, (seconds + seconds / step / 2) / self.seconds)

    def rate(self, progress: float) -> float:
        """The learning rate at a share of the run."""
        rise = min(1.0, progress / WARM_UP)
        return self.peak * rise * (1 + math.cos(math.pi * min(1.0, progress))) / 2
