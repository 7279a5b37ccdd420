"""Finds out what kind of server an engine talks to and what the server supports, before the first request."""

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from doppel.engine import EngineError
from doppel.engine.remote.client import ServerClient, ServerError
from doppel.engine.remote.sampling import Dialect
from doppel.errors import UserError
from doppel.i18n import tr

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SAMPLE = "Hello, world. 你好！"


class ServerCapabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a server reports about itself.

    Attributes:
        model: its name for the base model.
        dialect: the server software, which decides the names of sampling settings.
        accepts_token_ids: whether a prompt may be token ids; else it is sent as text.
        context_length: maximum tokens of prompt and reply together; None if the server does not report it.
        sends_text: whether the text it sends matches the tokens; else only their ids are used.
    """

    model: str
    dialect: Dialect
    accepts_token_ids: bool
    context_length: int | None = None
    sends_text: bool = True


async def discover_and_close(
    client: ServerClient, model: str | None, tokenizer: "PreTrainedTokenizerBase"
) -> ServerCapabilities:
    """Calls `discover` and closes the connection."""
    try:
        return await discover(client, model, tokenizer)
    finally:
        await client.close()


async def discover(client: ServerClient, model: str | None, tokenizer: "PreTrainedTokenizerBase") -> ServerCapabilities:
    """Asks the server for its models, and tests what it supports.

    Args:
        client: the server.
        model: its name for the base model; None: the first model that it lists.
        tokenizer: of the base; the server's must be the same.

    Raises:
        UserError: it has no such model, or one with another tokenizer. EngineError: no response.
    """
    listed = await client.request("GET", "/v1/models")
    entries = listed.get("data") if isinstance(listed, dict) else None
    models = [entry for entry in entries or () if isinstance(entry, dict) and isinstance(entry.get("id"), str)]
    entry = next((entry for entry in models if model in (None, entry["id"])), None)
    if entry is None:
        raise UserError(missing_model(client.url, [entry["id"] for entry in models], model))
    owner = entry.get("owned_by")
    dialect: Dialect = owner if owner in ("vllm", "sglang", "llamacpp") else "openai"
    await _compare_tokenizers(client, entry["id"], tokenizer)
    accepts_token_ids = dialect != "openai" or await _accepts_token_ids(client, entry["id"], tokenizer)
    meta = entry.get("meta")
    lengths = (entry.get("max_model_len"), meta.get("n_ctx") if isinstance(meta, dict) else None)
    length = next((value for value in lengths if isinstance(value, int) and value > 0), None)
    return ServerCapabilities(
        model=entry["id"], dialect=dialect, accepts_token_ids=accepts_token_ids, context_length=length
    )


def missing_model(url: str, models: Sequence[str], model: str | None) -> str:
    """The message for a server that does not serve the configured model."""
    if not models:
        return tr("engine.url: {url} serves no models", url=url)
    available = ", ".join(models)
    return tr(
        "engine.remote_model: {url} has no model {name}; available: {models}", url=url, name=model, models=available
    )


async def _compare_tokenizers(client: ServerClient, model: str, tokenizer: "PreTrainedTokenizerBase") -> None:
    """Raises UserError if the server's tokenizer differs. Servers that cannot tokenize are not checked."""
    body = {"model": model, "prompt": _SAMPLE, "content": _SAMPLE, "add_special_tokens": False, "add_special": False}
    response = None
    with suppress(EngineError):
        response = await client.request("POST", "/tokenize", body)
    ids = response.get("tokens") if isinstance(response, dict) else None
    expected = tokenizer(_SAMPLE, add_special_tokens=False)["input_ids"]
    if isinstance(ids, list) and ids and ids != expected:
        raise UserError(
            tr(
                "engine.url: model {name} on {url} is not model.base: its tokenizer differs",
                name=model,
                url=client.url,
            )
        )


async def _accepts_token_ids(client: ServerClient, model: str, tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Whether an unknown server accepts token ids as a prompt, and counts them correctly."""
    ids = tokenizer(_SAMPLE, add_special_tokens=False)["input_ids"]
    try:
        body = {"model": model, "prompt": ids, "max_tokens": 1}
        response = await client.request("POST", "/v1/completions", body)
        return bool(response["usage"]["prompt_tokens"] in (len(ids), len(ids) + 1) and response["choices"])
    except (ServerError, LookupError, TypeError):
        return False
