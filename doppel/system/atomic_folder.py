"""Folders that appear complete or not at all: filled under a temporary name, synced to disk, then renamed."""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from doppel.errors import UserError
from doppel.i18n import tr
from doppel.system.durable_files import fsync_path
from doppel.system.private_folder import make_private_folder
from doppel.system.stale_files import remove_stale
from doppel.system.write_errors import translate_write_errors


@contextmanager
def staging_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A new folder in `parent`, to be filled and moved into place; removed at the end of the block if it was not.

    Staging folders of killed processes are removed when they are a day old.

    Args:
        parent: created if missing; on the file system of the final place.
        prefix: of the folder's name; no other files in `parent` may have it.

    Raises:
        OSError: the folder cannot be created.
    """
    parent.mkdir(parents=True, exist_ok=True)
    remove_stale(parent, prefix, datetime.now(UTC))
    staging = parent / f"{prefix}{secrets.token_hex(4)}"
    staging.mkdir()
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def move_into_place(staging: Path, target: Path) -> None:
    """Syncs a file or a folder with all that is in it, and renames it to `target`. Raises OSError."""
    _sync(staging)
    staging.rename(target)
    fsync_path(target.parent)


def replace_folder(staging: Path, target: Path, retired: Path) -> None:
    """Syncs a folder and puts it in the place of `target`, by two renames. Raises OSError, `target` being as before.

    A crash between the renames leaves the old folder at `retired`: `restore_folder` puts it back.
    """
    _sync(staging)
    shutil.rmtree(retired, ignore_errors=True)
    if target.exists():
        target.rename(retired)
    try:
        staging.rename(target)
    except BaseException:
        restore_folder(target, retired)
        raise
    fsync_path(target.parent)
    shutil.rmtree(retired, ignore_errors=True)


def restore_folder(target: Path, retired: Path) -> None:
    """Puts back the old folder after a crash in `replace_folder`; does nothing otherwise."""
    if retired.is_dir() and not target.exists():
        retired.rename(target)


@contextmanager
def atomic_folder(target: Path, marker: str) -> Iterator[Path]:
    """A new folder to write into, which replaces `target` when the block ends. If it raises, nothing changes.

    The folder is for the user alone, or has the permissions of the one that it replaces. Only one process at a time
    may write a folder like this.

    Args:
        target: the folder to replace or create.
        marker: a file that every data set has; a folder without it holds something else and is not replaced.

    Raises:
        UserError: there is something else at `target`.
        DoppelError: the folder cannot be written.
    """
    staging = target.with_name(f".{target.name}.building")
    retired = target.with_name(f".{target.name}.old")
    created_parent = not target.parent.exists()
    with translate_write_errors(target):
        try:
            make_private_folder(target.parent)
            restore_folder(target, retired)
            if target.exists() and not (target / marker).is_file() and (not target.is_dir() or any(target.iterdir())):
                raise UserError(
                    tr("{path}: is not a data set, so it is not replaced; choose another `data` folder", path=target)
                )
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir(mode=0o700)
            if target.exists():
                staging.chmod(target.stat().st_mode & 0o7777)
            yield staging
            replace_folder(staging, target, retired)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
            if created_parent:
                with suppress(OSError):  # not empty after a success
                    target.parent.rmdir()


def _sync(path: Path) -> None:
    for part in [*path.rglob("*"), path]:
        if not part.is_symlink():
            fsync_path(part)
