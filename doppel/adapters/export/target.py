"""Where an export is written: a temporary sibling that takes the target's name when complete. Knows no format."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from doppel.errors import UserError
from doppel.i18n import tr
from doppel.system.durable_files import fsync_path
from doppel.system.stale_files import remove_stale
from doppel.system.write_errors import translate_write_errors

_STAGING = ".exporting-"


def check_free(target: Path, *, folder: bool) -> Path:
    """The target's absolute path, if nothing would be overwritten there.

    Args:
        target: where the export is to lie; an empty folder may be there already.
        folder: whether it will be a folder.

    Raises:
        UserError: there is something.
    """
    with translate_write_errors(target):  # a folder that may not even be looked into
        target = target.expanduser().resolve()
        if folder and target.is_dir():
            if any(target.iterdir()):
                raise UserError(tr("{path}: is not empty; name a new or an empty folder", path=target))
        elif target.exists():
            raise UserError(tr("{path}: exists already; remove it or name another", path=target))
    return target


@contextmanager
def exporting(target: Path, *, folder: bool) -> Iterator[Path]:
    """A path to write the export to; when the block ends it lies at `target`, and if it raises nothing does.

    Args:
        target: where the export is to lie; missing parent folders are made.
        folder: True yields an empty folder to fill, False the path of a file to write.

    Raises:
        UserError: there is something at `target`.
        DoppelError: it cannot be written, for example because the disk is full.
    """
    target = check_free(target, folder=folder)
    staging: Path | None = None
    try:
        with translate_write_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            remove_stale(target.parent, _STAGING, datetime.now(UTC))  # of an export that was killed
            staging = Path(tempfile.mkdtemp(prefix=_STAGING, dir=target.parent))
            work = staging / target.name
            if folder:
                work.mkdir()
            yield work
            for path in [*work.rglob("*"), work]:
                fsync_path(path)
            if target.is_dir():
                target.rmdir()  # empty; not every system renames onto a folder
            work.rename(target)
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)
