"""Exports the data set for other trainers: Alpaca, ShareGPT, OpenAI messages, or plain transcripts.

Every record has its category (`original`, `reply`, `quote` or `dialogue`) and its split. Only `transcript` preserves
where one message of a burst ends and the next begins.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

import msgspec

from doppel.errors import UserError
from doppel.i18n import tr
from doppel.system.atomic_file import open_atomically
from doppel.system.write_errors import translate_write_errors
from doppel.transcript import Header, render
from training.dataset.files import Session, read_sessions

CATEGORIES = {"post": "original", "reply": "reply", "quote": "quote", "dm": "dialogue", "group": "dialogue"}
"""Category of a session by its kind."""

UNKNOWN = "unknown"
"""Category of a session of unknown kind whose chat contains several categories."""

HISTORY_LENGTH = 8
"""Earlier exchanges in the `history` of an Alpaca record."""

Record = dict[str, Any]


class ExportResult(msgspec.Struct, frozen=True, kw_only=True):
    """What was written: the file, its format, and the number of records in total and by category."""

    path: str
    format: str
    records: int
    categories: dict[str, int]


def export_dataset(folder: Path, format_name: str, path: Path) -> ExportResult:
    """Writes a data set in another trainer's format, atomically.

    A file whose name ends in .json contains one array, any other file one record per line.

    Args:
        folder: the data set.
        format_name: one of `FORMATS`.
        path: the file to write or replace.

    Raises:
        UserError: unknown format, no data set, or the path is a folder or inside the data set.
        DoppelError: the file cannot be written.
    """
    check_target(folder, format_name, path)
    categories = _Categories(folder)
    counts: Counter[str] = Counter()
    with translate_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with open_atomically(path) as file:
        _write(
            file, _records(folder, FORMATS[format_name], categories, counts), is_array=path.suffix.lower() == ".json"
        )
    return ExportResult(path=str(path), format=format_name, records=counts.total(), categories=dict(counts))


def check_target(folder: Path, format_name: str, path: Path) -> None:
    """Raises UserError for an unknown format, or a path that cannot be written. Reads and writes nothing."""
    if format_name not in FORMATS:
        raise UserError(
            tr(
                "--export {format}: unknown format; available: {formats}",
                format=format_name,
                formats=", ".join(FORMATS),
            )
        )
    if path.is_dir():
        raise UserError(tr("--export: {path} is a folder; give the name of a file", path=path))
    if folder.resolve() in path.resolve().parents:
        raise UserError(
            tr("--export: {path} is inside the data set, which every build replaces; choose another folder", path=path)
        )


def _records(
    folder: Path, to_records: Callable[[Session], Iterator[Record]], categories: "_Categories", counts: Counter[str]
) -> Iterator[Record]:
    for session in read_sessions(folder):
        category = categories.of(session)
        for record in to_records(session):
            counts[category] += 1
            yield {**record, "category": category, "split": session.split, "id": session.id}


class _Categories:
    """The categories of sessions. A session of an earlier version may lack its kind; then its chat decides."""

    def __init__(self, folder: Path) -> None:
        self._of_chat: dict[str, str] = {}
        for session in read_sessions(folder):
            category = _category(session)
            if category is not None and self._of_chat.setdefault(session.chat, category) != category:
                self._of_chat[session.chat] = UNKNOWN

    def of(self, session: Session) -> str:
        """One of the values of `CATEGORIES`, or `UNKNOWN`."""
        if (category := _category(session) or self._of_chat.get(session.chat)) is not None:
            return category
        return "dialogue" if any(not turn.is_mine for turn in session.turns) else UNKNOWN


def _category(session: Session) -> str | None:
    """The category by the session's own kind; None in data sets of earlier versions that lack it."""
    return CATEGORIES.get(session.kind or session.header.kind or "")


def _exchanges(session: Session) -> Iterator[tuple[str, str]]:
    """(prompt, reply) for every turn of the persona; the prompt is empty where it speaks first."""
    has_several_speakers = len({turn.speaker for turn in session.turns if not turn.is_mine}) > 1
    prompt: list[str] = []
    for turn in session.turns:
        text = "\n".join(turn.bubbles)
        if turn.is_mine:
            yield "\n".join(prompt), text
            prompt = []
        else:
            prompt.append(f"{turn.speaker}: {text}" if has_several_speakers else text)


def _system_prompt(header: Header) -> str | None:
    """The header line; None for an empty header."""
    return None if header == Header() else header.render()


def _alpaca(session: Session) -> Iterator[Record]:
    """One record per turn of the persona, without messages that it did not reply to."""
    history: list[tuple[str, str]] = []
    for prompt, reply in _exchanges(session):
        record: Record = {"instruction": prompt, "input": "", "output": reply}
        if (system_prompt := _system_prompt(session.header)) is not None:
            record["system"] = system_prompt
        yield {**record, "history": [list(pair) for pair in history]}
        history = [*history, (prompt, reply)][-HISTORY_LENGTH:]


def _sharegpt(session: Session) -> Iterator[Record]:
    """One record per session. Human and persona alternate; the human's value is empty if the persona speaks first."""
    conversation = []
    for prompt, reply in _exchanges(session):
        conversation += [{"from": "human", "value": prompt}, {"from": "gpt", "value": reply}]
    system_prompt = _system_prompt(session.header)
    yield {"conversations": conversation, **({} if system_prompt is None else {"system": system_prompt})}


def _openai(session: Session) -> Iterator[Record]:
    """One record per session. Where the persona speaks first there is no user message."""
    system_prompt = _system_prompt(session.header)
    messages = [] if system_prompt is None else [{"role": "system", "content": system_prompt}]
    for prompt, reply in _exchanges(session):
        if prompt:
            messages.append({"role": "user", "content": prompt})
        messages.append({"role": "assistant", "content": reply})
    yield {"messages": messages}


def _transcript(session: Session) -> Iterator[Record]:
    """One record per session: its text as this project's own trainer sees it."""
    yield {"text": render(session.header, session.turns)}


FORMATS: dict[str, Callable[[Session], Iterator[Record]]] = {
    "alpaca": _alpaca,
    "sharegpt": _sharegpt,
    "openai": _openai,
    "transcript": _transcript,
}
"""How a session becomes records, by name of the format."""


def _write(file: IO[bytes], records: Iterator[Record], *, is_array: bool) -> None:
    encode = msgspec.json.Encoder().encode
    if not is_array:
        for record in records:
            file.write(encode(record) + b"\n")
        return
    file.write(b"[")
    for record in islice(records, 1):
        file.write(b"\n" + encode(record))
    for record in records:
        file.write(b",\n" + encode(record))
    file.write(b"\n]\n")
