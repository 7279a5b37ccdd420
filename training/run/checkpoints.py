"""What a checkpoint holds: the adapter, the optimizer's state and how far the run has come."""

import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import torch
from peft import PeftModel

from training.lora.model import save_adapter
from training.lora.optimizer import MasterAdamW
from training.run.completion_marker import mark_complete
from training.run.metrics import FILE as METRICS
from training.run.metrics import read_metrics

_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_STATE = "state.json"
_OPTIMIZER = "optimizer.pt"
_FORMER_STATE = "trainer_state.json"  # of checkpoints that transformers' Trainer wrote

_SECONDS_BETWEEN = 120.0
_MAX_SHARE_OF_TIME = 0.02  # spent on writing checkpoints


class TrainingState(msgspec.Struct, frozen=True):
    """How far a run has come.

    Attributes:
        step: optimizer steps done.
        tokens: trained on so far.
        seconds: of training so far, without the time between an interruption and resuming.
        best_step: of the validation with the best score; None before the first one.
        best_bits: its bits per byte.
        checks_since_best: validations since then.
    """

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best_step: int | None = None
    best_bits: float | None = None
    checks_since_best: int = 0


class CheckpointClock:
    """Says when the next checkpoint is due: every two minutes, but more rarely if writing one takes long.

    Args:
        clock: returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = clock()
        self._pause = _SECONDS_BETWEEN

    def is_due(self) -> bool:
        """Whether the last checkpoint is long enough ago."""
        return self._clock() - self._last >= self._pause

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Times the writing of a checkpoint."""
        began = self._clock()
        yield
        self._last = self._clock()
        self._pause = max(_SECONDS_BETWEEN, (self._last - began) / _MAX_SHARE_OF_TIME)


def read_state(checkpoint: Path) -> TrainingState:
    """How far the run had come at a complete checkpoint, also at one of an earlier version."""
    if (checkpoint / _STATE).exists():
        return msgspec.json.decode((checkpoint / _STATE).read_bytes(), type=TrainingState)
    former = msgspec.json.decode((checkpoint / _FORMER_STATE).read_bytes())
    step = former.get("global_step", 0)
    callbacks: dict[str, Any] = {}
    for callback in former.get("stateful_callbacks", {}).values():
        callbacks |= callback["attributes"]
    rows = [row for row in read_metrics(checkpoint.parent / METRICS) if row.step <= step]
    return TrainingState(
        step=step,
        tokens=rows[-1].tokens if rows else 0,
        seconds=callbacks.get("seconds_before", 0.0),
        best_step=former.get("best_global_step"),
        best_bits=former.get("best_metric"),
        checks_since_best=callbacks.get("early_stopping_patience_counter", 0),
    )


def save_checkpoint(
    folder: Path, model: PeftModel, weights: Mapping[str, torch.Tensor], optimizer: MasterAdamW, state: TrainingState
) -> None:
    """Writes a checkpoint, marks it complete, and only then removes all but this one and the best.

    Args:
        folder: of the run.
        model: with the adapter.
        weights: the adapter's exact weights by parameter name.
        optimizer: of the run.
        state: of the run.

    Raises:
        DoppelError, OSError: it cannot be written; nothing is left of it.
    """
    target = checkpoint_folder(folder, state.step)
    shutil.rmtree(target, ignore_errors=True)
    try:
        save_adapter(model, target, weights)
        torch.save(optimizer.state_dict(), target / _OPTIMIZER)
        (target / _STATE).write_bytes(msgspec.json.encode(state))
        mark_complete(target)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    for step, path in list_checkpoints(folder).items():
        if step not in (state.step, state.best_step):
            shutil.rmtree(path, ignore_errors=True)


def load_checkpoint(checkpoint: Path, optimizer: MasterAdamW) -> TrainingState:
    """Gives the optimizer, and with it the model, what they were at a complete checkpoint; returns the run's state."""
    optimizer.load_state_dict(torch.load(checkpoint / _OPTIMIZER, map_location="cpu", weights_only=True))
    return read_state(checkpoint)


def checkpoint_folder(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step is in the folder of its run."""
    return folder / f"checkpoint-{step}"


def list_checkpoints(folder: Path) -> dict[int, Path]:
    """The checkpoints in a folder by step, ascending, complete or not."""
    by_step = {int(match[1]): path for path in folder.glob("*") if (match := _CHECKPOINT.fullmatch(path.name))}
    return dict(sorted(by_step.items()))
