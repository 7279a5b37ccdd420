"""Reads CSV files row by row, whatever program wrote them or saved them again: any delimiter, quotes, line ends.

A quotation mark that was not doubled costs at most its own row: reading goes on at the next line that looks like a row.
"""

import csv
import re
from collections import Counter, deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress

import msgspec

from doppel.i18n import tr
from training.archives.formats.text_lines import MAX_LINE_LENGTH, MAX_RECORD_LENGTH, decode_head, text_lines
from training.archives.source_tree import SourceTree

REST = ""
"""Key of the cells beyond the columns."""

_DELIMITERS = ",;\t|"
_DECLARED = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
"""The first line that Excel writes, or needs, in files that are not separated by what its country uses."""

_LEARNED_ROWS = 50
_DIGITS = re.compile(r"\d+")
_LONGEST_SHAPE = 40
_MAX_SHAPES = 3
_TIME_OR_ID = re.compile(r"\d{1,4}[-/.年]\s?\d{1,2}[-/.月]\s?\d{1,4}.*|\d{9,20}")
_ROUNDED = re.compile(r"\d(?:[.,]\d+)?E\+\d+")


class CsvForm(msgspec.Struct, frozen=True):
    """How a CSV file is written.

    Attributes:
        columns: names in lower case; a repeated one is numbered.
        delimiter: between cells.
        header: the number of the line with the names, from 1.
        is_wrapped: whether each line is one quoted cell with the whole row in it.
    """

    columns: tuple[str, ...]
    delimiter: str
    header: int
    is_wrapped: bool


def csv_columns(tree: SourceTree, file: str) -> Sequence[str]:
    """The column names of a CSV file, in lower case, for sniffing."""
    return _form(tree, file).columns


def csv_rows(tree: SourceTree, file: str) -> Generator[tuple[int, dict[str, str]], None, None]:
    """The last line number and the cells of every row of a CSV file with a header, by lower-case column name.

    Cells beyond the columns are under `""`, joined by commas.
    """
    form = _form(tree, file)
    columns, width = form.columns, len(form.columns)
    with tree.open(file) as opened:
        lines = ((number, line) for number, line in text_lines(opened) if number >= form.header)
        for position, (number, row) in enumerate(_Rows(tree, file, lines, form).rows()):
            if position == 0 or (row[0].lower().strip() == columns[0] and _names(row) == columns):
                continue  # the names; files that were joined have them again
            record = dict(zip(columns, row, strict=False))
            if len(row) > width:
                record[REST] = ",".join(row[width:])
            yield number, record


def is_rounded(cell: str) -> bool:
    """Whether a spreadsheet has made a number of an id and rounded it, like `4.10E+17`."""
    return _ROUNDED.fullmatch(cell.strip()) is not None


def _form(tree: SourceTree, file: str) -> CsvForm:
    """How a file is written, by its first lines."""
    key = f"csv of {file}"
    if key not in tree.outlines:
        lines = decode_head(tree.head(file)).replace("\0", "").replace("\r\n", "\n").replace("\r", "\n").split("\n")
        header = next((number for number, line in enumerate(lines, 1) if line.strip()), 1)
        declared = _DECLARED.fullmatch(lines[header - 1])
        if declared and len(lines) > header:
            header += 1
        line = lines[header - 1]
        delimiters = declared[1] if declared else _DELIMITERS
        delimiter = max(delimiters, key=lambda delimiter: len(_cells(line, delimiter)))
        cells, is_wrapped = _cells(line, delimiter), False
        if len(cells) == 1 and line.startswith('"'):
            delimiter = max(delimiters, key=lambda delimiter: len(_cells(cells[0], delimiter)))
            cells = _cells(cells[0], delimiter)
            is_wrapped = len(cells) > 1
        tree.outlines[key] = CsvForm(_names(cells), delimiter, header, is_wrapped)
    form: CsvForm = tree.outlines[key]
    return form


def _cells(line: str, delimiter: str) -> list[str]:
    with suppress(csv.Error):
        return next(csv.reader([line], delimiter=delimiter), [""])
    return [line]


def _names(cells: Sequence[str]) -> tuple[str, ...]:
    names, counts = list[str](), Counter[str]()
    for cell in cells:
        name = cell.strip().strip('"').strip().lower()
        counts[name] += 1
        names.append(name if counts[name] == 1 else f"{name} ({counts[name]})")
    return tuple(names)


class _Runaway(Exception):
    """A cell is longer than any message: a quotation mark is missing."""


class _Rows:
    """The rows of a file; knows from the first ones what a row looks like."""

    def __init__(self, tree: SourceTree, file: str, lines: Iterator[tuple[int, str]], form: CsvForm) -> None:
        self._tree = tree
        self._file = file
        self._lines = lines
        self._form = form
        self._returned: deque[tuple[int, str]] = deque()
        self._taken: list[tuple[int, str]] = []
        """The lines of the row that is being read."""
        self._size = 0
        self._reader = csv.reader(self, delimiter=form.delimiter, strict=True)
        self._widths = {len(form.columns)}
        self._shapes: list[set[str]] = [set() for _ in form.columns]
        self._learned = -1  # the names

    def __iter__(self) -> "_Rows":
        return self

    def __next__(self) -> str:
        """The next line, for the parser."""
        number, line = self._returned.popleft() if self._returned else next(self._lines)
        self._taken.append((number, line))
        self._size += len(line)
        if self._size > MAX_RECORD_LENGTH and len(self._taken) > 1:
            raise _Runaway
        return line + "\n"

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """The last line number and the cells of every row; reports rows that cannot be read."""
        while True:
            self._taken, self._size = [], 0
            limit = csv.field_size_limit(MAX_LINE_LENGTH)
            try:
                row = next(self._reader)
                is_sound = len(self._taken) == 1 or len(row) in self._widths or not self._next_row(self._taken)
            except StopIteration:
                return
            except (csv.Error, _Runaway):
                row, is_sound = [], False
            finally:
                csv.field_size_limit(limit)
            if not is_sound:
                row = self._recovered()
            if not row:
                continue
            if self._form.is_wrapped and len(row) == 1:
                row = _cells(row[0], self._form.delimiter)
            if self._learned < _LEARNED_ROWS:
                self._learn(row)
            number, line = self._taken[-1]
            if "E+" in line and any(map(is_rounded, row)):
                self._tree.note(
                    tr(
                        "{path}: a spreadsheet has rounded ids to numbers like 4.10E+17; export again, and do not save "
                        "the file with a spreadsheet",
                        path=self._tree.label,
                    )
                )
            yield number, row

    def _learn(self, row: list[str]) -> None:
        self._learned += 1
        if self._learned:
            self._widths.add(len(row))
            for shapes, cell in zip(self._shapes, row, strict=False):
                shapes.add(_shape(cell))

    def _recovered(self) -> list[str]:
        """The row that the lines taken begin with, if it can be told; empty, and reported, if not."""
        number = self._next_row(self._taken)
        while not number and self._size <= MAX_RECORD_LENGTH:
            try:
                next(self)
            except (StopIteration, _Runaway):
                break
            number = len(self._taken) - 1 if self._looks_like_row(self._taken[-1][1]) else 0
        if not number and self._size > MAX_RECORD_LENGTH:
            number = 1
        if number:
            self._returned.extendleft(reversed(self._taken[number:]))
            del self._taken[number:]
        text = "\n".join(line for _, line in self._taken)
        for row in (_forgiving(text, self._form.delimiter), _lenient(text, self._form.delimiter)):
            if len(row) in self._widths and self._has_shape(row):
                return row
        self._tree.report_bad(
            self._file, tr("record {number}", number=self._taken[0][0]), tr("a quotation mark is not closed")
        )
        return []

    def _next_row(self, lines: Sequence[tuple[int, str]]) -> int:
        """Which of these lines, from 1, is the first that looks like a row of its own; 0 if none does."""
        return next((at for at, (_, line) in enumerate(lines) if at and self._looks_like_row(line)), 0)

    def _looks_like_row(self, line: str) -> bool:
        row = _forgiving(line, self._form.delimiter) or _lenient(line, self._form.delimiter)
        if len(row) not in self._widths and line.count('"') % 2 == 0:
            return False
        return len(row) > 1 and self._has_shape(row, is_whole=len(row) in self._widths)

    def _has_shape(self, row: Sequence[str], *, is_whole: bool = True) -> bool:
        """Whether a row has numbers, times and the like where the first rows had them."""
        keys = [at for at, shapes in enumerate(self._shapes) if 0 < len(shapes) <= _MAX_SHAPES and "" not in shapes]
        if not keys:
            return is_whole and (len(row) > 2 or any(map(_TIME_OR_ID.fullmatch, row)))
        present = [at for at in keys if at < len(row)]
        return bool(present) and all(_shape(row[at]) in self._shapes[at] for at in present)


def _shape(cell: str) -> str:
    """A short cell of mostly digits with `9` in place of numbers; empty for any other, which says nothing."""
    if not cell or len(cell) > _LONGEST_SHAPE:
        return ""
    digits = sum(map(str.isdecimal, cell))
    return _DIGITS.sub("9", cell.strip()) if digits * 5 >= 2 * (len(cell) - cell.count(" ")) else ""


def _forgiving(text: str, delimiter: str) -> list[str]:
    """The cells of a row in which quotation marks within a cell may not be doubled; empty if that makes no sense."""
    end = re.escape(delimiter)
    quoted = re.compile(rf'"((?:[^"]++|""|"(?!{end}|\Z))*+)"(?={end}|\Z)')
    bare = re.compile(rf"[^{end}\n]*")
    cells, at = list[str](), 0
    while True:
        match = quoted.match(text, at) if text.startswith('"', at) else None
        if match is not None:
            cells.append(match[1].replace('""', '"'))
        elif (match := bare.match(text, at)) is not None:
            cells.append(match[0])
        assert match is not None
        at = match.end()
        if at == len(text):
            return cells
        if text[at] != delimiter:
            return []
        at += 1


def _lenient(text: str, delimiter: str) -> list[str]:
    """The cells of a row as most programs would read it."""
    limit = csv.field_size_limit(MAX_LINE_LENGTH)
    try:
        return next(csv.reader([line + "\n" for line in text.split("\n")], delimiter=delimiter), [])
    except csv.Error:
        return []
    finally:
        csv.field_size_limit(limit)
