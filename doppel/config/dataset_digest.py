"""Which archives and rules a data set was built from, as `doppel build` recorded it."""

import json

from doppel.config.root import Config


def dataset_archive_digest(config: Config) -> str | None:
    """The `Config.archive_digest` that the data set was built with; None when there is no data set."""
    try:
        report = json.loads((config.data_dir / "report.json").read_bytes())
        return str(report.get("archive_digest"))
    except (OSError, ValueError, AttributeError):
        return None
