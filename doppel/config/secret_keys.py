"""Refuses tokens, keys and passwords in config.yaml, which people share: they belong in the environment."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from doppel.errors import UserError
from doppel.i18n import tr
from doppel.plugins import installed_platforms, secret_variables
from doppel.secrets import ENGINE_KEY, HUB_TOKEN, STORE_PASSWORD

_WORDS = {"token", "password", "passwd", "passphrase", "secret", "key", "apikey", "credential", "credentials"}
_FIXED_PLACES = {"engine": ENGINE_KEY, "store": STORE_PASSWORD}
"""Sections whose secret is not that of a platform."""

_UNKNOWN = ""
"""In place of a variable, where the secret is of no known service."""

_TOKENS = (
    (re.compile(r"(?<![\w-])[0-9]{5,16}:[\w-]{30,}"), "TELEGRAM_TOKEN"),
    (re.compile(r"(?<![\w.-])[\w-]{22,30}\.[\w-]{6}\.[\w-]{27,}"), "DISCORD_TOKEN"),
    (re.compile(r"(?<![\w-])hf_[A-Za-z0-9]{30,}"), HUB_TOKEN),
    (re.compile(r"(?<![\w])postgres(?:ql)?(?:\+\w+)?://[^/?#\s]*:[^/?#\s]+@|://\S*[?&]password="), STORE_PASSWORD),
)
"""What services' tokens and URLs with a password look like, and where each belongs."""

_HIDDEN = re.compile("|".join(pattern.pattern for pattern, _ in _TOKENS))


def refuse_secrets(content: Mapping[str, Any], path: Path) -> None:
    """Raises UserError if a key is named like a secret or a value looks like a token; the text never shows the value.

    Args:
        content: the parsed config file, with whatever keys it has.
        path: of the file, for the error.
    """
    for location, value in _walk(content):
        variable = _variable_for_key(location)
        if variable is None:
            variable = _variable_for_value(value)
        if variable is None:
            continue
        place = {"path": path, "key": _HIDDEN.sub("…", ".".join(location))}
        if variable == _UNKNOWN:
            raise UserError(
                tr("{path}: `{key}`: secrets do not belong in this file; they come from the environment", **place)
            )
        raise UserError(
            tr(
                "{path}: `{key}`: secrets do not belong in this file; set the environment variable {variable}, "
                "or {variable}_FILE to the path of a file",
                variable=variable,
                **place,
            )
        )


def _walk(value: Any, location: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every key with its value, outer ones first; items of lists are named by their numbers."""
    parts = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for name, part in parts:
        here = (*location, str(name))
        yield here, part
        yield from _walk(part, here)


def _variable_for_key(location: tuple[str, ...]) -> str | None:
    """The variable of the secret that a key is named after, or `_UNKNOWN`; None if it is not named like one."""
    plugins = installed_platforms().plugins
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", location[-1])
    if name.upper() in secret_variables(plugins.values()):
        return name.upper()
    if variable := _variable_for_value(location[-1]):
        return variable
    if re.split(r"[_\-. ]", name.lower())[-1] not in _WORDS:
        return None
    if location[0] in _FIXED_PLACES:
        return _FIXED_PLACES[location[0]]
    plugin = plugins.get(location[0])
    own = (*plugin.secrets, *plugin.optional_secrets) if plugin is not None else ()
    return own[0] if own else _UNKNOWN


def _variable_for_value(value: Any) -> str | None:
    """Where the token belongs that a value looks like; None if it looks like none."""
    if not isinstance(value, str):
        return None
    return next((variable for pattern, variable in _TOKENS if pattern.search(value)), None)
