"""Reads tables of posts or messages that no other reader knows: CSV, JSON or JSON Lines with a text and a time.

The owner may name the columns in config.yaml; otherwise they are guessed where their names are plain. Without a column
for the sender all of it is the owner's; with a chat or a second sender the records are messages, otherwise posts.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar

from doppel.errors import UserError
from doppel.i18n import tr
from training.archives.formats.archive_records import RECORD_ERRORS, messages_of
from training.archives.formats.chat_text import MessageIds, title_of
from training.archives.formats.csv_files import is_rounded
from training.archives.formats.time_columns import TimeColumn
from training.archives.message import Kind, Message
from training.archives.source_tree import SourceTree
from training.archives.tables.columns import TableColumns, guessed_columns, list_names, named_columns
from training.archives.tables.records import cell, sample_records, table_names, table_records

PLATFORM = "table"

_KAKAOTALK_COLUMNS = frozenset(("date", "user", "message"))
_YES, _NO = ("1", "true", "yes", "是"), ("0", "false", "no", "否")
_PLATFORM_NAME = re.compile(r"[a-z][a-z0-9_-]{1,31}")
_OWNER = "owner"
_EARLIEST, _LATEST = datetime(1990, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
_MANY = 3
"""People in a chat from which on they are no longer counted: it is a group."""


class MessageTableReader:
    """Reads one file whose columns are guessed."""

    name = "table"
    accepts = "A table of your own: CSV, JSON or JSON Lines with a text and a time (see `columns` in config.yaml)"
    is_last_resort: ClassVar[bool] = True

    def sniff(self, tree: SourceTree) -> bool:
        """Whether it is plain which columns hold a text and a time."""
        return tree.is_file and _guess(tree, tree.files()[0]) is not None

    def read(self, tree: SourceTree) -> Iterator[Message]:
        """Every record."""
        file = tree.files()[0]
        columns = _guess(tree, file)
        if columns is not None:
            yield from _messages(tree, file, columns)

    def hint(self, tree: SourceTree) -> str:
        """What to do about a table whose columns cannot be guessed; empty for any other file."""
        file = tree.files()[0]
        names = table_names(tree, file)
        if len(names) < 2 or not any(len(record) > 1 for record in sample_records(tree, file)):
            return ""
        return tr(
            "a table with the columns {names}; name those with the text and the time under `columns` in config.yaml",
            names=list_names(names),
        )


class NamedTableReader:
    """Reads one file whose columns the owner named.

    Args:
        path: the table as named in config.yaml, for errors.
        columns: column names by field.
        platform: where it was written; empty if the table says it, or nobody.
        kind: posts, or messages of private chats or groups; None to tell by the table.
    """

    name = "table"
    accepts = ""

    def __init__(self, path: str, columns: dict[str, str], platform: str = "", kind: Kind | None = None) -> None:
        self._path = path
        self._columns = columns
        self._platform = platform
        self._kind = kind

    def sniff(self, tree: SourceTree) -> bool:
        """Always: the owner says so. Raises UserError if the columns are not there."""
        if not tree.is_file:
            return False
        file = tree.files()[0]
        names = table_names(tree, file)
        if not names:
            raise UserError(
                tr("{path}: not a table: neither CSV with column names, JSON nor JSON Lines", path=tree.label)
            )
        named_columns(self._path, self._columns, names)
        return True

    def read(self, tree: SourceTree) -> Iterator[Message]:
        """Every record."""
        file = tree.files()[0]
        columns = named_columns(self._path, self._columns, table_names(tree, file))
        yield from _messages(tree, file, columns, self._platform, self._kind)


def _guess(tree: SourceTree, file: str) -> TableColumns | None:
    """The columns of a file; None if they are not plain, or hold no times."""
    names = table_names(tree, file)
    columns = guessed_columns(names)
    if columns is None or set(names) == _KAKAOTALK_COLUMNS:
        return None
    if columns.is_plain:
        return columns
    records = sample_records(tree, file)
    times = TimeColumn(tree.zone, lambda: (_time_text(record, columns) for record in records), lambda text: None)
    for record in records:
        try:
            sent_at = times.parse(_time_text(record, columns))
        except RECORD_ERRORS:
            continue
        if _EARLIEST < sent_at < _LATEST and cell(record, columns.text).strip():
            return columns
    return None


def _messages(
    tree: SourceTree, file: str, columns: TableColumns, platform: str = "", kind: Kind | None = None
) -> Iterator[Message]:
    converter = _Converter(tree, file, columns, platform, kind)
    return messages_of(tree, file, table_records(tree, file), converter)


def _time_text(record: Mapping[str, Any], columns: TableColumns) -> str:
    return " ".join(part for part in (cell(record, columns.time), cell(record, columns.clock)) if part.strip())


class _Converter:
    """Turns records into messages, after a first pass over who writes where."""

    def __init__(self, tree: SourceTree, file: str, columns: TableColumns, platform: str, kind: Kind | None) -> None:
        self._columns = columns
        self._title = title_of(tree.label)
        self._platform = platform
        self._kind = kind
        self._ids = MessageIds()
        self._times = TimeColumn(tree.zone, lambda: self._time_texts(tree.for_survey(), file), tree.note)
        self._people: dict[str, set[str]] = {}
        everybody: set[str] = set()
        if columns.sender and not columns.thread:
            for _, record in table_records(tree.for_survey(), file):
                people, sender = (
                    self._people.setdefault(self._chat(record), set()),
                    cell(record, columns.sender).strip(),
                )
                if sender and len(people) < _MANY:
                    people.add(sender)
                if sender and len(everybody) < _MANY:
                    everybody.add(sender)
        self._is_chat = bool(columns.chat) or len(everybody) > 1

    def __call__(self, record: Mapping[str, Any], origin: str) -> Message:
        columns = self._columns
        if not record:
            raise ValueError(tr("not a JSON object"))
        for column in (columns.text, columns.time):
            if column not in record and "." not in column:
                raise KeyError(column)
        text = cell(record, columns.text)
        sent_at = self._times.parse(_time_text(record, columns))
        sender = cell(record, columns.sender).strip() or (_OWNER if not columns.sender else "?")
        identity = cell(record, columns.id).strip()
        if not identity or is_rounded(identity):
            identity = self._ids.next_id(sent_at, sender, text)
        reply_to = cell(record, columns.reply_to).strip()
        thread = cell(record, columns.thread).strip()
        if thread and thread != identity:
            reply_to = thread
        kind, chat = self._place(record, is_reply=bool(reply_to))
        return Message(
            id=identity,
            platform=self._platform
            or _platform(cell(record, columns.platform))
            or ("twitter" if columns.thread else PLATFORM),
            chat=chat,
            kind=kind,
            sender=sender,
            sender_name=sender,
            sent_at=sent_at,
            text=text,
            is_owner=_flag(cell(record, columns.owner).strip().lower()) if columns.sender else True,
            reply_to=reply_to or None,
            chat_name=chat,
            origin=origin,
        )

    def _place(self, record: Mapping[str, Any], *, is_reply: bool) -> tuple[Kind, str]:
        """The kind and the chat of a record."""
        chat = self._chat(record)
        if self._kind in ("dm", "group"):
            return self._kind, chat
        if self._kind == "post" or not self._is_chat:
            return "reply" if is_reply else "post", chat
        return "dm" if len(self._people.get(chat, ())) < _MANY else "group", chat

    def _chat(self, record: Mapping[str, Any]) -> str:
        return cell(record, self._columns.chat).strip() or self._title

    def _time_texts(self, tree: SourceTree, file: str) -> Iterator[str]:
        return (_time_text(record, self._columns) for _, record in table_records(tree, file))


def _platform(text: str) -> str:
    name = text.strip().lower()
    return name if _PLATFORM_NAME.fullmatch(name) else ""


def _flag(text: str) -> bool | None:
    return True if text in _YES else False if text in _NO else None
