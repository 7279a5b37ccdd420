"""Removes temporary files and folders that killed processes left behind."""

import shutil
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

STALE = timedelta(days=1)
"""Younger files may still be in use by another process."""


def remove_stale(folder: Path, prefix: str, now: datetime, stale: timedelta = STALE) -> None:
    """Removes files and folders directly in `folder` whose name begins with `prefix` and that are older than `stale`.

    Files that cannot be removed are skipped: they do no harm.
    """
    for path in folder.glob(f"{prefix}*"):
        with suppress(OSError):
            if now.timestamp() - path.lstat().st_mtime <= stale.total_seconds():
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
