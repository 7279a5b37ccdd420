"""Turns pydantic's errors about config.yaml into one line in the user's language."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from doppel.config.root import Config
from doppel.config.sections import ArchiveSettings, ColumnSettings
from doppel.errors import UserError
from doppel.i18n import tr
from doppel.plugins import installed_platforms

_MAX_SHOWN = 40


def config_error(error: ValidationError, path: Path) -> UserError:
    """The first error, as one line that names file, key and value and says what is allowed."""
    first = error.errors()[0]
    location = [part for part in first["loc"] if not (isinstance(part, str) and (part == "str" or "[" in part))]
    if first["type"] == "extra_forbidden":
        return unknown_key(location, first["input"], path)
    key, message = ".".join(map(str, location)), _explain(first["type"], first.get("ctx", {}), first["msg"])
    value = first["input"]
    if isinstance(value, str | int | float) and 0 < len(str(value)) <= _MAX_SHOWN and first["type"] != "value_error":
        return UserError(
            tr("{path}: `{key}`: {message}, not `{value}`", path=path, key=key, message=message, value=value)
        )
    return UserError(tr("{path}: `{key}`: {message}", path=path, key=key, message=message))


def unknown_key(location: Sequence[str | int], value: Any, path: Path) -> UserError:
    """The error for an unknown key: it suggests the most similar key."""
    key = ".".join(map(str, location))
    nearest = get_close_matches(str(location[-1]), _known_keys(location[:-1]), n=1)
    if nearest:
        suggestion = ".".join(map(str, [*location[:-1], nearest[0]]))
        return UserError(
            tr("{path}: unknown key `{key}`; did you mean `{suggestion}`?", path=path, key=key, suggestion=suggestion)
        )
    if len(location) == 1 and isinstance(value, dict):
        available = ", ".join(sorted(installed_platforms().plugins))
        return UserError(
            tr(
                "{path}: unknown section `{key}`; installed platforms: {available}",
                path=path,
                key=key,
                available=available,
            )
        )
    return UserError(tr("{path}: unknown key `{key}`; see the comments in config.yaml", path=path, key=key))


def _known_keys(location: Sequence[str | int]) -> list[str]:
    plugins = installed_platforms().plugins
    if not location:
        return [*(set(Config.model_fields) - {"root", "platforms"}), *plugins]
    if str(location[0]) in plugins:
        return list(plugins[str(location[0])].settings.model_fields)
    if location[0] == "archive":
        return list((ColumnSettings if "columns" in location else ArchiveSettings).model_fields)
    field = Config.model_fields.get(str(location[0]))
    kind = field.annotation if field is not None else None
    candidates = (kind, *getattr(kind, "__args__", ()))
    return [
        name
        for candidate in candidates
        if isinstance(candidate, type) and issubclass(candidate, BaseModel)
        for name in candidate.model_fields
    ]


def _explain(kind: str, context: Mapping[str, Any], original: str) -> str:
    """What the value must be, for an error of this type."""
    if kind == "value_error":
        return original.removeprefix("Value error, ")  # the text of one of our own validators
    if kind in _LIMITS:
        name, text = _LIMITS[kind]
        return tr(text, limit=context[name])
    if kind == "literal_error":
        return tr("must be one of {choices}", choices=context["expected"].replace(" or ", ", "))
    if kind == "string_pattern_mismatch" and ":" in context["pattern"]:
        return tr("must be platform:chat, like telegram:123456")
    return tr(_EXPECTED.get(kind, "this value is not allowed here"))


_A_NUMBER = "must be a number"
_AN_INTEGER = "must be a whole number"
_A_SECTION = "must be a section of `key: value` lines"
_A_DAY = "must be a day like 2020-12-31"
_A_LIST = "must be a list, like [a, b]"
_NOT_EMPTY = "must not be empty"

_EXPECTED = {
    "float_type": _A_NUMBER,
    "float_parsing": _A_NUMBER,
    "finite_number": _A_NUMBER,
    "int_type": _AN_INTEGER,
    "int_parsing": _AN_INTEGER,
    "int_from_float": _AN_INTEGER,
    "int_parsing_size": _AN_INTEGER,
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text",
    "tuple_type": _A_LIST,
    "list_type": _A_LIST,
    "model_type": _A_SECTION,
    "model_attributes_type": _A_SECTION,
    "dict_type": _A_SECTION,
    "date_type": _A_DAY,
    "date_parsing": _A_DAY,
    "date_from_datetime_parsing": _A_DAY,
    "date_from_datetime_inexact": _A_DAY,
    "string_too_short": _NOT_EMPTY,
    "too_short": _NOT_EMPTY,
    "missing": "is missing",
    "string_pattern_mismatch": "may have up to 64 letters, digits, - and _",
}
"""Texts for `tr`, by pydantic's type of error."""

_LIMITS = {
    "greater_than": ("gt", "must be greater than {limit:g}"),
    "greater_than_equal": ("ge", "must be at least {limit:g}"),
    "less_than": ("lt", "must be less than {limit:g}"),
    "less_than_equal": ("le", "must be at most {limit:g}"),
    "string_too_long": ("max_length", "must have at most {limit} characters"),
}
"""The limit's name in pydantic's error, and the text for `tr`."""
