"""What the user sees and can do while a model trains: progress bar, sample replies, Ctrl-C."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from rich.progress import Progress

from doppel.i18n import tr
from doppel.terminal import print_status
from training.run.metrics import MetricsRow
from training.run.plan import TrainingPlan
from training.run.timings import PhaseTimer


class TrainingProgress:
    """Shows a run's progress, and prints sample replies at every validation.

    Args:
        bar: the display to draw in.
        plan: of the run.
        step: that the run starts from.
        samples: returns a few lines that the model would write now.
        stop: set by a signal.
        timer: counts the time of samples.
    """

    def __init__(
        self,
        bar: Progress,
        plan: TrainingPlan,
        step: int,
        *,
        samples: Callable[[], list[str]],
        stop: "StopRequest",
        timer: PhaseTimer,
    ) -> None:
        self._bar = bar
        self._steps = plan.steps
        self._samples = samples
        self._stop = stop
        self._timer = timer
        self._task = bar.add_task(tr("Training"), total=plan.steps, completed=step, rate="")
        self._bits = ""

    def log(self, row: MetricsRow) -> None:
        """Draws a step, or prints a validation."""
        if row.bits_per_byte is None:
            text = tr("loss {loss:.2f} · {speed:.0f} tokens/s", loss=row.loss, speed=row.tokens_per_second)
            self._bar.update(self._task, completed=row.step, rate=f"{text}{self._bits}")
            return
        self._bits = tr(" · {bits:.3f} bits per byte", bits=row.bits_per_byte)
        print_status(
            tr(
                "Step {step} of {steps}: {bits:.3f} bits per byte on the validation messages",
                step=row.step,
                steps=self._steps,
                bits=row.bits_per_byte,
            )
        )
        if not self._stop.requested:
            with self._timer.phase("samples"):
                for line in self._samples():
                    print_status(line)


class StopRequest:
    """Whether the run was asked to stop."""

    def __init__(self) -> None:
        self.requested = False


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turns Ctrl-C or SIGTERM into a request to stop after this step; a further Ctrl-C interrupts at once.

    A second SIGTERM does not interrupt: a process started by make gets each one twice, from the group and from make.
    """
    stop = StopRequest()

    def on_signal(number: int, _: FrameType | None) -> None:
        if stop.requested:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        stop.requested = True
        print_status(tr("Stopping after this step; press Ctrl-C again to stop at once."))

    previous = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
