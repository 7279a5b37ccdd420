"""Which encoding a text is in, judged by what it would say in each, and a stream that passes it on as UTF-8.

Exports are UTF-8, or what a spreadsheet, an editor or an old program made of them. Logs mix encodings line by line,
so that only what is not UTF-8 is read in another one.
"""

import codecs
import re
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Protocol

from training.archives.text_ratings import LATIN, PLAUSIBLE, likeliest_encoding, rating

UTF8_MARK = codecs.BOM_UTF8
_WIDE_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_FIRST_BYTES = 16
_ZEROS_ONE_IN = 5
"""A text is UTF-16 without a mark if a fifth of its characters are ASCII, one of them at its beginning."""

_CONTROLS_ONE_IN = 20
_NO_TEXT = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufffd]")
"""What binary files are full of; logs have some of it for colours."""

_MAX_EVIDENCE = 1 << 16
"""Bytes of a file's lines that are not UTF-8 from which its encoding is judged; more would change nothing."""

_CERTAIN, _NONSENSE = 0.8, 0.25
_LONGEST_LINE = 1 << 12
"""Longer lines are judged piece by piece, as a JSON file may be one line."""

_BLOCK = 1 << 16
_LONGEST_BLOCK = 1 << 20
"""Bytes without anything at which to cut, after which a text is cut anywhere."""

_HANDLER = "doppel."
"""Prefix of the names of error handlers that decode single bytes in a Latin encoding."""

_PIECE = re.compile(rb'[^"\n]*["\n]?')
_SOUND = re.compile("[^\\x00-\\x7f\udc80-\udcff]")
_UNSOUND = re.compile("[\udc80-\udcff]")
"""Bytes that are not UTF-8, as they are decoded with `surrogateescape`."""

_CUTS = (b'"', b" ", b",")
"""Bytes that are no part of a character of several bytes, in any encoding."""


class Readable(Protocol):
    """Anything with the `read` of a binary file."""

    def read(self, size: int = -1, /) -> bytes: ...


class ByteStream(Readable, Protocol):
    """A binary file that can be read and closed."""

    def close(self) -> None: ...


def wide_encoding(head: bytes) -> str | None:
    """UTF-16 or UTF-32, with or without a byte order mark, if a text that begins with these bytes is in it."""
    for mark, name in _WIDE_MARKS:
        if head.startswith(mark):
            return name
    for name, zeros, others in (("utf-16-le", head[1::2], head[::2]), ("utf-16-be", head[::2], head[1::2])):
        first = zeros[: _FIRST_BYTES // 2]
        if zeros.count(0) * _ZEROS_ONE_IN >= len(zeros) > 1 and 0 in first and others.count(0) * 4 <= zeros.count(0):
            text = codecs.getincrementaldecoder(name)("replace").decode(head)
            if len(_NO_TEXT.findall(text)) * _CONTROLS_ONE_IN <= len(text):
                return name
    return None


def decoded(data: bytes) -> str:
    """A beginning of a text, such as the head of a file, as text. What is in no encoding becomes U+FFFD."""
    if (wide := wide_encoding(data)) is not None:
        return codecs.getincrementaldecoder(wide)("replace").decode(data)
    text = _as_utf8(data, is_whole=False)
    if text is None:
        complete = data[: max(data.rfind(b"\n"), data.rfind(b",")) + 1] or data
        text = codecs.getincrementaldecoder("utf-8")("replace").decode(_Lines((complete,)).as_utf8(data))
    return text.removeprefix("\ufeff")


class Utf8Stream:
    """A text in any encoding as a stream of UTF-8, without NUL bytes and byte order marks.

    What is in no encoding is passed on as it is, so that decoding replaces it.

    Args:
        file: the text, in UTF-8 or an encoding that has ASCII as a part; wide ones are decoded by `SourceTree.open`.
        reopen: opens the text once more, for judging all of it.
    """

    def __init__(self, file: Readable, reopen: Callable[[], ByteStream]) -> None:
        self._file = file
        self._reopen = reopen
        self._lines: _Lines | None = None
        self._pending = b""
        self._is_first = True

    def read(self, size: int = -1, /) -> bytes:
        """About `size` bytes, whole lines where possible; empty only at the end."""
        while True:
            data = self._file.read(size)
            block, self._pending = (
                _split_at_line_end(self._pending + data) if data and size >= 0 else (self._pending + data, b"")
            )
            if self._is_first and block:
                block = block.removeprefix(UTF8_MARK)
                self._is_first = False
            if block or not data:
                return self._converted(block)

    def _converted(self, block: bytes) -> bytes:
        if b"\0" in block:
            block = block.replace(b"\0", b"")
        if self._lines is None:
            if _as_utf8(block) is not None:
                return block.replace(b"\n" + UTF8_MARK, b"\n") if UTF8_MARK in block else block
            with closing(self._reopen()) as again:
                self._lines = _Lines(_blocks(again))
        return self._lines.as_utf8(block).replace(b"\n" + UTF8_MARK, b"\n")


class _Lines:
    """Converts the lines of a text that is not UTF-8 throughout.

    Args:
        blocks: whole lines of the text, from its beginning; judged at once.
    """

    def __init__(self, blocks: Iterable[bytes]) -> None:
        sound, broken, damaged, size = 0, list[bytes](), list[bytes](), 0
        for block in blocks:
            if _as_utf8(block) is not None:
                sound += 0 if block.isascii() else block.count(b"\n") + 1
                continue
            for piece in (piece for line in block.split(b"\n") for piece in _pieces(line)):
                if piece.isascii():
                    continue
                if _as_utf8(piece) is not None:
                    sound += 1
                else:
                    odd = _odd_part(piece)
                    (broken if odd is None else damaged).append(piece if odd is None else odd)
                    size += len(piece)
            if size > _MAX_EVIDENCE:
                break
        self._encoding = likeliest_encoding(b"\n".join(broken)[: 2 * _MAX_EVIDENCE])
        if self._encoding is None and damaged:
            self._encoding = likeliest_encoding(b"\n".join(damaged)[: 2 * _MAX_EVIDENCE], LATIN)
        self._is_mostly_broken = len(broken) > sound

    def as_utf8(self, block: bytes) -> bytes:
        """The lines of a block as UTF-8."""
        return b"\n".join([line if line.isascii() else self._line(line) for line in block.split(b"\n")])

    def _line(self, line: bytes) -> bytes:
        pieces = _pieces(line)
        return b"".join(map(self._piece, pieces)) if len(pieces) > 1 else self._piece(line)

    def _piece(self, piece: bytes) -> bytes:
        encoding = self._encoding
        if piece.isascii() or encoding is None:
            return piece
        if _as_utf8(piece) is not None:
            # A word or two of another encoding may happen to be UTF-8.
            if not self._is_mostly_broken or rating(piece, encoding) < _CERTAIN:
                return piece
        elif (odd := _odd_part(piece)) is not None:
            is_likely = encoding in LATIN and rating(odd, encoding) >= PLAUSIBLE
            return _replaced(piece, encoding) if is_likely else piece
        elif rating(piece, encoding) < _NONSENSE:
            encoding = likeliest_encoding(piece) or encoding
        if encoding in LATIN:
            return _replaced(piece, encoding)
        return piece.decode(encoding, "replace").encode()


def _odd_part(piece: bytes) -> bytes | None:
    """A piece that is UTF-8 except for a few bytes, without its UTF-8; None if less than half of it is UTF-8."""
    text = piece.decode("utf-8", "surrogateescape")
    rest, sound = _SOUND.subn(" ", text)
    return rest.encode("utf-8", "surrogateescape") if sound and sound >= len(_UNSOUND.findall(text)) else None


def _replaced(piece: bytes, encoding: str) -> bytes:
    """A piece whose bytes are UTF-8 where they can be, and of a Latin encoding else."""
    return piece.decode("utf-8", _HANDLER + encoding).encode()


def _register_handler(encoding: str) -> None:
    def replace(error: UnicodeError) -> tuple[str, int]:
        assert isinstance(error, UnicodeDecodeError)
        return error.object[error.start : error.end].decode(encoding, "replace"), error.end

    codecs.register_error(_HANDLER + encoding, replace)


def _as_utf8(data: bytes, *, is_whole: bool = True) -> str | None:
    """The data as text if it is UTF-8; unless it is whole, the last character may be incomplete."""
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(data, is_whole)
    except UnicodeDecodeError:
        return None


def _blocks(file: Readable) -> Iterable[bytes]:
    pending = b""
    while data := file.read(_BLOCK):
        block, pending = _split_at_line_end(pending + data)
        yield block.replace(b"\0", b"")
    yield pending


def _split_at_line_end(data: bytes) -> tuple[bytes, bytes]:
    """Splits behind the last line end, or in a long line where no character of any encoding is cut."""
    cut = data.rfind(b"\n") + 1
    if not cut and len(data) > _LONGEST_LINE:
        cut = max(map(data.rfind, _CUTS)) + 1
    if not cut and len(data) > _LONGEST_BLOCK:
        cut = len(data)
    return data[:cut], data[cut:]


def _pieces(line: bytes) -> list[bytes]:
    return [line] if len(line) <= _LONGEST_LINE else _PIECE.findall(line)


for _encoding in LATIN:
    _register_handler(_encoding)
