"""Instruction data files: the form is recognized by content, and damage is reported with its position."""

import csv
import io
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doppel.errors import UserError
from training.archives.formats.instruction_files import read_records

Found = tuple[list[tuple[str, Any]], list[tuple[str, str]]]

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd\ufeff"), max_size=20)
cells = texts.map(lambda text: text.replace("\0", ""))
objects = st.lists(
    st.dictionaries(st.sampled_from(["instruction", "output", "id"]), texts | st.integers(), min_size=1), min_size=1
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("records") / "data.bin"


def read(path: Path, content: bytes) -> Found:
    path.write_bytes(content)
    bad: list[tuple[str, str]] = []
    numbered_records = list(read_records(path, lambda position, reason: bad.append((position, reason))))
    return numbered_records, bad


@given(objects, st.booleans(), st.sampled_from([None, 1]), st.booleans())
def test_a_json_array_is_read_back(path: Path, records: Any, ascii_only: bool, indent: int | None, bom: bool) -> None:
    content = json.dumps(records, ensure_ascii=ascii_only, indent=indent).encode("utf-8-sig" if bom else "utf-8")
    assert read(path, content) == ([(f"record {number}", record) for number, record in enumerate(records, 1)], [])


@given(objects, st.booleans(), st.booleans(), st.sampled_from([b"\n", b"\r\n", b"\n\n"]))
def test_json_lines_are_read_back(path: Path, records: Any, ascii_only: bool, bom: bool, end: bytes) -> None:
    lines = [json.dumps(record, ensure_ascii=ascii_only).encode() for record in records]
    numbered_records, bad = read(path, (b"\xef\xbb\xbf" if bom else b"") + end.join(lines))
    assert [record for _, record in numbered_records] == records
    assert bad == []
    assert numbered_records[-1][0] == f"line {(len(records) - 1) * end.count(bytes([10])) + 1}"


@given(st.lists(st.tuples(cells, cells), min_size=1), st.sampled_from(",;\t|"))
def test_a_table_is_read_back(path: Path, rows: list[tuple[str, str]], delimiter: str) -> None:
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writerows([("Question ", "ANSWER"), *rows])
    numbered_records, bad = read(path, file.getvalue().encode())
    assert [(record["question"], record["answer"]) for _, record in numbered_records] == rows
    assert bad == []


@given(st.binary(max_size=300))
def test_whatever_stands_in_a_file_there_is_no_traceback(path: Path, content: bytes) -> None:
    for start in (b"", b"[", b"{", b'[{"a": 1},', b'{"a": 1}\n', b"a,b\n"):
        with suppress(UserError):
            read(path, start + content)


@pytest.mark.parametrize(
    ("content", "kept", "bad"),
    [
        ('[{"a": 1}, {"a": oops}, {"a": 3}]', [1, 3], ["record 2"]),
        ('[{"a": 1}, {"a": 2}] [{"a": 3}]', [1, 2], ["after the last record"]),
        ('{"a": 1}\n{"a": }\n\n{"a": 3}\n', [1, 3], ["line 2"]),
        ("a,b\n1,2\n3\n\n5,6\n", ["1", "5"], ["line 3"]),
        ('a,b\n1,2\n"3"x,4\n5,6\n', ["1", "5"], ["line 3"]),
    ],
)
def test_a_damaged_record_is_named_and_the_rest_is_read(
    tmp_path: Path, content: str, kept: list[Any], bad: list[str]
) -> None:
    numbered_records, noted = read(tmp_path / "data", content.encode())
    assert [record["a"] for _, record in numbered_records] == kept
    assert [position for position, _ in noted] == bad
    assert all(reason for _, reason in noted)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[{"a": 1}, {"a": "tw', "data, record 2: ends unexpectedly; download the file again"),
        (b'[{"a": 1}, {"a": 2}', "data, record 3: ends unexpectedly"),
        (b'{"a": 1}\n{"a": "tw', "data, line 2: ends unexpectedly"),
        (b'a,b\n1,2\n3,"fo', "data, line 3: ends unexpectedly"),
        ('[{"a": 1}]'.encode("utf-16"), "data: not UTF-8 text; save it as UTF-8"),
        (b"just some text\nand more\n", "data: not a JSON array, JSON Lines, or CSV"),
        (b"PK\x03\x04\x00\x00,", "data: not a JSON array, JSON Lines, or CSV"),
        (b"", "data: not a JSON array, JSON Lines, or CSV"),
    ],
)
def test_a_file_cut_off_or_of_no_known_form_is_one_clear_line(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message.replace("(", r"\(")) as error:
        read(tmp_path / "data", content)
    assert error.value.exit_code == 2


def test_what_is_no_file_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder; give the path of a file"):
        list(read_records(tmp_path, lambda *_: None))
    with pytest.raises(UserError, match="no such file"):
        list(read_records(tmp_path / "missing", lambda *_: None))


def test_bytes_that_are_not_utf8_become_replacement_signs(tmp_path: Path) -> None:
    for content in (b'[{"a": "caf\xe9"}]', b'{"a": "caf\xe9"}\n', b"a,b\ncaf\xe9,x\n"):
        assert [record["a"] for _, record in read(tmp_path / "data", content)[0]] == ["caf\ufffd"]


def test_all_bytes_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_text(json.dumps([{"a": "x" * 1000}] * 1000))
    counts: list[int] = []
    assert sum(1 for _ in read_records(path, lambda *_: None, counts.append)) == 1000
    assert sum(counts) == path.stat().st_size
    assert len(counts) > 2
