"""What readers have in common: records of JSON, JSON Lines and CSV files, turned into messages one by one.

A record that cannot be read is noted with its file and position, and reading goes on. Knows no format.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from doppel.i18n import tr
from training.archives.formats.json_stream import DamagedJSON, JsonStream
from training.archives.formats.text_lines import text_lines
from training.archives.message import Message
from training.archives.source_tree import Tree

MALFORMED = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError, OSError)
"""What comes of a record that is not what its format says."""

_WHOLE = 1 << 26
Record = TypeVar("Record")


def messages_of(
    tree: Tree,
    file: str,
    records: Iterator[tuple[int, Record]],
    convert: Callable[[Record, str], Message],
    reactions: Callable[[Record, Message], Iterable[Message]] = lambda record, message: (),
) -> Iterator[Message]:
    """A message for every record; `convert` gets the record and its origin, and may raise `MALFORMED`.

    So may `reactions`, which gets the record and its message, and gives what others put to it, in answer to it.
    """
    for number, record in records:
        try:
            message = convert(record, f"{file}:{number}")
        except MALFORMED as error:
            tree.bad(file, tr("record {number}", number=number), error)
            continue
        yield message
        try:
            further = list(reactions(record, message))
        except MALFORMED as error:
            tree.bad(file, tr("record {number}", number=number), error)
            continue
        yield from further


@contextmanager
def json_stream(tree: Tree, file: str) -> Iterator[JsonStream]:
    """A file as a stream of JSON; where it stops being that, a bad record is noted and the block ends."""
    with tree.open(file) as opened:
        stream = JsonStream(opened)
        try:
            yield stream
        except DamagedJSON as damage:
            if not stream.lost:
                tree.bad(file, tr("end of file"), str(damage))


def array_records(tree: Tree, file: str, stream: JsonStream, fence: str = "") -> Iterator[tuple[int, Any]]:
    """Number from 1 and value of every object of the array that comes next; damaged ones are noted."""
    return stream.records(lambda number, reason: tree.bad(file, tr("record {number}", number=number), reason), fence)


def json_array(tree: Tree, file: str) -> Iterator[tuple[int, Any]]:
    """The objects of a file that is one array."""
    with json_stream(tree, file) as stream:
        yield from array_records(tree, file, stream)


def json_lines(tree: Tree, file: str) -> Iterator[tuple[int, Any]]:
    """The objects of a file with one a line."""
    with tree.open(file) as opened:
        for number, line in text_lines(opened, tree.head(file)):
            if not line.strip():
                continue
            try:
                record = json.loads(line, strict=False)
            except (ValueError, RecursionError) as error:
                tree.bad(file, tr("record {number}", number=number), error)
                continue
            yield number, record


def csv_rows(tree: Tree, file: str) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a table with named columns, the names without blanks and in lower case; the line each ends in.

    Values beyond the columns stand under `""`, joined by commas.
    """
    with tree.open(file) as opened:
        rows = csv.reader(line + "\n" for _, line in text_lines(opened, tree.head(file)))
        names: list[str] | None = None
        while True:
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                tree.bad(file, tr("record {number}", number=rows.line_num), error)
                continue
            if names is None:
                names = [name.strip().lower() for name in row]
            elif row:
                record = dict(zip(names, row, strict=False))
                if len(row) > len(names):
                    record[""] = ",".join(row[len(names) :])
                yield rows.line_num, record


def whole_json(tree: Tree, file: str) -> Any:
    """A small file's whole content; None, and a bad record, where it is no JSON."""
    with tree.open(file) as opened:
        try:
            return json.loads(opened.read(_WHOLE))
        except (ValueError, RecursionError) as error:
            tree.bad(file, tr("end of file"), error)
            return None


def as_object(value: Any) -> Mapping[str, Any]:
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def to_utc(text: str, zone: ZoneInfo) -> datetime:
    """A time in ISO 8601; one without a zone is in `zone`. Raises ValueError."""
    time = datetime.fromisoformat(text)
    return (time if time.tzinfo else time.replace(tzinfo=zone)).astimezone(UTC)
