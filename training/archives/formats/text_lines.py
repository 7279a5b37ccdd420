"""Reads text exports in any encoding, line by line or as records of several lines."""

import codecs
import io
from collections.abc import Callable, Iterator
from typing import TypeVar

from doppel.i18n import tr
from training.archives.encodings import Utf8Stream, decoded
from training.archives.source_tree import CountingFile, SourceTree

_CHUNK = 1 << 16
_SNIFFED = 4096

MAX_LINE_LENGTH = 1 << 26
"""Characters (64 Mi); a longer line is cut into several."""

MAX_RECORD_LENGTH = 1 << 20
"""Characters of one record; no app sends longer messages."""

Head = TypeVar("Head")


def decode_head(head: bytes) -> str:
    """The first characters of a text, for sniffing."""
    return decoded(head)


def utf8(file: CountingFile) -> Utf8Stream:
    """A text in any encoding as UTF-8, whose encoding is judged by the whole file."""
    return Utf8Stream(file, file.again)


def text_lines(file: CountingFile, head: bytes = b"") -> Iterator[tuple[int, str]]:
    """Yields the number (from 1) and text of every line, without its line end; undecodable bytes become U+FFFD.

    Only `\\n`, `\\r\\n` and `\\r` end a line: Unicode's other line separators occur within messages.

    Args:
        file: the file, at its beginning.
        head: not used; its encoding was once judged by it.
    """
    text = utf8(file)
    newlines = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8")("replace"), translate=True)
    number, pending, size = 0, list[str](), 0
    while True:
        data = text.read(_CHUNK)
        first, *rest = newlines.decode(data, final=not data).split("\n")
        pending.append(first)
        size += len(first)
        if rest or size >= MAX_LINE_LENGTH:
            for line in ("".join(pending), *rest[:-1]):
                number += 1
                yield number, line
            pending = rest[-1:]
            size = sum(map(len, pending))
        if not data:
            break
    if last := "".join(pending):
        yield number + 1, last


def first_lines(tree: SourceTree, file: str) -> list[str]:
    """The lines that a file begins with, for sniffing, without empty ones; the last may be cut."""
    text = decode_head(tree.head(file, _SNIFFED)).replace("\r", "\n")
    return [line for line in text.split("\n") if line.strip()]


def multiline_records(
    tree: SourceTree, file: str, parse_head: Callable[[str], Head | None]
) -> Iterator[tuple[int, Head, list[str]]]:
    """Yields the line number, the head and the further lines of every record.

    Args:
        tree: the archive.
        file: one of its files.
        parse_head: returns the head of the record that a line begins, or None for a line that continues a record.
    """
    number, head, lines, size = 0, None, list[str](), 0
    with tree.open(file) as stream:
        for line_number, line in text_lines(stream, tree.head(file, _SNIFFED)):
            next_head = parse_head(line)
            if next_head is not None:
                if head is not None:
                    yield number, head, lines
                number, head, lines, size = line_number, next_head, [], 0
            elif head is None:
                if line.strip():
                    tree.report_bad(file, tr("line {number}", number=line_number), tr("text before the first message"))
            elif size > MAX_RECORD_LENGTH:
                tree.report_bad(file, tr("line {number}", number=line_number), tr("message too long"))
            else:
                lines.append(line)
                size += len(line) + 1
    if head is not None:
        yield number, head, lines
