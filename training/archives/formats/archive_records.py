"""Reads the records of JSON, JSON Lines and CSV files one by one and turns them into messages.

A record that cannot be read is reported with its file and position, and reading continues.
"""

import json
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from doppel.i18n import tr
from training.archives.formats.json_stream import CHUNK, DamagedJSON, JsonStream
from training.archives.formats.text_lines import text_lines, utf8
from training.archives.message import Message
from training.archives.source_tree import SourceTree

RECORD_ERRORS = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError, OSError)
"""Exceptions that converting a malformed record raises."""

_MAX_WHOLE_FILE = 1 << 26
Record = TypeVar("Record")


def messages_of(
    tree: SourceTree,
    file: str,
    records: Iterator[tuple[int, Record]],
    convert: Callable[[Record, str], Message],
    reactions: Callable[[Record, Message], Iterable[Message]] = lambda record, message: (),
) -> Iterator[Message]:
    """Yields a message for every record, followed by the reactions to it.

    Args:
        tree: the archive.
        file: the file that the records are from.
        records: number and content of every record.
        convert: makes a message of a record and its origin; may raise any of RECORD_ERRORS.
        reactions: makes messages of the reactions in a record; may raise any of RECORD_ERRORS.
    """
    for number, record in records:
        try:
            message = convert(record, f"{file}:{number}")
        except RECORD_ERRORS as error:
            tree.report_bad(file, tr("record {number}", number=number), error)
            continue
        yield message
        try:
            reaction_messages = list(reactions(record, message))
        except RECORD_ERRORS as error:
            tree.report_bad(file, tr("record {number}", number=number), error)
            continue
        yield from reaction_messages


@contextmanager
def open_json(tree: SourceTree, file: str) -> Iterator[JsonStream]:
    """Opens a JSON file as a stream; ends the block with a bad record where the file stops being JSON."""
    with tree.open(file) as opened:
        stream = JsonStream(utf8(opened))
        try:
            yield stream
        except DamagedJSON as damage:
            if not stream.gave_up:
                tree.report_bad(file, tr("end of file"), str(damage))


def array_records(tree: SourceTree, file: str, stream: JsonStream, stop_at: str = "") -> Iterator[tuple[int, Any]]:
    """The number (from 1) and value of every object of the array that comes next; reports damaged ones.

    Args:
        tree: the archive.
        file: the file that the stream reads.
        stream: positioned before the array.
        stop_at: text behind the array that never occurs in it; no object is searched for beyond it.
    """
    return stream.records(
        lambda number, reason: tree.report_bad(file, tr("record {number}", number=number), reason), stop_at
    )


def json_array(tree: SourceTree, file: str) -> Iterator[tuple[int, Any]]:
    """The objects of a file that is one JSON array."""
    with open_json(tree, file) as stream:
        yield from array_records(tree, file, stream)


def json_lines(tree: SourceTree, file: str) -> Generator[tuple[int, Any], None, None]:
    """The values of a JSON Lines file."""
    with tree.open(file) as opened:
        for number, line in text_lines(opened, tree.head(file)):
            if not line.strip():
                continue
            try:
                record = json.loads(line, strict=False)
            except (ValueError, RecursionError) as error:
                tree.report_bad(file, tr("record {number}", number=number), error)
                continue
            yield number, record


def load_json(tree: SourceTree, file: str) -> Any:
    """The whole content of a small file; None, and a bad record, if it is not JSON."""
    with tree.open(file) as opened:
        try:
            text = utf8(opened)
            parts, size = list[bytes](), 0
            while size < _MAX_WHOLE_FILE and (data := text.read(CHUNK)):
                parts.append(data)
                size += len(data)
            return json.loads(b"".join(parts))
        except (ValueError, RecursionError) as error:
            tree.report_bad(file, tr("end of file"), error)
            return None


def as_object(value: Any) -> Mapping[str, Any]:
    """The value if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def as_id(value: object) -> str:
    """An id or account number as text; empty for 0, which some apps write for an unknown one, and for other types."""
    text = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
    return "" if text == "0" else text
