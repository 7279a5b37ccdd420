"""Messages on their way from the readers to sessions: kept in a temporary file, handed back chat by chat.

Only times and places stay in memory (20 bytes a message), so an archive may be larger than memory. Judges nothing.
"""

import mmap
from array import array
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
from msgspec.structs import astuple

from training.archives.message import Message
from training.archives.parents import PARENTS, UNKNOWN

_BEFORE = timedelta(seconds=1)

_HELD = 20_000
"""Reads after which what was read of a file may leave memory again."""


class Stored(Message, frozen=True, kw_only=True, gc=False, array_like=True):
    """A message as it lies in files: without the names of its fields, in half the room."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Stored).decode


class Records:
    """A file of encoded structs, written once, then read in any order.

    Args:
        path: the temporary file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("wb")
        self._encode = msgspec.msgpack.Encoder().encode
        self._map: mmap.mmap | None = None
        self._reads = 0
        self.position = 0
        """Where the next record will lie."""

    def add(self, record: object) -> int:
        """Writes a record and returns its length in bytes; it lies at the `position` before."""
        return self.put(self._encode(record))

    def put(self, data: bytes) -> int:
        """The same with a record that is encoded already."""
        self._file.write(data)
        self.position += len(data)
        return len(data)

    def read(self, position: int, length: int) -> bytes:
        """The bytes of a record. No record can be added after the first was read."""
        if self._map is None:
            self._file.close()
            with self._path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._reads += 1
        if self._reads % _HELD == 0 and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)
        return self._map[position : position + length]

    def close(self) -> None:
        """Removes the file."""
        self._file.close()
        if self._map is not None:
            self._map.close()
        self._path.unlink(missing_ok=True)


class Conversation:
    """All kept messages of one chat, of one sort (public ones are no conversation). Filled by `Spool.add`."""

    def __init__(self, records: Records, first: Message, *, is_public: bool) -> None:
        self.platform = first.platform
        self.chat = first.chat
        self.name = first.chat_name
        self.is_public = is_public
        self.is_of_two = first.kind == "dm"
        self.accounts: set[str] = set()
        """Who wrote, up to three accounts: enough to know whether there is exactly one other."""
        self._records = records
        self._times = array("d")
        self._positions = array("Q")
        self._lengths = array("I")
        self._sources = array("H")
        self._moved: dict[int, datetime] = {}
        self.answered: set[str] = set()
        """Of public messages: ids of those that they answer or quote, and maybe some more."""

    def add(self, source: int, message: Message) -> None:
        """Puts a message into the temporary file."""
        self._times.append(message.sent_at.timestamp())
        self._positions.append(self._records.position)
        self._lengths.append(self._records.put(_encode(astuple(message))))
        self._sources.append(source)
        if len(self.accounts) < 3:
            self.accounts.add(message.sender)
        if self.is_public and message.reply_to is not None:
            self.answered.add(message.reply_to)

    def times(self) -> list[float]:
        """When the messages were sent, seconds since 1970, in order."""
        return sorted(self._times)

    def messages(self) -> Iterator[tuple[int, Message]]:
        """(source, message) in order of time; at the same time in the order of reading."""
        for number, message in self.numbered():
            yield self._sources[number], message

    def numbered(self) -> Iterator[tuple[int, Message]]:
        """The same with the number of each message, for `source` and `message`."""
        times, message = self._times, self.message
        for number in sorted(range(len(times)), key=times.__getitem__):
            yield number, message(number)

    def source(self, number: int) -> int:
        """Which archive a message is from."""
        return self._sources[number]

    def message(self, number: int) -> Message:
        """One of the messages."""
        position = self._positions[number]
        message: Message = _decode(self._records.read(position, self._lengths[number]))
        if self._moved and position in self._moved:
            message = msgspec.structs.replace(message, sent_at=self._moved[position])
        return message

    def adopt(self, parents: "Conversation", known: dict[str, tuple[int, Message]]) -> set[int]:
        """Takes from `parents` what messages here answer, and what that answers itself; each goes before its answer.

        Args:
            parents: whom to take them from.
            known: what is there, `by_id`; what is taken is gone from it afterwards.

        Returns:
            The numbers of what was taken.
        """
        present: set[str] = set()
        answers: list[Message] = []
        for _, message in self.messages():
            if message.id in known:
                present.add(message.id)
            if message.reply_to in known:
                answers.append(message)
        self.answered |= parents.answered
        taken: set[int] = set()
        for answer in answers:
            wanted, before = answer.reply_to, answer.sent_at
            while wanted in known and wanted not in present:
                number, message = known.pop(wanted)
                is_timed = UNKNOWN < message.sent_at < before
                before = message.sent_at if is_timed else before - _BEFORE
                self._take(parents, number, None if is_timed else before)
                taken.add(number)
                wanted = message.reply_to
        return taken

    def by_id(self) -> dict[str, tuple[int, Message]]:
        """Number and message by id; of several with one id the earliest."""
        known: dict[str, tuple[int, Message]] = {}
        for number in range(len(self._times)):
            message = _decode(self._records.read(self._positions[number], self._lengths[number]))
            known.setdefault(message.id, (number, message))
        return known

    def _take(self, other: "Conversation", number: int, moved_to: datetime | None) -> None:
        self._times.append(other._times[number] if moved_to is None else moved_to.timestamp())
        self._positions.append(other._positions[number])
        self._lengths.append(other._lengths[number])
        self._sources.append(other._sources[number])
        if moved_to is not None:
            self._moved[other._positions[number]] = moved_to

    def leave_out(self, numbers: set[int]) -> None:
        """Lets go of messages, by their numbers."""
        stay = [number for number in range(len(self._times)) if number not in numbers]
        self._times = array("d", (self._times[number] for number in stay))
        self._positions = array("Q", (self._positions[number] for number in stay))
        self._lengths = array("I", (self._lengths[number] for number in stay))
        self._sources = array("H", (self._sources[number] for number in stay))


class Spool:
    """Sorts messages into conversations as they are read."""

    def __init__(self, path: Path) -> None:
        self._records = Records(path)
        self._conversations: dict[tuple[str, str, bool], Conversation] = {}

    def add(self, source: int, message: Message) -> Conversation:
        """Takes one message of the archive with that number; returns where it went.

        Later messages of the same platform and chat, public or not as this one, may be added right there.
        """
        is_public = message.kind in ("post", "reply", "quote")
        key = (message.platform, message.chat, is_public)
        conversation = self._conversations.get(key)
        if conversation is None:
            conversation = self._conversations[key] = Conversation(self._records, message, is_public=is_public)
        conversation.add(source, message)
        return conversation

    def conversations(self) -> list[Conversation]:
        """Every conversation, in the order in which they were first met; parents are with their answers by then.

        Nothing can be added afterwards.
        """
        for (platform, chat, is_public), parents in self._conversations.items():
            if chat == PARENTS and is_public:
                known, taken = parents.by_id(), set[int]()
                for other in self._conversations.values():
                    if other.is_public and other.platform == platform and other is not parents:
                        taken |= other.adopt(parents, known)
                parents.leave_out(taken)
        return list(self._conversations.values())

    def close(self) -> None:
        """Removes the temporary file, and forgets the conversations."""
        self._conversations.clear()
        self._records.close()
