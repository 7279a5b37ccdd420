"""Reads config.yaml, with an error that names the key for whatever may not stand in it."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from doppel.config.renamed_keys import with_new_keys
from doppel.config.root import Config
from doppel.errors import UserError
from doppel.i18n import tr


def load_config(path: Path) -> Config:
    """Reads config.yaml.

    Raises:
        UserError: the file is missing, is not YAML, or has a wrong key or value; the text names it.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(
            tr("{path}: no such file; copy config.yaml from the project or use --config", path=path)
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(tr("{path}: cannot be read: {error}", path=path, error=error)) from None
    try:
        content = yaml.safe_load(text) or {}
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # impossible dates, endless brackets
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        raise UserError(
            tr("{path}, line {line}: not valid YAML; check indentation and quotes", path=path, line=line)
        ) from None
    if not isinstance(content, dict):
        raise UserError(tr("{path}: must be a list of `key: value` lines", path=path))
    return parse_config(content, path)


def parse_config(content: dict[str, Any], path: Path) -> Config:
    """Checks the parsed content of a config file at `path`; raises UserError naming the first wrong key."""
    if internal := next((key for key in ("root", "platforms") if key in content), None):
        raise _unknown_key(internal, path)
    try:
        return Config.model_validate({**with_new_keys(content, path), "root": path.resolve().parent})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise _unknown_key(key, path) from None
        message = first["msg"].removeprefix("Value error, ")
        raise UserError(tr("{path}: `{key}`: {message}", path=path, key=key, message=message)) from None


def _unknown_key(key: str, path: Path) -> UserError:
    return UserError(tr("{path}: unknown key `{key}`; see the comments in config.yaml", path=path, key=key))
