"""Counts messages per archive and chat: every message that is read is either kept or dropped for a reason."""

from collections import Counter
from collections.abc import Iterable

import msgspec

from training.archives.message import Message
from training.cleaning.rules import DropReason


class ChatCounts(msgspec.Struct):
    """The messages of one chat in one archive. After a build, `read` is `kept` plus the sum of `dropped`.

    Attributes:
        source: number of the archive.
        chat: id of the chat on its platform.
        name: name of the chat.
        read: messages read.
        kept: messages in the data set, the owner's and others'.
        dropped: messages left out, by reason.
        one_sided: of the kept ones, those whose other side no archive has.
    """

    source: int
    chat: str
    name: str
    read: int = 0
    kept: int = 0
    dropped: Counter[str] = msgspec.field(default_factory=Counter)
    one_sided: int = 0


class Ledger:
    """The counts of all chats of a build, as numbered rows."""

    def __init__(self) -> None:
        self.rows: list[ChatCounts] = []
        self._row_numbers: dict[tuple[int, str, str], int] = {}

    def row_number(self, source: int, message: Message) -> int:
        """The row of the message's chat in archive `source`."""
        key = (source, message.platform, message.chat)
        number = self._row_numbers.get(key)
        if number is None:
            number = self._row_numbers[key] = len(self.rows)
            self.rows.append(ChatCounts(source, message.chat, message.chat_name))
        return number

    def row_of(self, source: int, platform: str, chat: str) -> int:
        """The row of a chat in archive `source`, of which messages were read."""
        return self._row_numbers[source, platform, chat]

    def rename(self, source: int, stored: tuple[str, str], chat: tuple[str, str]) -> None:
        """From now on a chat, given by platform and id, of archive `source` is called differently."""
        number = self._row_numbers[source, *chat] = self._row_numbers[source, *stored]
        self.rows[number].chat = chat[1]

    def keep(self, counts: dict[int, int], *, is_one_sided: bool = False) -> None:
        """Counts messages as kept; `counts` maps row numbers to numbers of messages."""
        for number, count in counts.items():
            self.rows[number].kept += count
            self.rows[number].one_sided += count * is_one_sided

    def drop(self, counts: dict[int, int], reason: DropReason) -> None:
        """Counts messages as dropped; `counts` maps row numbers to numbers of messages."""
        for number, count in counts.items():
            self.rows[number].dropped[reason] += count


def sum_counts(rows: Iterable[ChatCounts]) -> ChatCounts:
    """The sum of several rows."""
    total = ChatCounts(-1, "", "")
    for row in rows:
        total.read += row.read
        total.kept += row.kept
        total.dropped.update(row.dropped)
        total.one_sided += row.one_sided
    return total
