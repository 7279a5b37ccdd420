"""Reads CSV files of messages with at least a sender, a text and a time, for formats that have no reader.

Files with unknown columns are not accepted, so that another program's CSV is not mistaken for one. Only a column can
say who the owner is.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import msgspec

from training.archives.formats.archive_records import messages_of
from training.archives.formats.chat_text import MessageIds, title_of
from training.archives.formats.csv_files import csv_columns, csv_rows
from training.archives.formats.timestamps import from_epoch, to_utc
from training.archives.message import Kind, Message
from training.archives.source_tree import SourceTree

PLATFORM = "table"

_SENDER = ("username", "sender", "user", "author", "from", "speaker", "name")
_TEXT = ("text", "message", "content", "body")
_TIME = ("timestamp", "time", "datetime", "date", "created_at", "sent_at")
_CHAT = ("chat", "channel", "conversation", "room", "thread", "chat_id", "channel_id", "conversation_id", "thread_id")
_ID = ("id", "message_id")
_REPLY_TO = ("reply_to", "reply_to_id", "in_reply_to")
_OWNER = ("is_owner", "is_me", "is_mine")
_PLATFORM = ("platform", "source")
_KAKAOTALK_COLUMNS = frozenset(("date", "user", "message"))
_YES, _NO = ("1", "true", "yes"), ("0", "false", "no")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_YEAR_FIRST = re.compile(r"(\d{4})[/.](\d{1,2})[/.](\d{1,2})(?:[ T](\d{1,2}):(\d\d)(?::(\d\d)(?:\.\d+)?)?)?")


class _Columns(msgspec.Struct, frozen=True):
    """The column of each field; empty where there is none."""

    sender: str
    text: str
    time: str
    chat: str
    id: str
    reply_to: str
    owner: str
    platform: str


class MessageTableReader:
    """Reads one CSV file."""

    name = "table"
    accepts = "CSV of messages with the columns username, text and timestamp"

    def sniff(self, tree: SourceTree) -> bool:
        """Whether all columns are known_names and the three required ones are among them."""
        return tree.is_file and _columns(tree, tree.files()[0]) is not None

    def read(self, tree: SourceTree) -> Iterator[Message]:
        """Every row."""
        file = tree.files()[0]
        columns = _columns(tree, file)
        if columns is not None:
            yield from messages_of(tree, file, csv_rows(tree, file), _Converter(tree, file, columns))


class _Converter:
    """Turns rows into messages."""

    def __init__(self, tree: SourceTree, file: str, columns: _Columns) -> None:
        self._zone = tree.zone
        self._title = title_of(tree.label)
        self._columns = columns
        self._ids = MessageIds()
        self._people: dict[str, set[str]] = {}
        for _, row in csv_rows(tree.for_survey(), file):
            people = self._people.setdefault(self._chat(row), set())
            if len(people) < 3:
                people.add(_cell(row, columns.sender))

    def __call__(self, row: Mapping[str, str], origin: str) -> Message:
        columns = self._columns
        sender, text = row[columns.sender].strip(), row[columns.text]
        sent_at = _time(row[columns.time].strip(), self._zone)
        chat = self._chat(row)
        kind: Kind = "dm" if len(self._people.get(chat, ())) <= 2 else "group"
        return Message(
            id=_cell(row, columns.id) or self._ids.next_id(sent_at, sender, text),
            platform=_cell(row, columns.platform).lower() or PLATFORM,
            chat=chat,
            kind=kind,
            sender=sender,
            sender_name=sender,
            sent_at=sent_at,
            text=text,
            is_owner=_flag(_cell(row, columns.owner).lower()),
            reply_to=_cell(row, columns.reply_to) or None,
            chat_name=chat,
            origin=origin,
        )

    def _chat(self, row: Mapping[str, str]) -> str:
        return _cell(row, self._columns.chat) or self._title


def _columns(tree: SourceTree, file: str) -> _Columns | None:
    """The columns of a file; None if it is not a CSV file of messages."""
    names = csv_columns(tree, file)
    fields = (_SENDER, _TEXT, _TIME, _CHAT, _ID, _REPLY_TO, _OWNER, _PLATFORM)
    columns = _Columns(*(next((name for name in field if name in names), "") for field in fields))
    known_names = {name for field in fields for name in field}
    if (
        not (columns.sender and columns.text and columns.time)
        or not known_names.issuperset(names)
        or set(names) == _KAKAOTALK_COLUMNS
    ):
        return None
    return columns


def _cell(row: Mapping[str, str], column: str) -> str:
    """The cell in a column; empty if there is no such column."""
    return row.get(column, "").strip() if column else ""


def _time(text: str, zone: ZoneInfo) -> datetime:
    """Seconds or milliseconds since 1970, ISO 8601, or a date that begins with its year. Raises ValueError."""
    if _NUMBER.fullmatch(text):
        return from_epoch(float(text))
    if match := _YEAR_FIRST.fullmatch(text):
        year, month, day, hour, minute, second = (int(part or 0) for part in match.groups())
        return datetime(year, month, day, hour, minute, second, tzinfo=zone).astimezone(UTC)
    return to_utc(text.removesuffix("UTC").strip() + "Z" if text.endswith("UTC") else text, zone)


def _flag(text: str) -> bool | None:
    return True if text in _YES else False if text in _NO else None
