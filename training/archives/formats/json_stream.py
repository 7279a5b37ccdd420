"""JSON larger than memory, read value by value, with bad records skipped instead of ending the file.

A pull parser over the standard library's C scanner, which can leave a broken record and find the next. Arrays of
sound records are read many at once by msgspec, which takes less than the scanner does and gives the same. Knows no
export format.
"""

import codecs
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import msgspec

from doppel.i18n import tr

CHUNK = 1 << 18
LARGEST_RECORD = 1 << 26
"""Characters a single value may have (64 Mi); a larger one is taken for damage."""

_SPACE = re.compile(r"[ \t\r\n]*")
_NEXT_OBJECT = re.compile(r"[ \t\r\n]*,[ \t\r\n]*(?=\{)")
_FIRST_KEY = re.compile(r'\{\s*("[^"\\]*"\s*:)')
_NUMBER_END = re.compile(r"[-+.eE0-9]*")
_KEY_REACH = 200
_BAD_ESCAPE = re.compile(rb"\\(?:x([0-9A-Fa-f]{2})|.)", re.DOTALL)


class Readable(Protocol):
    """Anything with the `read` of a binary file."""

    def read(self, size: int = -1, /) -> bytes: ...


class DamagedJSON(ValueError):
    """The text is not JSON from here on; says what is wrong."""


class MendedEscapes:
    r"""A byte stream in which the invalid escapes `\xNN`, as Telegram Desktop writes them, are `\u00NN`."""

    def __init__(self, file: Readable) -> None:
        self._file = file
        self._held = b""

    def read(self, size: int = -1) -> bytes:
        """The next bytes, mended; about `size` of them, none only at the end."""
        while True:
            data = self._file.read(size)
            whole = self._held + data
            self._held = b""
            if data:
                whole, self._held = _split_open_escape(whole)
            if whole or not data:
                return _BAD_ESCAPE.sub(_mend, whole) if b"\\x" in whole else whole


class JsonStream:
    """A cursor in a JSON text.

    `members` enters an object and `elements` an array; for each key or number they yield, the caller consumes
    exactly one value with `value`, `members`, `elements`, `records` or `skip`. All raise DamagedJSON where the
    text is not JSON.

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
        self.lost = False
        """Whether `records` reported damage after which nothing could be read; DamagedJSON then follows from it."""

    def skip_past(self, mark: str) -> None:
        """Moves behind the next occurrence of a character."""
        while (found := self._text.find(mark, self._at)) < 0:
            self._at = len(self._text)
            if not self._fill():
                raise DamagedJSON(tr("missing {key}", key=repr(mark)))
        self._at = found + 1

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
        """The next value, whole."""
        self.peek()
        while True:
            try:
                value, end = self._scan(self._text, self._at)
            except json.JSONDecodeError as error:
                if not self._may_continue(error) or not self._fill():
                    raise DamagedJSON(_explain(error, self._ended)) from None
            except RecursionError:
                raise DamagedJSON(tr("nested too deeply")) from None
            except ValueError as error:  # a number of thousands of digits
                raise DamagedJSON(tr("not valid JSON: {error}", error=error)) from None
            else:
                if not self._may_go_on(value, end) or not self._fill():
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
        self, bad: Callable[[int, str], None], fence: str = "", shape: Any = dict[str, Any]
    ) -> Iterator[tuple[int, Any]]:
        """Enters an array of objects and yields (number from 1, object).

        A damaged object is given to `bad` with its number and the reason, and reading goes on with the next
        one that starts alike. If none is found before the text `fence`, which never stands inside the array,
        or the text ends early, the array ends here and `lost` is set.

        Args:
            bad: is told of damage.
            fence: see above.
            shape: a msgspec struct that records are read into where they fit it; those that do not come as they are.
        """
        self._take("[")
        number = 0
        if self.peek() == "]":
            self._at += 1
            return
        next_one = self._next_like(fence)
        decode = msgspec.json.Decoder(list[shape]).decode
        more = True
        while more:
            number += 1
            self.peek()
            for record in self._plain_run(decode, fence):
                yield number, record
                number += 1
            try:
                record = self.value()
            except DamagedJSON as damage:
                bad(number, str(damage))
                more = self._find(next_one)
                continue
            yield number, record
            if self.peek() == "{":  # the comma is missing, and nothing else is
                continue
            try:
                more = self._take(",]") == ","
            except DamagedJSON as damage:
                number += 1
                bad(number, str(damage))
                more = self._find(next_one)

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

    def _plain_run(self, decode: Callable[[str], list[Any]], fence: str) -> Iterator[Any]:
        """Objects here that are whole, sound and followed by another: nearly all of them, read fast."""
        between, length = "", 0  # what stands from one's end to the next one's first key, and to its beginning
        odd_until = 0  # where a run ends that holds something odd: its records are read one by one
        while True:
            if between and self._at >= odd_until and (end := self._last(between, fence) + 1):
                try:
                    run = decode(f"[{self._text[self._at : end]}]")
                except (ValueError, RecursionError):
                    odd_until = end
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

    def _last(self, between: str, fence: str) -> int:
        """Where the last end of a record is in what was read of this array, or -1."""
        behind = self._text.find(fence, self._at) if fence else -1
        return self._text.rfind(between, self._at, len(self._text) if behind < 0 else behind)

    def _take(self, marks: str) -> str:
        found = self.peek()
        if not found or found not in marks:
            if not found:
                raise DamagedJSON(tr("ends unexpectedly"))
            raise DamagedJSON(tr("not valid JSON: {error}", error=f"{found!r}, not {' or '.join(map(repr, marks))}"))
        self._at += 1
        return found

    def _next_like(self, fence: str) -> re.Pattern[str] | None:
        """Finds the next object of the array: it begins with the same key as the one here. Or the fence."""
        while len(self._text) - self._at < _KEY_REACH and self._fill():
            pass
        match = _FIRST_KEY.match(self._text, self._at)
        if match is None:
            return None
        next_one = r"\}\s*,\s*(?=\{\s*" + re.escape(match.group(1)) + ")"
        return re.compile(f"(?P<fence>{re.escape(fence)})|{next_one}" if fence else next_one)

    def _find(self, next_one: re.Pattern[str] | None) -> bool:
        """Moves to the next object after a damaged one; False, and `lost`, when there is none."""
        start = self._at
        while next_one is not None:
            match = next_one.search(self._text, start)
            if match is not None and match.lastgroup is None:
                self._at = match.end()
                return True
            # A match may straddle the end of what was read, so some of it is looked at again.
            self._at = max(self._at, len(self._text) - 1024)
            if match is not None or not self._fill():
                break
            start = self._at
        self.lost = True
        return False

    def _fill(self) -> bool:
        """Reads on; drops what was consumed. False at the end of the file."""
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

    def _may_go_on(self, value: object, end: int) -> bool:
        """Whether a number just before the end of what was read may have more digits."""
        if not isinstance(value, int | float):
            return False
        rest = _NUMBER_END.match(self._text, end)
        return rest is not None and rest.end() == len(self._text)

    def _may_continue(self, error: json.JSONDecodeError) -> bool:
        """Whether the error may only mean that the value is longer than what was read so far."""
        if len(self._text) - self._at > LARGEST_RECORD:
            return False
        return error.msg.startswith("Unterminated string") or error.pos >= len(self._text) - 12


def _split_open_escape(data: bytes) -> tuple[bytes, bytes]:
    """Cuts off an escape at the end that may go on in the next bytes. `data` starts outside of an escape."""
    for tail in (0, 1, 2):
        start = len(data) - tail
        if tail and data[start : start + 1] != b"x":
            continue
        body = data[:start]
        backslashes = len(body) - len(body.rstrip(b"\\"))
        if backslashes % 2:
            return body[:-1], data[start - 1 :]
    return data, b""


def _mend(match: re.Match[bytes]) -> bytes:
    digits = match.group(1)
    return b"\\u00" + digits if digits is not None else match.group()


def _explain(error: json.JSONDecodeError, ended: bool) -> str:
    if ended and (error.msg.startswith("Unterminated string") or error.pos >= len(error.doc) - 12):
        return tr("ends unexpectedly")
    return tr("not valid JSON: {error}", error=error.msg)
