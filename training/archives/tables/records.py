"""The records of a table in a CSV file, a JSON array or JSON Lines, each with its columns by name."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from itertools import islice
from typing import Any

import msgspec

from training.archives.formats.archive_records import array_records, as_object, json_lines, open_json
from training.archives.formats.csv_files import csv_columns, csv_rows
from training.archives.formats.json_outline import outline, sampled_objects
from training.archives.formats.text_lines import decode_head
from training.archives.source_tree import SourceTree

_DEPTH = 2
_HEAD = 1 << 16
_SAMPLE = 20


def table_names(tree: SourceTree, file: str) -> Sequence[str]:
    """The column names of a table, those within objects with dots; empty if the file is none."""
    if _is_json(tree, file):
        names: dict[str, None] = {}
        for record in _sampled(tree, file):
            names.update(dict.fromkeys(_paths(record, "")))
        return list(names)
    names_in_header = csv_columns(tree, file)
    return names_in_header if len(names_in_header) > 1 else []


def sample_records(tree: SourceTree, file: str) -> list[Mapping[str, Any]]:
    """Some of the first records, for sniffing."""
    if _is_json(tree, file):
        return list(_sampled(tree, file))
    survey = tree.for_survey()
    survey.opened = set()  # looking at a file is not reading it
    with closing(csv_rows(survey, file)) as rows:
        return [row for _, row in islice(rows, _SAMPLE)]


def table_records(tree: SourceTree, file: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The number and content of every record; reports those that cannot be read."""
    if not _is_json(tree, file):
        yield from csv_rows(tree, file)
        return
    records: Iterator[tuple[int, Any]]
    if _first(tree, file) == "[":
        with open_json(tree, file) as stream:
            records = array_records(tree, file, stream)
            yield from _objects(records)
    elif (key := _list_key(tree, file)) is not None:
        with open_json(tree, file) as stream:
            for member in stream.members():
                if member == key and stream.peek() == "[":
                    yield from _objects(array_records(tree, file, stream))
                else:
                    stream.skip()
    else:
        yield from _objects(json_lines(tree, file))


def cell(record: Mapping[str, Any], column: str) -> str:
    """The content of a column as text; empty if it has none."""
    if not column:
        return ""
    value: Any = record.get(column)
    if value is None and "." in column and column not in record:
        value = record
        for key in column.split("."):
            value = as_object(value).get(key)
    return _text(value)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list):  # a text in parts, as Telegram and others have it
        return "".join(_text(part.get("text") if isinstance(part, dict) else part) for part in value)
    return ""


def _objects(records: Iterator[tuple[int, Any]]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    return ((number, as_object(record)) for number, record in records)


def _first(tree: SourceTree, file: str) -> str:
    return decode_head(tree.head(file)).lstrip("\ufeff\0 \t\r\n")[:1]


def _is_json(tree: SourceTree, file: str) -> bool:
    return _first(tree, file) in ("[", "{")


def _sampled(tree: SourceTree, file: str) -> Iterator[Mapping[str, Any]]:
    content = outline(tree, file)
    if isinstance(content, list):
        yield from sampled_objects(content)
    elif (key := _list_key(tree, file)) is not None:
        yield from sampled_objects(content[key])
    elif _first(tree, file) == "{":
        survey = tree.for_survey()
        survey.opened = set()
        with closing(json_lines(survey, file)) as lines:
            yield from (as_object(record) for _, record in islice(lines, _SAMPLE))


def _list_key(tree: SourceTree, file: str) -> str | None:
    """The key of the one list of objects in a JSON object, like `{"data": […]}`."""
    content = outline(tree, file)
    if not isinstance(content, dict) or _has_lines(tree, file):
        return None
    keys = [key for key, value in content.items() if sampled_objects(value)]
    return keys[0] if len(keys) == 1 else None


def _has_lines(tree: SourceTree, file: str) -> bool:
    """Whether a file is JSON Lines: its first line is an object, and there is another."""
    first, _, rest = decode_head(tree.head(file, _HEAD)).strip().partition("\n")
    try:
        return bool(rest.strip()) and isinstance(msgspec.json.decode(first), dict)
    except (ValueError, RecursionError):
        return False


def _paths(record: Any, prefix: str) -> Iterator[str]:
    for key, value in as_object(record).items():
        if isinstance(value, dict) and value and prefix.count(".") < _DEPTH:
            yield from _paths(value, f"{prefix}{key}.")
        else:
            yield prefix + key
