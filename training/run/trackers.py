"""Sends the metrics of a training to TensorBoard, Weights & Biases or Trackio, if config.yaml lists them.

Trackers receive the numbers of metrics.jsonl and of the plan, and nothing else: no text, no names, no paths, no data
about the machine. TensorBoard and Trackio keep them on this machine, Weights & Biases sends them to its servers.
transformers' own integrations are not used, because they also send every argument, such as the folder that is named
after the persona.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import msgspec

from doppel.errors import DoppelError, UserError
from doppel.i18n import tr
from doppel.terminal import print_status
from training.run.metrics import MetricsRow
from training.run.plan import TrainingPlan

PROJECT = "doppel"
_SETTINGS = ("rank", "alpha", "learning_rate", "sessions_per_step", "max_length", "steps", "epochs", "seed")


class Tracker(Protocol):
    """Receives the numbers of one run."""

    def log(self, row: MetricsRow) -> None:
        """Receives a step or a validation."""
        ...

    def close(self) -> None:
        """Waits until everything is written or sent."""
        ...


def check_trackers(names: Sequence[str]) -> None:
    """Raises UserError for a tracker that is not installed, before the training begins."""
    for name in names:
        if find_spec(name) is None:
            raise UserError(
                tr(
                    "training.trackers: {name} is not installed; run `pip install {name}` or remove it from the list",
                    name=name,
                )
            )


@contextmanager
def tracking(names: Sequence[str], folder: Path, run: str, plan: TrainingPlan, step: int) -> Iterator[list[Tracker]]:
    """Opens the named trackers, and closes them after the block.

    Args:
        names: as in `training.trackers`.
        folder: for trackers that write files.
        run: name of the run; a resumed run has the same one.
        plan: its settings are shown beside the curves.
        step: the run resumes from; 0 for a new run.

    Raises:
        DoppelError: a tracker cannot start.
    """
    constructors: dict[str, Callable[[Path, str, dict[str, float], int], Tracker]] = {
        "tensorboard": TensorBoard,
        "wandb": WandB,
        "trackio": Trackio,
    }
    settings = {name: getattr(plan, name) for name in _SETTINGS}
    with ExitStack() as stack:
        trackers: list[Tracker] = []
        for name in names:
            try:
                tracker: Tracker = constructors[name](folder / name, run, settings, step)
            except Exception as error:  # noqa: BLE001  # libraries raise different errors: no login, no network
                raise DoppelError(
                    tr(
                        "training.trackers: {name} failed to start: {error}",
                        name=name,
                        error=str(error).partition("\n")[0],
                    )
                ) from None
            stack.callback(tracker.close)
            trackers.append(tracker)
        yield trackers


class TensorBoard:
    """Event files under `folder`; `tensorboard --logdir` shows them."""

    def __init__(self, folder: Path, run: str, settings: dict[str, float], step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # hides what an interrupted process logged after the checkpoint
        self._writer = SummaryWriter(str(folder / run), purge_step=step + 1 if step else None)
        self._writer.add_text("settings", msgspec.json.encode(settings).decode(), step)
        print_status(tr("Training curves: {where}", where=f"tensorboard --logdir {folder}"))

    def log(self, row: MetricsRow) -> None:
        """Adds a point to each curve."""
        for name, value in metric_values(row).items():
            self._writer.add_scalar(name, value, row.step)

    def close(self) -> None:
        """Flushes pending data."""
        self._writer.close()


class WandB:
    """A run on the user's wandb account; `WANDB_MODE=offline` keeps it under `folder`."""

    def __init__(self, folder: Path, run: str, settings: dict[str, float], step: int) -> None:
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        # by default wandb also sends host and user name, the command line, paths, git state, packages, and the terminal
        # output, sample replies included
        private = wandb.Settings(
            console="off",
            silent=True,
            disable_code=True,
            disable_git=True,
            save_code=False,
            host=PROJECT,
            username=PROJECT,
            program=PROJECT,
            x_executable="python",
            x_disable_meta=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
        )
        self._run = wandb.init(
            project=PROJECT, id=run, name=run, dir=str(folder), config=settings, resume="allow", settings=private
        )
        print_status(tr("Training curves: {where}", where=self._run.url or folder))

    def log(self, row: MetricsRow) -> None:
        """Sends a point of each curve."""
        self._run.log(metric_values(row), step=row.step)

    def close(self) -> None:
        """Waits until everything is sent."""
        self._run.finish()


class Trackio:
    """A run in Trackio's own database on this machine; `trackio show` opens it."""

    def __init__(self, folder: Path, run: str, settings: dict[str, float], step: int) -> None:
        import trackio

        with redirect_stdout(sys.stderr):  # stdout is for results
            self._run: Any = trackio.init(
                project=PROJECT,
                name=run,
                resume="allow",
                config=dict(settings),
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )

    def log(self, row: MetricsRow) -> None:
        """Adds a point to each curve."""
        self._run.log(metric_values(row), step=row.step)

    def close(self) -> None:
        """Flushes pending data."""
        with redirect_stdout(sys.stderr):
            self._run.finish()


def metric_values(row: MetricsRow) -> dict[str, float]:
    """The numbers of a row that a tracker receives; the step is passed separately."""
    values = msgspec.to_builtins(row)
    return {name: value for name, value in values.items() if name != "step" and value is not None}
