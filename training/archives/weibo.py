"""Reads Weibo posts from weibo-crawler's JSON or CSV files, one account each.

The post that a repost shares is in the file too and becomes a message of its own. The files do not say whether the
account is the owner's, and have no comments; older ones have no time of day, so noon is used. Times are Beijing's.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec

from training.archives.formats.archive_records import array_records, as_object, messages_of, open_json
from training.archives.formats.chat_text import title_of
from training.archives.formats.csv_files import csv_columns, csv_rows
from training.archives.formats.mentions import begins_with_mention
from training.archives.message import Kind, Mark, Message
from training.archives.source_tree import SourceTree

PLATFORM = "weibo"
POSTS = "posts"
"""Chat id of all posts."""

_HEAD = re.compile(rb'^\s*\{\s*"user"\s*:\s*\{')
_USER_KEYS = (b'"screen_name"', b'"statuses_count"')
_COLUMNS = frozenset(("id", "bid", "正文", "日期"))
_ZONE = timezone(timedelta(hours=8))
_NOON = timedelta(hours=12)
_DAY_LENGTH = len("2020-01-31")
_REPOST_CHAIN = re.compile(r"//\s*@[^:：\s/]{1,40}\s*[:：].*", re.DOTALL)
_REPLY_PREFIX = re.compile(r"^回复\s*@[^:：\s]{1,40}\s*[:：]\s*")
_NO_COMMENT = frozenset(("转发微博", "轉發微博", "repost", "快转了", "快转微博"))
_FILLER = re.compile(r"网页链接|查看图片|\u200b|(?:\.\.\.|…+)全文$")
_VIDEO = "的微博视频"
_MEDIA_CAPTIONS = frozenset(("分享图片", "分享视频", "分享單張圖片", "分享圖片"))
"""The captions that the site gives to pictures without a text."""


class WeiboReader:
    """Reads one file."""

    name = "weibo"
    accepts = "Weibo posts from weibo-crawler (JSON or CSV)"

    def sniff(self, tree: SourceTree) -> bool:
        """Whether the file begins with the crawler's account object or CSV columns."""
        if not tree.is_file:
            return False
        file = tree.files()[0]
        plain = tree.head(file).removeprefix(b"\xef\xbb\xbf")
        return bool(_HEAD.match(plain) and all(key in plain for key in _USER_KEYS)) or _is_csv(tree, file)

    def read(self, tree: SourceTree) -> Iterator[Message]:
        """Every post; after a repost, the post that it shares."""
        file = tree.files()[0]
        if _is_csv(tree, file):
            posts = _Posts(_account_of_file(tree.label))
            rows = ((number, _row_as_post(row)) for number, row in csv_rows(tree, file))
            yield from messages_of(tree, file, rows, posts.message, posts.reposted)
            return
        account = _Account("?", "?")
        with open_json(tree, file) as stream:
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
    """The account whose posts are in a file."""

    id: str
    name: str


class _Posts:
    """Turns posts into messages."""

    def __init__(self, account: _Account) -> None:
        self._account = account

    def message(self, post: Mapping[str, Any], origin: str) -> Message:
        """The post itself; for a repost, the writer's comment before the chain of earlier reposts."""
        source = as_object(post.get("retweet"))
        text, words = _cleaned(post, self._account.name), ""
        text = "" if text in _MEDIA_CAPTIONS and _media(post) else text
        is_repost = bool(source) or _REPOST_CHAIN.search(text) is not None
        if is_repost:
            words = _REPLY_PREFIX.sub("", _REPOST_CHAIN.sub("", text)).strip()
            text = "" if words.lower() in _NO_COMMENT else words
        kind: Kind = "quote" if is_repost else "reply" if begins_with_mention(text) else "post"
        return Message(
            id=_post_id(post["id"]),
            platform=PLATFORM,
            chat=POSTS,
            kind=kind,
            sender=self._account.id,
            sender_name=self._account.name,
            sent_at=_time(post),
            text=text,
            reply_to=_post_id(source["id"]) if source.get("id") else None,
            chat_name=self._account.name,
            mark=Mark.RETWEET if is_repost and not text else _media(post),
            origin=origin,
        )

    def reposted(self, post: Mapping[str, Any], message: Message) -> Iterator[Message]:
        """The post that a repost shares. A deleted one has only Weibo's notice, and no author."""
        source = as_object(post.get("retweet"))
        if not source.get("id"):
            return
        writer = str(source.get("user_id") or "")
        kind: Kind = "post"
        yield msgspec.structs.replace(
            message,
            id=_post_id(source["id"]),
            kind=kind,
            sender=writer or "?",
            sender_name=str(source.get("screen_name") or writer or "?"),
            sent_at=_time(source) if source.get("created_at") or source.get("full_created_at") else message.sent_at,
            text=_cleaned(source, str(source.get("screen_name") or "")),
            reply_to=None,
            mark=_media(source) if writer else Mark.DELETED,
        )


def _cleaned(post: Mapping[str, Any], name: str) -> str:
    """The text without the site's placeholders for links, pictures, videos and the rest of a long post."""
    text = _FILLER.sub("", str(post["text"]).strip()).strip()
    return text.removesuffix(f"{name}{_VIDEO}").strip() if name else text


def _media(post: Mapping[str, Any]) -> Mark:
    return Mark.MEDIA if post.get("pics") or post.get("video_url") else Mark.NONE


def _post_id(value: object) -> str:
    """A post's id; CSV files have a tab behind it, so that spreadsheets do not round it. Raises ValueError."""
    return str(int(str(value).strip()))


def _time(post: Mapping[str, Any]) -> datetime:
    """When it was posted. Raises any of RECORD_ERRORS."""
    text = str(post.get("full_created_at") or post["created_at"]).strip()
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = datetime.strptime(text, "%a %b %d %H:%M:%S %z %Y")
    if len(text) <= _DAY_LENGTH:
        time += _NOON
    return (time if time.tzinfo else time.replace(tzinfo=_ZONE)).astimezone(UTC)


def _row_as_post(row: Mapping[str, str]) -> dict[str, Any]:
    """A CSV row in the form of the JSON file."""
    post: dict[str, Any] = _pick_columns(row, "")
    if row.get("源微博id", "").strip():
        source = _pick_columns(row, "源微博")
        post["retweet"] = {
            **source,
            "user_id": row.get("源用户id", "").strip(),
            "screen_name": row.get("源用户昵称", ""),
        }
    return post


def _pick_columns(row: Mapping[str, str], prefix: str) -> dict[str, Any]:
    names = {
        "id": "id",
        "text": "正文",
        "pics": "原始图片url",
        "video_url": "视频url",
        "created_at": "日期",
        "full_created_at": "完整日期",
    }
    return {key: row[prefix + name] for key, name in names.items() if prefix + name in row}


def _is_csv(tree: SourceTree, file: str) -> bool:
    return _COLUMNS.issubset(csv_columns(tree, file))


def _account_of_file(label: str) -> _Account:
    """The account of a CSV file, which the crawler names by id, in a folder with the account's name."""
    stem = title_of(label)
    folder = label.replace("\\", "/").rstrip("/").rpartition("/")[0].rpartition("/")[2]
    return _Account(stem, folder if stem.isdecimal() and folder else stem)
