"""Weibo posts as weibo-crawler writes them, JSON or CSV: one account a file.

What a repost is about is in the file too and becomes a message of its own. Not known: whether the account is the
owner's, comments, and in older files the time of day (noon is taken). Times are Beijing's.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec

from training.archives.formats.chat_logs import file_title
from training.archives.formats.records import array_records, as_object, csv_rows, json_stream, messages_of
from training.archives.formats.text_lines import decode_head
from training.archives.message import Kind, Mark, Message
from training.archives.source_tree import Tree

PLATFORM = "weibo"
POSTS = "posts"
"""Chat id of all posts."""

_HEAD = re.compile(rb'^\s*\{\s*"user"\s*:\s*\{')
_OF_USER = (b'"screen_name"', b'"statuses_count"')
_COLUMNS = frozenset(("id", "bid", "正文", "日期"))
_ZONE = timezone(timedelta(hours=8))
_NOON = timedelta(hours=12)
_DAY_LENGTH = len("2020-01-31")
_CHAIN = re.compile(r"//\s*@[^:：\s/]{1,40}\s*[:：].*", re.DOTALL)
_ANSWER = re.compile(r"^回复\s*@[^:：\s]{1,40}\s*[:：]\s*")
_EMPTY = frozenset(("转发微博", "轉發微博", "repost", "快转了", "快转微博"))
_FILLER = re.compile(r"网页链接|查看图片|\u200b|(?:\.\.\.|…+)全文$")
_VIDEO = "的微博视频"
_PICTURES = frozenset(("分享图片", "分享视频", "分享單張圖片", "分享圖片"))
"""What the site writes to pictures that come without words."""


class WeiboReader:
    """Reads one file."""

    name = "weibo"
    accepts = "Weibo posts from weibo-crawler (JSON or CSV)"

    def sniff(self, tree: Tree) -> bool:
        """Whether the file begins with the account as the crawler describes it, or with its columns."""
        if not tree.is_file:
            return False
        head = tree.head(tree.files()[0])
        plain = head.removeprefix(b"\xef\xbb\xbf")
        return bool(_HEAD.match(plain) and all(key in plain for key in _OF_USER)) or _is_table(head)

    def read(self, tree: Tree) -> Iterator[Message]:
        """Every post, and after a repost what it is about."""
        file = tree.files()[0]
        if _is_table(tree.head(file)):
            posts = _Posts(_account_of_file(tree.label))
            rows = ((number, _of_row(row)) for number, row in csv_rows(tree, file))
            yield from messages_of(tree, file, rows, posts.message, posts.reposted)
            return
        account = _Account("?", "?")
        with json_stream(tree, file) as stream:
            for key in stream.members():
                if key == "user" and stream.peek() == "{":
                    user = stream.value()
                    account = _Account(
                        str(user.get("id") or "?"), str(user.get("screen_name") or user.get("id") or "?")
                    )
                elif key == "weibo" and stream.peek() == "[":
                    posts = _Posts(account)
                    yield from messages_of(tree, file, array_records(tree, file, stream), posts.message, posts.reposted)
                else:
                    stream.skip()


class _Account(msgspec.Struct, frozen=True):
    """Whose posts a file holds."""

    id: str
    name: str


class _Posts:
    """Turns posts into messages."""

    def __init__(self, account: _Account) -> None:
        self._account = account

    def message(self, post: Mapping[str, Any], origin: str) -> Message:
        """The post itself; of a repost, what its writer put before the chain of earlier ones."""
        source = as_object(post.get("retweet"))
        text, words = _cleaned(post, self._account.name), ""
        text = "" if text in _PICTURES and _media(post) else text
        is_repost = bool(source) or _CHAIN.search(text) is not None
        if is_repost:
            words = _ANSWER.sub("", _CHAIN.sub("", text)).strip()
            text = "" if words.lower() in _EMPTY else words
        return Message(
            id=_number(post["id"]),
            platform=PLATFORM,
            chat=POSTS,
            kind="quote" if is_repost else "post",
            sender=self._account.id,
            sender_name=self._account.name,
            sent_at=_time(post),
            text=text,
            reply_to=_number(source["id"]) if source.get("id") else None,
            chat_name=self._account.name,
            mark="retweet" if is_repost and not text else _media(post),
            origin=origin,
        )

    def reposted(self, post: Mapping[str, Any], message: Message) -> Iterator[Message]:
        """What a repost is about. Of a post that is gone only a notice of Weibo's is left, and nobody's name."""
        source = as_object(post.get("retweet"))
        if not source.get("id"):
            return
        writer = str(source.get("user_id") or "")
        kind: Kind = "post"
        yield msgspec.structs.replace(
            message,
            id=_number(source["id"]),
            kind=kind,
            sender=writer or "?",
            sender_name=str(source.get("screen_name") or writer or "?"),
            sent_at=_time(source) if source.get("created_at") or source.get("full_created_at") else message.sent_at,
            text=_cleaned(source, str(source.get("screen_name") or "")),
            reply_to=None,
            mark=_media(source) if writer else "deleted",
        )


def _cleaned(post: Mapping[str, Any], name: str) -> str:
    """The text without what the site puts in place of links, pictures, videos and the rest of a long post."""
    text = _FILLER.sub("", str(post["text"]).strip()).strip()
    return text.removesuffix(f"{name}{_VIDEO}").strip() if name else text


def _media(post: Mapping[str, Any]) -> Mark:
    return "media" if post.get("pics") or post.get("video_url") else ""


def _number(value: object) -> str:
    """A post's id; tables have a tab behind it, so that spreadsheets leave it alone. Raises ValueError."""
    return str(int(str(value).strip()))


def _time(post: Mapping[str, Any]) -> datetime:
    """When it was posted. Raises what is `MALFORMED`."""
    text = str(post.get("full_created_at") or post["created_at"]).strip()
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = datetime.strptime(text, "%a %b %d %H:%M:%S %z %Y")
    if len(text) <= _DAY_LENGTH:
        time += _NOON
    return (time if time.tzinfo else time.replace(tzinfo=_ZONE)).astimezone(UTC)


def _of_row(row: Mapping[str, str]) -> dict[str, Any]:
    """A row as the JSON has it."""
    post: dict[str, Any] = _of_columns(row, "")
    if row.get("源微博id", "").strip():
        source = _of_columns(row, "源微博")
        post["retweet"] = {
            **source,
            "user_id": row.get("源用户id", "").strip(),
            "screen_name": row.get("源用户昵称", ""),
        }
    return post


def _of_columns(row: Mapping[str, str], prefix: str) -> dict[str, Any]:
    names = {
        "id": "id",
        "text": "正文",
        "pics": "原始图片url",
        "video_url": "视频url",
        "created_at": "日期",
        "full_created_at": "完整日期",
    }
    return {key: row[prefix + name] for key, name in names.items() if prefix + name in row}


def _is_table(head: bytes) -> bool:
    first = decode_head(head).lstrip("\ufeff").replace("\r", "\n").partition("\n")[0]
    return _COLUMNS.issubset(name.strip().strip('"').lower() for name in first.split(","))


def _account_of_file(label: str) -> _Account:
    """A table does not name its account, but the crawler names it so, in a folder of the account's name."""
    stem = file_title(label)
    folder = label.replace("\\", "/").rstrip("/").rpartition("/")[0].rpartition("/")[2]
    return _Account(stem, folder if stem.isdecimal() and folder else stem)
