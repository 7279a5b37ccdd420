"""The lines of `doppel chat` that begin with a slash: what may be changed while talking, and its limits."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

import msgspec
from annotated_types import Ge, Gt, Le, Lt
from pydantic import ValidationError

from doppel.config import ReplySettings
from doppel.errors import UserError
from doppel.i18n import tr

if TYPE_CHECKING:
    from doppel.engine import Sampling
    from doppel.transcript import Turn

SETTINGS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_tokens", "seed")
RARE = (
    *("typical_p", "presence_penalty", "frequency_penalty", "no_repeat_ngram"),
    *("dry_multiplier", "dry_base", "dry_allowed_length"),
)


class Talk(Protocol):
    """What the commands change: how the next reply is sampled, and what was said so far."""

    sampling: "Sampling"
    turns: "list[Turn]"

    def unsupported(self, sampling: "Sampling") -> str | None:
        """Why the engine cannot sample like this, in one line; None when it can."""
        ...


class Leave(Exception):
    """The user wants to go."""


def obey(line: str, talk: Talk) -> str:
    """Does what a line like `/temperature 0.8` says and returns the answer to show.

    Raises:
        UserError: no such command, or a value out of range or not supported by the engine. Leave: on /quit.
    """
    name, _, value = line.removeprefix("/").partition(" ")
    value = value.strip()
    if name in SETTINGS or name in RARE:
        if value:
            changed = change(talk.sampling, name, value)
            if reason := talk.unsupported(changed):
                raise UserError(reason)
            talk.sampling = changed
        return _shown(talk.sampling, [name])
    match name:
        case "settings":
            set_rarely = [
                setting
                for setting in RARE
                if getattr(talk.sampling, setting) != ReplySettings.model_fields[setting].default
            ]
            return _shown(talk.sampling, [*SETTINGS, *set_rarely])
        case "reset":
            talk.turns.clear()
            return tr("The conversation begins anew.")
        case "help" | "":
            return _help()
        case "quit" | "exit":
            raise Leave
    raise UserError(tr("/{name}: no such command; /help lists them", name=name))


def change(sampling: "Sampling", name: str, value: str) -> "Sampling":
    """The sampling with one setting read from text; the limits are those of config.yaml.

    Raises:
        UserError: the value is no number or out of its range; the text says what is allowed.
    """
    if name == "seed":
        if value in ("none", "off"):
            return msgspec.structs.replace(sampling, seed=None)
        if not value.isascii() or not value.isdigit():
            raise UserError(tr("/seed takes a whole number, or none for a fresh one each time"))
        return msgspec.structs.replace(sampling, seed=int(value))
    try:
        checked = ReplySettings.model_validate({name: value})
    except ValidationError:
        kind = tr("a whole number") if ReplySettings.model_fields[name].annotation is int else tr("a number")
        raise UserError(tr("/{name} takes {kind}, {limits}", name=name, kind=kind, limits=limits(name))) from None
    return msgspec.structs.replace(sampling, **{name: getattr(checked, name)})


def limits(name: str) -> str:
    """The range of a setting, for example `0 ≤ temperature ≤ 5`."""
    lower = upper = ""
    for limit in ReplySettings.model_fields[name].metadata:
        match limit:
            case Ge():
                lower = f"{limit.ge} ≤ "
            case Gt():
                lower = f"{limit.gt} < "
            case Le():
                upper = f" ≤ {limit.le}"
            case Lt():
                upper = f" < {limit.lt}"
    return f"{lower}{name}{upper}"


def _shown(sampling: "Sampling", names: Iterable[str]) -> str:
    values = {name: getattr(sampling, name) for name in names}
    return " · ".join(f"{name} {'none' if value is None else value}" for name, value in values.items())


def _help() -> str:
    return "\n".join(
        (
            tr("ENTER alone      it speaks unprompted, or goes on"),
            tr("/temperature 0.9 how daring it is; also /top_p /top_k /min_p /repetition_penalty /max_tokens /seed"),
            "                 /" + " /".join(RARE),
            tr("/settings        shows all of them"),
            tr("/reset           forgets this conversation"),
            tr("/quit            leaves (so does Ctrl-D); Ctrl-C stops a reply"),
        )
    )
