"""Reads the records of JSON, JSON Lines and CSV files one by one and turns them into messages.

A record that cannot be read is reported with its file and position, and reading continues.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from doppel.i18n import tr
from training.archives.formats.json_stream import DamagedJSON, JsonStream
from training.archives.formats.text_lines import decode_head, text_lines
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
        stream = JsonStream(opened)
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


def json_lines(tree: SourceTree, file: str) -> Iterator[tuple[int, Any]]:
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


def csv_columns(tree: SourceTree, file: str) -> list[str]:
    """The column names of a CSV file, in lower case, for sniffing."""
    header = decode_head(tree.head(file)).lstrip("\ufeff").replace("\r", "\n").partition("\n")[0]
    return [name.strip().strip('"').strip().lower() for name in header.split(",")]


def csv_rows(tree: SourceTree, file: str) -> Iterator[tuple[int, dict[str, str]]]:
    """The last line number and the cells of every row of a CSV file with a header, by lower-case column name.

    Cells beyond the columns are under `""`, joined by commas.
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
                tree.report_bad(file, tr("record {number}", number=rows.line_num), error)
                continue
            if names is None:
                names = [name.strip().lower() for name in row]
            elif row:
                record = dict(zip(names, row, strict=False))
                if len(row) > len(names):
                    record[""] = ",".join(row[len(names) :])
                yield rows.line_num, record


def load_json(tree: SourceTree, file: str) -> Any:
    """The whole content of a small file; None, and a bad record, if it is not JSON."""
    with tree.open(file) as opened:
        try:
            return json.loads(opened.read(_MAX_WHOLE_FILE))
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
