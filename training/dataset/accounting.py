"""Double-entry bookkeeping of messages: everything read is kept or dropped for a reason, per source and chat."""

from collections import Counter
from collections.abc import Iterable

import msgspec

from training.archives.message import Message
from training.cleaning.rules import Reason


class Row(msgspec.Struct):
    """One chat of one source.

    Attributes:
        source: number of the archive.
        chat: id of the chat within its platform.
        name: what people call it.
        read: messages read; always `kept` plus the sum of `dropped` once a build is through.
        kept: messages in the data set, the owner's and others'.
        dropped: messages left out, by reason.
    """

    source: int
    chat: str
    name: str
    read: int = 0
    kept: int = 0
    dropped: Counter[str] = msgspec.field(default_factory=Counter)


class Ledger:
    """The rows of a build, numbered."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._numbers: dict[tuple[int, str, str], int] = {}

    def number(self, source: int, message: Message) -> int:
        """The row of a message's chat."""
        key = (source, message.platform, message.chat)
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self.rows)
            self.rows.append(Row(source, message.chat, message.chat_name))
        return number

    def keep(self, counts: dict[int, int]) -> None:
        """Counts messages as kept; `counts` is how many by row number."""
        for number, count in counts.items():
            self.rows[number].kept += count

    def drop(self, counts: dict[int, int], reason: Reason) -> None:
        """Counts messages as dropped; `counts` is how many by row number."""
        for number, count in counts.items():
            self.rows[number].dropped[reason] += count


def total(rows: Iterable[Row]) -> Row:
    """The sum of rows, as one."""
    sum_row = Row(-1, "", "")
    for row in rows:
        sum_row.read += row.read
        sum_row.kept += row.kept
        sum_row.dropped.update(row.dropped)
    return sum_row
