"""Checks whether the configured engine could be opened, without opening it: packages, files, server."""

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
from doppel.engine.remote.discovery import missing_model
from doppel.engine.remote.sampling import check_reply
from doppel.errors import UserError
from doppel.i18n import tr
from doppel.models.base import choose_device
from doppel.secrets import ENGINE_KEY, read_secret

_TIMEOUT_SECONDS = 3


class EngineCheck(msgspec.Struct, frozen=True):
    """Whether the engine can be opened, and what it is or what to do."""

    ok: bool
    hint: str


def check_engine(config: Config, environ: Mapping[str, str]) -> EngineCheck:
    """Checks the configured engine."""
    checks = {"transformers": _check_transformers, "llamacpp": _check_llamacpp, "openai": _check_openai}
    try:
        return checks.get(entry_point(config).name, _check_plugin)(config, environ)
    except UserError as error:
        return EngineCheck(False, str(error))


def _check_plugin(config: Config, _: Mapping[str, str]) -> EngineCheck:
    return EngineCheck(True, config.engine.backend)


def _check_transformers(config: Config, _: Mapping[str, str]) -> EngineCheck:
    check_device(config.engine, choose_device(config.model.device))
    return EngineCheck(True, " ".join(filter(None, ("transformers", config.engine.quantize))))


def _check_llamacpp(config: Config, _: Mapping[str, str]) -> EngineCheck:
    check_installed()
    check_reply("llamacpp", config.reply)
    if config.engine.gguf is not None and not (config.root / Path(config.engine.gguf).expanduser()).is_file():
        raise UserError(tr("engine.gguf: {path}: no such file", path=config.engine.gguf))
    return EngineCheck(True, "llamacpp")


def _check_openai(config: Config, environ: Mapping[str, str]) -> EngineCheck:
    address = config.engine.url.rstrip("/").removesuffix("/v1")
    key = read_secret(ENGINE_KEY, environ)
    request = urllib.request.Request(  # noqa: S310 the configuration only accepts http and https
        f"{address}/v1/models", headers={"Authorization": f"Bearer {key}"} if key else {}
    )
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response:  # noqa: S310 as above
            names = _model_names(json.loads(response.read()))
    except urllib.error.HTTPError as error:
        error.close()
        if error.code not in (401, 403):
            return EngineCheck(False, tr("{url} responded with {status}", url=address, status=error.code))
        if not key:
            return EngineCheck(False, tr("{url} requires a key; set {variable}", url=address, variable=ENGINE_KEY))
        return EngineCheck(False, tr("{url} rejected the key in {variable}", url=address, variable=ENGINE_KEY))
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        text = tr("cannot reach {url} ({reason}); is the server running?", url=address, reason=reason)
        return EngineCheck(False, text)
    model = config.engine.remote_model
    if not names or model not in (None, *names):
        return EngineCheck(False, missing_model(address, names, model))
    return EngineCheck(True, f"{model or names[0]}, {address}")


def _model_names(content: Any) -> list[str]:
    """The models that a server lists. Raises ValueError when it is another kind of server."""
    try:
        return [str(model["id"]) for model in content["data"]]
    except (LookupError, TypeError):
        raise ValueError(tr("not a server with OpenAI's API")) from None
