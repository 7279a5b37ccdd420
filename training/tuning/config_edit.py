"""Writes values into the user's config.yaml; everything else in the file stays as it is, comments and layout included.

ruamel.yaml keeps comments and order, but not every spacing. So only the lines that an edit changes are taken from its
output, and the result is parsed again and compared before it replaces the file.
"""

from collections.abc import Mapping
from difflib import SequenceMatcher
from io import StringIO
from pathlib import Path
from typing import Any

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import RoundTripRepresenter

from doppel.errors import UserError
from doppel.i18n import tr
from doppel.system.atomic_file import write_atomically

Value = int | float | str | bool | None

_NO_WRAPPING = 2**20
_DEFAULT_INDENT = 2


def write_settings(path: Path, section: str, values: Mapping[str, Value]) -> None:
    """Sets keys of a section of config.yaml.

    Args:
        path: the file; a symbolic link is followed.
        section: a top-level key, such as `training`.
        values: by key; plain values only.

    Raises:
        UserError: the file cannot be edited without changing its layout; it stays unchanged.
        DoppelError: the file cannot be written.
    """
    real = path.resolve()
    try:
        before = real.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(tr("{path}: cannot be read: {error}", path=path, error=error)) from None
    after = edited(before, section, values)
    if after is None:
        lines = _dump(CommentedMap(values), _DEFAULT_INDENT).strip().replace("\n", ", ")
        raise UserError(
            tr(
                "{path}: cannot be edited without changing its layout; put this under `{section}:` yourself: {lines}",
                path=path,
                section=section,
                lines=lines,
            )
        )
    write_atomically(real, after.encode("utf-8"))


def edited(text: str, section: str, values: Mapping[str, Value]) -> str | None:
    """The text of a config file with the values in it; None if that is not possible without other changes."""
    content = _parse(text)
    if not isinstance(content, dict) or not isinstance(content.get(section) or {}, dict):
        return None
    try:
        result = _edit(text, section, values)
    except YAMLError:
        return None
    expected = {**content, section: {**(content.get(section) or {}), **values}}
    return result if result is not None and _parse(result) == expected else None


def _parse(text: str) -> Any:
    """The content as doppel reads it; None if it is not YAML."""
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
    return {} if content is None else content


def _edit(text: str, section: str, values: Mapping[str, Value]) -> str | None:
    newline = "\r\n" if "\r\n" in text else "\n"
    document = _yaml(_DEFAULT_INDENT).load(text.replace("\r\n", "\n"))
    if document is None or section not in document:
        ended = text if not text or text.endswith("\n") else text + newline
        added = _dump(CommentedMap({section: CommentedMap(values)}), _DEFAULT_INDENT).replace("\n", newline)
        return ended + ("" if document is None else newline) + added
    if not isinstance(document[section], CommentedMap):  # `training:` or `training: null`
        before = _dump(document, _DEFAULT_INDENT)
        document[section] = CommentedMap(values)
        return _apply(text, before, _dump(document, _DEFAULT_INDENT), newline)
    mapping = document[section]
    if not mapping:
        mapping.fa.set_flow_style()  # it was `{}`
    indent = _DEFAULT_INDENT if mapping.fa.flow_style() else mapping.lc.col
    before = _dump(document, indent)
    for key, value in values.items():
        if key in mapping:
            mapping[key] = value
        else:  # at the end in braces; first in a block, whose last key is followed by comments on what comes next
            mapping.insert(len(mapping) if mapping.fa.flow_style() else 0, key, value)
    return _apply(text, before, _dump(document, indent), newline)


def _apply(text: str, before: str, after: str, newline: str) -> str | None:
    """Makes the change from `before` to `after` in `text`, whose lines differ from `before` in spacing only."""
    lines, old, new = text.splitlines(keepends=True), before.splitlines(), after.splitlines()
    if len(lines) != len(old):
        return None
    result: list[str] = []
    for tag, start, end, new_start, new_end in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            result += lines[start:end]
        else:
            result += [line + newline for line in new[new_start:new_end]]
    return "".join(result)


def _dump(document: CommentedMap, indent: int) -> str:
    stream = StringIO()
    _yaml(indent).dump(document, stream)
    return stream.getvalue()


def _yaml(indent: int) -> YAML:
    parser = YAML()
    parser.Representer = _Representer
    parser.preserve_quotes = True
    parser.width = _NO_WRAPPING
    parser.indent(mapping=indent, sequence=indent, offset=0)
    return parser


class _Representer(RoundTripRepresenter):
    """Writes null as such, and floats without an exponent: YAML 1.1, which doppel reads, takes 5e-4 for text."""

    def represent_null_word(self, _: None) -> ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:null", "null")

    def represent_decimal(self, value: float) -> ScalarNode:
        digits = f"{value:.12f}".rstrip("0")
        return self.represent_scalar("tag:yaml.org,2002:float", digits + "0" if digits.endswith(".") else digits)


_Representer.add_representer(type(None), _Representer.represent_null_word)
_Representer.add_representer(float, _Representer.represent_decimal)
