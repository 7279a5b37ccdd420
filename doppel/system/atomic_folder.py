"""A folder that appears complete or not at all: written beside the old one, swapped in by renaming."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from doppel.errors import DoppelError, UserError
from doppel.i18n import tr


@contextmanager
def atomic_folder(target: Path, marker: str) -> Iterator[Path]:
    """A new folder to write into; when the block ends it takes the place of `target`. If it raises, nothing changes.

    Args:
        target: the folder to be replaced, or made.
        marker: a file that every folder of this kind has; one without it is somebody else's and is not replaced.

    Raises:
        UserError: there is something else at `target`.
        DoppelError: the folder cannot be written.
    """
    staging = target.with_name(f".{target.name}.building")
    old = target.with_name(f".{target.name}.old")
    created = not target.parent.exists()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if old.exists() and not target.exists():  # a power cut between the two renames below
            old.rename(target)
        if target.exists() and not (target / marker).is_file() and (not target.is_dir() or any(target.iterdir())):
            raise UserError(
                tr("{path}: is not a data set, so it is not replaced; choose another `data` folder", path=target)
            )
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        yield staging
        _swap(staging, target, old)
    except OSError as error:
        raise DoppelError(
            tr("{path}: cannot be written: {error}", path=error.filename or target, error=error.strerror)
        ) from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if created:
            with suppress(OSError):  # not empty after a success
                target.parent.rmdir()


def _swap(staging: Path, target: Path, old: Path) -> None:
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    try:
        staging.rename(target)
    except BaseException:
        if old.exists() and not target.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
