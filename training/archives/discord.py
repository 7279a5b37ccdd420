"""Discord's own data package: `messages/c<ID>/messages.json` or `.csv`, beside `messages/index.json`.

It holds the owner's messages only, so that every session of it is one person talking; the answers of others
come from other exports. Streams channel by channel. Does not decide what is worth keeping.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any
from zoneinfo import ZoneInfo

from doppel.message import Kind, Message
from training.archives.reading import as_object, csv_rows, json_array, messages_of, to_utc, whole_json
from training.archives.tree import Tree

_CHANNEL = re.compile(r"^c?(\d{15,20})/$")
_HEAD = re.compile(r'^\ufeff?"?ID"?,"?Timestamp"?,"?Contents"?', re.IGNORECASE)
_OWNER = "owner"
_ZONE = ZoneInfo("UTC")
_GROUPS = frozenset(("GUILD_TEXT", "GUILD_VOICE", "GROUP_DM", "PUBLIC_THREAD", "PRIVATE_THREAD", "GUILD_ANNOUNCEMENT"))


class DiscordReader:
    """Reads the folder of messages of a data package, whatever it is called."""

    name = "discord"
    accepts = "Discord data package (zip or folder; it has your own messages only)"

    def sniff(self, tree: Tree) -> bool:
        """Whether this folder holds folders of channels with messages in them."""
        if tree.is_file:
            return False
        return any(_messages_file(tree, folder) for folder in tree.folders()[:8] if _CHANNEL.match(folder))

    def read(self, tree: Tree) -> Iterator[Message]:
        """Every message of every channel."""
        names = as_object(whole_json(tree, "index.json")) if "index.json" in tree.files() else {}
        for folder in tree.folders():
            match = _CHANNEL.match(folder)
            file = _messages_file(tree, folder) if match else None
            if match is None or file is None:
                continue
            about = f"{folder}channel.json"
            channel = as_object(whole_json(tree, about)) if about in tree.files(folder) else {}
            chat = match[1]
            title = str(names.get(chat) or channel.get("name") or chat)
            kind = _kind(channel, title)
            records = json_array(tree, file) if file.lower().endswith(".json") else csv_rows(tree, file)

            def convert(
                record: Mapping[str, Any], origin: str, chat: str = chat, title: str = title, kind: Kind = kind
            ) -> Message:
                return _message(record, chat, title, kind, origin)

            yield from messages_of(tree, file, records, convert)


def _messages_file(tree: Tree, folder: str) -> str | None:
    """The file with a channel's messages, by its form."""
    for name in tree.files(folder):
        low = name.lower()
        if low.endswith("messages.json"):
            return name
        if low.endswith("messages.csv") and _HEAD.match(tree.head(name, 64).decode("utf-8", "replace")):
            return name
    return None


def _kind(channel: Mapping[str, Any], title: str) -> Kind:
    if channel.get("guild") or str(channel.get("type")) in _GROUPS:
        return "group"
    return "dm" if title.startswith("Direct Message with") or str(channel.get("type")) in ("1", "DM") else "group"


def _message(record: Mapping[str, Any], chat: str, title: str, kind: Kind, origin: str) -> Message:
    fields = {key.lower(): value for key, value in record.items()}
    return Message(
        id=str(fields["id"]),
        platform="discord",
        chat=chat,
        kind=kind,
        sender=_OWNER,
        sender_name=_OWNER,
        sent_at=to_utc(fields["timestamp"], _ZONE),
        text=str(fields.get("contents") or ""),
        is_owner=True,
        chat_name=title,
        mark="media" if fields.get("attachments") else "",
        origin=origin,
    )
