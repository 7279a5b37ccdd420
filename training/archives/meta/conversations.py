"""Reads Instagram and Messenger downloads in JSON: a folder for each conversation with `message_1.json`, ….

The newest message is first, and text is UTF-8 decoded as Latin-1, except in the end-to-end encrypted form. Keeps one
file in memory at a time: Meta puts at most 10,000 messages into a file.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from training.archives.formats.archive_records import array_records, as_object, messages_of, open_json
from training.archives.formats.json_outline import outline, sampled_objects
from training.archives.formats.reactions import reactions_to
from training.archives.message import Kind, Mark, Message
from training.archives.meta.system_messages import SystemMessages
from training.archives.source_tree import SourceTree

_FILE = re.compile(r"(?:^|/)message(?:_(\d+))?\.json$")
_HEAD = re.compile(rb'^(?:\xef\xbb\xbf)?\s*\{\s*"participants"\s*:\s*\[')
_ENCRYPTED_HEAD = re.compile(rb'^(?:\xef\xbb\xbf)?\s*\{\s*"participants"\s*:\s*\[\s*"')
_FIELDS = frozenset(("participants", "title", "thread_path", "threadName", "joinable_mode", "thread_type"))
_MEDIA = frozenset(("photos", "videos", "audio_files", "gifs", "files", "share", "media"))
_SYSTEM_TYPES = frozenset(("subscribe", "unsubscribe", "call", "placeholder"))


class MetaReader:
    """Reads one conversation: the folder of its files. They do not say which participant is the owner."""

    name = "meta"
    accepts = "Instagram or Facebook Messenger download (JSON)"

    def sniff(self, tree: SourceTree) -> bool:
        """Whether this folder is a conversation, or this file is one in the encrypted form."""
        if tree.is_file:
            name = tree.files()[0]
            return not _FILE.search(name) and (
                bool(_ENCRYPTED_HEAD.match(tree.head(name))) or _is_encrypted(as_object(outline(tree, name)))
            )
        return any(
            _HEAD.match(tree.head(name)) or _is_conversation(as_object(outline(tree, name))) for name in _files(tree)
        )

    def read(self, tree: SourceTree) -> Iterator[Message]:
        """Every message, oldest first."""
        seen: Counter[str] = Counter()
        for name in [tree.files()[0]] if tree.is_file else _files(tree):
            conversation, records = _load(tree, name)
            conversation.complete(tree.label)
            if len(records) > 1 and _is_newest_first(records):
                records.reverse()

            def convert(record: dict[str, Any], origin: str, conversation: _Conversation = conversation) -> Message:
                return _message(record, conversation, seen, origin)

            yield from messages_of(tree, name, iter(records), convert, _reactions)


def _is_conversation(content: Mapping[str, Any]) -> bool:
    """Whether an outline is that of a conversation, in any order of keys."""
    records = sampled_objects(content.get("messages"))
    if any({"sender_name", "timestamp_ms"} <= record.keys() for record in records):
        return True
    return isinstance(content.get("participants"), list) and isinstance(content.get("messages"), list)


def _is_encrypted(content: Mapping[str, Any]) -> bool:
    """Whether an outline is that of the encrypted form, which names participants as texts."""
    records = sampled_objects(content.get("messages"))
    people = content.get("participants")
    if any({"senderName", "timestamp"} <= record.keys() for record in records):
        return people is None or isinstance(people, list)
    has_names = isinstance(people, list) and bool(people) and all(isinstance(person, str) for person in people)
    return has_names and isinstance(content.get("messages"), list)


class _Conversation(msgspec.Struct):
    """What a file says about its conversation."""

    participants: list[str] = []
    title: str = ""
    path: str = ""
    is_instagram: bool = False
    is_group: bool = False
    system_messages: SystemMessages = SystemMessages(())

    def complete(self, label: str) -> None:
        """Fills in missing fields. Only the folder names distinguish Instagram from Messenger."""
        self.is_instagram = "instagram" in f"{label}/{self.path}".lower()
        self.path = self.path or self.title or label
        self.system_messages = SystemMessages(self.participants)

    @property
    def platform(self) -> str:
        return "instagram" if self.is_instagram else "messenger"

    @property
    def kind(self) -> Kind:
        return "dm" if len(self.participants) <= 2 and not self.is_group else "group"


def _files(tree: SourceTree) -> list[str]:
    """The parts of a conversation, oldest first: the highest number."""
    parts = [(int(match[1] or 1), name) for name in tree.files() if (match := _FILE.search(name))]
    return [name for _, name in sorted(parts, reverse=True)]


def _load(tree: SourceTree, name: str) -> tuple[_Conversation, list[tuple[int, dict[str, Any]]]]:
    conversation = _Conversation()
    records: list[tuple[int, dict[str, Any]]] = []
    with open_json(tree, name) as stream:
        for key in stream.members():
            if key == "messages" and stream.peek() == "[":
                records += array_records(tree, name, stream)
            elif key in _FIELDS:
                _read_field(conversation, key, stream.value())
            else:
                stream.skip()
    return conversation, records


def _read_field(conversation: _Conversation, key: str, value: Any) -> None:
    if key == "participants" and isinstance(value, list):
        names = [person.get("name") if isinstance(person, dict) else person for person in value]
        conversation.participants = [fix_mojibake(str(name)) for name in names if name]
    elif key == "thread_path":
        conversation.path = str(value)
    elif key == "joinable_mode":  # only groups have a link for joining
        conversation.is_group = True
    elif key == "thread_type":
        conversation.is_group = conversation.is_group or str(value) == "RegularGroup"
    elif isinstance(value, str):
        conversation.title = fix_mojibake(value)


def _message(record: dict[str, Any], conversation: _Conversation, seen: Counter[str], origin: str) -> Message:
    is_encrypted = "senderName" in record  # the encrypted form
    milliseconds = int(record["timestamp"] if is_encrypted else record["timestamp_ms"])
    fix = str if is_encrypted else fix_mojibake
    sender = fix(str(record["senderName"] if is_encrypted else record["sender_name"]))
    text = fix(str(record.get("text" if is_encrypted else "content") or ""))
    mark = _mark(record, text, conversation)
    key = f"{milliseconds}-{sender}"
    seen[key] += 1  # several messages may have the same millisecond
    return Message(
        id=f"{key}-{seen[key]}",
        platform=conversation.platform,
        chat=conversation.path,
        kind=conversation.kind,
        sender=sender,
        sender_name=sender,
        sent_at=datetime.fromtimestamp(milliseconds / 1000, UTC),
        text="" if mark == Mark.MEDIA and conversation.system_messages.is_file_placeholder(text) else text,
        chat_name=conversation.title or conversation.path,
        mark=mark,
        origin=origin,
    )


def _reactions(record: dict[str, Any], message: Message) -> Iterator[Message]:
    fix = str if "senderName" in record else fix_mojibake
    people = [
        (fix(str(reaction["actor"])), fix(str(reaction.get("reaction") or "")))
        for reaction in record.get("reactions") or ()
    ]
    yield from reactions_to(message, ((actor, actor, emoji) for actor, emoji in people))


def _is_newest_first(records: list[tuple[int, dict[str, Any]]]) -> bool:
    """Whether a file begins with its newest message, as all known ones do."""
    ends = [as_object(record) for _, record in (records[0], records[-1])]
    first, last = (end.get("timestamp_ms", end.get("timestamp")) for end in ends)
    return not (isinstance(first, int) and isinstance(last, int) and first < last)


def _mark(record: dict[str, Any], text: str, conversation: _Conversation) -> Mark:
    if record.get("is_unsent") or record.get("isUnsent"):
        return Mark.DELETED
    if record.get("sticker"):
        return Mark.STICKER
    if str(record.get("type", "Generic")).lower() in _SYSTEM_TYPES or "call_duration" in record:
        return Mark.SERVICE
    if conversation.system_messages.matches(text):
        return Mark.SERVICE
    has_file = any(record.get(key) for key in _MEDIA) or conversation.system_messages.is_file_placeholder(text)
    return Mark.MEDIA if has_file else Mark.NONE


def fix_mojibake(text: str) -> str:
    """Restores text whose UTF-8 bytes were decoded as Latin-1; other text is unchanged."""
    if text.isascii():
        return text
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text
