"""Text lines, records of several lines, derived message ids, and dates."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.exports import ZONE
from training.archives.formats import text_lines as text_lines_module
from training.archives.formats.chat_text import MessageIds, title_of
from training.archives.formats.text_lines import multiline_records, text_lines
from training.archives.formats.timestamps import hour_24, month_number
from training.archives.source_tree import SourceTree, open_folder


def begun(line: str) -> str | None:
    return line if line.startswith("> ") else None


def tree_of(folder: Path, text: str) -> SourceTree:
    path = folder / "log.txt"
    path.write_text(text, encoding="utf-8")
    return SourceTree(open_folder(path), path.name, path.name, ZONE)


def test_records_go_on_over_lines(tmp_path: Path) -> None:
    tree = tree_of(tmp_path, "\nnothing yet\n> a\nb\n\n> c\n")
    assert list(multiline_records(tree, "log.txt", begun)) == [(3, "> a", ["b", ""]), (6, "> c", [])]
    assert [record.position for record in tree.bad_records] == ["line 2"]


class Pieces:
    """A file that gives a few bytes at a time."""

    def __init__(self, data: bytes, size: int) -> None:
        self.data, self.size = data, size

    def read(self, _: int = -1) -> bytes:
        piece, self.data = self.data[: self.size], self.data[self.size :]
        return piece

    def again(self) -> "Pieces":
        raise AssertionError("UTF-8 needs no second look")


@given(st.text("a\r\n\u2028é鹿", max_size=30), st.integers(1, 5))
def test_lines_are_the_same_however_the_file_is_cut(text: str, size: int) -> None:
    lines = [line for _, line in text_lines(Pieces(text.encode(), size))]  # type: ignore[arg-type]
    expected = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    assert lines == expected[: len(expected) - (not expected[-1])]


def test_a_line_without_an_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    size = 1 << 20
    monkeypatch.setattr(text_lines_module, "MAX_LINE_LENGTH", size)
    lines = list(text_lines(Pieces(b"x" * (3 * size) + b"\nyy\n", 1 << 16)))  # type: ignore[arg-type]
    assert "".join(line for _, line in lines[:-1]) == "x" * 3 * size
    assert len(lines) > 3
    assert max(len(line) for _, line in lines) < 2 * size
    assert lines[-1] == (len(lines), "yy")


def test_an_endless_record_is_cut_and_told(tmp_path: Path) -> None:
    tree = tree_of(tmp_path, "> a\n" + ("x" * 100_000 + "\n") * 15 + "> b\n")
    first, second = multiline_records(tree, "log.txt", begun)
    assert sum(map(len, first[2])) < 1_200_000
    assert second[1] == "> b"
    assert tree.bad_count == 15 - len(first[2]) > 0


def test_ids_are_of_the_words_and_the_moment() -> None:
    moment = datetime(2021, 3, 13, 10, tzinfo=UTC)
    sent = [(moment, "a", "x"), (moment, "a", "x"), (moment, "b", "x"), (moment + timedelta(seconds=1), "a", "x")]
    ids, again = MessageIds(), MessageIds()
    assert len({ids.next_id(*request) for request in sent}) == 4
    assert ids.next_id(moment, "a", "x") != again.next_id(moment, "a", "x")  # a clock set back comes by here again
    assert MessageIds().next_id(*sent[2]) == MessageIds().next_id(*sent[2])


@pytest.mark.parametrize(
    ("hour", "half", "expected"),
    [
        (12, "AM", 0),
        (12, "p.m.", 12),
        (9, "오후", 21),
        (9, "午前", 9),
        (21, "PM", 21),
        (0, "", 0),
        (9, "晚上", 21),
        (12, "中午", 12),
    ],
)
def test_hours(hour: int, half: str, expected: int) -> None:
    assert hour_24(hour, half) == expected


def test_months_and_titles() -> None:
    assert (month_number("March"), month_number("dec")) == (3, 12)
    with pytest.raises(ValueError, match="maa"):
        month_number("maalis")
    assert [title_of(label) for label in ("a/Tom.txt", "a/Dr. Kim", "Tom")] == ["Tom", "Dr. Kim", "Tom"]
