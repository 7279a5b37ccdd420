"""What an unfinished training leaves on disk, so that the next `doppel train` goes on where it stopped.

`data/<persona>.training/` holds the plan, what it was made for, and the checkpoints. It is removed once the
adapter is published. A folder made for other data, another base or other settings is not continued.
"""

import json
import shutil
from pathlib import Path

import msgspec

from doppel.errors import DoppelError
from doppel.i18n import tr
from training.bits import Bits
from training.plan import Plan

_STATE = "trainer_state.json"  # the last file the library writes into a checkpoint
_FILE = "plan.json"


class Parent(msgspec.Struct, frozen=True):
    """The adapter that a run started from.

    Attributes:
        folder: where it lies, absolute.
        name: its version, or the name of its folder.
        weights: SHA-256 of its weights.
    """

    folder: str
    name: str
    weights: str


class Started(msgspec.Struct, frozen=True):
    """A run that has begun: what it was made for, its plan, and the untrained base's score.

    Where it started from an adapter: which one, and that one's score.
    """

    purpose: str
    plan: Plan
    before: Bits
    parent: Parent | None = None
    parent_score: Bits | None = None


class Work:
    """The folder of one persona's unfinished training.

    Args:
        folder: `data/<persona>.training/`.
        purpose: digest of everything a run depends on: data, base, settings.
    """

    def __init__(self, folder: Path, purpose: str) -> None:
        self.folder = folder
        self._purpose = purpose

    def started(self) -> Started | None:
        """The run to continue, or None when there is none for this purpose."""
        try:
            started = msgspec.json.decode((self.folder / _FILE).read_bytes(), type=Started)
        except (FileNotFoundError, msgspec.MsgspecError):
            return None
        return started if started.purpose == self._purpose else None

    def begin(
        self, plan: Plan, before: Bits, parent: Parent | None = None, parent_score: Bits | None = None
    ) -> Started:
        """Clears what other runs left and notes this one. Raises DoppelError if the folder cannot be written."""
        started = Started(self._purpose, plan, before, parent, parent_score)
        try:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            part = self.folder / f".{_FILE}"
            part.write_bytes(msgspec.json.encode(started))
            part.replace(self.folder / _FILE)
        except OSError as error:
            raise DoppelError(
                tr("{path}: cannot be written: {error}", path=self.folder, error=error.strerror or error)
            ) from None
        return started

    def checkpoint(self) -> Path | None:
        """The newest complete checkpoint; one that a kill cut short is removed."""
        found = sorted(self.folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
        while found:
            newest = found.pop()
            try:
                json.loads((newest / _STATE).read_text(encoding="utf-8"))
            except (OSError, ValueError):
                shutil.rmtree(newest, ignore_errors=True)
            else:
                return newest
        return None

    def finish(self) -> None:
        """Removes the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
