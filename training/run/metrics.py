"""metrics.jsonl: what a training measured, one line per step and one per validation.

Numbers only: no text, no names, no paths. The file is published with the adapter. When a run resumes from a
checkpoint, the lines after that checkpoint are removed first, so that each step appears once.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from doppel.system.atomic_file import write_atomically
from training.run.plan import TrainingPlan
from training.run.trainer import METRIC, PersonaTrainer

FILE = "metrics.jsonl"


class MetricsRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line. A step has the fields from `loss` to `tokens_per_second`, a validation the last two.

    Attributes:
        step: optimizer steps done.
        epoch: passes over the training examples.
        tokens: trained on so far.
        seconds: of training so far, without the time between an interruption and resuming.
        loss: mean over the step's supervised tokens, nats.
        learning_rate: of the step.
        grad_norm: of all trained weights together, before clipping.
        tokens_per_second: of this step.
        bits_per_byte: of the validation messages.
        end_nats: mean loss at the ends of their bubbles and turns, nats.
    """

    step: int
    epoch: float
    tokens: int
    seconds: float
    loss: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None
    tokens_per_second: float | None = None
    bits_per_byte: float | None = None
    end_nats: float | None = None


def read_metrics(path: Path) -> Iterator[MetricsRow]:
    """The lines of a metrics.jsonl up to the first damaged one; none if the file does not exist."""
    decoder = msgspec.json.Decoder(MetricsRow)
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        try:
            yield decoder.decode(line)
        except msgspec.MsgspecError:
            return


def truncate_metrics(path: Path, step: int) -> MetricsRow | None:
    """Removes the lines after a step, atomically, and returns the last one left. Raises DoppelError."""
    kept = [row for row in read_metrics(path) if row.step <= step]
    write_atomically(path, b"".join(_line(row) for row in kept))
    return kept[-1] if kept else None


def append_metrics(path: Path, row: MetricsRow) -> None:
    """Appends a line. Raises OSError."""
    with path.open("ab") as file:
        file.write(_line(row))


class MetricsRecorder(TrainerCallback):
    """Writes what the trainer reports into metrics.jsonl.

    Args:
        folder: of metrics.jsonl.
        plan: of the run.
        listeners: are given each row too.
        clock: returns seconds.
    """

    def __init__(
        self,
        folder: Path,
        plan: TrainingPlan,
        listeners: Sequence[Callable[[MetricsRow], None]] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = folder / FILE
        self._plan = plan
        self._listeners = listeners
        self._clock = clock
        self._began = self._step_began = self._step_seconds = 0.0
        self._resumed_from = self._last = MetricsRow(step=0, epoch=0, tokens=0, seconds=0)
        self.trainer: PersonaTrainer | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Continues from the step that the run resumes from."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._resumed_from = self._last = truncate_metrics(self._path, state.global_step) or self._resumed_from
        self._began = self._clock()
        return control

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Starts timing a step."""
        self._step_began = self._clock()
        return control

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Stops timing a step."""
        self._step_seconds = self._clock() - self._step_began
        return control

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> TrainerControl:
        """Records a step."""
        if logs and "loss" in logs:
            row = self._row(state)
            tokens = row.tokens - self._last.tokens
            self._record(
                msgspec.structs.replace(
                    row,
                    loss=logs["loss"],
                    learning_rate=logs.get("learning_rate"),
                    grad_norm=logs.get("grad_norm"),
                    tokens_per_second=tokens / self._step_seconds if self._step_seconds else None,
                )
            )
        return control

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **_: Any,
    ) -> TrainerControl:
        """Records a validation."""
        if metrics and METRIC in metrics:
            bits, end_nats = metrics[METRIC], metrics.get("eval_end_nats")
            self._record(msgspec.structs.replace(self._row(state), bits_per_byte=bits, end_nats=end_nats))
        return control

    def _row(self, state: TrainerState) -> MetricsRow:
        assert self.trainer is not None
        return MetricsRow(
            step=state.global_step,
            epoch=round(self._plan.epochs * state.global_step / self._plan.steps, 4),
            tokens=self._resumed_from.tokens + self.trainer.tokens_seen,
            seconds=round(self._resumed_from.seconds + self._clock() - self._began, 3),
        )

    def _record(self, row: MetricsRow) -> None:
        append_metrics(self._path, row)
        for listener in self._listeners:
            listener(row)
        self._last = row


def _line(row: MetricsRow) -> bytes:
    return msgspec.json.encode(row) + b"\n"
