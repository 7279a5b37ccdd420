"""Writes values into the user's config.yaml and leaves the rest of it as it is: comments, order, layout.

Only the text of the values is replaced. What comes out is read again and compared before it takes the file's
place, so a layout that this cannot edit ends in one clear line and an untouched file.
"""

import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from doppel.errors import DoppelError, UserError
from doppel.i18n import tr

Value = int | float | str | bool | None


def write_settings(path: Path, section: str, values: Mapping[str, Value]) -> None:
    """Sets keys of a section of config.yaml.

    Args:
        path: the file; a link is followed.
        section: a key at the top, like `training`.
        values: by key; plain values only.

    Raises:
        UserError: the file cannot be edited and keep its layout; it is left as it is, the text says what to write.
        DoppelError: it cannot be written.
    """
    real = path.resolve()
    try:
        before = real.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(tr("{path}: cannot be read: {error}", path=path, error=error)) from None
    after = edited(before, section, values)
    if after is None:
        lines = ", ".join(f"{key}: {_text(value)}" for key, value in values.items())
        raise UserError(
            tr(
                "{path}: is laid out in a way that cannot be edited; write under `{section}:` yourself: {lines}",
                path=path,
                section=section,
                lines=lines,
            )
        )
    try:
        _replace(real, after)
    except OSError as error:
        raise DoppelError(tr("{path}: cannot be written: {error}", path=path, error=error.strerror or error)) from None


def edited(text: str, section: str, values: Mapping[str, Value]) -> str | None:
    """The text of a config file with the values in it; None if that cannot be done without changing anything else."""
    for key, value in values.items():
        content = _load(text)
        if not isinstance(content, dict) or not isinstance(content.get(section) or {}, dict):
            return None
        text = _with_value(text, section, key, _text(value))
        if _load(text) != {**content, section: {**(content.get(section) or {}), key: value}}:
            return None
    return text


def _load(text: str) -> Any:
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
    return {} if content is None else content


def _with_value(text: str, section: str, key: str, value: str) -> str:
    """The text with one value in it; what cannot be edited comes back as it is, or wrong."""
    newline = "\r\n" if "\r\n" in text else "\n"
    top = yaml.compose(text, Loader=yaml.SafeLoader)
    place = _value_of(top, section)
    if place is None:
        gap = newline if top else ""
        return f"{_ended(text, newline)}{gap}{section}:{newline}  {key}: {value}{newline}"
    if isinstance(place, yaml.ScalarNode):  # `training:` and nothing after it, or null
        start, end = place.start_mark.index, place.end_mark.index
        return f"{text[:start].rstrip(' ')}{newline}  {key}: {value}{text[end:]}"
    node = _value_of(place, key)
    if node is not None:
        return _replaced(text, node.start_mark.index, node.end_mark.index, value)
    return _added(text, place, f"{key}: {value}", newline)


def _added(text: str, mapping: yaml.Node, line: str, newline: str) -> str:
    """A new entry: the last one in braces, the first one of a block."""
    start, end = mapping.start_mark.index, mapping.end_mark.index
    if isinstance(mapping, yaml.MappingNode) and mapping.flow_style:
        body = text[start + 1 : end - 1].rstrip()
        comma = "" if not body or body.endswith(",") else ", "
        return f"{text[: start + 1]}{body}{comma}{line}{text[end - 1 :]}"
    return f"{text[:start]}{line}{newline}{' ' * mapping.start_mark.column}{text[start:]}"


def _value_of(mapping: yaml.Node | None, key: str) -> yaml.Node | None:
    pairs = mapping.value if isinstance(mapping, yaml.MappingNode) else []
    return next((value for name, value in pairs if name.value == key), None)


def _replaced(text: str, start: int, end: int, value: str) -> str:
    """The new value in the old one's place, a comment after it where it stood."""
    if start == end:  # `key:` and nothing after it
        return f"{text[:start].rstrip(' ')} {value}{text[end:]}"
    rest = text[end:]
    gap = len(rest) - len(rest.lstrip(" "))
    if gap and rest[gap : gap + 1] == "#":
        rest = " " * max(1, gap - (len(value) - (end - start))) + rest[gap:]
    return text[:start] + value + rest


def _ended(text: str, newline: str) -> str:
    return text if not text or text.endswith("\n") else text + newline


def _text(value: Value) -> str:
    """A plain value as YAML. Never 5e-4, which YAML 1.1 reads as text."""
    if isinstance(value, float):
        digits = f"{value:.12f}".rstrip("0")
        return digits + "0" if digits.endswith(".") else digits
    return yaml.safe_dump(value, allow_unicode=True).removesuffix("\n...\n").rstrip("\n")


def _replace(path: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
        part.chmod(path.stat().st_mode & 0o7777)
        part.replace(path)
    except OSError:
        with suppress(OSError):
            part.unlink()
        raise
