"""What logs kept as plain text have in common: records that go on over lines, ids nobody wrote, English months.

Knows no format: what begins a record is the reader's to say.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import date, datetime
from typing import TypeVar

from doppel.i18n import tr
from training.archives.formats.text_lines import decode_head, text_lines
from training.archives.source_tree import Tree

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
"""English months as logs shorten them."""

_SNIFFED = 4096
_LONGEST = 1 << 20
"""Characters of one record; what goes on beyond is no message that anybody sent."""

Head = TypeVar("Head")


def first_lines(tree: Tree, file: str) -> list[str]:
    """The lines that a file begins with, for sniffing; without empty ones, and the last may be cut."""
    text = decode_head(tree.head(file, _SNIFFED)).replace("\r", "\n")
    return [line for line in text.split("\n") if line.strip()]


def log_records(tree: Tree, file: str, begin: Callable[[str], Head | None]) -> Iterator[tuple[int, Head, list[str]]]:
    """Line number, head and further lines of every record.

    Args:
        tree: the archive.
        file: one of its files.
        begin: the head of the record that a line begins, or None for a line that goes on with the one before.
    """
    number, head, lines, size = 0, None, list[str](), 0
    with tree.open(file) as stream:
        for line_number, line in text_lines(stream, tree.head(file, _SNIFFED)):
            begun = begin(line)
            if begun is not None:
                if head is not None:
                    yield number, head, lines
                number, head, lines, size = line_number, begun, [], 0
            elif head is None:
                if line.strip():
                    tree.bad(file, tr("line {number}", number=line_number), tr("text before the first message"))
            elif size > _LONGEST:
                tree.bad(file, tr("line {number}", number=line_number), tr("message too long"))
            else:
                lines.append(line)
                size += len(line) + 1
    if head is not None:
        yield number, head, lines


class MessageIds:
    """Ids for messages that the export does not number: a later export of the same chat gives the same ones."""

    def __init__(self) -> None:
        self._day: date | None = None
        self._repeats: Counter[str] = Counter()

    def of(self, sent_at: datetime, sender: str, text: str) -> str:
        """The id of the next message of the log. The same words twice at one moment are two messages."""
        if sent_at.date() != self._day:  # a clock set back repeats an hour, never a day
            self._day = sent_at.date()
            self._repeats.clear()
        digest = hashlib.sha256(f"{sender}\0{text}".encode("utf-8", "replace")).hexdigest()[:16]
        key = f"{int(sent_at.timestamp())}-{digest}"
        self._repeats[key] += 1
        return f"{key}-{self._repeats[key]}"


def month_number(name: str) -> int:
    """1 to 12 for an English month, whole or shortened. Raises ValueError."""
    short = name[:3].lower()
    if short not in MONTHS:
        raise ValueError(name)
    return MONTHS.index(short) + 1


def file_title(label: str) -> str:
    """The name of the file or folder that a label ends in, without the ending of a text file."""
    name = label.replace("\\", "/").rstrip("/").rpartition("/")[2]
    stem, dot, ending = name.rpartition(".")
    return stem if dot and ending.lower() in ("txt", "csv", "log", "md", "json", "zip", "weechatlog") else name
