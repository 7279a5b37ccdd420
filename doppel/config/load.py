"""Reads config.yaml, with an error that names the key for whatever may not stand in it."""

import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from doppel.config.error_messages import config_error, unknown_key
from doppel.config.renamed_keys import with_new_keys
from doppel.config.root import Config
from doppel.config.secret_keys import refuse_secrets
from doppel.errors import UserError
from doppel.i18n import set_language, tr

_LANGUAGE = re.compile(r"^language:\s*['\"]?(auto|en|zh)\b", re.MULTILINE)


def load_config(path: Path) -> Config:
    """Reads config.yaml, and chooses the language of messages that it names.

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
    _use_language_of(text)
    try:
        content = yaml.safe_load(text) or {}
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # impossible dates, endless brackets
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        raise UserError(
            tr("{path}, line {line}: not valid YAML; check indentation and quotes", path=path, line=line)
        ) from None
    if isinstance(content, list):
        raise UserError(tr("{path}: is a list; write `key: value` lines without the leading dashes", path=path))
    if not isinstance(content, dict):
        raise UserError(tr("{path}: must consist of `key: value` lines", path=path))
    return parse_config(content, path)


def parse_config(content: dict[str, Any], path: Path) -> Config:
    """Checks the parsed content of a config file at `path`; raises UserError naming the first wrong key."""
    refuse_secrets(content, path)
    if internal := next((key for key in ("root", "platforms") if key in content), None):
        raise unknown_key([internal], content[internal], path)
    try:
        return Config.model_validate({**with_new_keys(content, path), "root": path.resolve().parent})
    except ValidationError as error:
        raise config_error(error, path) from None


def _use_language_of(text: str) -> None:
    """Chooses the language that the file names, so that its own errors are in it, even if it is not valid YAML."""
    if match := _LANGUAGE.search(text):
        set_language(match[1])
