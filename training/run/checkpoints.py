"""What an unfinished training leaves on disk, so that the next `doppel train` goes on where it stopped.

`data/<persona>.training/` holds the plan, what it was made for, and the checkpoints. It is removed once the
adapter is published. A folder made for other data, another base or other settings is not continued.
"""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from doppel.errors import DoppelError
from doppel.i18n import tr
from doppel.system.durable_files import fsync_path
from doppel.system.file_lock import acquire_lock
from doppel.system.write_errors import translate_write_errors
from training.lora.bits_per_byte import HeldOutScore
from training.run.completion_marker import is_complete
from training.run.plan import TrainingPlan

_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_STATE = "trainer_state.json"
_FILE = "plan.json"


class ParentAdapter(msgspec.Struct, frozen=True):
    """The adapter that a run started from.

    Attributes:
        folder: where it lies, absolute.
        name: its version, or the name of its folder.
        weights: SHA-256 of its weights.
    """

    folder: str
    name: str
    weights: str


class RunState(msgspec.Struct, frozen=True):
    """A run that has begun: what it was made for, its plan, and the untrained base's score.

    Where it started from an adapter: which one, and that one's score.
    """

    purpose: str
    plan: TrainingPlan
    before: HeldOutScore
    parent: ParentAdapter | None = None
    parent_score: HeldOutScore | None = None


class _State(msgspec.Struct, frozen=True):
    """What matters here of the library's state: the step of the best checkpoint so far."""

    best_global_step: int | None = None


class RunFolder:
    """The folder of one persona's unfinished training.

    Args:
        folder: `data/<persona>.training/`.
        purpose: digest of everything a run depends on: data, base, settings.
    """

    def __init__(self, folder: Path, purpose: str) -> None:
        self.folder = folder
        self._purpose = purpose

    def started(self) -> RunState | None:
        """The run to continue, or None when there is none for this purpose."""
        try:
            started = msgspec.json.decode((self.folder / _FILE).read_bytes(), type=RunState)
        except (FileNotFoundError, msgspec.MsgspecError):
            return None
        return started if started.purpose == self._purpose else None

    def begin(
        self,
        plan: TrainingPlan,
        before: HeldOutScore,
        parent: ParentAdapter | None = None,
        parent_score: HeldOutScore | None = None,
    ) -> RunState:
        """Clears what other runs left and notes this one. Raises DoppelError if the folder cannot be written."""
        started = RunState(self._purpose, plan, before, parent, parent_score)
        with translate_write_errors(self.folder):
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            part = self.folder / f".{_FILE}"
            part.write_bytes(msgspec.json.encode(started))
            fsync_path(part)
            part.replace(self.folder / _FILE)
            fsync_path(self.folder)
        return started

    def checkpoint(self) -> Path | None:
        """The newest checkpoint that is whole, as is the best one, which it names; any that is not is removed."""
        found = checkpoints(self.folder)
        for step, path in [*found.items()]:
            if not is_complete(path):
                shutil.rmtree(path, ignore_errors=True)
                del found[step]
        while found:
            _, newest = found.popitem()
            best = msgspec.json.decode((newest / _STATE).read_bytes(), type=_State).best_global_step
            if best is None or (newest.parent / f"checkpoint-{best}").is_dir():
                return newest
            shutil.rmtree(newest, ignore_errors=True)
        return None

    def finish(self) -> None:
        """Removes the folder; from the first moment on there is nothing to go on with."""
        (self.folder / _FILE).unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def lock_run_folder(folder: Path) -> Iterator[None]:
    """Keeps every other process from training in `folder` while the block runs.

    Raises:
        DoppelError: one is at it, or nothing can be written there.
    """
    if not folder.parent.is_dir():  # nothing to train on, as will be said
        yield
        return
    with translate_write_errors(folder.parent):
        lock = acquire_lock(folder.with_name(f".{folder.name}.lock"))
    if lock is None:
        raise DoppelError(tr("{path}: another `doppel train` is at work there", path=folder))
    with lock:
        yield


def checkpoints(folder: Path) -> dict[int, Path]:
    """The checkpoints in a folder by their step, the earliest first, whole or not."""
    found = {int(match[1]): path for path in folder.glob("*") if (match := _CHECKPOINT.fullmatch(path.name))}
    return dict(sorted(found.items()))
