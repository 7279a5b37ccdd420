"""Streaming JSON: the same values as the standard library, whatever the chunks, and damage costs one record."""

import io
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.archives.formats import json_stream
from training.archives.formats.json_stream import DamagedJSON, JsonStream, RepairedEscapes

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.lists(st.fixed_dictionaries({"id": st.integers(), "text": VALUES}), max_size=8)


class Dribble:
    """A file that gives a few bytes at a time, however many are asked for."""

    def __init__(self, data: bytes, size: int) -> None:
        self._file = io.BytesIO(data)
        self._size = size

    def read(self, size: int = -1, /) -> bytes:
        return self._file.read(self._size)


def records(data: bytes, size: int = 7, stop_at: str = "") -> tuple[list[Any], list[tuple[int, str]]]:
    bad: list[tuple[int, str]] = []
    stream = JsonStream(Dribble(data, size))
    return [record for _, record in stream.records(lambda *one: bad.append(one), stop_at)], bad


@given(VALUES, st.integers(1, 9), st.sampled_from([None, 1]), st.booleans())
def test_value_is_what_json_loads_gives(value: Any, size: int, indent: int | None, ascii_only: bool) -> None:
    data = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    expected = json.loads(data.decode("utf-8", "replace"))
    assert JsonStream(Dribble(data, size)).value() == expected


@given(OBJECTS, st.integers(1, 50), st.sampled_from([None, 1]))
def test_records_of_an_array(objects: list[Any], size: int, indent: int | None) -> None:
    assert records(json.dumps(objects, indent=indent).encode(), size) == (objects, [])


@given(st.dictionaries(st.text(max_size=5), st.lists(VALUES, max_size=3), max_size=4), st.integers(1, 9))
def test_members_and_elements(content: dict[str, Any], size: int) -> None:
    stream = JsonStream(Dribble(json.dumps(content).encode(), size))
    read = {key: [stream.value() for _ in stream.elements()] for key in stream.members()}
    assert read == content


@given(VALUES, st.integers(1, 9))
def test_skip_consumes_exactly_one_value(value: Any, size: int) -> None:
    stream = JsonStream(Dribble(json.dumps({"a": value, "b": 1}).encode(), size))
    found = None
    for key in stream.members():
        if key == "a":
            stream.skip()
        else:
            found = stream.value()
    assert found == 1


def mended(text: str) -> str:
    """The rule by another way: character by character."""
    result, at = "", 0
    while at < len(text):
        if text[at] == "\\" and re.match(r"\\x[0-9A-Fa-f]{2}", text[at:]):
            result, at = result + "\\u00" + text[at + 2 : at + 4], at + 4
        else:
            step = 2 if text[at] == "\\" else 1
            result, at = result + text[at : at + step], at + step
    return result


@given(st.text(alphabet='\\x0aFg"né'), st.integers(1, 6))
def test_escapes_are_mended_wherever_a_chunk_ends(text: str, size: int) -> None:
    stream = RepairedEscapes(Dribble(text.encode(), size))
    read = b""
    while data := stream.read(size):
        read += data
    assert read.decode() == mended(text)


@given(st.text(max_size=30), st.integers(1, 9))
def test_text_written_as_telegram_writes_it_comes_back(text: str, size: int) -> None:
    """Telegram escapes control characters as \\xNN and backslashes as two."""
    text = text.encode("utf-8", "replace").decode()
    written = json.dumps(text, ensure_ascii=False)
    written = re.sub(r"(\\\\)|\\u00([01][0-9a-f])", lambda m: m[1] or f"\\x{m[2].upper()}", written)
    assert JsonStream(RepairedEscapes(Dribble(written.encode(), size))).value() == text


def test_a_damaged_record_costs_only_itself() -> None:
    data = b'[\n {"id": 1, "e": [{"a": 1}, {"a": 2}]},\n {"id": 2, "e": [{"a": 1}, {"a": oops}]},\n {"id": 3}\n]'
    for size in range(1, 60):
        read, bad = records(data, size)
        assert [record["id"] for record in read] == [1, 3]
        assert [number for number, _ in bad] == [2]


def test_a_damaged_first_record_costs_only_itself() -> None:
    read, bad = records(b'[{"id": 1, "text": "he said "hi""}, {"id": 2}]', 64)
    assert read == [{"id": 2}]
    assert bad[0][0] == 1
    assert "not valid JSON" in bad[0][1]


def test_a_missing_comma_costs_nothing() -> None:
    assert records(b'[{"id": 1} {"id": 2}]') == ([{"id": 1}, {"id": 2}], [])


@pytest.mark.parametrize(
    "end", [b'[{"id": 1}', b'[{"id": 1},', b'[{"id": 1}, {"id": 2, "text": "abc', b'[{"id": 1}, {"id']
)
def test_a_file_that_ends_in_the_middle_keeps_what_came_before(end: bytes) -> None:
    read, bad = records(end)
    assert read == [{"id": 1}]
    assert bad == [(2, "ends unexpectedly")]


def test_the_search_for_the_next_record_stops_at_the_fence() -> None:
    """Else messages of the next chat would be taken for messages of the damaged one."""
    data = b'[{"id": 1}, {"id": 2, x}]}, {"messages": [{"id": 7}, {"id": 8}]}'
    read, bad = records(data, 16, stop_at='"messages"')
    assert read == [{"id": 1}]
    assert [number for number, _ in bad] == [2]


def test_a_record_too_large_is_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "LARGEST_RECORD", 1000)
    monkeypatch.setattr(json_stream, "CHUNK", 100)
    large = json.dumps([{"id": 1, "text": "x" * 5000}, {"id": 2}]).encode()
    read, bad = records(large, 100)
    assert read == [{"id": 2}]
    assert [number for number, _ in bad] == [1]


@pytest.mark.parametrize("text", [b"", b"[", b"{", b'{"a"', b'{"a": }', b"nonsense", b"[" * 200_000, b"1" * 5000])
def test_what_is_not_json_is_damaged(text: bytes) -> None:
    with pytest.raises(DamagedJSON):
        JsonStream(io.BytesIO(text)).value()


def test_bytes_that_are_not_utf_8_become_replacement_characters() -> None:
    assert JsonStream(io.BytesIO(b'\xef\xbb\xbf"a\xffb"')).value() == "a\ufffdb"
