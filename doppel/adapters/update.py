"""Adds to a published adapter what was found out about it later: a report, its scores, its sampling.

The version is written anew beside itself and swapped in by renaming, with a new manifest, so that every digest holds
before and after; the weights are linked, not copied. A reader that looks between the two renames finds no version
and looks again; after a crash there `doppel.adapters.versions.published` brings it back.
"""

import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from doppel.adapters.versions import MANIFEST, Manifest, read_manifest, restore_interrupted_update, retired_path
from doppel.system.durable_files import file_digest, fsync_path, regular_files
from doppel.system.write_errors import translate_write_errors

_STAGING = ".amending-"


def update_version(folder: Path, change: Callable[[Path, Manifest], Manifest]) -> Manifest:
    """Changes a published version.

    Args:
        folder: of the version.
        change: gets a folder with the version's files, in which it writes or replaces some, and the manifest; returns
            the manifest that is to hold. Files are replaced whole, never written into: they are linked.

    Returns:
        The manifest as it is now.

    Raises:
        AdapterRefused: the version is damaged. DoppelError: the folder cannot be written.
    """
    restore_interrupted_update(folder)
    manifest = read_manifest(folder)
    with translate_write_errors(folder.parent):
        staging = Path(tempfile.mkdtemp(prefix=_STAGING, dir=folder.parent))
        try:
            for path in regular_files(folder):
                if path.name != MANIFEST:
                    target = staging / path.relative_to(folder)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    _link(path, target)
            changed = change(staging, manifest)
            files = {str(path.relative_to(staging)): file_digest(path) for path in regular_files(staging)}
            changed = msgspec.structs.replace(changed, files=files)
            (staging / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(changed), indent=2))
            for path in regular_files(staging):
                fsync_path(path)
            staging.chmod(0o755)
            fsync_path(staging)
            old = retired_path(folder)
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
            staging.rename(folder)
            fsync_path(folder.parent)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return changed


def replace_file(path: Path, content: bytes) -> None:
    """Writes a file of a version that is being changed, without touching what it was linked to."""
    with suppress(FileNotFoundError):
        path.unlink()
    path.write_bytes(content)


def _link(path: Path, target: Path) -> None:
    try:
        os.link(path, target)
    except OSError:  # a file system without links
        shutil.copyfile(path, target)
