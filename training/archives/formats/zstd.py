"""Reads files line by line that may be compressed with zstd, such as dumps of Reddit.

Those dumps need windows of up to 2 GiB. The length of a line and the decompression ratio are limited.
"""

from collections.abc import Iterator
from io import BytesIO

import zstandard

from doppel.i18n import tr
from training.archives import source_tree
from training.archives.encodings import Readable
from training.archives.formats.json_stream import CHUNK, LARGEST_RECORD
from training.archives.source_tree import CountingFile, SourceTree

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
"""The first bytes of a file compressed with zstd."""

_MAX_WINDOW = 1 << 31
_HEAD_SIZE = 1 << 18
"""Compressed bytes that certainly contain the first block of a stream."""

_STEP = 1 << 10
"""Compressed bytes passed to the decompressor at once: more could fill memory before the ratio is checked."""


def decompress(file: Readable) -> Iterator[bytes]:
    """Yields the decompressed content of a file in pieces.

    Raises:
        zstandard.ZstdError: the file is damaged.
        ValueError: it is cut off, or a decompression bomb.
    """
    frame = _new_frame()
    bytes_in = bytes_out = 0
    while compressed := file.read(CHUNK):
        for start in range(0, len(compressed), _STEP):
            rest = compressed[start : start + _STEP]
            bytes_in += len(rest)
            while rest:
                if frame.eof:
                    frame = _new_frame()
                data = frame.decompress(rest)
                rest = frame.unused_data if frame.eof else b""
                bytes_out += len(data)
                yield from (data[at : at + CHUNK] for at in range(0, len(data), CHUNK))
                if bytes_out > source_tree.BOMB_BYTES and bytes_out > source_tree.BOMB_RATIO * bytes_in:
                    raise ValueError(tr("looks like a decompression bomb; refused"))
    if not frame.eof:
        raise ValueError(tr("ends unexpectedly"))


def byte_lines(tree: SourceTree, file: str) -> Iterator[tuple[int, bytes]]:
    """Yields the number (from 1) and bytes of every line of a file, compressed or not.

    Damage, and lines longer than LARGEST_RECORD, are reported as bad records.
    """
    number = 1
    parts: list[bytes] = []
    size = 0
    with tree.open(file) as opened:
        for data in _chunks(tree, file, opened):
            *lines, rest = data.split(b"\n")
            for line in lines:
                if size + len(line) > LARGEST_RECORD:
                    _report_too_long(tree, file, number)
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
        _report_too_long(tree, file, number)
    elif size:
        yield number, b"".join(parts)


def decompressed_head(tree: SourceTree, file: str, size: int) -> bytes:
    """The first `size` decompressed bytes of a file; fewer if it is damaged before."""
    parts: list[bytes] = []
    try:
        for data in decompress(BytesIO(tree.head(file, _HEAD_SIZE))):
            parts.append(data)
            if sum(map(len, parts)) >= size:
                break
    except (zstandard.ZstdError, ValueError, MemoryError):
        pass  # the head of a file always ends unexpectedly; reading the whole file reports real damage
    return b"".join(parts)[:size]


def _new_frame() -> "zstandard.ZstdDecompressionObj":
    return zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW).decompressobj()


def _chunks(tree: SourceTree, file: str, opened: CountingFile) -> Iterator[bytes]:
    if tree.head(file, len(ZSTD_MAGIC)) != ZSTD_MAGIC:
        yield from iter(lambda: opened.read(CHUNK), b"")
        return
    try:
        yield from decompress(opened)
    except (zstandard.ZstdError, ValueError, MemoryError) as error:
        tree.report_bad(file, tr("end of file"), error)


def _report_too_long(tree: SourceTree, file: str, number: int) -> None:
    tree.report_bad(file, tr("line {number}", number=number), tr("message too long"))
