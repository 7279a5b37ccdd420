"""Turns the records of text exports into messages. Such files have no ids and no accounts: both are derived."""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from datetime import date, datetime

import msgspec

from training.archives.formats.group_notices import is_named_after
from training.archives.formats.local_times import in_file_order
from training.archives.formats.sender_names import file_name_key
from training.archives.message import Kind, Mark, Message
from training.archives.source_tree import SourceTree

_MAX_CHAT_ID_LENGTH = 200


class TextRecord(msgspec.Struct, frozen=True):
    """One record of a text export.

    Attributes:
        number: the line that it begins in.
        sent_at: local, or in any zone.
        sender: the writer's name; empty for what the app wrote itself.
        text: what it says.
        mark: what sort of record it is.
    """

    number: int
    sent_at: datetime
    sender: str
    text: str
    mark: Mark


class TextChat:
    """One exported chat: its id, who owns it as far as the file says, and ids for its messages.

    Args:
        platform: where it was written.
        title: the other person or the group; may be empty.
        names: everybody who writes in it.
        kind: dm or group where the export says; otherwise a chat of more than two people is a group, and one of two
            that is named after neither.
        owner: the name that the export uses for the owner, if it has one.
    """

    def __init__(
        self, platform: str, title: str, names: Collection[str], kind: Kind | None = None, owner: str = ""
    ) -> None:
        self.platform = platform
        is_group = len(names) > 2 or (len(names) == 2 and bool(title) and not is_named_after(title, names))
        self.kind: Kind = kind or ("group" if is_group else "dm")
        # The title of a private chat is no lasting id: the other person's phone has another one. But it names somebody
        # who did not write.
        people = {*names, title} - {""} if self.kind == "dm" and len(names) == 1 else names
        speakers = " & ".join(sorted(people))[:_MAX_CHAT_ID_LENGTH]
        self.chat = (speakers or title) if self.kind == "dm" else (title or speakers)
        self.title = title or self.chat
        self._partner = _partner(title, names) if self.kind == "dm" and len(names) <= 2 else None
        self._owner = owner if owner in names else None
        self._ids = MessageIds()

    def messages(
        self, tree: SourceTree, file: str, records: Iterable[TextRecord], *, is_newest_first: bool = False
    ) -> Iterator[Message]:
        """The records of a file as messages, with times in its order; `is_newest_first` says which that is."""
        ordered = in_file_order(records, _stamp, tree.zone, is_newest_first=is_newest_first)
        for record, written_at, sent_at in ordered:
            yield self._message(record, written_at, sent_at, f"{file}:{record.number}")

    def _message(self, record: TextRecord, written_at: datetime, sent_at: datetime, origin: str) -> Message:
        """A record as a message; one without a sender is the app's own."""
        author = record.sender or self.title
        return Message(
            id=self._ids.next_id(written_at, record.sender, record.text),
            platform=self.platform,
            chat=self.chat,
            kind=self.kind,
            sender=author,
            sender_name=author,
            sent_at=sent_at,
            text=record.text,
            is_owner=self._is_owner(author),
            chat_name=self.title,
            mark=record.mark,
            origin=origin,
        )

    def _is_owner(self, author: str) -> bool | None:
        if self._owner is not None:
            return author == self._owner
        return False if author == self._partner else None


def _stamp(record: TextRecord) -> datetime:
    return record.sent_at


def _partner(title: str, names: Collection[str]) -> str | None:
    """The one of two people whose name the title has, as far as a file's name can have it."""
    if title in names:
        return title
    key = file_name_key(title)
    matches = [name for name in names if key and file_name_key(name) == key]
    return matches[0] if len(matches) == 1 else None


class MessageIds:
    """Derives ids for messages that the export does not number, so that a later export of the chat repeats them."""

    def __init__(self) -> None:
        self._day: date | None = None
        self._repeats: Counter[str] = Counter()

    def next_id(self, sent_at: datetime, sender: str, text: str) -> str:
        """The id of the next message of the file. The same words twice at one moment are two messages."""
        if sent_at.date() != self._day:  # a clock set back repeats an hour, never a day
            self._day = sent_at.date()
            self._repeats.clear()
        digest = hashlib.sha256(f"{sender}\0{text}".encode("utf-8", "replace")).hexdigest()[:16]
        key = f"{int(sent_at.timestamp())}-{digest}"
        self._repeats[key] += 1
        return f"{key}-{self._repeats[key]}"


def title_of(label: str) -> str:
    """The name of the file or folder that a label ends in, without the suffix of a text file."""
    name = label.replace("\\", "/").rstrip("/").rpartition("/")[2]
    stem, dot, suffix = name.rpartition(".")
    return (
        stem
        if dot and suffix.lower() in ("txt", "csv", "log", "md", "json", "jsonl", "ndjson", "tsv", "zip", "weechatlog")
        else name
    )
