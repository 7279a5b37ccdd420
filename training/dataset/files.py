"""The data set on disk: data/<persona>/ with sessions.jsonl, habits.json and report.json.

`doppel build` writes it, `doppel train` reads it. Sessions are stored as text, so that the same data set works with
every base model.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Literal

import msgspec

from doppel.config import Config
from doppel.config.dataset_digest import dataset_archive_digest
from doppel.errors import UserError
from doppel.i18n import tr
from doppel.transcript import Header, Turn

SESSIONS_FILE = "sessions.jsonl"
Split = Literal["train", "validation", "test"]
CHAT_KINDS = ("dm", "group")
"""Kinds whose sessions go on one after the other in a chat; posts and threads stand alone."""


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """One conversation without a long silence, or one thread of posts, ready for the transcript.

    Attributes:
        id: digest of platform, chat and first message; stable across builds.
        split: assigned by time, to whole sessions.
        chat: pseudonym of the chat.
        started_at: time of the first message, UTC.
        header: complete; training leaves out fields at random (`training.lora.conditions`). Earlier versions stored
            some sessions without fields.
        turns: never empty; at least one is the persona's.
        kind: the kind of conversation, also where the header lacks it; None in data sets of the first version.
    """

    id: str
    split: Split
    chat: str
    started_at: datetime
    header: Header
    turns: tuple[Turn, ...]
    kind: str | None = None


def kind_of(session: Session) -> str | None:
    """What kind of conversation it is; None in some data sets of earlier versions."""
    return session.kind or session.header.kind


def write_sessions(path: Path, sessions: Iterable[Session]) -> int:
    """Writes one session per line; returns the number of sessions."""
    encoder = msgspec.json.Encoder()
    count = 0
    with path.open("wb") as file:
        for session in sessions:
            file.write(encoder.encode(session) + b"\n")
            count += 1
        file.flush()
        os.fsync(file.fileno())
    return count


def read_sessions(folder: Path) -> Iterator[Session]:
    """The sessions of a data folder. Raises UserError if there is no data set or a line is damaged."""
    decoder = msgspec.json.Decoder(Session)
    path = folder / SESSIONS_FILE
    if not path.is_file():
        raise UserError(tr("{path}: no data set yet; run `doppel build` first", path=folder))
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield decoder.decode(line)
            except msgspec.MsgspecError as error:
                raise UserError(
                    tr("{path}, line {line}: {error}; run `doppel build` again", path=path, line=number, error=error)
                ) from None


def check_archives(config: Config) -> None:
    """Raises UserError if the data set was built from other archives than config.yaml names now."""
    if dataset_archive_digest(config) not in (None, config.archive_digest):
        raise UserError(
            tr(
                "{path}: was built from other archives than config.yaml names now; run `doppel build` first",
                path=config.data_dir,
            )
        )


def dataset_digest(folder: Path) -> str:
    """SHA-256 of sessions.jsonl, which identifies the data that an adapter was trained on."""
    with (folder / SESSIONS_FILE).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
