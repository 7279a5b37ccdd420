"""Keys of config.yaml that were renamed or became a section. The old ones are still read; for an old name, a line tells
the new one.
"""

from pathlib import Path
from typing import Any

from doppel.errors import UserError
from doppel.i18n import tr
from doppel.terminal import print_status

RENAMED_KEYS = {
    "cleaning": {"repeats": "max_repeat_share", "contact_share": "max_contact_share"},
    "engine": {
        "model": "remote_model",
        "adapters_there": "remote_adapters_path",
        "at_once": "max_concurrent",
        "waiting": "max_queue",
        "context": "context_length",
        "memory_gb": "prefix_cache_gb",
    },
    "training": {"track": "trackers"},
}
"""By section: old name → new name."""

SECTIONS_IN_ONE_LINE = {"store": "url"}
"""Sections that may be written as one text, and the key that it is the value of."""


def with_new_keys(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """The content of a config file in the current keys. Raises UserError if a key is there under both names."""
    renamed = {
        section: _renamed(section, keys, path) if isinstance(keys, dict) and section in RENAMED_KEYS else keys
        for section, keys in content.items()
    }
    return {
        section: {SECTIONS_IN_ONE_LINE[section]: value}
        if isinstance(value, str) and section in SECTIONS_IN_ONE_LINE
        else value
        for section, value in renamed.items()
    }


def _renamed(section: str, keys: dict[str, Any], path: Path) -> dict[str, Any]:
    new_names = RENAMED_KEYS[section]
    renamed: dict[str, Any] = {}
    for key, value in keys.items():
        new = new_names.get(key, key)
        if new != key:
            names = {"path": path, "old": f"{section}.{key}", "new": f"{section}.{new}"}
            if new in keys:
                raise UserError(tr("{path}: `{old}` is the old name of `{new}`; remove it", **names))
            print_status(tr("{path}: `{old}` is now called `{new}`; please rename it", **names))
        renamed[new] = value
    return renamed
