"""Many files that are one archive, such as the log of a channel with a file a day."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol
from zoneinfo import ZoneInfo

from training.archives.message import Message
from training.archives.source_tree import Container, SourceTree

MIN_DATED = 3
"""Files named alike but for a date that are read as one archive."""

MANY_FILES = 1000
"""Files of one format in one folder that are read as one archive, whatever their names."""

_DATE = re.compile(r"(?:19|20)\d\d[-_.]?(?:0[1-9]|1[0-2])(?:[-_.]?(?:0[1-9]|[12]\d|3[01]))?(?!\d)")


def name_without_date(name: str) -> str:
    """A file's name with `*` in place of the date; empty if it has none."""
    pattern, count = _DATE.subn("*", name, count=1)
    return pattern if count else ""


def files_alike(files: Mapping[int, tuple[str, str]]) -> list[tuple[str, list[int]]]:
    """The files of a folder that are one archive, as a pattern of their names and their numbers in order.

    Args:
        files: format and name by number.
    """
    counts = Counter(format_name for format_name, _ in files.values())
    groups: dict[tuple[str, str], list[int]] = {}
    for number, (format_name, name) in files.items():
        if pattern := "*" if counts[format_name] > MANY_FILES else name_without_date(name):
            groups.setdefault((format_name, pattern), []).append(number)
    return [(pattern, numbers) for (_, pattern), numbers in groups.items() if len(numbers) >= MIN_DATED]


class FileGroup(SourceTree):
    """Some files of one folder, read one after the other.

    Args:
        container: what holds the files.
        folder: its prefix.
        names: of the files, in the order of reading.
        label: of all of them, for people: the folder's, and a pattern of their names.
        zone: the owner's time zone.
        me: `persona.me`.
    """

    def __init__(
        self,
        container: Container,
        folder: str,
        names: Sequence[str],
        label: str,
        *,
        zone: ZoneInfo,
        me: tuple[str, ...],
    ) -> None:
        super().__init__(container, folder, label, zone, me)
        self.names = names

    def members(self) -> Iterator[SourceTree]:
        """The files, one by one; takes over what reading each reported."""
        folder = self.label.rpartition("/")[0]
        for name in self.names:
            tree = SourceTree(self._container, self._place + name, f"{folder}/{name}", self.zone, self.me)
            tree.on_open, tree.on_read = self.on_open, self.on_read
            yield tree
            self.take_reports(tree)

    def unopened(self) -> list[str]:
        """None: the other files of the folder are not in the group."""
        return []


class _Reader(Protocol):
    name: str

    def read(self, tree: SourceTree) -> Iterator[Message]: ...


class GroupReader:
    """Reads a `FileGroup` with the reader of its files."""

    accepts = ""

    def __init__(self, reader: _Reader) -> None:
        self.name = reader.name
        self._reader = reader

    def sniff(self, tree: SourceTree) -> bool:
        """Whether this is such a group."""
        return isinstance(tree, FileGroup)

    def read(self, tree: SourceTree) -> Iterator[Message]:
        """The messages of all files."""
        assert isinstance(tree, FileGroup)
        for member in tree.members():
            yield from self._reader.read(member)
