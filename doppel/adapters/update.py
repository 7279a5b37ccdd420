"""Changes a published version afterwards: adds a report, its scores or its tuned sampling.

The version is written anew next to itself, with a new manifest, and swapped in by renaming, so that its digests always
match. The weights are hard-linked, not copied. One process at a time does this. A reader that finds no version between
the two renames tries again.
"""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from doppel.adapters.versions import (
    MANIFEST,
    Manifest,
    read_manifest,
    retired_path,
    updating,
    write_manifest,
)
from doppel.system.atomic_folder import replace_folder, staging_folder
from doppel.system.durable_files import regular_files
from doppel.system.write_errors import translate_write_errors

_STAGING = ".amending-"


def update_version(folder: Path, change: Callable[[Path, Manifest], Manifest]) -> Manifest:
    """Changes a published version.

    Args:
        folder: of the version.
        change: gets a folder with the version's files, in which it may add files or replace them by `replace_file`,
            and the manifest; returns the new manifest. Files must not be written in place: they are hard links.

    Returns:
        The new manifest.

    Raises:
        AdapterRefused: the version is damaged. DoppelError: the folder cannot be written.
    """
    with translate_write_errors(folder.parent), updating(folder):
        manifest = read_manifest(folder)
        with staging_folder(folder.parent, _STAGING) as staging:
            for path in regular_files(folder):
                if path.name != MANIFEST:
                    target = staging / path.relative_to(folder)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    _link(path, target)
            changed = write_manifest(staging, change(staging, manifest))
            replace_folder(staging, folder, retired_path(folder))
    return changed


def replace_file(path: Path, content: bytes) -> None:
    """Writes a file in the folder that `update_version` passes on, without changing the file it is linked to."""
    with suppress(FileNotFoundError):
        path.unlink()
    path.write_bytes(content)


def _link(path: Path, target: Path) -> None:
    try:
        os.link(path, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(path, target)
