"""What a data set was built from, as `doppel build` recorded it."""

import json

from doppel.config import Config


def data_made_from(config: Config) -> str | None:
    """Digest of the archives that the data set was built from (`Config.archive_digest`); None: no data set."""
    try:
        report = json.loads((config.data_dir / "report.json").read_bytes())
        return str(report.get("archive_digest"))
    except (OSError, ValueError, AttributeError):
        return None
