"""Reads `parents.jsonl`: other people's posts that the owner replied to or quoted, one JSON object a line.

An archive of tweets or posts has only its owner's side; this file adds the other. A line is `{"id", "author",
"text"}`, and may have `platform` (twitter by default), `name`, `created_at`, and `reply_to`, the id of the post that
it replies to. `{"id", "gone"}` says that a post was deleted. A post is put into the conversation that replies to it.
"""

import html
import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from training.archives.formats.archive_records import json_lines, messages_of
from training.archives.formats.text_lines import decode_head
from training.archives.formats.timestamps import to_utc
from training.archives.message import Mark, Message
from training.archives.source_tree import SourceTree

PARENTS = "parents"
"""Chat id of posts until their conversation is found."""

UNKNOWN = datetime.fromtimestamp(0, UTC)
"""Time of posts without one; the build moves them right before their reply."""

TWITTER = "twitter"
_PLATFORM_ALIASES = {"x": TWITTER}
_KEYS = frozenset(("id", "platform", "author", "name", "text", "created_at", "reply_to", "gone"))
_ZONE = ZoneInfo("UTC")
_SNIFFED = 1 << 17  # a line may have a very long text

# Twitter's ids since November 2010 contain the time, in milliseconds after its epoch.
_FIRST_SNOWFLAKE, _SNOWFLAKE_EPOCH = 29_700_859_247, 1_288_834_974_657
_ENTITY = re.compile(r"&(?:[a-z]+|#\d+|#x[0-9a-f]+);", re.IGNORECASE)
_LEADING_MENTIONS = re.compile(r"^(?:@\w{1,15}\s+)+")


class ParentsReader:
    """Reads one file of parents."""

    name = "parents"
    accepts = "Posts that yours reply to or quote (parents.jsonl)"

    def sniff(self, tree: SourceTree) -> bool:
        """Whether the first line is an object with the fields of a parent and no others."""
        if not tree.is_file:
            return False
        file = tree.files()[0]
        if not decode_head(tree.head(file, 64)).lstrip("\ufeff \t\r\n").startswith("{"):
            return False
        first = decode_head(tree.head(file, _SNIFFED)).lstrip("\ufeff \t\r\n").partition("\n")[0]
        try:
            record = json.loads(first, strict=False)
        except (ValueError, RecursionError):
            return False
        if not isinstance(record, dict) or not record.keys() <= _KEYS:
            return False
        return "id" in record and ("gone" in record or {"author", "text"} <= record.keys())

    def read(self, tree: SourceTree) -> Iterator[Message]:
        """Every line; deleted posts are marked so."""
        file = tree.files()[0]
        yield from messages_of(tree, file, json_lines(tree, file), _message)


def time_of_post(platform: str, post: str) -> datetime:
    """When a post was written, from its id; UNKNOWN if the id does not contain it."""
    if platform != TWITTER or not post.isdecimal() or not _FIRST_SNOWFLAKE < int(post) < 1 << 63:
        return UNKNOWN
    seconds = ((int(post) >> 22) + _SNOWFLAKE_EPOCH) // 1000  # as precise as the archive
    return datetime.fromtimestamp(seconds, UTC)


def _message(record: Mapping[str, Any], origin: str) -> Message:
    platform = _as_id(record.get("platform") or TWITTER).lower()
    platform = _PLATFORM_ALIASES.get(platform, platform)
    post = _as_id(record["id"])
    created, reply_to = record.get("created_at"), record.get("reply_to")
    is_gone = "gone" in record
    author = "" if is_gone else _as_id(record["author"]).removeprefix("@")
    text = "" if is_gone else str(record["text"])
    if platform == TWITTER:  # escaped, and a reply begins with mentions, in its API as in its archive
        text = _ENTITY.sub(lambda entity: html.unescape(entity[0]), text)
        text = _LEADING_MENTIONS.sub("", text) if reply_to else text
    return Message(
        id=post,
        platform=platform,
        chat=PARENTS,
        kind="post",
        sender=author,
        sender_name=_as_id(record.get("name") or author or "?"),
        sent_at=to_utc(str(created), _ZONE) if created else time_of_post(platform, post),
        text=text,
        is_owner=False,
        reply_to=_as_id(reply_to) if reply_to else None,
        chat_name=PARENTS,
        mark=Mark.DELETED if is_gone else Mark.NONE,
        origin=origin,
    )


def _as_id(value: Any) -> str:
    """An id, which may be a number. Raises TypeError for other types, ValueError for an empty one."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise TypeError(value)
    text = str(value).strip()
    text.encode()  # raises for lone surrogates
    if not text:
        raise ValueError(value)
    return text
