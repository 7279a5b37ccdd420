"""Finds out what a server is and can do before anything is asked of it. Knows no adapter and no request."""

from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from doppel.engine import EngineError
from doppel.engine.remote.client import Server, ServerError
from doppel.engine.remote.sampling import Dialect
from doppel.errors import UserError
from doppel.i18n import tr

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SAMPLE = "Hello, world. 你好！"


class Abilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a server is and can do, as it says itself.

    Attributes:
        model: its name for the base model.
        dialect: whose names it uses for settings.
        takes_ids: whether a prompt may be token ids; else it is sent as text.
        context_length: most tokens of prompt and reply together, where it says so.
        spells: whether the text it sends is that of the tokens; else only their ids mean something.
    """

    model: str
    dialect: Dialect
    takes_ids: bool
    context_length: int | None = None
    spells: bool = True


async def look(server: Server, model: str | None, tokenizer: "PreTrainedTokenizerBase") -> Abilities:
    """`discover`, and the connection is closed."""
    try:
        return await discover(server, model, tokenizer)
    finally:
        await server.close()


async def discover(server: Server, model: str | None, tokenizer: "PreTrainedTokenizerBase") -> Abilities:
    """Asks the server what it is.

    Args:
        model: its name for the base model; None takes the first that it lists.
        tokenizer: of the base; the server's must be the same if token ids are to be sent.

    Raises:
        UserError: it has no such model, or one with another tokenizer. EngineError: no answer.
    """
    listed = await server.ask("GET", "/v1/models")
    entries = listed.get("data") if isinstance(listed, dict) else None
    models = [one for one in entries or () if isinstance(one, dict) and isinstance(one.get("id"), str)]
    entry = next((one for one in models if model in (None, one["id"])), None)
    if entry is None:
        raise UserError(
            tr(
                "engine.remote_model: {url} has {known}, not {name}",
                url=server.url,
                known=", ".join(one["id"] for one in models) or tr("no models"),
                name=model or tr("a model"),
            )
        )
    owner = entry.get("owned_by")
    dialect: Dialect = owner if owner in ("vllm", "sglang", "llamacpp") else "openai"
    await _compare_tokenizers(server, entry["id"], tokenizer)
    takes_ids = dialect != "openai" or await _takes_ids(server, entry["id"], tokenizer)
    meta = entry.get("meta")
    lengths = (entry.get("max_model_len"), meta.get("n_ctx") if isinstance(meta, dict) else None)
    length = next((one for one in lengths if isinstance(one, int) and one > 0), None)
    return Abilities(model=entry["id"], dialect=dialect, takes_ids=takes_ids, context_length=length)


async def _compare_tokenizers(server: Server, model: str, tokenizer: "PreTrainedTokenizerBase") -> None:
    """Raises UserError when the server can show its tokenizer and it is another one."""
    body = {"model": model, "prompt": _SAMPLE, "content": _SAMPLE, "add_special_tokens": False, "add_special": False}
    theirs = None
    with suppress(EngineError):
        theirs = await server.ask("POST", "/tokenize", body)
    ids = theirs.get("tokens") if isinstance(theirs, dict) else None
    ours = tokenizer(_SAMPLE, add_special_tokens=False)["input_ids"]
    if isinstance(ids, list) and ids and ids != ours:
        raise UserError(
            tr(
                "engine.url: the model {name} on {url} is not model.base: its tokenizer differs",
                name=model,
                url=server.url,
            )
        )


async def _takes_ids(server: Server, model: str, tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Whether an unknown server takes token ids as a prompt: it must take them, and count them right."""
    ids = tokenizer(_SAMPLE, add_special_tokens=False)["input_ids"]
    try:
        answer = await server.ask("POST", "/v1/completions", {"model": model, "prompt": ids, "max_tokens": 1})
        return bool(answer["usage"]["prompt_tokens"] in (len(ids), len(ids) + 1) and answer["choices"])
    except (ServerError, LookupError, TypeError):
        return False
