"""Reddit: the tables of a data request (comments, posts, messages, chat), and dumps of records, one JSON object a line.

A dump may be compressed with zstd and holds everybody's records, so it does not say whose archive it is. What a
comment in the tables answers is only an id, unless the same archive or a dump beside it has that text.
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
from training.archives.formats.records import MALFORMED, csv_rows, messages_of, to_utc
from training.archives.formats.text_lines import decode_head
from training.archives.formats.zstd import ZSTD, Lines, zstd_head
from training.archives.message import Kind, Mark, Message
from training.archives.source_tree import Tree

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
_KEYS = tuple(re.compile(rf'"{key}"\s*:') for key in ("author", "created_utc", "subreddit"))
_KINDS = re.compile(r'"(?:body|selftext|link_id|title)"\s*:')
_POST_IN_LINK = re.compile(r"/comments/([a-z0-9]+)", re.IGNORECASE)
_COMMENT_IN_LINK = re.compile(r"/comments/[a-z0-9]+/[^/\s]*/([a-z0-9]+)", re.IGNORECASE)
_GONE = frozenset(("[deleted]", "[removed]", "[ Removed by Reddit ]", "[ Removed by reddit ]", "[deleted by user]"))
_PICTURES = re.compile(
    r"https?://(?:i\.redd\.it|v\.redd\.it|(?:www\.)?reddit\.com/gallery|i\.imgur\.com)/", re.IGNORECASE
)
_NOTHING = frozenset(("", "{}", "[]", "null", "None"))
_BOTS = frozenset(("AutoModerator",))
_OWNER = "owner"
_ZONE = ZoneInfo("UTC")


class RedditReader:
    """Reads the folder of a data request, which says whose it is, or one of its tables, or one dump."""

    name = "reddit"
    accepts = "Reddit data request (zip or CSV), or a dump of comments or posts (JSON Lines, also .zst)"

    def sniff(self, tree: Tree) -> bool:
        """Whether this folder holds nothing but tables of a data request, or this file is one, or a dump."""
        if tree.is_file:
            file = tree.files()[0]
            return _table(tree, file) not in ("", _ABOUT) or _is_dump(tree, file)
        # A folder with folders in it may hold other archives too; its tables are then found one by one.
        return not tree.folders() and any(_table(tree, file) not in ("", _ABOUT) for file in _tables(tree))

    def read(self, tree: Tree) -> Iterator[Message]:
        """Every comment, post, private message and chat message."""
        if tree.is_file and _table(tree, tree.files()[0]) in ("", _ABOUT):
            yield from messages_of(tree, tree.files()[0], _dump_records(tree, tree.files()[0]), _from_dump)
            return
        tables = [(file, kind) for file in _tables(tree) if (kind := _table(tree, file))]
        account = next((name for file, kind in tables if kind == _ABOUT and (name := _account(tree, file))), "")
        converter = _Converter(account)
        converters: dict[str, Callable[[Mapping[str, str], str], Message]] = {
            "comments": converter.comment,
            "posts": converter.post,
            "messages": converter.private,
            "chat": converter.chat,
        }
        for file, kind in tables:
            if kind != _ABOUT:
                yield from messages_of(tree, file, csv_rows(tree, file), converters[kind])


def _tables(tree: Tree) -> list[str]:
    return tree.files() if tree.is_file else [file for file in tree.files() if file.lower().endswith(".csv")]


def _table(tree: Tree, file: str) -> str:
    """Which table of a data request a file is, by its columns; empty when it is none."""
    first = decode_head(tree.head(file, _SNIFFED)).removeprefix("\ufeff").replace("\r", "\n").partition("\n")[0]
    names = {name.strip().strip('"').lower() for name in first.split(",")}
    return next((kind for kind, columns in _COLUMNS.items() if names.issuperset(columns)), "")


def _account(tree: Tree, file: str) -> str:
    """The name of the account that asked for its data."""
    for _, row in csv_rows(tree.unheard(), file):
        if row.get("statistic", "").strip().lower() == "account name":
            return row.get("value", "").strip()
    return ""


class _Converter:
    """Turns rows into messages.

    Args:
        account: whose data it is; empty when that table is missing. Comments and posts are the owner's anyway.
    """

    def __init__(self, account: str) -> None:
        self._account = account

    def comment(self, row: Mapping[str, str], origin: str) -> Message:
        return self._public(
            row,
            origin,
            identity=f"t1_{_plain(row['id'])}",
            kind="reply",
            text=row["body"],
            reply_to=_answered(row.get("parent", ""), row.get("link", "")),
            has_media=row.get("media", "").strip() not in _NOTHING,
        )

    def post(self, row: Mapping[str, str], origin: str) -> Message:
        return self._public(
            row,
            origin,
            identity=f"t3_{_plain(row['id'])}",
            kind="post",
            text=_joined(row["title"], row.get("body", "")),
            reply_to=None,
            has_media=bool(_PICTURES.match(row.get("url", ""))),
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
            sent_at=_time(row["date"]),
            text=html.unescape(_joined("" if subject.lower().startswith("re:") else subject, row["body"])),
            is_owner=self._is_owner(sender),
            chat_name=(receiver if sender == self._account else sender) if self._account else chat,
            mark=_mark(row["body"], sender),
            origin=origin,
        )

    def chat(self, row: Mapping[str, str], origin: str) -> Message:
        sender = row["username"].strip()
        kind: Kind = "dm" if row.get("conversation_type", "").strip().lower() in ("direct", "dm") else "group"
        answered = row.get("thread_parent_message_id", "").strip()
        return Message(
            id=row["message_id"],
            platform=PLATFORM,
            chat=row["channel_url"].strip() or row.get("channel_name", ""),
            kind=kind,
            sender=sender,
            sender_name=sender,
            sent_at=_time(row["created_at"]),
            text=html.unescape(row["message"]),
            is_owner=self._is_owner(sender),
            reply_to=answered if answered not in ("", "0") else None,
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
            sent_at=_time(row["date"]),
            text=html.unescape(text),
            is_owner=True,
            reply_to=reply_to,
            chat_name=_forum(row["subreddit"]),
            mark=_mark(text, self._account) or ("media" if has_media else ""),
            origin=origin,
        )

    def _is_owner(self, sender: str) -> bool | None:
        return sender.lower() == self._account.lower() if self._account else None


def _from_dump(record: Mapping[str, Any], origin: str) -> Message:
    """One comment or post as Reddit's interface gives it, of whatever author."""
    author = str(record["author"])
    is_comment = "body" in record
    text = str(record.get("body") or "") if is_comment else _post_text(record)
    mark = _mark(str(record.get("body") if is_comment else record.get("selftext") or ""), author)
    if not is_comment and not mark:
        if record.get("crosspost_parent"):
            mark = "forward"
        elif record.get("is_gallery") or record.get("is_video") or _PICTURES.match(str(record.get("url") or "")):
            mark = "media"
    return Message(
        id=f"{'t1' if is_comment else 't3'}_{_plain(str(record['id']))}",
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
    return _joined(str(record["title"]), "" if body in _GONE else body)


def _dump_parent(record: Mapping[str, Any]) -> str | None:
    """What a comment answers; in some months of the dumps an id is a number."""
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


def _answered(parent: str, link: str) -> str | None:
    """Id of what a comment answers: its parent, or the post when it has none. Either may be an id or an address."""
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


def _plain(identity: str) -> str:
    return identity.strip().removeprefix("t1_").removeprefix("t3_")


def _forum(subreddit: str) -> str:
    return f"r/{subreddit.strip().removeprefix('r/')}"


def _joined(title: str, body: str) -> str:
    return "\n".join(part for part in (title.strip(), body.strip()) if part)


def _mark(text: str, author: str) -> Mark:
    if text.strip() in _GONE or author == "[deleted]":
        return "deleted"
    if author.lower() in ("reddit", "/r/reddit"):
        return "service"
    return "bot" if author in _BOTS else ""


def _time(text: str) -> datetime:
    """`2023-01-15 12:34:56 UTC`, or ISO 8601."""
    return to_utc(text.strip().removesuffix("UTC").strip(), _ZONE)


def _is_dump(tree: Tree, file: str) -> bool:
    """Whether the first line is an object with what all of Reddit's records have."""
    head = tree.head(file, _SNIFFED)
    if head.startswith(ZSTD):
        text = zstd_head(tree, file, _RECORD_HEAD).decode("utf-8", "replace")
    elif _RECORD.match(head.decode("utf-8", "replace")):
        text = tree.head(file, _RECORD_HEAD).decode("utf-8", "replace")
    else:
        return False
    first = text.lstrip("\ufeff\r\n\t ").partition("\n")[0]
    return first.startswith("{") and bool(_KINDS.search(first)) and all(key.search(first) for key in _KEYS)


def _dump_records(tree: Tree, file: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Line number and object of every line."""
    for number, line in Lines(tree, file):
        if not line.strip():
            continue
        try:
            record = _parsed(line)
        except (*MALFORMED, RecursionError) as error:
            tree.bad(file, tr("record {number}", number=number), error)
            continue
        if isinstance(record, dict):
            yield number, record
        else:
            tree.bad(file, tr("record {number}", number=number), tr("not a JSON object"))


def _parsed(line: bytes) -> Any:
    """A line's value; the fast parser refuses what Reddit's first years hold, the forgiving one does not."""
    try:
        return msgspec.json.decode(line)
    except msgspec.DecodeError:
        return json.loads(line.decode("utf-8-sig", "replace"), strict=False)
