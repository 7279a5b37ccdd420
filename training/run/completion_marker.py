"""Marks a folder as complete: a list of its files with their digests, written last.

If the marker exists, everything in its list was on disk before it. A killed process, a full disk or a power cut leaves
a folder without a marker.
"""

from pathlib import Path

import msgspec

from doppel.system.atomic_file import write_atomically
from doppel.system.durable_files import file_digest, fsync_path

_MARKER = "whole.json"


def mark_complete(folder: Path) -> None:
    """Syncs the folder's files to disk, then writes the marker atomically.

    Raises:
        DoppelError: the marker cannot be written. OSError: a file cannot be read or synced.
    """
    files = _files(folder)
    digests = {str(path.relative_to(folder)): file_digest(path) for path in files}
    for path in files:
        fsync_path(path)
    write_atomically(folder / _MARKER, msgspec.json.encode(digests))
    fsync_path(folder.parent)


def is_complete(folder: Path) -> bool:
    """Whether the folder holds exactly the files in its marker, unchanged."""
    try:
        digests = msgspec.json.decode((folder / _MARKER).read_bytes(), type=dict[str, str])
        files = {str(path.relative_to(folder)): path for path in _files(folder)}
        return files.keys() == digests.keys() and all(file_digest(files[name]) == digests[name] for name in digests)
    except (OSError, msgspec.MsgspecError):
        return False


def _files(folder: Path) -> list[Path]:
    """All files but the marker, and what a killed process left of a marker under a temporary name."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and path.name != _MARKER and not path.name.startswith(f".{_MARKER}")
    )
