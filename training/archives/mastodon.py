"""Reads Mastodon's archive: `outbox.json` with the posts, replies, boosts and private messages of one account.

Private posts become conversations. Other people's posts are not in the archive; a boost is only an address.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any
from zoneinfo import ZoneInfo

from training.archives.formats.archive_records import array_records, as_object, messages_of, open_json
from training.archives.formats.html_text import html_text
from training.archives.formats.json_outline import outline, sampled_objects
from training.archives.formats.mentions import begins_with_mention
from training.archives.formats.timestamps import to_utc
from training.archives.message import Kind, Mark, Message
from training.archives.source_tree import SourceTree

_HEAD = re.compile(rb'"type"\s*:\s*"OrderedCollection"')
_CONTEXT = re.compile(rb'^(?:\xef\xbb\xbf)?\s*\{\s*"@context"')
_PUBLIC = ("https://www.w3.org/ns/activitystreams#Public", "as:Public", "Public")
_MENTIONS = re.compile(r"^(?:@[\w.\-]+(?:@[\w.\-]+)?\s+)+")
_QUOTE_LINK = re.compile(
    r"<(?P<tag>p|span)[^>]*\bclass=[\"'][^\"']*\bquote-inline\b[^>]*>.*?</(?P=tag)>", re.IGNORECASE | re.DOTALL
)
"""Repeats the quoted post's address for servers without quotes."""
_ZONE = ZoneInfo("UTC")

POSTS = "posts"
"""Chat id of all public posts. Ids are addresses, so replies between several people's archives make threads."""


class MastodonReader:
    """Reads one outbox."""

    name = "mastodon"
    accepts = "Mastodon archive (outbox.json)"

    def sniff(self, tree: SourceTree) -> bool:
        """Whether the file begins like a collection of activities."""
        if not tree.is_file:
            return False
        head = tree.head(tree.files()[0])
        if _CONTEXT.match(head) and _HEAD.search(head) and b"ordereditems" in head.lower():
            return True
        return b"{" in head[:16] and _is_outbox(as_object(outline(tree, tree.files()[0])))

    def read(self, tree: SourceTree) -> Iterator[Message]:
        """Every activity of the outbox."""
        file = tree.files()[0]
        with open_json(tree, file) as stream:
            for key in stream.members():
                if key == "orderedItems" and stream.peek() == "[":
                    yield from messages_of(tree, file, array_records(tree, file, stream), _message)
                else:
                    stream.skip()


def _is_outbox(content: Mapping[str, Any]) -> bool:
    """Whether an outline is that of a collection of activities, in any order of keys."""
    items = content.get("orderedItems")
    if content.get("type") == "OrderedCollection" and isinstance(items, list):
        return not items or any({"type", "actor"} <= item.keys() for item in sampled_objects(items))
    return any({"type", "actor", "object", "published"} <= item.keys() for item in sampled_objects(items))


def _message(activity: Mapping[str, Any], origin: str) -> Message:
    note = as_object(activity.get("object"))
    actor = str(activity["actor"])
    name = actor.rstrip("/").rpartition("/")[2]
    kind, chat = _kind(activity, note, actor)
    replied_to, quoted = note.get("inReplyTo"), _quoted(note)
    content = str(note.get("content") or "")
    text = html_text(_QUOTE_LINK.sub("", content) if quoted else content)
    if replied_to or kind == "dm":
        text = _MENTIONS.sub("", text)
    is_addressed = kind == "post" and begins_with_mention(text)
    if summary := str(note.get("summary") or "").strip():
        text = f"{summary}\n{text}"
    return Message(
        id=str(note.get("id") or activity["id"]),
        platform="mastodon",
        chat=chat,
        kind="reply" if is_addressed else kind,
        sender=actor,
        sender_name=name,
        sent_at=to_utc(str(note.get("published") or activity["published"]), _ZONE),
        text=text,
        is_owner=True,
        reply_to=replied_to if isinstance(replied_to, str) else quoted,
        chat_name=name,
        mark=_mark(activity, note),
        is_one_sided=kind in ("dm", "group"),
        origin=origin,
    )


def _kind(activity: Mapping[str, Any], note: Mapping[str, Any], actor: str) -> tuple[Kind, str]:
    """Kind and chat. A note that is neither public nor for followers is a conversation with its addressees."""
    to = [address for holder in (activity, note) for key in ("to", "cc") for address in _addresses(holder.get(key))]
    if note and to and not any(address in _PUBLIC or address.endswith("/followers") for address in to):
        others = sorted({address for address in to if address != actor})
        return ("dm" if len(others) <= 1 else "group"), " ".join(others) or actor
    return ("reply" if note.get("inReplyTo") else "quote" if _quoted(note) else "post"), POSTS


def _quoted(note: Mapping[str, Any]) -> str | None:
    """Address of the quoted post; servers name the field differently."""
    addresses = (note.get(key) for key in ("quote", "quoteUri", "quoteUrl", "_misskey_quote"))
    return next((address for address in addresses if isinstance(address, str) and address), None)


def _addresses(value: Any) -> list[str]:
    return [str(address) for address in value] if isinstance(value, list) else [str(value)] if value else []


def _mark(activity: Mapping[str, Any], note: Mapping[str, Any]) -> Mark:
    if activity.get("type") == "Announce":
        return Mark.RETWEET
    if activity.get("type") != "Create" or note.get("type") not in ("Note", "Question", "Article"):
        return Mark.SERVICE
    return Mark.MEDIA if note.get("attachment") else Mark.NONE
