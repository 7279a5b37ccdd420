"""Lines of a text export in whatever encoding it was saved. Knows no format."""

import codecs
from collections.abc import Iterator

from training.archives.tree import CountedFile

_CHUNK = 1 << 16
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DAMAGED_IN = 5
_LINE_ENDS = "\r\n"


def encoding_of(head: bytes) -> str:
    """The encoding of a text that begins with these bytes: what its mark says, else UTF-8, else GB18030.

    A damaged byte here and there does not make UTF-8 something else.
    """
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(head)  # the end may be cut within a character
    damaged = text.count("\ufffd")
    return "gb18030" if damaged and damaged * _DAMAGED_IN >= sum(not char.isascii() for char in text) else "utf-8"


def decode_head(head: bytes) -> str:
    """The first characters of a text, for sniffing."""
    return codecs.getincrementaldecoder(encoding_of(head))("replace").decode(head)


def text_lines(file: CountedFile, head: bytes) -> Iterator[tuple[int, str]]:
    """Number from 1 and text of every line, without its end; bytes that are no text become U+FFFD.

    Only `\\n`, `\\r\\n` and `\\r` end a line: what people write may hold Unicode's other line separators.

    Args:
        file: the file, at its beginning.
        head: its first bytes, from which the encoding is told.
    """
    decoder = codecs.getincrementaldecoder(encoding_of(head))("replace")
    number, rest = 0, ""
    while True:
        data = file.read(_CHUNK)
        text = rest + decoder.decode(data, final=not data)
        # a \r at the end may be half of a \r\n
        lines = text.replace("\r\n", "\n").split("\n") if not text.endswith("\r") or not data else [text]
        rest = lines.pop()
        for line in lines:
            for part in line.split("\r"):
                number += 1
                yield number, part
        if not data:
            break
    for part in rest.split("\r") if rest.strip(_LINE_ENDS) else ():
        number += 1
        yield number, part
