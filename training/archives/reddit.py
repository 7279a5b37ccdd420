"""Reads the CSV files of a Reddit data request (comments, posts, messages, chat), and dumps in JSON Lines.

A dump may be compressed with zstd; it has everybody's records and does not say who the owner is. In the CSV files the
parent of a comment is only an id, unless the same archive or a dump beside it has its text.
"""

import html
import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from doppel.i18n import tr
from training.archives.formats.archive_records import RECORD_ERRORS, messages_of
from training.archives.formats.csv_files import csv_columns, csv_rows, is_rounded
from training.archives.formats.time_columns import TimeColumn
from training.archives.formats.zstd import ZSTD_MAGIC, byte_lines, decompressed_head
from training.archives.message import Kind, Mark, Message
from training.archives.source_tree import SourceTree

PLATFORM = "reddit"

_COLUMNS: dict[str, tuple[str, ...]] = {
    "comments": ("id", "permalink", "date", "subreddit", "link", "parent", "body"),
    "posts": ("id", "permalink", "date", "subreddit", "title", "url", "body"),
    "messages": ("id", "permalink", "thread_id", "date", "from", "to", "body"),
    "chat": ("message_id", "created_at", "username", "message", "channel_url"),
    "about": ("statistic", "value"),
}
_ABOUT = "about"
_SNIFFED, _RECORD_HEAD = 4096, 1 << 16
_RECORD = re.compile(r'\ufeff?\s*\{\s*"')
_REQUIRED_KEYS = tuple(re.compile(rf'"{key}"\s*:') for key in ("author", "created_utc", "subreddit"))
_CONTENT_KEY = re.compile(r'"(?:body|selftext|link_id|title)"\s*:')
_POST_IN_LINK = re.compile(r"/comments/([a-z0-9]+)", re.IGNORECASE)
_COMMENT_IN_LINK = re.compile(r"/comments/[a-z0-9]+/[^/\s]*/([a-z0-9]+)", re.IGNORECASE)
_REMOVED_TEXTS = frozenset(
    ("[deleted]", "[removed]", "[ Removed by Reddit ]", "[ Removed by reddit ]", "[deleted by user]")
)
_MEDIA_LINK = re.compile(
    r"https?://(?:i\.redd\.it|v\.redd\.it|(?:www\.)?reddit\.com/gallery|i\.imgur\.com)/", re.IGNORECASE
)
_NO_MEDIA = frozenset(("", "{}", "[]", "null", "None"))
_BOTS = frozenset(("AutoModerator",))
_OWNER = "owner"
_ZONE = ZoneInfo("UTC")


class RedditReader:
    """Reads the folder of a data request, which says who the owner is, or one of its CSV files, or one dump."""

    name = "reddit"
    accepts = "Reddit data request (zip or CSV), or a dump of comments or posts (JSON Lines, also .zst)"

    def sniff(self, tree: SourceTree) -> bool:
        """Whether this folder has only the CSV files of a data request, or this is one of them, or a dump."""
        if tree.is_file:
            file = tree.files()[0]
            return _table_kind(tree, file) not in ("", _ABOUT) or _is_dump(tree, file)
        # A folder with subfolders may contain other archives too; its CSV files are then found one by one.
        return not tree.folders() and any(_table_kind(tree, file) not in ("", _ABOUT) for file in _csv_files(tree))

    def read(self, tree: SourceTree) -> Iterator[Message]:
        """Every comment, post, private message and chat message."""
        if tree.is_file and _table_kind(tree, tree.files()[0]) in ("", _ABOUT):
            yield from messages_of(tree, tree.files()[0], _dump_records(tree, tree.files()[0]), _dump_message)
            return
        tables = [(file, kind) for file in _csv_files(tree) if (kind := _table_kind(tree, file))]
        account = next((name for file, kind in tables if kind == _ABOUT and (name := _account(tree, file))), "")
        for file, kind in tables:
            if kind != _ABOUT:
                yield from messages_of(tree, file, csv_rows(tree, file), _converter(tree, file, kind, account))


def _converter(tree: SourceTree, file: str, kind: str, account: str) -> Callable[[Mapping[str, str], str], Message]:
    column = "created_at" if kind == "chat" else "date"
    # A spreadsheet that saved the file again may have written its own dates.
    times = TimeColumn(_ZONE, lambda: (row.get(column, "") for _, row in csv_rows(tree.for_survey(), file)), tree.note)
    converter = _Converter(account, times)
    converters: dict[str, Callable[[Mapping[str, str], str], Message]] = {
        "comments": converter.comment,
        "posts": converter.post,
        "messages": converter.private,
        "chat": converter.chat,
    }
    return converters[kind]


def _csv_files(tree: SourceTree) -> list[str]:
    return tree.files() if tree.is_file else [file for file in tree.files() if file.lower().endswith(".csv")]


def _table_kind(tree: SourceTree, file: str) -> str:
    """Which CSV file of a data request this is, by its columns; empty if it is none."""
    names = set(csv_columns(tree, file))
    return next((kind for kind, columns in _COLUMNS.items() if names.issuperset(columns)), "")


def _account(tree: SourceTree, file: str) -> str:
    """The name of the owner's account."""
    for _, row in csv_rows(tree.for_survey(), file):
        if row.get("statistic", "").strip().lower() == "account name":
            return row.get("value", "").strip()
    return ""


class _Converter:
    """Turns rows into messages.

    Args:
        account: the owner's name; empty when that file is missing. Comments and posts are the owner's anyway.
        times: reads the column of times.
    """

    def __init__(self, account: str, times: TimeColumn) -> None:
        self._account = account
        self._times = times

    def comment(self, row: Mapping[str, str], origin: str) -> Message:
        return self._public(
            row,
            origin,
            identity=f"t1_{_row_id(row)}",
            kind="reply",
            text=row["body"],
            reply_to=_parent_id(row.get("parent", ""), row.get("link", "")),
            has_media=row.get("media", "").strip() not in _NO_MEDIA,
        )

    def post(self, row: Mapping[str, str], origin: str) -> Message:
        return self._public(
            row,
            origin,
            identity=f"t3_{_row_id(row)}",
            kind="post",
            text=_join(row["title"], row.get("body", "")),
            reply_to=None,
            has_media=bool(_MEDIA_LINK.match(row.get("url", ""))),
        )

    def private(self, row: Mapping[str, str], origin: str) -> Message:
        sender, receiver = row["from"].strip(), row["to"].strip()
        subject = row.get("subject", "").strip()
        chat = " ".join(sorted((sender, receiver)))
        return Message(
            id=row["id"],
            platform=PLATFORM,
            chat=chat,
            kind="dm",
            sender=sender,
            sender_name=sender,
            sent_at=self._times.parse(row["date"]),
            text=html.unescape(_join("" if subject.lower().startswith("re:") else subject, row["body"])),
            is_owner=self._is_owner(sender),
            chat_name=(receiver if sender == self._account else sender) if self._account else chat,
            mark=_mark(row["body"], sender),
            origin=origin,
        )

    def chat(self, row: Mapping[str, str], origin: str) -> Message:
        sender = row["username"].strip()
        kind: Kind = "dm" if row.get("conversation_type", "").strip().lower() in ("direct", "dm") else "group"
        replied_to = row.get("thread_parent_message_id", "").strip()
        return Message(
            id=row["message_id"],
            platform=PLATFORM,
            chat=row["channel_url"].strip() or row.get("channel_name", ""),
            kind=kind,
            sender=sender,
            sender_name=sender,
            sent_at=self._times.parse(row["created_at"]),
            text=html.unescape(row["message"]),
            is_owner=self._is_owner(sender),
            reply_to=replied_to if replied_to not in ("", "0") else None,
            thread=replied_to if replied_to not in ("", "0") else None,
            chat_name=row.get("channel_name", "").strip() or row["channel_url"],
            mark=_mark(row["message"], sender),
            origin=origin,
        )

    def _public(
        self,
        row: Mapping[str, str],
        origin: str,
        *,
        identity: str,
        kind: Kind,
        text: str,
        reply_to: str | None,
        has_media: bool,
    ) -> Message:
        return Message(
            id=identity,
            platform=PLATFORM,
            chat=_forum(row["subreddit"]),
            kind=kind,
            sender=self._account or _OWNER,
            sender_name=self._account or _OWNER,
            sent_at=self._times.parse(row["date"]),
            text=html.unescape(text),
            is_owner=True,
            reply_to=reply_to,
            chat_name=_forum(row["subreddit"]),
            mark=_mark(text, self._account) or (Mark.MEDIA if has_media else Mark.NONE),
            origin=origin,
        )

    def _is_owner(self, sender: str) -> bool | None:
        return sender.lower() == self._account.lower() if self._account else None


def _dump_message(record: Mapping[str, Any], origin: str) -> Message:
    """One comment or post of any author, in the form of Reddit's API."""
    author = str(record["author"])
    is_comment = "body" in record
    text = str(record.get("body") or "") if is_comment else _post_text(record)
    mark = _mark(str(record.get("body") if is_comment else record.get("selftext") or ""), author)
    if not is_comment and not mark:
        if record.get("crosspost_parent"):
            mark = Mark.FORWARD
        elif record.get("is_gallery") or record.get("is_video") or _MEDIA_LINK.match(str(record.get("url") or "")):
            mark = Mark.MEDIA
    return Message(
        id=f"{'t1' if is_comment else 't3'}_{_bare_id(str(record['id']))}",
        platform=PLATFORM,
        chat=_forum(str(record["subreddit"])),
        kind="reply" if is_comment else "post",
        sender=author,
        sender_name=author,
        sent_at=datetime.fromtimestamp(float(record["created_utc"]), UTC),
        text=html.unescape(text),
        reply_to=_dump_parent(record) if is_comment else None,
        chat_name=_forum(str(record["subreddit"])),
        mark=mark,
        origin=origin,
    )


def _post_text(record: Mapping[str, Any]) -> str:
    body = str(record.get("selftext") or "")
    return _join(str(record["title"]), "" if body in _REMOVED_TEXTS else body)


def _dump_parent(record: Mapping[str, Any]) -> str | None:
    """Id of the parent of a comment; in some months of the dumps an id is a number."""
    parent = record.get("parent_id") or record.get("link_id")
    if isinstance(parent, int):
        return f"t1_{_base36(parent)}"
    return str(parent) if parent else None


def _base36(number: int) -> str:
    digits = ""
    while number > 0 and len(digits) < 20:
        number, digit = divmod(number, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
    return digits


def _parent_id(parent: str, link: str) -> str | None:
    """Id of the parent of a comment, else of its post. Either may be given as an id or an address."""
    parent, link = parent.strip(), link.strip()
    if parent.startswith(("t1_", "t3_")):
        return parent
    if match := _COMMENT_IN_LINK.search(parent):
        return f"t1_{match[1]}"
    if parent and "/" not in parent:
        return f"t1_{parent}"
    if link.startswith("t3_"):
        return link
    match = _POST_IN_LINK.search(link)
    return f"t3_{match[1]}" if match else None


def _row_id(row: Mapping[str, str]) -> str:
    """The id of a comment or post; from its address if a spreadsheet has made a number of `12e4`."""
    identity = row["id"]
    if is_rounded(identity):
        match = _COMMENT_IN_LINK.search(row["permalink"]) or _POST_IN_LINK.search(row["permalink"])
        identity = match[1] if match else row["permalink"]
    return _bare_id(identity)


def _bare_id(identity: str) -> str:
    return identity.strip().removeprefix("t1_").removeprefix("t3_")


def _forum(subreddit: str) -> str:
    return f"r/{subreddit.strip().removeprefix('r/')}"


def _join(title: str, body: str) -> str:
    return "\n".join(part for part in (title.strip(), body.strip()) if part)


def _mark(text: str, author: str) -> Mark:
    if text.strip() in _REMOVED_TEXTS or author == "[deleted]":
        return Mark.DELETED
    if author.lower() in ("reddit", "/r/reddit"):
        return Mark.SERVICE
    return Mark.BOT if author in _BOTS else Mark.NONE


def _is_dump(tree: SourceTree, file: str) -> bool:
    """Whether the first line is an object with the keys of all of Reddit's records."""
    head = tree.head(file, _SNIFFED)
    if head.startswith(ZSTD_MAGIC):
        text = decompressed_head(tree, file, _RECORD_HEAD).decode("utf-8", "replace")
    elif _RECORD.match(head.decode("utf-8", "replace")):
        text = tree.head(file, _RECORD_HEAD).decode("utf-8", "replace")
    else:
        return False
    first = text.lstrip("\ufeff\r\n\t ").partition("\n")[0]
    return (
        first.startswith("{") and bool(_CONTENT_KEY.search(first)) and all(key.search(first) for key in _REQUIRED_KEYS)
    )


def _dump_records(tree: SourceTree, file: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yields the line number and object of every line."""
    for number, line in byte_lines(tree, file):
        if not line.strip():
            continue
        try:
            record = _parse_line(line)
        except (*RECORD_ERRORS, RecursionError) as error:
            tree.report_bad(file, tr("record {number}", number=number), error)
            continue
        if isinstance(record, dict):
            yield number, record
        else:
            tree.report_bad(file, tr("record {number}", number=number), tr("not a JSON object"))


def _parse_line(line: bytes) -> Any:
    """The value of a line. msgspec rejects some records of Reddit's first years, which the lenient parser accepts."""
    try:
        return msgspec.json.decode(line)
    except msgspec.DecodeError:
        return json.loads(line.decode("utf-8-sig", "replace"), strict=False)
