"""What the user sees and can do while a model trains: progress bar, sample replies, Ctrl-C."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from types import FrameType
from typing import Any

from rich.progress import Progress
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from doppel.i18n import tr
from doppel.terminal import print_status
from training.run.timings import PhaseTimer
from training.run.trainer import METRIC, PersonaTrainer


class Decision(IntEnum):
    """Whether a training goes on after a step; of several processes' decisions the largest counts."""

    CONTINUE = 0
    TIME_IS_UP = 1
    STOP = 2


class TrainingProgress(TrainerCallback, ExportableState):
    """Shows a run's progress, prints sample replies at every validation, and stops the run cleanly on request.

    Args:
        bar: the display to draw in.
        samples: returns a few lines that the model would write now.
        stop: set by a signal.
        max_seconds: time limit, in case the plan's estimate was wrong. Time that an interrupted run used up to its
            last checkpoint counts.
        timer: counts steps and samples, and everything else as checkpoints.
        agree: turns one process's decision into everyone's, so that all stop after the same step.

    Attributes:
        stopped: whether the run was stopped by a signal.
        seconds_before: training time of the interrupted processes before this one.
    """

    def __init__(
        self,
        bar: Progress,
        samples: Callable[[], list[str]],
        stop: "StopRequest",
        max_seconds: float | None,
        timer: PhaseTimer,
        *,
        agree: Callable[[int], int] = int,
    ) -> None:
        self._bar = bar
        self._samples = samples
        self._stop = stop
        self._max_seconds = max_seconds
        self._began = time.monotonic()
        self._task = bar.add_task(tr("Training"), total=None, rate="")
        self._bits = ""
        self.trainer: PersonaTrainer | None = None
        self._timer = timer
        self._agree = agree
        self.stopped = False
        self.seconds_before = 0.0

    @property
    def tokens_per_second(self) -> float:
        """Speed of the training steps alone, without validation, checkpoints and samples."""
        tokens = self.trainer.tokens_seen if self.trainer else 0
        seconds = self._timer.seconds["steps"]
        return tokens / seconds if seconds else 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Draws the bar at the step the run starts from; ends the run if its time was already used up."""
        self._bar.update(self._task, total=state.max_steps, completed=state.global_step)
        if self._agree(self._decision()) == Decision.TIME_IS_UP:
            control.should_training_stop = True
        return control

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Starts timing a step."""
        self._timer.switch_to("steps")
        return control

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Counts the step; saves a checkpoint and ends the run after a signal or when time is up."""
        self._timer.switch_to("checkpoints")
        decision = self._agree(self._decision())
        self.stopped = decision == Decision.STOP
        if decision != Decision.CONTINUE:
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
        """Shows loss, speed and bits per byte beside the bar."""
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
        """Prints the score of a validation and what the persona would write now."""
        bits = (metrics or {}).get(METRIC, 0.0)
        self._bits = tr(" · {bits:.3f} bits per byte", bits=bits)
        print_status(
            tr(
                "Step {step} of {steps}: {bits:.3f} bits per byte on the validation messages",
                step=state.global_step,
                steps=state.max_steps,
                bits=bits,
            )
        )
        if not self._stop.requested:
            with self._timer.phase("samples"):
                for line in self._samples():
                    print_status(line)
        return control

    def state(self) -> dict[str, Any]:
        """What a checkpoint stores: the training time so far."""
        return {"args": {}, "attributes": {"seconds_before": self._seconds_used()}}

    def _decision(self) -> Decision:
        if self._stop.requested:
            return Decision.STOP
        is_overdue = self._max_seconds is not None and self._seconds_used() > self._max_seconds
        return Decision.TIME_IS_UP if is_overdue else Decision.CONTINUE

    def _seconds_used(self) -> float:
        return self.seconds_before + time.monotonic() - self._began


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
