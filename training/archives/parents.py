"""`parents.jsonl`: posts of others that the owner answered or quoted, one JSON object a line.

An archive of tweets or posts holds only its owner's side; this file brings the other. A line is `{"id", "author",
"text"}`, and may have `platform` (twitter where it is missing), `name`, `created_at`, and `reply_to`, the id of the
post that it answers itself. `{"id", "gone"}` says that a post is no longer to be had. Which conversation a post
belongs to is not in the file: it goes to the one that answers it.
"""

import html
import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from training.archives.formats.records import json_lines, messages_of, to_utc
from training.archives.formats.text_lines import decode_head
from training.archives.message import Message
from training.archives.source_tree import Tree

PARENTS = "parents"
"""Chat of posts whose conversation is yet to be found."""

UNKNOWN = datetime.fromtimestamp(0, UTC)
"""When a post was written that does not say so; it is set right before its answer."""

TWITTER = "twitter"
_SHORT = {"x": TWITTER}
_KEYS = frozenset(("id", "platform", "author", "name", "text", "created_at", "reply_to", "gone"))
_ZONE = ZoneInfo("UTC")
_SNIFFED = 1 << 17  # a line may hold the longest text there is

# Twitter's ids since November 2010 hold the time, in milliseconds after its epoch.
_FIRST_SNOWFLAKE, _SNOWFLAKE_EPOCH = 29_700_859_247, 1_288_834_974_657
_ENTITY = re.compile(r"&(?:[a-z]+|#\d+|#x[0-9a-f]+);", re.IGNORECASE)
_LEADING_MENTIONS = re.compile(r"^(?:@\w{1,15}\s+)+")


class ParentsReader:
    """Reads one file of parents."""

    name = "parents"
    accepts = "Posts that yours reply to or quote (parents.jsonl)"

    def sniff(self, tree: Tree) -> bool:
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

    def read(self, tree: Tree) -> Iterator[Message]:
        """Every line; those that are gone are marked as deleted."""
        file = tree.files()[0]
        yield from messages_of(tree, file, json_lines(tree, file), _message)


def written_at(platform: str, post: str) -> datetime:
    """When a post was written, by its id; `UNKNOWN` where that does not say."""
    if platform != TWITTER or not post.isdecimal() or not _FIRST_SNOWFLAKE < int(post) < 1 << 63:
        return UNKNOWN
    seconds = ((int(post) >> 22) + _SNOWFLAKE_EPOCH) // 1000  # an archive has whole seconds
    return datetime.fromtimestamp(seconds, UTC)


def _message(record: Mapping[str, Any], origin: str) -> Message:
    platform = _plain(record.get("platform") or TWITTER).lower()
    platform = _SHORT.get(platform, platform)
    post = _plain(record["id"])
    created, answered = record.get("created_at"), record.get("reply_to")
    is_gone = "gone" in record
    author = "" if is_gone else _plain(record["author"]).removeprefix("@")
    text = "" if is_gone else str(record["text"])
    if platform == TWITTER:  # as its API gives it, and its archive: escaped, with the names that an answer begins with
        text = _ENTITY.sub(lambda found: html.unescape(found[0]), text)
        text = _LEADING_MENTIONS.sub("", text) if answered else text
    return Message(
        id=post,
        platform=platform,
        chat=PARENTS,
        kind="post",
        sender=author,
        sender_name=_plain(record.get("name") or author or "?"),
        sent_at=to_utc(str(created), _ZONE) if created else written_at(platform, post),
        text=text,
        is_owner=False,
        reply_to=_plain(answered) if answered else None,
        chat_name=PARENTS,
        mark="deleted" if is_gone else "",
        origin=origin,
    )


def _plain(value: Any) -> str:
    """An id, also one that was written as a number. Raises TypeError for what is none, ValueError for nothing."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise TypeError(value)
    text = str(value).strip()
    text.encode()  # half of a character is refused here
    if not text:
        raise ValueError(value)
    return text
