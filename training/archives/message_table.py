"""A table of messages with named columns, at least who wrote what when: what people make of a format nobody reads.

Only columns whose meaning is known are taken, so that another program's table is not mistaken for one. Whose archive
it is only a column can say.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import msgspec

from training.archives.formats.chat_logs import MessageIds, file_title
from training.archives.formats.records import csv_rows, messages_of, to_utc
from training.archives.formats.text_lines import decode_head
from training.archives.message import Kind, Message
from training.archives.source_tree import Tree

PLATFORM = "table"

_SENDER = ("username", "sender", "user", "author", "from", "speaker", "name")
_TEXT = ("text", "message", "content", "body")
_TIME = ("timestamp", "time", "datetime", "date", "created_at", "sent_at")
_CHAT = ("chat", "channel", "conversation", "room", "thread", "chat_id", "channel_id", "conversation_id", "thread_id")
_ID = ("id", "message_id")
_ANSWERED = ("reply_to", "reply_to_id", "in_reply_to")
_OWNER = ("is_owner", "is_me", "is_mine")
_PLATFORM = ("platform", "source")
_KAKAOTALK = frozenset(("date", "user", "message"))
_YES, _NO = ("1", "true", "yes"), ("0", "false", "no")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_YEAR_FIRST = re.compile(r"(\d{4})[/.](\d{1,2})[/.](\d{1,2})(?:[ T](\d{1,2}):(\d\d)(?::(\d\d)(?:\.\d+)?)?)?")
_MILLISECONDS = 1e11
"""Seconds after 1970 beyond which a number counts milliseconds: the year 5138."""


class _Columns(msgspec.Struct, frozen=True):
    """The name of the column with each thing; empty where there is none."""

    sender: str
    text: str
    time: str
    chat: str
    id: str
    answered: str
    owner: str
    platform: str


class MessageTableReader:
    """Reads one table."""

    name = "table"
    accepts = "CSV of messages with the columns username, text and timestamp"

    def sniff(self, tree: Tree) -> bool:
        """Whether all the columns are known, and the three that are needed are among them."""
        return tree.is_file and _columns(tree, tree.files()[0]) is not None

    def read(self, tree: Tree) -> Iterator[Message]:
        """Every row."""
        file = tree.files()[0]
        columns = _columns(tree, file)
        if columns is not None:
            yield from messages_of(tree, file, csv_rows(tree, file), _Converter(tree, file, columns))


class _Converter:
    """Turns rows into messages."""

    def __init__(self, tree: Tree, file: str, columns: _Columns) -> None:
        self._zone = tree.zone
        self._title = file_title(tree.label)
        self._columns = columns
        self._ids = MessageIds()
        self._people: dict[str, set[str]] = {}
        for _, row in csv_rows(tree.unheard(), file):
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
            id=_cell(row, columns.id) or self._ids.of(sent_at, sender, text),
            platform=_cell(row, columns.platform).lower() or PLATFORM,
            chat=chat,
            kind=kind,
            sender=sender,
            sender_name=sender,
            sent_at=sent_at,
            text=text,
            is_owner=_verdict(_cell(row, columns.owner).lower()),
            reply_to=_cell(row, columns.answered) or None,
            chat_name=chat,
            origin=origin,
        )

    def _chat(self, row: Mapping[str, str]) -> str:
        return _cell(row, self._columns.chat) or self._title


def _columns(tree: Tree, file: str) -> _Columns | None:
    """What the columns of a file hold; None when it is no such table."""
    first = decode_head(tree.head(file)).lstrip("\ufeff").replace("\r", "\n").partition("\n")[0]
    names = [name.strip().strip('"').strip().lower() for name in first.split(",")]
    kinds = (_SENDER, _TEXT, _TIME, _CHAT, _ID, _ANSWERED, _OWNER, _PLATFORM)
    found = _Columns(*(next((name for name in kind if name in names), "") for kind in kinds))
    known = {name for kind in kinds for name in kind}
    if not (found.sender and found.text and found.time) or not known.issuperset(names) or set(names) == _KAKAOTALK:
        return None
    return found


def _cell(row: Mapping[str, str], column: str) -> str:
    """What stands in a column; nothing when there is no such column."""
    return row.get(column, "").strip() if column else ""


def _time(text: str, zone: ZoneInfo) -> datetime:
    """Seconds or milliseconds since 1970, ISO 8601, or a date that begins with its year. Raises ValueError."""
    if _NUMBER.fullmatch(text):
        number = float(text)
        return datetime.fromtimestamp(number / 1000 if number > _MILLISECONDS else number, UTC)
    if match := _YEAR_FIRST.fullmatch(text):
        year, month, day, hour, minute, second = (int(part or 0) for part in match.groups())
        return datetime(year, month, day, hour, minute, second, tzinfo=zone).astimezone(UTC)
    return to_utc(text.removesuffix("UTC").strip() + "Z" if text.endswith("UTC") else text, zone)


def _verdict(text: str) -> bool | None:
    return True if text in _YES else False if text in _NO else None
