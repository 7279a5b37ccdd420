"""The slash commands of `doppel chat`: they show and change sampling settings, and reset or end the conversation."""

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
RARE_SETTINGS = (
    *("typical_p", "presence_penalty", "frequency_penalty", "no_repeat_ngram"),
    *("dry_multiplier", "dry_base", "dry_allowed_length"),
)


class Chat(Protocol):
    """What the commands change: the sampling settings and the turns of a conversation."""

    sampling: "Sampling"
    turns: "list[Turn]"

    def unsupported(self, sampling: "Sampling") -> str | None:
        """Why the engine cannot use these settings, in one line; None if it can."""
        ...


class Quit(Exception):
    """The user ended the conversation."""


def run_command(line: str, chat: Chat) -> str:
    """Runs a command such as `/temperature 0.8` and returns the text to show.

    Raises:
        UserError: no such command, or a value out of range or not supported by the engine. Quit: on /quit.
    """
    name, _, value = line.removeprefix("/").partition(" ")
    value = value.strip()
    if name in SETTINGS or name in RARE_SETTINGS:
        if value:
            changed = with_setting(chat.sampling, name, value)
            if reason := chat.unsupported(changed):
                raise UserError(reason)
            chat.sampling = changed
        return _format_settings(chat.sampling, [name])
    match name:
        case "settings":
            changed_rare = [
                setting
                for setting in RARE_SETTINGS
                if getattr(chat.sampling, setting) != ReplySettings.model_fields[setting].default
            ]
            return _format_settings(chat.sampling, [*SETTINGS, *changed_rare])
        case "reset":
            chat.turns.clear()
            return tr("The conversation begins anew.")
        case "help" | "":
            return _help()
        case "quit" | "exit":
            raise Quit
    raise UserError(tr("/{name}: no such command; /help lists them", name=name))


def with_setting(sampling: "Sampling", name: str, value: str) -> "Sampling":
    """A copy of the settings with one of them changed; the limits are those of config.yaml.

    Raises:
        UserError: the value is not a number or is out of range; the message says what is allowed.
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
    """The allowed range of a setting, for example `0 ≤ temperature ≤ 5`."""
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


def _format_settings(sampling: "Sampling", names: Iterable[str]) -> str:
    values = {name: getattr(sampling, name) for name in names}
    return " · ".join(f"{name} {'none' if value is None else value}" for name, value in values.items())


def _help() -> str:
    return "\n".join(
        (
            tr("ENTER alone      it speaks unprompted, or goes on"),
            tr("/temperature 0.9 how daring it is; also /top_p /top_k /min_p /repetition_penalty /max_tokens /seed"),
            "                 /" + " /".join(RARE_SETTINGS),
            tr("/settings        shows all of them"),
            tr("/reset           forgets this conversation"),
            tr("/quit            leaves (so does Ctrl-D); Ctrl-C stops a reply"),
        )
    )
