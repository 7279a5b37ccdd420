"""Lines of a file that may be compressed with zstd, as the dumps of Reddit are. Knows no format.

Windows of up to two gigabytes are read, which those dumps need. A line, and what the whole unpacks to, are bounded.
"""

from collections.abc import Iterator
from io import BytesIO

import zstandard

from doppel.i18n import tr
from training.archives import source_tree as trees
from training.archives.formats.json_stream import CHUNK, LARGEST_RECORD, Readable
from training.archives.source_tree import CountedFile, Tree

ZSTD = b"\x28\xb5\x2f\xfd"
"""What a file compressed with zstd begins with."""

_WINDOW = 1 << 31
_FIRST_BLOCK = 1 << 18
"""Compressed bytes in which the first block of a stream surely ends."""

_SIP = 1 << 10
"""Compressed bytes taken at once: more could unpack to more than memory holds before anybody can look."""


def unpacked(file: Readable) -> Iterator[bytes]:
    """The decompressed bytes of a file, piece by piece.

    Raises `zstandard.ZstdError` or ValueError where it is damaged, cut off, or unpacks to far too much.
    """
    frame = _new_frame()
    taken = given = 0
    while packed := file.read(CHUNK):
        for start in range(0, len(packed), _SIP):
            rest = packed[start : start + _SIP]
            taken += len(rest)
            while rest:
                if frame.eof:
                    frame = _new_frame()
                data = frame.decompress(rest)
                rest = frame.unused_data if frame.eof else b""
                given += len(data)
                yield from (data[at : at + CHUNK] for at in range(0, len(data), CHUNK))
                if given > trees.BOMB_BYTES and given > trees.BOMB_RATIO * taken:
                    raise ValueError(tr("looks like a decompression bomb; refused"))
    if not frame.eof:
        raise ValueError(tr("ends unexpectedly"))


def _new_frame() -> "zstandard.ZstdDecompressionObj":
    return zstandard.ZstdDecompressor(max_window_size=_WINDOW).decompressobj()


class Lines:
    """Number from 1 and bytes of every line of a file, compressed or not; damage goes to the tree's bad records.

    A line longer than any record is noted and left out.
    """

    def __init__(self, tree: Tree, file: str) -> None:
        self._tree = tree
        self._file = file

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        number = 1
        parts: list[bytes] = []
        size = 0
        with self._tree.open(self._file) as opened:
            for data in self._chunks(opened):
                *whole, rest = data.split(b"\n")
                for line in whole:
                    if size + len(line) > LARGEST_RECORD:
                        self._too_long(number)
                    else:
                        yield number, b"".join((*parts, line))
                    number, size = number + 1, 0
                    parts.clear()
                size += len(rest)
                if size > LARGEST_RECORD:
                    parts.clear()
                else:
                    parts.append(rest)
        if size > LARGEST_RECORD:
            self._too_long(number)
        elif size:
            yield number, b"".join(parts)

    def _chunks(self, opened: CountedFile) -> Iterator[bytes]:
        if self._tree.head(self._file, len(ZSTD)) != ZSTD:
            yield from iter(lambda: opened.read(CHUNK), b"")
            return
        try:
            yield from unpacked(opened)
        except (zstandard.ZstdError, ValueError, MemoryError) as error:
            self._tree.bad(self._file, tr("end of file"), error)

    def _too_long(self, number: int) -> None:
        self._tree.bad(self._file, tr("line {number}", number=number), tr("message too long"))


def zstd_head(tree: Tree, file: str, size: int) -> bytes:
    """The first decompressed bytes of a file; none where it is damaged before."""
    parts: list[bytes] = []
    try:
        for data in unpacked(BytesIO(tree.head(file, _FIRST_BLOCK))):
            parts.append(data)
            if sum(map(len, parts)) >= size:
                break
    except (zstandard.ZstdError, ValueError, MemoryError):
        pass  # the beginning of a file ends in the middle, and reading the whole says what is wrong with it
    return b"".join(parts)[:size]
