"""Records of a JSON, JSON Lines or CSV file, one at a time; damaged ones are reported and do not end the file.

Which of the three a file is shows in its first bytes, never in its name. Knows no kind of record.
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

Bad = Callable[[str, str], None]
"""Hears where a record that cannot be read stands, and what is wrong with it."""

_HEAD = 1 << 18
_OTHER_ENCODINGS = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")
_DELIMITERS = ",\t;|"


def read_records(path: Path, bad: Bad, advance: Callable[[int], None] = lambda _: None) -> Iterator[tuple[str, Any]]:
    """Where each record stands (`record 3` of a JSON array, `line 3` of the other forms) and the record.

    A row of a CSV file becomes an object with its column names, in lower case, as keys. Bytes that are not UTF-8
    become U+FFFD.

    Args:
        path: the file.
        bad: hears of every damaged record.
        advance: hears how many bytes were read.

    Raises:
        UserError: the file is missing, of no known form, in another encoding, or cut off.
    """
    if path.is_dir():
        raise UserError(tr("{path}: is a folder; give the path of a file", path=path))
    try:
        raw = _CountedFile(path, advance)
    except FileNotFoundError:
        raise UserError(tr("{path}: no such file", path=path)) from None
    except OSError as error:
        raise UserError(tr("{path}: cannot be read: {error}", path=path, error=error.strerror)) from None
    with io.BufferedReader(raw, _HEAD) as file:
        yield from _records(path, file, bad)


class _CountedFile(io.FileIO):
    """A file that tells how many bytes were read from it."""

    def __init__(self, path: Path, advance: Callable[[int], None]) -> None:
        super().__init__(path)
        self._advance = advance

    def readinto(self, buffer: Any, /) -> int:
        count = super().readinto(buffer) or 0
        self._advance(count)
        return count


def _records(path: Path, file: "io.BufferedReader[Any]", bad: Bad) -> Iterator[tuple[str, Any]]:
    head = file.peek(1)
    if head.startswith(_OTHER_ENCODINGS):
        raise UserError(tr("{path}: not UTF-8 text; save it as UTF-8", path=path))
    text = head.decode("utf-8-sig", "replace").lstrip()
    if text.startswith("["):
        yield from _array(path, file, bad)
    elif text.startswith("{"):
        yield from _lines(path, file, bad)
    elif (delimiter := _delimiter(text)) is not None:
        yield from _table(path, file, delimiter, bad)
    else:
        raise UserError(tr("{path}: not a JSON array, JSON Lines, or CSV with a header row", path=path))


def _array(path: Path, file: "io.BufferedReader[Any]", bad: Bad) -> Iterator[tuple[str, Any]]:
    last = (1, "")

    def note(number: int, reason: str) -> None:
        nonlocal last
        last = (number, reason)
        bad(_record(number), reason)

    stream = JsonStream(file)
    for number, value in stream.records(note):
        yield _record(number), value
    if stream.lost:
        raise _ended(path, _record(last[0]), last[1])
    if stream.peek():
        bad(tr("after the last record"), tr("extra text after it"))


def _lines(path: Path, file: "io.BufferedReader[Any]", bad: Bad) -> Iterator[tuple[str, Any]]:
    lines = iter(lambda: file.readline(LARGEST_RECORD), b"")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            # As forgiving as the reader of arrays: what one of them takes, both take.
            value = json.loads(line.decode("utf-8-sig", "replace"), strict=False)
        except (ValueError, RecursionError):
            reason = _damage(line)
            if not line.endswith(b"\n"):
                raise _ended(path, _line(number), reason) from None
            bad(_line(number), reason)
        else:
            yield _line(number), value


def _table(path: Path, file: "io.BufferedReader[Any]", delimiter: str, bad: Bad) -> Iterator[tuple[str, Any]]:
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
                    raise _ended(path, position, tr("ends unexpectedly")) from None
                bad(position, tr("not valid CSV: {error}", error=error))
                continue
            if not row:
                continue
            if names is None:
                names = [name.strip().lower() for name in row]
            elif len(row) != len(names):
                bad(position, tr("{found} fields, expected {columns}", found=len(row), columns=len(names)))
            else:
                yield position, dict(zip(names, row, strict=True))


def _delimiter(text: str) -> str | None:
    """What separates the columns of a table that begins with this text; None when it is no table."""
    first = text.partition("\n")[0]
    found = max(_DELIMITERS, key=first.count)
    return found if found in first and "\0" not in text else None


def _damage(line: bytes) -> str:
    try:
        JsonStream(io.BytesIO(line)).value()
    except DamagedJSON as damage:
        return str(damage)
    return tr("extra text after it")


def _ended(path: Path, position: str, reason: str) -> UserError:
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
