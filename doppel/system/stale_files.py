"""Removes what nobody uses any more, like what a killed process left half-written. Knows nothing of what it was."""

import shutil
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

STALE = timedelta(days=1)
"""Nothing is half-written for so long: younger ones may be another process's work."""


def remove_stale(folder: Path, prefix: str, now: datetime, stale: timedelta = STALE) -> None:
    """Removes the folders and files directly in `folder` whose name begins with `prefix`, unchanged for so long.

    What cannot be removed stays: it is untidy and does no harm.
    """
    for path in folder.glob(f"{prefix}*"):
        with suppress(OSError):
            if now.timestamp() - path.lstat().st_mtime <= stale.total_seconds():
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
