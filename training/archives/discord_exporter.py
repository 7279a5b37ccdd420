"""DiscordChatExporter's JSON: one channel, or a part of one, a file. Does not know whose archive it is.

Streams message by message. Does not decide what is worth keeping.
"""

import re
from collections.abc import Iterator
from typing import Any
from zoneinfo import ZoneInfo

from doppel.message import Kind, Mark, Message
from training.archives.json_stream import JsonStream
from training.archives.reading import array_records, json_stream, messages_of, to_utc
from training.archives.tree import Tree

_BEGINNING = re.compile(rb'^\s*\{\s*"guild"\s*:\s*\{')
_CHANNEL = re.compile(rb'"channel"\s*:\s*\{')
_ZONE = ZoneInfo("UTC")
_SAID = frozenset(("Default", "Reply", "0", "19"))
_PRIVATE = frozenset(("DirectTextChat", "1"))


class DiscordExporterReader:
    """Reads one exported file; parts of a channel have the same ids and so become one chat."""

    name = "discord-exporter"
    accepts = "DiscordChatExporter (JSON)"

    def sniff(self, tree: Tree) -> bool:
        """Whether the file begins with a guild and a channel."""
        if not tree.is_file:
            return False
        head = tree.head(tree.files()[0]).removeprefix(b"\xef\xbb\xbf")
        return bool(_BEGINNING.match(head) and _CHANNEL.search(head))

    def read(self, tree: Tree) -> Iterator[Message]:
        """Every record of the file."""
        name = tree.files()[0]
        guild: dict[str, Any] = {}
        channel: dict[str, Any] = {}
        with json_stream(tree, name) as stream:
            for key in stream.members():
                if key == "messages" and stream.peek() == "[":
                    yield from _messages(tree, name, stream, guild, channel)
                elif key in ("guild", "channel") and stream.peek() == "{":
                    value = stream.value()
                    guild, channel = (value, channel) if key == "guild" else (guild, value)
                else:
                    stream.skip()


def _messages(
    tree: Tree, file: str, stream: JsonStream, guild: dict[str, Any], channel: dict[str, Any]
) -> Iterator[Message]:
    title = str(channel.get("name") or "")
    chat = str(channel.get("id") or title)
    kind: Kind = "dm" if str(channel.get("type")) in _PRIVATE else "group"
    chat_name = title if kind == "dm" or not guild.get("name") else f"{guild['name']} #{title}"

    def convert(record: dict[str, Any], origin: str) -> Message:
        return _message(record, chat, chat_name, kind, origin)

    yield from messages_of(tree, file, array_records(tree, file, stream, fence='"messageCount"'), convert)


def _message(record: dict[str, Any], chat: str, chat_name: str, kind: Kind, origin: str) -> Message:
    author = record["author"]
    reference = record.get("reference") or {}
    # A reference to another channel is a forward or a crosspost, and an id there means nothing here.
    answered = reference.get("messageId") if str(reference.get("channelId") or chat) == chat else None
    return Message(
        id=str(record["id"]),
        platform="discord",
        chat=chat,
        kind=kind,
        sender=str(author["id"]),
        sender_name=str(author.get("nickname") or author.get("name") or author["id"]),
        sent_at=to_utc(record["timestamp"], _ZONE),
        text=str(record.get("content") or ""),
        reply_to=None if answered is None else str(answered),
        chat_name=chat_name or chat,
        mark=_mark(record, author),
        origin=origin,
    )


def _mark(record: dict[str, Any], author: dict[str, Any]) -> Mark:
    if author.get("isBot"):
        return "bot"
    if str(record.get("type", "Default")) not in _SAID:
        return "service"
    if record.get("forwardedMessage"):
        return "forward"
    if record.get("stickers"):
        return "sticker"
    return "media" if record.get("attachments") else ""
