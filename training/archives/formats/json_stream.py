"""Reads JSON larger than memory value by value, skipping damaged records.

A pull parser over the standard library's C scanner: it can skip a damaged record and find the next one. Intact
records are parsed many at a time by msgspec, which is faster; what msgspec rejects, the more lenient scanner decides.
"""

import codecs
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from doppel.i18n import tr
from training.archives.encodings import Readable

CHUNK = 1 << 18
LARGEST_RECORD = 1 << 26
"""Characters of a single value (64 Mi); a larger one counts as damaged."""

_SPACE = re.compile(r"[ \t\r\n]*")
_NEXT_OBJECT = re.compile(r"[ \t\r\n]*,[ \t\r\n]*(?=\{)")
_FIRST_KEY = re.compile(r'\{\s*("[^"\\]*"\s*:)')
_NUMBER_END = re.compile(r"[-+.eE0-9]*")
_KEY_REACH = 200
_BAD_ESCAPE = re.compile(rb"\\(?:x([0-9A-Fa-f]{2})|.)", re.DOTALL)


class DamagedJSON(ValueError):
    """The text is not JSON from here on. The text of the error says what is wrong."""


class RepairedEscapes:
    r"""A byte stream with `\u00NN` in place of the invalid escapes `\xNN` that Telegram Desktop writes."""

    def __init__(self, file: Readable) -> None:
        self._file = file
        self._pending = b""

    def read(self, size: int = -1) -> bytes:
        """About `size` bytes, repaired; empty only at the end."""
        while True:
            data = self._file.read(size)
            whole = self._pending + data
            self._pending = b""
            if data:
                whole, self._pending = _split_incomplete_escape(whole)
            if whole or not data:
                return _BAD_ESCAPE.sub(_repair_escape, whole) if b"\\x" in whole else whole


class JsonStream:
    """A cursor in a JSON text.

    `members` enters an object and `elements` an array. For each key or number that they yield, the caller consumes
    exactly one value with `value`, `members`, `elements`, `records` or `skip`. All raise DamagedJSON where the text
    is not JSON.

    Args:
        file: UTF-8 bytes; invalid ones become U+FFFD.
    """

    def __init__(self, file: Readable) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._scan = json.JSONDecoder(strict=False).raw_decode
        self._text = ""
        self._at = 0
        self._ended = False
        self.gave_up = False
        """Whether `records` found no further record behind a damaged one; a DamagedJSON then follows from that."""

    def skip_past(self, character: str) -> None:
        """Moves behind the next occurrence of a character."""
        while (position := self._text.find(character, self._at)) < 0:
            self._at = len(self._text)
            if not self._fill():
                raise DamagedJSON(tr("missing {key}", key=repr(character)))
        self._at = position + 1

    def peek(self) -> str:
        """The first character of the next value or bracket; empty at the end of the text."""
        while True:
            match = _SPACE.match(self._text, self._at)
            assert match is not None
            self._at = match.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._fill():
                return ""

    def value(self) -> Any:
        """Parses the next value."""
        self.peek()
        while True:
            try:
                value, end = self._scan(self._text, self._at)
            except json.JSONDecodeError as error:
                if not self._may_be_incomplete(error) or not self._fill():
                    raise DamagedJSON(_explain(error, self._ended)) from None
            except RecursionError:
                raise DamagedJSON(tr("nested too deeply")) from None
            except ValueError as error:  # a number of thousands of digits
                raise DamagedJSON(tr("not valid JSON: {error}", error=error)) from None
            else:
                if not self._may_have_more_digits(value, end) or not self._fill():
                    self._at = end
                    return value

    def members(self) -> Iterator[str]:
        """Enters an object and yields its keys."""
        self._take("{")
        if self.peek() == "}":
            self._at += 1
            return
        while True:
            key = self.value()
            if not isinstance(key, str):
                raise DamagedJSON(tr("not valid JSON: {error}", error=repr(key)[:40]))
            self._take(":")
            self.peek()
            yield key
            if self._take(",}") == "}":
                return

    def elements(self) -> Iterator[int]:
        """Enters an array and yields the numbers of its items, from 1."""
        self._take("[")
        if self.peek() == "]":
            self._at += 1
            return
        number = 0
        while True:
            number += 1
            yield number
            if self._take(",]") == "]":
                return

    def records(
        self, on_bad: Callable[[int, str], None], stop_at: str = "", shape: Any = dict[str, Any]
    ) -> Iterator[tuple[int, Any]]:
        """Enters an array of objects and yields (number from 1, object).

        After a damaged object, reading continues with the next one that begins with the same key. If there is none
        before `stop_at` or the end of the text, the array ends here and `gave_up` is set.

        Args:
            on_bad: called with the number of a damaged object and the reason.
            stop_at: text behind the array that never occurs in it.
            shape: a msgspec struct to parse objects into; those that do not fit it are yielded as dicts.
        """
        self._take("[")
        number = 0
        if self.peek() == "]":
            self._at += 1
            return
        next_record = self._next_like(stop_at)
        decode = msgspec.json.Decoder(list[shape]).decode
        more = True
        while more:
            number += 1
            self.peek()
            for record in self._parse_run(decode, stop_at):
                yield number, record
                number += 1
            try:
                record = self.value()
            except DamagedJSON as damage:
                on_bad(number, str(damage))
                more = self._find(next_record)
                continue
            yield number, record
            if self.peek() == "{":  # the comma is missing, and nothing else is
                continue
            try:
                more = self._take(",]") == ","
            except DamagedJSON as damage:
                number += 1
                on_bad(number, str(damage))
                more = self._find(next_record)

    def skip(self) -> None:
        """Consumes the next value without keeping more than one of its items."""
        mark = self.peek()
        if mark == "{":
            for _ in self.members():
                self.value()
        elif mark == "[":
            for _ in self.elements():
                self.value()
        else:
            self.value()

    def _parse_run(self, decode: Callable[[str], list[Any]], stop_at: str) -> Iterator[Any]:
        """Intact objects that another one follows, which nearly all are: parses all that is in the buffer at once."""
        between, length = "", 0  # the text from an object's end through the next one's first key; offset of that object
        slow_until = 0  # end of a run that msgspec rejects: its records are parsed one by one
        while True:
            if between and self._at >= slow_until and (end := self._last(between, stop_at) + 1):
                try:
                    run = decode(f"[{self._text[self._at : end]}]")
                except (ValueError, RecursionError):
                    slow_until = end
                else:
                    self._at = end - 1 + length
                    yield from run
            try:
                record, end = self._scan(self._text, self._at)
            except (ValueError, RecursionError):
                return
            following = _NEXT_OBJECT.match(self._text, end)
            if following is None:
                return
            if (key := _FIRST_KEY.match(self._text, following.end())) is not None:
                between, length = self._text[end - 1 : key.end()], following.end() - (end - 1)
            self._at = following.end()
            yield record

    def _last(self, between: str, stop_at: str) -> int:
        """Position of the last end of a record within the buffered part of this array, or -1."""
        behind = self._text.find(stop_at, self._at) if stop_at else -1
        return self._text.rfind(between, self._at, len(self._text) if behind < 0 else behind)

    def _take(self, expected: str) -> str:
        character = self.peek()
        if not character or character not in expected:
            if not character:
                raise DamagedJSON(tr("ends unexpectedly"))
            raise DamagedJSON(
                tr("not valid JSON: {error}", error=f"{character!r}, not {' or '.join(map(repr, expected))}")
            )
        self._at += 1
        return character

    def _next_like(self, stop_at: str) -> re.Pattern[str] | None:
        """A pattern of the next object, which begins with the same key as the one here, or of `stop_at`."""
        while len(self._text) - self._at < _KEY_REACH and self._fill():
            pass
        match = _FIRST_KEY.match(self._text, self._at)
        if match is None:
            return None
        next_record = r"\}\s*,\s*(?=\{\s*" + re.escape(match.group(1)) + ")"
        return re.compile(f"(?P<stop_at>{re.escape(stop_at)})|{next_record}" if stop_at else next_record)

    def _find(self, next_record: re.Pattern[str] | None) -> bool:
        """Moves to the next object after a damaged one; False, with `gave_up` set, when there is none."""
        start = self._at
        while next_record is not None:
            match = next_record.search(self._text, start)
            if match is not None and match.lastgroup is None:
                self._at = match.end()
                return True
            # A match may straddle the end of the buffer, so its last part is searched again.
            self._at = max(self._at, len(self._text) - 1024)
            if match is not None or not self._fill():
                break
            start = self._at
        self.gave_up = True
        return False

    def _fill(self) -> bool:
        """Reads more into the buffer and drops what was consumed. False at the end of the file."""
        if self._ended:
            return False
        data = self._file.read(max(CHUNK, len(self._text) - self._at))
        self._ended = not data
        if self._ended:
            self._text += self._decoder.decode(b"", final=True)
            return False
        self._text = self._text[self._at :] + self._decoder.decode(data)
        self._at = 0
        return True

    def _may_have_more_digits(self, value: object, end: int) -> bool:
        """Whether the value is a number at the end of the buffer, which may have more digits."""
        if not isinstance(value, int | float):
            return False
        rest = _NUMBER_END.match(self._text, end)
        return rest is not None and rest.end() == len(self._text)

    def _may_be_incomplete(self, error: json.JSONDecodeError) -> bool:
        """Whether the error may only mean that the value is longer than the buffer."""
        if len(self._text) - self._at > LARGEST_RECORD:
            return False
        return error.msg.startswith("Unterminated string") or error.pos >= len(self._text) - 12


def _split_incomplete_escape(data: bytes) -> tuple[bytes, bytes]:
    """Splits off an incomplete escape at the end. `data` begins outside of an escape."""
    for tail in (0, 1, 2):
        start = len(data) - tail
        if tail and data[start : start + 1] != b"x":
            continue
        body = data[:start]
        backslashes = len(body) - len(body.rstrip(b"\\"))
        if backslashes % 2:
            return body[:-1], data[start - 1 :]
    return data, b""


def _repair_escape(match: re.Match[bytes]) -> bytes:
    digits = match.group(1)
    return b"\\u00" + digits if digits is not None else match.group()


def _explain(error: json.JSONDecodeError, ended: bool) -> str:
    if ended and (error.msg.startswith("Unterminated string") or error.pos >= len(error.doc) - 12):
        return tr("ends unexpectedly")
    return tr("not valid JSON: {error}", error=error.msg)
