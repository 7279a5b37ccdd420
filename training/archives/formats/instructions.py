"""Instruction data as neutral dialogues: Alpaca, ShareGPT, OpenAI messages, and question/answer pairs.

The kind of every record shows in its keys; JSON, JSON Lines and CSV are `records`' business. What becomes of a
dialogue, this does not know.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from doppel.errors import UserError
from doppel.i18n import tr
from doppel.transcript import normalize
from training.archives.formats.record_files import Bad, read_records

Role = Literal["system", "user", "assistant"]

_ROLES: dict[str, Role] = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "bing", "bard", "model"), "assistant"),
}
_TOOLS = ("tool", "function", "function_call", "function-call", "observation", "ipython")
_TURNS = ("messages", "conversations", "conversation", "items")
_QUESTIONS = ("instruction", "prompt", "question", "user", "query", "input")
_DETAILS = ("input", "context")
_ANSWERS = ("output", "completion", "response", "answer", "assistant")
_PATIENCE = 1000
"""Records at the start of a file of which one must be a dialogue."""


class Said(msgspec.Struct, frozen=True):
    """What one side said, as it was written."""

    role: Role
    text: str


class Dialogue(msgspec.Struct, frozen=True):
    """A conversation with an assistant.

    Attributes:
        position: where in its file it stands.
        said: begins with a system prompt or a user, ends with an assistant; nothing in it is empty.
    """

    position: str
    said: tuple[Said, ...]


class Unusable(ValueError):
    """A record that is no dialogue; says why."""


def read_instructions(path: Path, bad: Bad, advance: Callable[[int], None] = lambda _: None) -> Iterator[Dialogue]:
    """The dialogues of a file, in its order.

    Args:
        path: the file.
        bad: hears of every record that is left out, with its place and the reason.
        advance: hears how many bytes were read.

    Raises:
        UserError: the file cannot be read, is cut off, or holds no dialogues of a known form.
    """
    found = False
    first: tuple[str, str] | None = None
    left_out = 0

    def note(position: str, reason: str) -> None:
        nonlocal first, left_out
        first = first or (position, reason)
        left_out += 1
        bad(position, reason)

    for position, record in read_records(path, note, advance):
        try:
            dialogue = Dialogue(position, read_record(record))
        except Unusable as error:
            note(position, str(error))
        else:
            found = True
            yield dialogue
        if not found and left_out >= _PATIENCE:
            break
    if not found:
        raise _nothing(path, first)


def read_record(record: Any) -> tuple[Said, ...]:
    """What was said in one record, of whatever kind. Raises Unusable."""
    if not isinstance(record, dict):
        raise Unusable(tr("not an object with named fields"))
    fields = {str(name).strip().lower(): value for name, value in record.items()}
    turns = next((fields[name] for name in _TURNS if isinstance(fields.get(name), list)), None)
    said = _pair(fields) if turns is None else [one for turn in turns for one in _turn(turn)]
    if not (said and said[0].role == "system"):
        said = [*_say("system", fields.get("system")), *said]
    return _whole(said)


def _turn(turn: Any) -> list[Said]:
    """One message of OpenAI's (`role`, `content`) or ShareGPT's form (`from`, `value`)."""
    if not isinstance(turn, dict):
        raise Unusable(tr("a message without a role"))
    name = turn.get("role", turn.get("from"))
    if not isinstance(name, str):
        raise Unusable(tr("a message without a role"))
    if name.lower() in _TOOLS or turn.get("tool_calls") or turn.get("function_call"):
        raise Unusable(tr("tool calls are not supported"))
    if name.lower() not in _ROLES:
        raise Unusable(tr("unknown role {role}", role=repr(name[:40])))
    return _say(_ROLES[name.lower()], _parts(turn.get("content", turn.get("value"))))


def _parts(content: Any) -> Any:
    """OpenAI's list of parts as one text."""
    if not isinstance(content, list):
        return content
    if not all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        raise Unusable(tr("contains images, audio or files"))
    return "\n".join(str(part.get("text", "")) for part in content)


def _pair(fields: dict[str, Any]) -> list[Said]:
    """Question and answer, with Alpaca's `input` and `history` where they are."""
    question = next((name for name in _QUESTIONS if name in fields), None)
    answer = next((name for name in _ANSWERS if name in fields), None)
    if question is None or answer is None:
        names = ", ".join(name[:20] for name in list(fields)[:8]) or tr("none")
        raise Unusable(tr("no question and answer fields (found: {names})", names=names))
    detail = next((fields[name] for name in _DETAILS if name != question and fields.get(name)), "")
    asked = "\n\n".join(one.text for text in (fields[question], detail) for one in _say("user", text))
    return [*_history(fields.get("history")), *_say("user", asked), *_say("assistant", fields[answer])]


def _history(pairs: Any) -> list[Said]:
    if not isinstance(pairs, list):
        return []
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise Unusable(tr("`history` is not a list of pairs"))
    return [one for asked, said in pairs for one in (*_say("user", asked), *_say("assistant", said))]


def _say(role: Role, text: Any) -> list[Said]:
    """What was said, or nothing if that is empty. Raises Unusable if it is no text."""
    if text is None:
        return []
    if not isinstance(text, str):
        raise Unusable(tr("a text field is not a string"))
    if "\ufffd" in text:
        raise Unusable(tr("contains invalid or lost characters"))
    return [Said(role, text)] if normalize(text) else []


def _whole(said: list[Said]) -> tuple[Said, ...]:
    """The part in which an assistant answers: greetings before the first question and what stays unanswered go."""
    start = next((at for at, one in enumerate(said) if one.role == "user"), len(said))
    end = next((at + 1 for at in reversed(range(len(said))) if said[at].role == "assistant"), 0)
    if start >= end:
        raise Unusable(tr("no question has an answer"))
    return (*(one for one in said[:start] if one.role == "system"), *said[start:end])


def _nothing(path: Path, first: tuple[str, str] | None) -> UserError:
    if first is None:
        return UserError(tr("{path}: nothing in it", path=path))
    return UserError(
        tr(
            "{path}: no instruction data that doppel knows (Alpaca, ShareGPT, OpenAI messages, or CSV with question "
            "and answer); {position}: {reason}",
            path=path,
            position=first[0],
            reason=first[1],
        )
    )
