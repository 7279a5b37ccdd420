"""Instagram's and Messenger's download in JSON: a folder a conversation with `message_1.json`, `message_2.json`, …

The newest message stands first, and text is UTF-8 that was read as Latin-1, except in the end-to-end encrypted
form. Keeps one file in memory at a time, 10,000 messages at most as Meta cuts them. Judges nothing.
"""

import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec

from training.archives.formats.reactions import reactions_to
from training.archives.formats.records import array_records, as_object, json_stream, messages_of
from training.archives.message import Kind, Mark, Message
from training.archives.meta.notices import Notices
from training.archives.source_tree import Tree

_FILE = re.compile(r"(?:^|/)message(?:_(\d+))?\.json$")
_HEAD = re.compile(rb'^(?:\xef\xbb\xbf)?\s*\{\s*"participants"\s*:\s*\[')
_SECRET_HEAD = re.compile(rb'^(?:\xef\xbb\xbf)?\s*\{\s*"participants"\s*:\s*\[\s*"')
_MEDIA = frozenset(("photos", "videos", "audio_files", "gifs", "files", "share", "media"))
_NO_TALK = frozenset(("subscribe", "unsubscribe", "call", "placeholder"))


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
        """Every message, oldest first."""
        seen: Counter[str] = Counter()
        for name in [tree.files()[0]] if tree.is_file else _files(tree):
            conversation, records = _load(tree, name)
            conversation.settle(tree.label)
            if len(records) > 1 and _is_newest_first(records):
                records.reverse()

            def convert(record: dict[str, Any], origin: str, conversation: _Conversation = conversation) -> Message:
                return _message(record, conversation, seen, origin)

            yield from messages_of(tree, name, iter(records), convert, _reactions)


class _Conversation(msgspec.Struct):
    """What a file says of its conversation."""

    participants: list[str] = []
    title: str = ""
    path: str = ""
    is_instagram: bool = False
    notices: Notices = Notices(())

    def settle(self, label: str) -> None:
        """Says where the conversation is. Only the folders of a download tell Instagram from Messenger."""
        self.is_instagram = "instagram" in f"{label}/{self.path}".lower()
        self.path = self.path or self.title or label
        self.notices = Notices(self.participants)

    @property
    def platform(self) -> str:
        return "instagram" if self.is_instagram else "messenger"

    @property
    def kind(self) -> Kind:
        return "dm" if len(self.participants) <= 2 else "group"


def _files(tree: Tree) -> list[str]:
    """The parts of a conversation, the oldest first: the highest number."""
    found = [(int(match[1] or 1), name) for name in tree.files() if (match := _FILE.search(name))]
    return [name for _, name in sorted(found, reverse=True)]


def _load(tree: Tree, name: str) -> tuple[_Conversation, list[tuple[int, dict[str, Any]]]]:
    conversation = _Conversation()
    records: list[tuple[int, dict[str, Any]]] = []
    with json_stream(tree, name) as stream:
        for key in stream.members():
            if key == "messages" and stream.peek() == "[":
                records += array_records(tree, name, stream)
            elif key in ("participants", "title", "thread_path", "threadName"):
                _note(conversation, key, stream.value())
            else:
                stream.skip()
    return conversation, records


def _note(conversation: _Conversation, key: str, value: Any) -> None:
    if key == "participants" and isinstance(value, list):
        names = [one.get("name") if isinstance(one, dict) else one for one in value]
        conversation.participants = [mended(str(name)) for name in names if name]
    elif key == "thread_path":
        conversation.path = str(value)
    elif isinstance(value, str):
        conversation.title = mended(value)


def _message(record: dict[str, Any], conversation: _Conversation, seen: Counter[str], origin: str) -> Message:
    is_clean = "senderName" in record  # the encrypted form
    milliseconds = int(record["timestamp"] if is_clean else record["timestamp_ms"])
    mend = str if is_clean else mended
    sender = mend(str(record["senderName"] if is_clean else record["sender_name"]))
    text = mend(str(record.get("text" if is_clean else "content") or ""))
    mark = _mark(record, text, conversation)
    key = f"{milliseconds}-{sender}"
    seen[key] += 1  # a burst may share a millisecond
    return Message(
        id=f"{key}-{seen[key]}",
        platform=conversation.platform,
        chat=conversation.path,
        kind=conversation.kind,
        sender=sender,
        sender_name=sender,
        sent_at=datetime.fromtimestamp(milliseconds / 1000, UTC),
        text="" if mark == "media" and conversation.notices.stands_for_file(text) else text,
        chat_name=conversation.title or conversation.path,
        mark=mark,
        origin=origin,
    )


def _reactions(record: dict[str, Any], message: Message) -> Iterator[Message]:
    mend = str if "senderName" in record else mended
    people = [(mend(str(one["actor"])), mend(str(one.get("reaction") or ""))) for one in record.get("reactions") or ()]
    yield from reactions_to(message, ((actor, actor, emoji) for actor, emoji in people))


def _is_newest_first(records: list[tuple[int, dict[str, Any]]]) -> bool:
    """Whether a file begins with its newest message, as all do that are known."""
    ends = [as_object(record) for _, record in (records[0], records[-1])]
    first, last = (one.get("timestamp_ms", one.get("timestamp")) for one in ends)
    return not (isinstance(first, int) and isinstance(last, int) and first < last)


def _mark(record: dict[str, Any], text: str, conversation: _Conversation) -> Mark:
    if record.get("is_unsent") or record.get("isUnsent"):
        return "deleted"
    if record.get("sticker"):
        return "sticker"
    if str(record.get("type", "Generic")).lower() in _NO_TALK or "call_duration" in record:
        return "service"
    if conversation.notices.is_notice(text):
        return "service"
    has_file = any(record.get(key) for key in _MEDIA) or conversation.notices.stands_for_file(text)
    return "media" if has_file else ""


def mended(text: str) -> str:
    """Text whose UTF-8 bytes were written as Latin-1 characters; text that was not stays as it is."""
    if text.isascii():
        return text
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text
