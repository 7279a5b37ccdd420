"""What the user sees and may do while a model trains: a progress bar, samples, Ctrl-C. Decides nothing else."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from rich.progress import Progress
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from doppel.i18n import tr
from doppel.terminal import print_status
from training.run.timings import PhaseTimer
from training.run.trainer import METRIC, PersonaTrainer

_GO_ON, _OVERDUE, _STOP = range(3)


class TrainingProgress(TrainerCallback, ExportableState):
    """Shows a run's progress, prints samples at every validation, and ends it in order when asked to.

    Args:
        bar: the display to draw in.
        samples: gives a few lines the model would write now.
        stop: set by a signal.
        seconds_allowed: wall-clock time after which the run ends, in case the plan's estimate was wrong; what an
            interrupted run used up to its last checkpoint counts.
        parts: counts the seconds of steps and samples, and what is left as checkpoints.
        agree: makes the largest of all processes' wishes everybody's, so that all end after the same step.

    Attributes:
        stopped: whether the run was ended by a signal.
        seconds_before: used by the processes that this one goes on from.
    """

    def __init__(
        self,
        bar: Progress,
        samples: Callable[[], list[str]],
        stop: "StopRequest",
        seconds_allowed: float | None,
        parts: PhaseTimer,
        *,
        agree: Callable[[int], int] = int,
    ) -> None:
        self._bar = bar
        self._samples = samples
        self._stop = stop
        self._seconds_allowed = seconds_allowed
        self._started = time.monotonic()
        self._task = bar.add_task(tr("Training"), total=None, rate="")
        self._bits = ""
        self.trainer: PersonaTrainer | None = None
        self._parts = parts
        self._agree = agree
        self.stopped = False
        self.seconds_before = 0.0

    @property
    def tokens_per_second(self) -> float:
        """Speed of the training steps alone, without validation, checkpoints and samples."""
        seen = self.trainer.tokens_seen if self.trainer else 0
        seconds = self._parts.seconds["steps"]
        return seen / seconds if seconds else 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Draws the bar at the step the run starts from; ends it there if its time had been used up."""
        self._bar.update(self._task, total=state.max_steps, completed=state.global_step)
        if self._agree(self._wish()) == _OVERDUE:
            control.should_training_stop = True
        return control

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Starts the clock of a step."""
        self._parts.enter("steps")
        return control

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Counts the step; asks for a checkpoint and the end if a signal came or time is up."""
        self._parts.enter("checkpoints")
        wish = self._agree(self._wish())
        self.stopped = wish == _STOP
        if wish != _GO_ON:
            control.should_save = True
            control.should_training_stop = True
        self._bar.update(self._task, completed=state.global_step)
        return control

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> TrainerControl:
        """Shows loss, bits per byte and speed beside the bar."""
        if logs and "loss" in logs:
            text = tr("loss {loss:.2f} · {speed:.0f} tokens/s", loss=logs["loss"], speed=self.tokens_per_second)
            self._bar.update(self._task, rate=f"{text}{self._bits}")
        return control

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **_: Any,
    ) -> TrainerControl:
        """Prints what the persona would say by now."""
        bits = (metrics or {}).get(METRIC, 0.0)
        self._bits = tr(" · {bits:.3f} bits per byte", bits=bits)
        print_status(
            tr(
                "Step {step} of {steps}: {bits:.3f} bits per byte on messages it has not seen",
                step=state.global_step,
                steps=state.max_steps,
                bits=bits,
            )
        )
        if not self._stop.asked:
            with self._parts("samples"):
                for line in self._samples():
                    print_status(line)
        return control

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: the time used so far."""
        return {"args": {}, "attributes": {"seconds_before": self._seconds_used()}}

    def _wish(self) -> int:
        if self._stop.asked:
            return _STOP
        overdue = self._seconds_allowed is not None and self._seconds_used() > self._seconds_allowed
        return _OVERDUE if overdue else _GO_ON

    def _seconds_used(self) -> float:
        return self.seconds_before + time.monotonic() - self._started


class StopRequest:
    """Whether somebody asked the run to end."""

    def __init__(self) -> None:
        self.asked = False


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turns Ctrl-C or SIGTERM into a wish to stop after this step; a Ctrl-C after that interrupts at once.

    A second SIGTERM does not: a process started by make gets each one twice, from the group and from make.
    """
    stop = StopRequest()

    def ask(number: int, _: FrameType | None) -> None:
        if stop.asked:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        stop.asked = True
        print_status(tr("Stopping after this step; press Ctrl-C again to stop at once."))

    before = {one: signal.signal(one, ask) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
