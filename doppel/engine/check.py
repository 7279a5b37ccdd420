"""Whether the configured engine could be opened now: its packages, its files, its server. Opens nothing itself."""

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from doppel.config import Config
from doppel.engine.llamacpp.engine import check_installed
from doppel.engine.local.engine import check_device
from doppel.engine.registry import entry_point
from doppel.engine.remote.engine import KEY_VARIABLE
from doppel.errors import UserError
from doppel.i18n import tr
from doppel.models.base import choose_device

_SECONDS = 3


class Readiness(msgspec.Struct, frozen=True):
    """Whether it could, and what was found or what to do."""

    ok: bool
    hint: str


def look(config: Config, environ: Mapping[str, str]) -> Readiness:
    """What stands between the configuration and its engine."""
    looks = {"transformers": _transformers, "llamacpp": _llamacpp, "openai": _openai}
    try:
        return looks.get(entry_point(config).name, _other)(config, environ)
    except UserError as error:
        return Readiness(False, str(error))


def _other(config: Config, _: Mapping[str, str]) -> Readiness:
    return Readiness(True, config.engine.backend)


def _transformers(config: Config, _: Mapping[str, str]) -> Readiness:
    check_device(config.engine, choose_device(config.model.device))
    return Readiness(True, " ".join(filter(None, ("transformers", config.engine.quantize))))


def _llamacpp(config: Config, _: Mapping[str, str]) -> Readiness:
    check_installed()
    if config.engine.gguf is not None and not (config.root / Path(config.engine.gguf).expanduser()).is_file():
        raise UserError(tr("engine.gguf: {path}: no such file", path=config.engine.gguf))
    return Readiness(True, "llamacpp")


def _openai(config: Config, environ: Mapping[str, str]) -> Readiness:
    address = config.engine.url.rstrip("/").removesuffix("/v1")
    key = environ.get(KEY_VARIABLE, "")
    request = urllib.request.Request(  # noqa: S310 the configuration takes http and https alone
        f"{address}/v1/models", headers={"Authorization": f"Bearer {key}"} if key else {}
    )
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310 as above
            names = _names(json.loads(answer.read()))
    except urllib.error.HTTPError as error:
        error.close()
        if error.code not in (401, 403):
            return Readiness(False, tr("{url} answers {status}", url=address, status=error.code))
        if not key:
            return Readiness(False, tr("{url} wants a key; set {variable}", url=address, variable=KEY_VARIABLE))
        return Readiness(False, tr("{url} refuses the key in {variable}", url=address, variable=KEY_VARIABLE))
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return Readiness(False, tr("{url} does not answer ({reason}); start the server", url=address, reason=reason))
    wanted = config.engine.remote_model
    if not names or wanted not in (None, *names):
        return Readiness(
            False,
            tr(
                "engine.remote_model: {url} has {known}, not {name}",
                url=address,
                known=", ".join(names) or tr("no models"),
                name=wanted or tr("a model"),
            ),
        )
    return Readiness(True, f"{wanted or names[0]}, {address}")


def _names(content: Any) -> list[str]:
    """The models that a server lists. Raises ValueError when it is something else that listens there."""
    try:
        return [str(one["id"]) for one in content["data"]]
    except (LookupError, TypeError):
        raise ValueError(tr("that is no server with OpenAI's protocol")) from None
