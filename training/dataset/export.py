"""The data set as files for other trainers: Alpaca, ShareGPT, OpenAI messages, or plain transcripts.

Every record says its category (`original`, `reply`, `quote` or `dialogue`) and its split. Only `transcript` keeps what
the formats of others cannot say: where one message of a burst ends and the next begins. Knows no archive and no model.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any

import msgspec

from doppel.errors import UserError
from doppel.i18n import tr
from doppel.system.write_errors import translate_write_errors
from doppel.transcript import Header, render
from training.dataset.files import Session, read_sessions

CATEGORIES = {"post": "original", "reply": "reply", "quote": "quote", "dm": "dialogue", "group": "dialogue"}
"""Category of a session by the kind in its header."""

UNKNOWN = "unknown"
"""Category of a session that does not say its kind and whose chat holds several categories."""

ROUNDS = 8
"""Earlier exchanges that an Alpaca record carries along as `history`."""

Record = dict[str, Any]


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """What was written: the file, its format, and its records, in all and by category."""

    path: str
    format: str
    records: int
    categories: dict[str, int]


def export_dataset(folder: Path, form: str, path: Path) -> Exported:
    """Writes a data set in another trainer's format; the file appears whole or not at all.

    A name that ends in .json gets one array, any other name one record a line.

    Args:
        folder: the data set.
        form: one of `FORMATS`.
        path: the file; an older one is replaced.

    Raises:
        UserError: no such format, no data set, or a path that is a folder or within the data set.
        DoppelError: the file cannot be written.
    """
    check_target(folder, form, path)
    categories = _Categories(folder)
    counts: Counter[str] = Counter()
    with translate_write_errors(path), _appearing(path) as file:
        _write(file, _records(folder, FORMATS[form], categories, counts), is_array=path.suffix.lower() == ".json")
    return Exported(path=str(path), format=form, records=counts.total(), categories=dict(counts))


def check_target(folder: Path, form: str, path: Path) -> None:
    """Raises UserError for an unknown format, and for a path that cannot take the file; nothing is read or written."""
    if form not in FORMATS:
        raise UserError(tr("--export {format}: no such format; there are {formats}", format=form, formats=_listed()))
    if path.is_dir():
        raise UserError(tr("--export: {path} is a folder; name a file", path=path))
    if folder.resolve() in path.resolve().parents:
        raise UserError(tr("--export: {path} lies in the data set, which every build replaces", path=path))


def _listed() -> str:
    return ", ".join(FORMATS)


def _records(
    folder: Path, record: Callable[[Session], Iterator[Record]], categories: "_Categories", counts: Counter[str]
) -> Iterator[Record]:
    for session in read_sessions(folder):
        category = categories.of(session)
        for one in record(session):
            counts[category] += 1
            yield {**one, "category": category, "split": session.split, "id": session.id}


class _Categories:
    """Tells a session's category, also in older data sets where the header lost its kind: then by the chat's others."""

    def __init__(self, folder: Path) -> None:
        self._of_chat: dict[str, str] = {}
        for session in read_sessions(folder):
            category = _category(session)
            if category is not None and self._of_chat.setdefault(session.chat, category) != category:
                self._of_chat[session.chat] = UNKNOWN

    def of(self, session: Session) -> str:
        """One of `CATEGORIES`, or `UNKNOWN`."""
        if (category := _category(session) or self._of_chat.get(session.chat)) is not None:
            return category
        return "dialogue" if any(not turn.is_mine for turn in session.turns) else UNKNOWN


def _category(session: Session) -> str | None:
    """What the session itself says; nothing where it was built by an earlier version and its header was thinned."""
    return CATEGORIES.get(session.kind or session.header.kind or "")


def _exchanges(session: Session) -> Iterator[tuple[str, str]]:
    """What was said to the persona since it last spoke, which may be nothing, and what it answered."""
    named = len({turn.speaker for turn in session.turns if not turn.is_mine}) > 1
    heard: list[str] = []
    for turn in session.turns:
        text = "\n".join(turn.bubbles)
        if turn.is_mine:
            yield "\n".join(heard), text
            heard = []
        else:
            heard.append(f"{turn.speaker}: {text}" if named else text)


def _situation(header: Header) -> str | None:
    """The header line; None for a header that lost all its fields."""
    return None if header == Header() else header.render()


def _alpaca(session: Session) -> Iterator[Record]:
    """One record for each turn of the persona's. What nobody answered any more is not in it."""
    history: list[tuple[str, str]] = []
    for asked, answered in _exchanges(session):
        record: Record = {"instruction": asked, "input": "", "output": answered}
        if (situation := _situation(session.header)) is not None:
            record["system"] = situation
        yield {**record, "history": [list(pair) for pair in history]}
        history = [*history, (asked, answered)][-ROUNDS:]


def _sharegpt(session: Session) -> Iterator[Record]:
    """One record a session; a person and the persona take turns, the person's may be empty where it spoke first."""
    said = []
    for asked, answered in _exchanges(session):
        said += [{"from": "human", "value": asked}, {"from": "gpt", "value": answered}]
    situation = _situation(session.header)
    yield {"conversations": said, **({} if situation is None else {"system": situation})}


def _openai(session: Session) -> Iterator[Record]:
    """One record a session. Where the persona speaks first no user's message stands before its own."""
    situation = _situation(session.header)
    said = [] if situation is None else [{"role": "system", "content": situation}]
    for asked, answered in _exchanges(session):
        if asked:
            said.append({"role": "user", "content": asked})
        said.append({"role": "assistant", "content": answered})
    yield {"messages": said}


def _transcript(session: Session) -> Iterator[Record]:
    """One record a session: its text as doppel's own trainer sees it."""
    yield {"text": render(session.header, session.turns)}


FORMATS: dict[str, Callable[[Session], Iterator[Record]]] = {
    "alpaca": _alpaca,
    "sharegpt": _sharegpt,
    "openai": _openai,
    "transcript": _transcript,
}
"""How a session becomes records, by the name of the format."""


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


@contextmanager
def _appearing(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes its name when the block has ended well, and is gone when it has not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with staging.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)
