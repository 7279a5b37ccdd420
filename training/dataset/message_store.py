"""Sorts messages by chat in a temporary file, so that an archive may be larger than memory.

Only the time and the file position of each message are in memory, 24 bytes a message.
"""

import mmap
from array import array
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
from msgspec.structs import astuple
from numpy.typing import NDArray

from training.archives.message import Message
from training.archives.parents import PARENTS, UNKNOWN

_ONE_SECOND = timedelta(seconds=1)

_READS_PER_RELEASE = 20_000
"""After this many reads the pages of a mapped file are released, so that they do not fill memory."""


class StoredMessage(Message, frozen=True, kw_only=True, gc=False, array_like=True):
    """A message encoded without field names, which halves its size."""


Correction = Callable[[Message], Message]
"""Returns a message with its chat and people as they are called after chats were joined."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(StoredMessage).decode


class RecordFile:
    """A temporary file of encoded structs, written once, then read in any order.

    Args:
        path: is removed by `close`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("wb")
        self._encode = msgspec.msgpack.Encoder().encode
        self._map: mmap.mmap | None = None
        self._reads = 0
        self.position = 0
        """Position of the next record."""

    def add(self, record: object) -> int:
        """Writes a record at `position` and returns its length in bytes."""
        return self.add_encoded(self._encode(record))

    def add_encoded(self, data: bytes) -> int:
        """Writes an encoded record at `position` and returns its length in bytes."""
        self._file.write(data)
        self.position += len(data)
        return len(data)

    def read(self, position: int, length: int) -> bytes:
        """The bytes of a record. After the first read, no record can be added."""
        if self._map is None:
            self._file.close()
            with self._path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._reads += 1
        if self._reads % _READS_PER_RELEASE == 0 and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)
        return self._map[position : position + length]

    def close(self) -> None:
        """Removes the file."""
        self._file.close()
        if self._map is not None:
            self._map.close()
        self._path.unlink(missing_ok=True)


Adopt = Callable[[int, Message], Message]
"""Returns a message of somebody else's archive, by its number, with the sender and chat that it has in this build."""


class StoredChat:
    """The messages of one chat; public and private messages of an account are separate chats.

    Messages are numbered in the order in which they were added.
    """

    def __init__(self, records: RecordFile, first: Message, *, is_public: bool) -> None:
        self.platform = first.platform
        self.chat = first.chat
        self.name = first.chat_name
        self.is_public = is_public
        self.is_direct = first.kind == "dm"
        self.accounts: set[str] = set()
        """Accounts that wrote, at most three: enough to know whether there is exactly one contact."""
        self._records = records
        self._times = array("d")
        self._positions = array("Q")
        self._lengths = array("I")
        self._sources = array("I")
        self._changed_times: dict[int, datetime] = {}
        """New times of moved messages, by position."""
        self.has_one_sided = False
        """Whether an export said of a message that it lacks the other side."""
        self.threads: set[str] = set()
        """In conversations: ids of the first messages of threads."""
        self.answered: set[str] = set()
        """In public chats: ids of messages that others reply to or quote; may contain some more."""
        self._corrections: dict[int, Correction] = {}
        """What is different from what was stored, by archive."""
        self._new_ids: dict[int, tuple[str, str | None]] = {}
        """New ids of messages and of what they reply to, by number."""
        self._has_own_times = False
        """Whether the times differ from those that were stored."""
        self._adopted: Adopt | None = None

    def add(self, source: int, message: Message) -> None:
        """Stores a message of archive number `source`."""
        self._times.append(message.sent_at.timestamp())
        self._positions.append(self._records.position)
        self._lengths.append(self._records.add_encoded(_encode(astuple(message))))
        self._sources.append(source)
        if len(self.accounts) < 3:
            self.accounts.add(message.sender)
        if message.is_one_sided:
            self.has_one_sided = True
        if message.thread is not None:
            self.threads.add(message.thread)
        if self.is_public and message.reply_to is not None:
            self.answered.add(message.reply_to)

    def __len__(self) -> int:
        return len(self._times)

    def source_numbers(self) -> set[int]:
        """The archives of its messages."""
        return set(self._sources)

    def times(self) -> list[float]:
        """When the messages were sent, seconds since 1970, in order."""
        return sorted(self._times)

    def messages(self) -> Iterator[tuple[int, Message]]:
        """(source, message) in order of time, then of reading."""
        for number, message in self.numbered():
            yield self._sources[number], message

    def numbered(self) -> Iterator[tuple[int, Message]]:
        """(number, message) in order of time, then of reading."""
        times, message = self._times, self.message
        for number in sorted(range(len(times)), key=times.__getitem__):
            yield number, message(number)

    def source(self, number: int) -> int:
        """The archive of a message, by its number."""
        return self._sources[number]

    def message(self, number: int) -> Message:
        """A message by its number."""
        position = self._positions[number]
        message: Message = _decode(self._records.read(position, self._lengths[number]))
        if self._changed_times and position in self._changed_times:
            message = msgspec.structs.replace(message, sent_at=self._changed_times[position])
        if self._corrections or self._has_own_times:
            message = self._corrected(number, message)
        return message if self._adopted is None else self._adopted(self._sources[number], message)

    def _corrected(self, number: int, message: Message) -> Message:
        if (correct := self._corrections.get(self._sources[number])) is not None:
            message = correct(message)
        if self._has_own_times and self._times[number] != message.sent_at.timestamp():
            message = msgspec.structs.replace(message, sent_at=datetime.fromtimestamp(self._times[number], UTC))
        if number in self._new_ids:
            new_id, reply_to = self._new_ids[number]
            message = msgspec.structs.replace(message, id=new_id, reply_to=reply_to)
        return message

    def order(self) -> NDArray[np.int64]:
        """The numbers of the messages in order of time, then of reading."""
        return np.argsort(np.asarray(self._times), kind="stable")

    def sources(self) -> NDArray[np.int64]:
        """The archive of each message."""
        return np.asarray(self._sources, dtype=np.int64)

    def times_of(self, numbers: NDArray[np.int64]) -> NDArray[np.float64]:
        """When messages were sent, seconds since 1970."""
        return np.asarray(self._times, dtype=np.float64)[numbers]

    def correct(self, corrections: "dict[int, Correction]", accounts: set[str]) -> None:
        """Changes what the messages of some archives say.

        Args:
            corrections: by number of the archive.
            accounts: everybody who wrote, under the new ids.
        """
        self._corrections, self.accounts = corrections, accounts

    @classmethod
    def joined(
        cls,
        parts: "Sequence[tuple[StoredChat, NDArray[np.int64]]]",
        order: NDArray[np.int64],
        times: NDArray[np.float64],
        new_ids: dict[int, tuple[str, str | None]],
    ) -> "StoredChat":
        """Messages of several chats, or some of those of one, as one chat.

        Args:
            parts: chats, and the numbers of their messages to take.
            order: in which to put these, as positions in the parts one after another.
            times: when the messages were sent, in this order, ascending.
            new_ids: new ids of messages and of what they reply to, by position in `order`.
        """
        first = parts[0][0]
        chat = cls(first._records, first.message(int(parts[0][1][0])), is_public=first.is_public)
        for name, code in (("_positions", "Q"), ("_lengths", "I"), ("_sources", first._sources.typecode)):
            columns = [np.asarray(getattr(part, name))[numbers] for part, numbers in parts]
            setattr(chat, name, array(code, np.concatenate(columns)[order].astype(code).tobytes()))
        chat._times = array("d", np.asarray(times, dtype=np.float64).tobytes())
        chat._has_own_times, chat._new_ids = True, new_ids
        chat.has_one_sided = any(part.has_one_sided for part, _ in parts)
        chat.threads = set().union(*(part.threads for part, _ in parts))
        return chat

    def rename(self, platform: str, chat: str, *, is_direct: bool) -> None:
        """Gives the chat another id and kind; its messages are changed by `correct`."""
        self.platform, self.chat, self.is_direct = platform, chat, is_direct

    def take_parents(self, parents: "StoredChat", available: dict[str, tuple[int, Message]]) -> set[int]:
        """Takes from `parents` the messages that messages here reply to, and their own parents in turn.

        A parent whose time is unknown, or later than its reply, is placed one second before the reply.

        Args:
            parents: the chat to take them from.
            available: its messages `by_id`; those taken are removed.

        Returns:
            The numbers in `parents` of the messages taken.
        """
        present: set[str] = set()
        replies: list[Message] = []
        for _, message in self.messages():
            if message.id in available:
                present.add(message.id)
            if message.reply_to in available:
                replies.append(message)
        self.answered |= parents.answered
        taken: set[int] = set()
        for reply in replies:
            parent_id, reply_time = reply.reply_to, reply.sent_at
            while parent_id in available and parent_id not in present:
                number, message = available.pop(parent_id)
                has_valid_time = UNKNOWN < message.sent_at < reply_time
                reply_time = message.sent_at if has_valid_time else reply_time - _ONE_SECOND
                self._take(parents, number, None if has_valid_time else reply_time)
                taken.add(number)
                parent_id = message.reply_to
        return taken

    def by_id(self) -> dict[str, tuple[int, Message]]:
        """(number, message) by id; of several with the same id the first."""
        by_id: dict[str, tuple[int, Message]] = {}
        for number in range(len(self._times)):
            message = _decode(self._records.read(self._positions[number], self._lengths[number]))
            by_id.setdefault(message.id, (number, message))
        return by_id

    def _take(self, other: "StoredChat", number: int, new_time: datetime | None) -> None:
        self._times.append(other._times[number] if new_time is None else new_time.timestamp())
        self._positions.append(other._positions[number])
        self._lengths.append(other._lengths[number])
        self._sources.append(other._sources[number])
        if new_time is not None:
            self._changed_times[other._positions[number]] = new_time

    def split(self, foreign: Collection[int], adopted: Adopt) -> "list[StoredChat]":
        """Separates the messages of other people's archives whose chat is another one, although it has the same id.

        Args:
            foreign: the archives that the owner did not export.
            adopted: gives their messages the sender and chat that they have in this build.

        Returns:
            This chat, if anything is left in it, and the others.
        """
        if self.is_public or not self.source_numbers() & set(foreign):
            return [self]
        parts: dict[str, StoredChat] = {}
        for number, source in enumerate(self._sources):
            message = adopted(source, self.message(number))
            part = parts.get(message.chat)
            if part is None:
                part = parts[message.chat] = StoredChat(self._records, message, is_public=False)
                part.has_one_sided, part.threads = self.has_one_sided, self.threads
                part._adopted, part._corrections = adopted, self._corrections
                part._has_own_times = self._has_own_times
            if number in self._new_ids:
                part._new_ids[len(part)] = self._new_ids[number]
            part._take(self, number, None)
            if len(part.accounts) < 3:
                part.accounts.add(message.sender)
        return list(parts.values())

    def remove(self, numbers: set[int]) -> None:
        """Removes messages by their numbers; the others are renumbered."""
        kept = [number for number in range(len(self._times)) if number not in numbers]
        if self._new_ids:
            new_ids = self._new_ids
            self._new_ids = {place: new_ids[number] for place, number in enumerate(kept) if number in new_ids}
        self._times = array("d", (self._times[number] for number in kept))
        self._positions = array("Q", (self._positions[number] for number in kept))
        self._lengths = array("I", (self._lengths[number] for number in kept))
        self._sources = array("I", (self._sources[number] for number in kept))


class MessageStore:
    """Sorts messages into chats as they are read.

    Args:
        path: the temporary file.
    """

    def __init__(self, path: Path) -> None:
        self._records = RecordFile(path)
        self._chats: dict[tuple[str, str, bool], StoredChat] = {}

    def add(self, source: int, message: Message) -> StoredChat:
        """Stores a message of archive number `source`; returns its chat.

        Further messages of the same platform, chat and visibility may be added directly to the chat.
        """
        is_public = message.kind in ("post", "reply", "quote")
        key = (message.platform, message.chat, is_public)
        chat = self._chats.get(key)
        if chat is None:
            chat = self._chats[key] = StoredChat(self._records, message, is_public=is_public)
        chat.add(source, message)
        return chat

    def conversations(self) -> list[StoredChat]:
        """All chats that are no public posts, in order of first message."""
        return [chat for chat in self._chats.values() if not chat.is_public]

    def replace(self, replacements: dict[StoredChat, list[StoredChat]]) -> None:
        """Puts other chats in the place of some; each has an id of its own on its platform."""
        chats = [new for chat in self._chats.values() for new in replacements.get(chat, [chat])]
        self._chats = {(chat.platform, chat.chat, chat.is_public): chat for chat in chats}

    def chats(self) -> list[StoredChat]:
        """All chats in order of first message, with fetched parents moved to the chats of their replies.

        Nothing can be added afterwards.
        """
        for (platform, chat_id, is_public), parents in self._chats.items():
            if chat_id == PARENTS and is_public:
                available, taken = parents.by_id(), set[int]()
                for other in self._chats.values():
                    if other.is_public and other.platform == platform and other is not parents:
                        taken |= other.take_parents(parents, available)
                parents.remove(taken)
        return list(self._chats.values())

    def close(self) -> None:
        """Removes the temporary file."""
        self._chats.clear()
        self._records.close()
