"""Instagram's and Messenger's download in JSON: a folder a conversation with `message_1.json`, `message_2.json`, …

The newest message stands first, and text is UTF-8 that was read as Latin-1, except in the end-to-end encrypted
form. Keeps one file in memory at a time, 10,000 messages at most as Meta cuts them. Judges nothing.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec

from doppel.i18n import tr
from doppel.message import Kind, Mark, Message
from training.archives.json_stream import DamagedJSON, JsonStream
from training.archives.tree import Tree

_FILE = re.compile(r"(?:^|/)message_(\d+)\.json$")
_HEAD = re.compile(rb'^\s*\{\s*"participants"\s*:\s*\[')
_SECRET_HEAD = re.compile(rb'^\s*\{\s*"participants"\s*:\s*\[\s*"')
_MEDIA = frozenset(("photos", "videos", "audio_files", "gifs", "files", "share", "media", "call_duration"))
_REACTED = re.compile(r"^(?:Reacted .+ to your message|Liked a message|.+ liked a message)\s*$")


class MetaReader:
    """Reads one conversation: the folder of its files. Who of the participants is the owner it does not know."""

    name = "meta"
    accepts = "Instagram or Facebook Messenger download (JSON)"

    def sniff(self, tree: Tree) -> bool:
        """Whether this folder holds a conversation, or this file is one of the encrypted form."""
        if tree.is_file:
            name = tree.files()[0]
            return not _FILE.search(name) and bool(_SECRET_HEAD.match(tree.head(name)))
        files = _files(tree)
        return bool(files) and bool(_HEAD.match(tree.head(files[0])))

    def read(self, tree: Tree) -> Iterator[Message]:
        """Every message, oldest first within each file."""
        for name in [tree.files()[0]] if tree.is_file else _files(tree):
            conversation, records = _load(tree, name)
            thread = conversation.thread(tree.label)
            for position, record in reversed(records):
                try:
                    yield _message(record, conversation, thread, f"{name}:{position}")
                except (KeyError, TypeError, ValueError, AttributeError, OverflowError, OSError) as error:
                    tree.bad(name, tr("message {number}", number=position), error)


class _Conversation(msgspec.Struct):
    """What a file says of its conversation."""

    participants: list[str] = []
    title: str = ""
    path: str = ""

    def thread(self, label: str) -> str:
        """A stable id: the path within the download, which every part has."""
        return self.path or self.title or label

    @property
    def platform(self) -> str:
        return "instagram" if "instagram" in self.path else "messenger"

    @property
    def kind(self) -> Kind:
        return "dm" if len(self.participants) <= 2 else "group"


def _files(tree: Tree) -> list[str]:
    """The parts of a conversation, the oldest first: the highest number."""
    found = [(int(match[1]), name) for name in tree.files() if (match := _FILE.search(name))]
    return [name for _, name in sorted(found, reverse=True)]


def _load(tree: Tree, name: str) -> tuple[_Conversation, list[tuple[int, dict[str, Any]]]]:
    conversation = _Conversation()
    records: list[tuple[int, dict[str, Any]]] = []
    with tree.open(name) as file:
        stream = JsonStream(file)
        try:
            for key in stream.members():
                if key == "messages" and stream.peek() == "[":
                    records += stream.records(
                        lambda number, reason: tree.bad(name, tr("message {number}", number=number), reason)
                    )
                elif key in ("participants", "title", "thread_path", "threadName"):
                    _note(conversation, key, stream.value())
                else:
                    stream.skip()
        except DamagedJSON as damage:
            if not stream.lost:
                tree.bad(name, tr("end"), str(damage))
    return conversation, records


def _note(conversation: _Conversation, key: str, value: Any) -> None:
    if key == "participants" and isinstance(value, list):
        names = [one.get("name") if isinstance(one, dict) else one for one in value]
        conversation.participants = [mended(str(name)) for name in names if name]
    elif key == "thread_path":
        conversation.path = str(value)
    elif isinstance(value, str):
        conversation.title = mended(value)


def _message(record: dict[str, Any], conversation: _Conversation, thread: str, origin: str) -> Message:
    milliseconds = record.get("timestamp_ms", record.get("timestamp"))
    sender = mended(str(record.get("sender_name") or record["senderName"]))
    text = mended(str(record.get("content") or record.get("text") or ""))
    sent_at = datetime.fromtimestamp(int(milliseconds) / 1000, UTC)  # type: ignore[arg-type]
    return Message(
        id=f"{milliseconds}-{sender}",
        platform=conversation.platform,
        chat=thread,
        kind=conversation.kind,
        sender=sender,
        sender_name=sender,
        sent_at=sent_at,
        text=text,
        chat_name=conversation.title or thread,
        mark=_mark(record, text),
        origin=origin,
    )


def _mark(record: dict[str, Any], text: str) -> Mark:
    if record.get("is_unsent") or record.get("isUnsent"):
        return "deleted"
    if record.get("sticker"):
        return "sticker"
    if _REACTED.match(text) or str(record.get("type", "Generic")) in (
        "Subscribe",
        "Unsubscribe",
        "Call",
        "placeholder",
    ):
        return "service"
    return "media" if any(record.get(key) for key in _MEDIA) else ""


def mended(text: str) -> str:
    """Text whose UTF-8 bytes were written as Latin-1 characters; text that was not stays as it is."""
    if text.isascii():
        return text
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text
