"""The folder of an unfinished training, from which the next `doppel train` resumes.

`data/<persona>.training/` holds the plan, a digest of what the run depends on, and the checkpoints. It is removed once
the adapter is published. A run for other data, another base or other settings is not resumed.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from doppel.errors import DoppelError
from doppel.i18n import tr
from doppel.system.atomic_file import write_atomically
from doppel.system.file_lock import acquire_lock
from doppel.system.private_folder import make_private_folder
from doppel.system.write_errors import translate_write_errors
from training.lora.bits_per_byte import HeldOutScore
from training.run.checkpoints import checkpoint_folder, list_checkpoints, read_state
from training.run.completion_marker import is_complete
from training.run.plan import TrainingPlan

_PLAN = "plan.json"


class ParentAdapter(msgspec.Struct, frozen=True):
    """The adapter that a run started from.

    Attributes:
        folder: absolute path.
        name: its version, or the name of its folder.
        weights: SHA-256 of its weights.
    """

    folder: str
    name: str
    weights: str


class RunState(msgspec.Struct, frozen=True):
    """A started run, as stored in plan.json.

    Attributes:
        digest: of everything the run depends on: data, base, settings.
        plan: its settings.
        base_score: of the untrained base on the test examples; None if there are none.
        parent: the adapter it started from, or None.
        parent_score: of that adapter on the test examples.
    """

    digest: str = msgspec.field(name="purpose")
    plan: TrainingPlan
    base_score: HeldOutScore | None = msgspec.field(name="before")
    parent: ParentAdapter | None = None
    parent_score: HeldOutScore | None = None


class RunFolder:
    """The folder of one persona's unfinished training.

    Args:
        folder: `data/<persona>.training/`.
        digest: of everything the run depends on: data, base, settings.
    """

    def __init__(self, folder: Path, digest: str) -> None:
        self.folder = folder
        self._digest = digest

    def read_state(self) -> RunState | None:
        """The run to resume, or None if there is none with this digest."""
        try:
            state = msgspec.json.decode((self.folder / _PLAN).read_bytes(), type=RunState)
        except (FileNotFoundError, msgspec.MsgspecError):
            return None
        return state if state.digest == self._digest else None

    def start(
        self,
        plan: TrainingPlan,
        base_score: HeldOutScore | None,
        parent: ParentAdapter | None = None,
        parent_score: HeldOutScore | None = None,
    ) -> RunState:
        """Removes earlier runs and stores the state of this one. Raises DoppelError if the folder cannot be written."""
        state = RunState(self._digest, plan, base_score, parent, parent_score)
        with translate_write_errors(self.folder):
            shutil.rmtree(self.folder, ignore_errors=True)
            make_private_folder(self.folder)
        write_atomically(self.folder / _PLAN, msgspec.json.encode(state))
        return state

    def latest_checkpoint(self) -> Path | None:
        """The newest complete checkpoint whose best checkpoint still exists; removes those that cannot be used."""
        by_step = list_checkpoints(self.folder)
        for step, path in [*by_step.items()]:
            if not is_complete(path):
                shutil.rmtree(path, ignore_errors=True)
                del by_step[step]
        while by_step:
            _, newest = by_step.popitem()
            best = read_state(newest).best_step
            if best is None or checkpoint_folder(self.folder, best).is_dir():
                return newest
            shutil.rmtree(newest, ignore_errors=True)
        return None

    def remove(self) -> None:
        """Removes the folder, the plan first, so that a half-removed run is never resumed."""
        (self.folder / _PLAN).unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def lock_run_folder(folder: Path) -> Iterator[None]:
    """Keeps other processes from training in `folder` within the block.

    Raises:
        DoppelError: another process trains there, or the lock cannot be written.
    """
    if not folder.parent.is_dir():  # no data set; reading it will say so
        yield
        return
    with translate_write_errors(folder.parent):
        lock = acquire_lock(folder.with_name(f".{folder.name}.lock"))
    if lock is None:
        raise DoppelError(tr("{path}: in use by another `doppel train`", path=folder))
    with lock:
        yield
