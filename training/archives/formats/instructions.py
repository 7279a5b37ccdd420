"""Parses instruction data into dialogues: Alpaca, ShareGPT, OpenAI messages, and question/answer pairs.

The kind of a record is recognized by its keys, so that one file may mix them.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from doppel.errors import UserError
from doppel.i18n import tr
from doppel.transcript import normalize
from training.archives.formats.instruction_files import OnBad, read_records

Role = Literal["system", "user", "assistant"]

_ROLES: dict[str, Role] = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "bing", "bard", "model"), "assistant"),
}
_TOOLS = ("tool", "function", "function_call", "function-call", "observation", "ipython")
_TURN_LISTS = ("messages", "conversations", "conversation", "items")
_QUESTIONS = ("instruction", "prompt", "question", "user", "query", "input")
_DETAILS = ("input", "context")
_ANSWERS = ("output", "completion", "response", "answer", "assistant")
_MAX_UNUSABLE = 1000
"""UnusableRecord records at the start of a file after which it is refused."""


class DialogueTurn(msgspec.Struct, frozen=True):
    """One message of a dialogue."""

    role: Role
    text: str


class Dialogue(msgspec.Struct, frozen=True):
    """A conversation with an assistant.

    Attributes:
        position: where in its file it is, for people: `line 3`.
        turns: begin with a system prompt or a user and end with an assistant; none is empty.
    """

    position: str
    turns: tuple[DialogueTurn, ...]


class UnusableRecord(ValueError):
    """A record is not a dialogue. The text of the error says why."""


def read_instructions(path: Path, on_bad: OnBad, advance: Callable[[int], None] = lambda _: None) -> Iterator[Dialogue]:
    """Yields the dialogues of a file, in its order.

    Args:
        path: the file.
        on_bad: called for every unusable record with its position and the reason.
        advance: called with the number of bytes read.

    Raises:
        UserError: the file cannot be read, is cut off, or has no dialogues of a known form.
    """
    has_dialogue = False
    first_bad: tuple[str, str] | None = None
    bad_count = 0

    def report_bad(position: str, reason: str) -> None:
        nonlocal first_bad, bad_count
        first_bad = first_bad or (position, reason)
        bad_count += 1
        on_bad(position, reason)

    for position, record in read_records(path, report_bad, advance):
        try:
            dialogue = Dialogue(position, read_record(record))
        except UnusableRecord as error:
            report_bad(position, str(error))
        else:
            has_dialogue = True
            yield dialogue
        if not has_dialogue and bad_count >= _MAX_UNUSABLE:
            break
    if not has_dialogue:
        raise _no_dialogues(path, first_bad)


def read_record(record: Any) -> tuple[DialogueTurn, ...]:
    """The turns of one record of any kind. Raises UnusableRecord."""
    if not isinstance(record, dict):
        raise UnusableRecord(tr("not a JSON object"))
    fields = {str(name).strip().lower(): value for name, value in record.items()}
    messages = next((fields[name] for name in _TURN_LISTS if isinstance(fields.get(name), list)), None)
    turns = _pair(fields) if messages is None else [turn for message in messages for turn in _parse_message(message)]
    if not (turns and turns[0].role == "system"):
        turns = [*_turns("system", fields.get("system")), *turns]
    return _answered_part(turns)


def _parse_message(message: Any) -> list[DialogueTurn]:
    """One message of OpenAI's (`role`, `content`) or ShareGPT's form (`from`, `value`)."""
    if not isinstance(message, dict):
        raise UnusableRecord(tr("a message without a role"))
    name = message.get("role", message.get("from"))
    if not isinstance(name, str):
        raise UnusableRecord(tr("a message without a role"))
    if name.lower() in _TOOLS or message.get("tool_calls") or message.get("function_call"):
        raise UnusableRecord(tr("tool calls are not supported"))
    if name.lower() not in _ROLES:
        raise UnusableRecord(tr("unknown role {role}", role=repr(name[:40])))
    return _turns(_ROLES[name.lower()], _join_parts(message.get("content", message.get("value"))))


def _join_parts(content: Any) -> Any:
    """OpenAI's list of parts as one text."""
    if not isinstance(content, list):
        return content
    if not all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        raise UnusableRecord(tr("contains images, audio or files"))
    return "\n".join(str(part.get("text", "")) for part in content)


def _pair(fields: dict[str, Any]) -> list[DialogueTurn]:
    """Question and answer, with Alpaca's `input` and `history` where they are."""
    question = next((name for name in _QUESTIONS if name in fields), None)
    answer = next((name for name in _ANSWERS if name in fields), None)
    if question is None or answer is None:
        names = ", ".join(name[:20] for name in list(fields)[:8]) or tr("none")
        raise UnusableRecord(tr("no question and answer fields (found: {names})", names=names))
    detail = next((fields[name] for name in _DETAILS if name != question and fields.get(name)), "")
    question_text = "\n\n".join(turn.text for text in (fields[question], detail) for turn in _turns("user", text))
    return [*_history(fields.get("history")), *_turns("user", question_text), *_turns("assistant", fields[answer])]


def _history(pairs: Any) -> list[DialogueTurn]:
    if not isinstance(pairs, list):
        return []
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise UnusableRecord(tr("`history` is not a list of pairs"))
    return [turn for user, assistant in pairs for turn in (*_turns("user", user), *_turns("assistant", assistant))]


def _turns(role: Role, text: Any) -> list[DialogueTurn]:
    """A list of one turn, or of none if the text is empty. Raises UnusableRecord if it is not a string."""
    if text is None:
        return []
    if not isinstance(text, str):
        raise UnusableRecord(tr("a text field is not a string"))
    if "\ufffd" in text:
        raise UnusableRecord(tr("contains invalid or lost characters"))
    return [DialogueTurn(role, text)] if normalize(text) else []


def _answered_part(turns: list[DialogueTurn]) -> tuple[DialogueTurn, ...]:
    """The turns from the first question to the last answer, and the system prompt before them."""
    start = next((at for at, turn in enumerate(turns) if turn.role == "user"), len(turns))
    end = next((at + 1 for at in reversed(range(len(turns))) if turns[at].role == "assistant"), 0)
    if start >= end:
        raise UnusableRecord(tr("no question has an answer"))
    return (*(turn for turn in turns[:start] if turn.role == "system"), *turns[start:end])


def _no_dialogues(path: Path, first_bad: tuple[str, str] | None) -> UserError:
    if first_bad is None:
        return UserError(tr("{path}: no records", path=path))
    return UserError(
        tr(
            "{path}: no supported instruction data (Alpaca, ShareGPT, OpenAI messages, or CSV with question "
            "and answer); {position}: {reason}",
            path=path,
            position=first_bad[0],
            reason=first_bad[1],
        )
    )
