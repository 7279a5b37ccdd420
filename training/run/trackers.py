"""The curves of a training in TensorBoard, Weights & Biases or Trackio, where config.yaml asks for them.

They get the numbers of metrics.jsonl and of the plan and nothing else: no text, no names, no paths, no figures of
the machine. TensorBoard and Trackio keep them on this machine, Weights & Biases sends them to its servers. Ours and
not transformers' integrations, which also hand over every argument, the folder named after the persona among them.
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
    """Where the numbers of one run go."""

    def log(self, metric: MetricsRow) -> None:
        """Takes a step or a validation."""
        ...

    def close(self) -> None:
        """Sees to it that everything has arrived."""
        ...


def check_trackers(names: Sequence[str]) -> None:
    """Raises UserError for one that is not installed, before hours are spent."""
    for name in names:
        if find_spec(name) is None:
            raise UserError(
                tr(
                    "training.track: {name} is not installed; run `pip install {name}`, or take it out of the list",
                    name=name,
                )
            )


@contextmanager
def tracking(names: Sequence[str], folder: Path, run: str, plan: TrainingPlan, step: int) -> Iterator[list[Tracker]]:
    """The named trackers, closed at the end.

    Args:
        names: as in `training.track`.
        folder: where those that write files may write them.
        run: names the run; the same one when it goes on.
        plan: its settings are shown beside the curves.
        step: the run goes on from; 0 for a new one.

    Raises:
        DoppelError: a tracker cannot start.
    """
    kinds: dict[str, Callable[[Path, str, dict[str, float], int], Tracker]] = {
        "tensorboard": TensorBoard,
        "wandb": WandB,
        "trackio": Trackio,
    }
    settings = {name: getattr(plan, name) for name in _SETTINGS}
    with ExitStack() as stack:
        trackers: list[Tracker] = []
        for name in names:
            try:
                tracker: Tracker = kinds[name](folder / name, run, settings, step)
            except Exception as error:  # noqa: BLE001  # each library fails in its own ways: no login, no network
                raise DoppelError(
                    tr("training.track: {name} cannot start: {error}", name=name, error=str(error).partition("\n")[0])
                ) from None
            stack.callback(tracker.close)
            trackers.append(tracker)
        yield trackers


class TensorBoard:
    """Event files under `folder`; `tensorboard --logdir` shows them."""

    def __init__(self, folder: Path, run: str, settings: dict[str, float], step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # from purge_step on, what an earlier process logged of this run is not shown
        self._writer = SummaryWriter(str(folder / run), purge_step=step + 1 if step else None)
        self._writer.add_text("settings", msgspec.json.encode(settings).decode(), step)
        print_status(tr("Curves: {where}", where=f"tensorboard --logdir {folder}"))

    def log(self, metric: MetricsRow) -> None:
        """Adds a point to each curve."""
        for name, value in numbers(metric).items():
            self._writer.add_scalar(name, value, metric.step)

    def close(self) -> None:
        """Writes what is left."""
        self._writer.close()


class WandB:
    """A run on the user's wandb account; `WANDB_MODE=offline` keeps it under `folder`."""

    def __init__(self, folder: Path, run: str, settings: dict[str, float], step: int) -> None:
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        # by itself wandb also sends host and user name, the command line, paths, git state, packages and what the
        # terminal shows, samples included
        discreet = wandb.Settings(
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
            project=PROJECT, id=run, name=run, dir=str(folder), config=settings, resume="allow", settings=discreet
        )
        print_status(tr("Curves: {where}", where=self._run.url or folder))

    def log(self, metric: MetricsRow) -> None:
        """Sends a point of each curve."""
        self._run.log(numbers(metric), step=metric.step)

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

    def log(self, metric: MetricsRow) -> None:
        """Adds a point to each curve."""
        self._run.log(numbers(metric), step=metric.step)

    def close(self) -> None:
        """Writes what is left."""
        with redirect_stdout(sys.stderr):
            self._run.finish()


def numbers(metric: MetricsRow) -> dict[str, float]:
    """What a tracker gets of a metric: every number it has, its step apart."""
    values = msgspec.to_builtins(metric)
    return {name: value for name, value in values.items() if name != "step" and value is not None}
