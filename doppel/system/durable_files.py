"""Digests of files, and syncing them to disk."""

import hashlib
import os
from pathlib import Path


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def regular_files(folder: Path) -> list[Path]:
    """All files in a folder and its subfolders, without links, sorted."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def fsync_path(path: Path) -> None:
    """Syncs a file's content or a folder's entries to disk, to survive a power cut (folders: if the system can)."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:  # Windows cannot open folders
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
