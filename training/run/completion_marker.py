"""Whether a folder was written to its end: a list of its files and their digests, put there last.

When the marker is there, everything it lists was on the disk before it; a process that was killed, a full disk or a
power cut leaves a folder without one. Knows files; knows nothing of what is in them.
"""

import os
from pathlib import Path

import msgspec

from doppel.system.durable_files import file_digest, fsync_path

_MARKER = "whole.json"


def mark_complete(folder: Path) -> None:
    """Makes the folder's files survive a power cut, then says so in one step. Raises OSError."""
    files = _files(folder)
    digests = {str(path.relative_to(folder)): file_digest(path) for path in files}
    for path in files:
        fsync_path(path)
    part = folder / f".{_MARKER}"
    with part.open("wb") as file:
        file.write(msgspec.json.encode(digests))
        file.flush()
        os.fsync(file.fileno())
    part.replace(folder / _MARKER)
    fsync_path(folder)
    fsync_path(folder.parent)


def is_complete(folder: Path) -> bool:
    """Whether every file that was sealed is there, as it was, and none beside them."""
    try:
        digests = msgspec.json.decode((folder / _MARKER).read_bytes(), type=dict[str, str])
        there = {str(path.relative_to(folder)): path for path in _files(folder)}
        return there.keys() == digests.keys() and all(file_digest(there[name]) == digests[name] for name in digests)
    except (OSError, msgspec.MsgspecError):
        return False


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in (_MARKER, f".{_MARKER}"))
