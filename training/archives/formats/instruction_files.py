"""Reads the records of an instruction data file: a JSON array, JSON Lines or CSV, recognized by its first bytes.

Stricter than `archive_records`, because instruction data can be downloaded again: a file that is cut off or not UTF-8
is refused, not read as far as possible.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from doppel.errors import UserError
from doppel.i18n import tr
from training.archives.formats.json_stream import LARGEST_RECORD, DamagedJSON, JsonStream

OnBad = Callable[[str, str], None]
"""Called with the position of an unreadable record and the reason."""

_HEAD = 1 << 18
_OTHER_ENCODINGS = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")
_DELIMITERS = ",\t;|"


def read_records(
    path: Path, on_bad: OnBad, advance: Callable[[int], None] = lambda _: None
) -> Iterator[tuple[str, Any]]:
    """Yields the position (`record 3` of a JSON array, else `line 3`) and the value of every record.

    A row of a CSV file becomes an object with the column names, in lower case, as keys. Bytes that are not UTF-8
    become U+FFFD.

    Args:
        path: the file.
        on_bad: called for every damaged record; reading continues.
        advance: called with the number of bytes read.

    Raises:
        UserError: the file is missing, of no known form, in another encoding, or cut off.
    """
    if path.is_dir():
        raise UserError(tr("{path}: is a folder; give the path of a file", path=path))
    try:
        raw = _CountingFile(path, advance)
    except FileNotFoundError:
        raise UserError(tr("{path}: no such file", path=path)) from None
    except OSError as error:
        raise UserError(tr("{path}: cannot be read: {error}", path=path, error=error.strerror)) from None
    with io.BufferedReader(raw, _HEAD) as file:
        yield from _records(path, file, on_bad)


class _CountingFile(io.FileIO):
    """A file that reports how many bytes were read."""

    def __init__(self, path: Path, advance: Callable[[int], None]) -> None:
        super().__init__(path)
        self._advance = advance

    def readinto(self, buffer: Any, /) -> int:
        count = super().readinto(buffer) or 0
        self._advance(count)
        return count


def _records(path: Path, file: "io.BufferedReader[Any]", on_bad: OnBad) -> Iterator[tuple[str, Any]]:
    head = file.peek(1)
    if head.startswith(_OTHER_ENCODINGS):
        raise UserError(tr("{path}: not UTF-8 text; save it as UTF-8", path=path))
    text = head.decode("utf-8-sig", "replace").lstrip()
    if text.startswith("["):
        yield from _array_records(path, file, on_bad)
    elif text.startswith("{"):
        yield from _line_records(path, file, on_bad)
    elif (delimiter := _delimiter(text)) is not None:
        yield from _csv_rows(path, file, delimiter, on_bad)
    else:
        raise UserError(tr("{path}: not a JSON array, JSON Lines, or CSV with a header row", path=path))


def _array_records(path: Path, file: "io.BufferedReader[Any]", on_bad: OnBad) -> Iterator[tuple[str, Any]]:
    last_bad = (1, "")

    def report_bad(number: int, reason: str) -> None:
        nonlocal last_bad
        last_bad = (number, reason)
        on_bad(_record(number), reason)

    stream = JsonStream(file)
    for number, value in stream.records(report_bad):
        yield _record(number), value
    if stream.gave_up:
        raise _cut_off(path, _record(last_bad[0]), last_bad[1])
    if stream.peek():
        on_bad(tr("after the last record"), tr("extra text after it"))


def _line_records(path: Path, file: "io.BufferedReader[Any]", on_bad: OnBad) -> Iterator[tuple[str, Any]]:
    lines = iter(lambda: file.readline(LARGEST_RECORD), b"")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            # As lenient as JsonStream: both accept the same values.
            value = json.loads(line.decode("utf-8-sig", "replace"), strict=False)
        except (ValueError, RecursionError):
            reason = _explain_damage(line)
            if not line.endswith(b"\n"):
                raise _cut_off(path, _line(number), reason) from None
            on_bad(_line(number), reason)
        else:
            yield _line(number), value


def _csv_rows(path: Path, file: "io.BufferedReader[Any]", delimiter: str, on_bad: OnBad) -> Iterator[tuple[str, Any]]:
    names: list[str] | None = None
    with io.TextIOWrapper(file, "utf-8-sig", "replace", newline="") as text:
        rows = csv.reader(text, delimiter=delimiter, strict=True)
        while True:
            position = _line(rows.line_num + 1)
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                if str(error) == "unexpected end of data":
                    raise _cut_off(path, position, tr("ends unexpectedly")) from None
                on_bad(position, tr("not valid CSV: {error}", error=error))
                continue
            if not row:
                continue
            if names is None:
                names = [name.strip().lower() for name in row]
            elif len(row) != len(names):
                on_bad(position, tr("{found} fields, expected {columns}", found=len(row), columns=len(names)))
            else:
                yield position, dict(zip(names, row, strict=True))


def _delimiter(text: str) -> str | None:
    """The delimiter of a CSV file that begins with this text; None if it is not one."""
    first = text.partition("\n")[0]
    delimiter = max(_DELIMITERS, key=first.count)
    return delimiter if delimiter in first and "\0" not in text else None


def _explain_damage(line: bytes) -> str:
    try:
        JsonStream(io.BytesIO(line)).value()
    except DamagedJSON as damage:
        return str(damage)
    return tr("extra text after it")


def _cut_off(path: Path, position: str, reason: str) -> UserError:
    return UserError(
        tr(
            "{path}, {position}: {reason}; download the file again, or fix it there",
            path=path,
            position=position,
            reason=reason,
        )
    )


def _record(number: int) -> str:
    return tr("record {number}", number=number)


def _line(number: int) -> str:
    return tr("line {number}", number=number)
