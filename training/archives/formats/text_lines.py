"""Lines of a text export in whatever encoding it was saved. Knows no format."""

import codecs
import io
from collections.abc import Iterator

from training.archives.source_tree import CountedFile

_CHUNK = 1 << 16
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DAMAGED_IN = 5

LONGEST_LINE = 1 << 26
"""Characters of a line (64 Mi); what goes on beyond is taken for a line of its own."""


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
    ends = io.IncrementalNewlineDecoder(decoder, translate=True)
    number, held, size = 0, list[str](), 0
    while True:
        data = file.read(_CHUNK)
        first, *further = ends.decode(data, final=not data).split("\n")
        held.append(first)
        size += len(first)
        if further or size >= LONGEST_LINE:
            for line in ("".join(held), *further[:-1]):
                number += 1
                yield number, line
            held = further[-1:]
            size = sum(map(len, held))
        if not data:
            break
    if last := "".join(held):
        yield number + 1, last
