"""Reads diaries: text files with a first line `# diary of NAME`, then one message a line: `TIME SENDER: TEXT`."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime

from training.archives.formats.archive_records import messages_of
from training.archives.formats.text_lines import text_lines
from training.archives.message import Message
from training.archives.source_tree import SourceTree

_LINE = re.compile(r"(?P<time>\S+) (?P<sender>\w+): (?P<text>.*)")
_FIRST_LINE = re.compile(r"# diary of (?P<name>\w+)$")


class DiaryReader:
    """Reads one diary. Its name is the owner of the messages."""

    name = "diary"
    accepts = "diaries: text files that begin with `# diary of NAME`"

    def sniff(self, tree: SourceTree) -> bool:
        """Whether the file begins as a diary does."""
        return tree.is_file and tree.head(tree.files()[0]).startswith(b"# diary of ")

    def read(self, tree: SourceTree) -> Iterator[Message]:
        """Every line as a message. A line that cannot be read is reported, and reading continues."""
        file = tree.files()[0]
        with tree.open(file) as opened:
            lines = text_lines(opened, tree.head(file))
            first = _FIRST_LINE.match(next(lines)[1])
            owner = first["name"] if first else None

            def convert(line: str, origin: str) -> Message:
                match = _LINE.match(line)
                if match is None:
                    raise ValueError("not `TIME SENDER: TEXT`")
                return Message(
                    id=match["time"],
                    platform="diary",
                    chat=tree.label,
                    kind="dm",
                    sender=match["sender"],
                    sender_name=match["sender"],
                    sent_at=datetime.fromisoformat(match["time"]).astimezone(UTC),
                    text=match["text"],
                    is_owner=match["sender"] == owner,
                    origin=origin,
                )

            yield from messages_of(tree, file, lines, convert)
