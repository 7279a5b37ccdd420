"""Where doppel keeps what it can make again."""

import os
from pathlib import Path


def cache_dir() -> Path:
    """Where converted models are kept: $DOPPEL_CACHE, else $XDG_CACHE_HOME/doppel, else ~/.cache/doppel."""
    if own := os.environ.get("DOPPEL_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "doppel"
