"""Writes an export next to its target and moves it there when complete."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from doppel.errors import UserError
from doppel.i18n import tr
from doppel.system.atomic_folder import move_into_place, staging_folder
from doppel.system.write_errors import translate_write_errors

_STAGING = ".exporting-"


def check_free(target: Path, *, folder: bool) -> Path:
    """The target's absolute path, if an export would overwrite nothing.

    Args:
        target: where to write; may be an empty folder if `folder` is set.
        folder: whether the export is a folder.

    Raises:
        UserError: something is there. DoppelError: the parent folder cannot be read.
    """
    with translate_write_errors(target):
        target = target.expanduser().resolve()
        if folder and target.is_dir():
            if any(target.iterdir()):
                raise UserError(tr("{path}: is not empty; name a new or an empty folder", path=target))
        elif target.exists():
            raise UserError(tr("{path}: already exists; remove it or choose another name", path=target))
    return target


@contextmanager
def exporting(target: Path, *, folder: bool) -> Iterator[Path]:
    """A temporary path to write the export to, moved to `target` when the block ends. If it raises, nothing is left.

    Args:
        target: where to write; missing parent folders are created.
        folder: True yields an empty folder to fill, False the path of a file to write.

    Raises:
        UserError: something is at `target`.
        DoppelError: it cannot be written, for example because the disk is full.
    """
    target = check_free(target, folder=folder)
    with translate_write_errors(target), staging_folder(target.parent, _STAGING) as staging:
        export = staging / target.name
        if folder:
            export.mkdir()
        yield export
        if target.is_dir():
            target.rmdir()  # empty; not every system can rename onto a folder
        move_into_place(export, target)
