"""Discord's own data package: `messages/c<ID>/messages.json` or `.csv`, beside `messages/index.json`.

It holds the owner's messages only, so that every session of it is one person talking; the answers of others
come from other exports. Streams channel by channel. Does not decide what is worth keeping.
"""

import csv
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from doppel.i18n import tr
from doppel.message import Kind, Message
from training.archives.json_stream import DamagedJSON, JsonStream
from training.archives.text_lines import text_lines
from training.archives.tree import Tree

_CHANNEL = re.compile(r"^c?(\d{15,20})/$")
_HEAD = re.compile(r'^\ufeff?"?ID"?,"?Timestamp"?,"?Contents"?', re.IGNORECASE)
_OWNER = "owner"
_SMALL = 1 << 24
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
        names = _object(tree, "index.json") if "index.json" in tree.files() else {}
        for folder in tree.folders():
            match = _CHANNEL.match(folder)
            file = _messages_file(tree, folder) if match else None
            if match is None or file is None:
                continue
            channel = _object(tree, f"{folder}channel.json") if f"{folder}channel.json" in tree.files(folder) else {}
            chat = match[1]
            title = str(names.get(chat) or channel.get("name") or chat)
            kind = _kind(channel, title)
            for position, record in _records(tree, file):
                try:
                    yield _message(record, chat, title, kind, f"{file}:{position}")
                except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
                    tree.bad(file, tr("message {number}", number=position), error)


def _messages_file(tree: Tree, folder: str) -> str | None:
    """The file with a channel's messages, by its form."""
    for name in tree.files(folder):
        low = name.lower()
        if low.endswith("messages.json"):
            return name
        if low.endswith("messages.csv") and _HEAD.match(tree.head(name, 64).decode("utf-8", "replace")):
            return name
    return None


def _kind(channel: dict[str, Any], title: str) -> Kind:
    if channel.get("guild") or str(channel.get("type")) in _GROUPS:
        return "group"
    return "dm" if title.startswith("Direct Message with") or str(channel.get("type")) in ("1", "DM") else "group"


def _object(tree: Tree, name: str) -> dict[str, Any]:
    """A small JSON object; {} and a bad record where it is none."""
    with tree.open(name) as file:
        try:
            content = json.loads(file.read(_SMALL))
        except (ValueError, RecursionError) as error:
            tree.bad(name, tr("end"), error)
            return {}
    return content if isinstance(content, dict) else {}


def _records(tree: Tree, file: str) -> Iterator[tuple[int, dict[str, Any]]]:
    if file.lower().endswith(".json"):
        yield from _json_records(tree, file)
    else:
        yield from _csv_records(tree, file)


def _json_records(tree: Tree, file: str) -> Iterator[tuple[int, dict[str, Any]]]:
    with tree.open(file) as stream_of_bytes:
        stream = JsonStream(stream_of_bytes)
        try:
            yield from stream.records(
                lambda number, reason: tree.bad(file, tr("message {number}", number=number), reason)
            )
        except DamagedJSON as damage:
            if not stream.lost:
                tree.bad(file, tr("end"), str(damage))


def _csv_records(tree: Tree, file: str) -> Iterator[tuple[int, dict[str, Any]]]:
    with tree.open(file) as stream:
        lines = (line + "\n" for _, line in text_lines(stream, tree.head(file)))
        rows = csv.DictReader(lines)
        number = 0
        while True:
            number += 1
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                tree.bad(file, tr("message {number}", number=number), error)
                continue
            yield number, row


def _message(record: dict[str, Any], chat: str, title: str, kind: Kind, origin: str) -> Message:
    sent_at = datetime.fromisoformat(record["Timestamp"])
    return Message(
        id=str(record["ID"]),
        platform="discord",
        chat=chat,
        kind=kind,
        sender=_OWNER,
        sender_name=_OWNER,
        sent_at=(sent_at if sent_at.tzinfo else sent_at.replace(tzinfo=UTC)).astimezone(UTC),
        text=str(record.get("Contents") or ""),
        is_owner=True,
        chat_name=title,
        mark="media" if record.get("Attachments") else "",
        origin=origin,
    )
