"""Tokens, keys and passwords: read from the environment, or from a file that the environment names.

`TELEGRAM_TOKEN_FILE=/run/secrets/telegram` is read like `TELEGRAM_TOKEN`, as containers expect. Secrets never stand in
config.yaml.
"""

import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from doppel.errors import UserError
from doppel.i18n import tr

ENGINE_KEY = "DOPPEL_ENGINE_KEY"
HUB_TOKEN = "HF_TOKEN"  # noqa: S105 - the variable's name
X_TOKEN = "X_BEARER_TOKEN"  # noqa: S105 - the variable's name
TRACKER_KEY = "WANDB_API_KEY"
STORE_PASSWORD = "DOPPEL_STORE_PASSWORD"  # noqa: S105 - the variable's name
COMMON_SECRETS = (ENGINE_KEY, HUB_TOKEN, X_TOKEN, TRACKER_KEY, STORE_PASSWORD)
"""Variables with secrets that belong to no platform; `doppel.plugins.secret_variables` adds those of platforms."""

FILE_SUFFIX = "_FILE"
_MAX_BYTES = 64 * 1024
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def read_secret(variable: str, environ: Mapping[str, str]) -> str:
    """A secret without surrounding white space; empty when there is none.

    Raises:
        UserError: both the variable and its file are given, or the file cannot be read or is open to other users.
    """
    value = environ.get(variable, "").strip()
    path = environ.get(f"{variable}{FILE_SUFFIX}", "").strip()
    if not path:
        return value
    if value:
        raise UserError(
            tr(
                "{variable} and {variable}_FILE are both set; remove one of them from the environment",
                variable=variable,
            )
        )
    return _read_file(f"{variable}{FILE_SUFFIX}", Path(path).expanduser())


def resolve_secrets(environ: Mapping[str, str], variables: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """The environment with every secret in its own variable, stripped; and why some could not be read.

    Those that could not be read are left out, so that whoever needs them finds none.
    """
    resolved, problems = dict(environ), []
    for variable in variables:
        try:
            value = read_secret(variable, environ)
        except UserError as error:
            value = ""
            problems.append(str(error))
        resolved.pop(f"{variable}{FILE_SUFFIX}", None)
        if value or variable in resolved:
            resolved[variable] = value
    return resolved, problems


def _read_file(variable: str, path: Path) -> str:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if os.name == "posix" and status.st_mode & _OTHERS:
                raise UserError(
                    tr("{variable}: other users can read {path}; run `chmod 600 {path}`", variable=variable, path=path)
                )
            content = file.read(_MAX_BYTES)
        value = content.decode().strip()
    except OSError as error:
        raise UserError(
            tr("{variable}: {path} cannot be read: {error}", variable=variable, path=path, error=error.strerror)
        ) from None
    except UnicodeDecodeError:
        value = ""
    if not value.isprintable() or not value:
        raise UserError(tr("{variable}: {path} must hold the secret alone, on one line", variable=variable, path=path))
    return value
