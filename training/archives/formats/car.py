"""Reads CAR files block by block, and the DAG-CBOR values in the blocks.

Both are bounded, whatever a file claims: no block larger than LARGEST_BLOCK is kept, and no value is nested deeper
than MAX_DEPTH. Formats: https://ipld.io/specs/transport/car/carv1/ and https://ipld.io/specs/codecs/dag-cbor/spec/
"""

import hashlib
import io
from collections.abc import Callable, Iterator
from typing import Any

import cbor2

from doppel.i18n import tr
from training.archives.encodings import Readable
from training.archives.formats.json_stream import CHUNK

LARGEST_BLOCK = 1 << 21
"""Bytes of a block; servers refuse records larger than half of it."""

MAX_DEPTH = 64
"""Lists and maps within one another."""

_LONGEST_VARINT = 10
_SHA256 = b"\x12\x20"
_LONGEST_DIGEST = 64
_CID_TAG = 42


class DamagedCAR(ValueError):
    """The bytes are not a CAR file, or not DAG-CBOR, from here on. The text says what is wrong."""


class CID(bytes):
    """The binary address of a block."""


def read_blocks(file: Readable, on_bad: Callable[[int, str], None]) -> Iterator[tuple[int, CID, bytes]]:
    """Yields the number (from 1), the address and the bytes of every block.

    Args:
        file: the CAR file, at its beginning.
        on_bad: called with the number of a block that is too large or has no address, and the reason; the next
            block follows.

    Raises:
        DamagedCAR: the file is not a CAR file, or is cut off.
    """
    source = _Source(file)
    size = source.varint()
    if size is None or not is_header(source.exactly(size) if size <= LARGEST_BLOCK else b""):
        raise DamagedCAR(tr("not a CAR file"))
    number = 0
    while (size := source.varint()) is not None:
        number += 1
        if size > LARGEST_BLOCK:
            on_bad(number, tr("block too large"))
            source.skip(size)
            continue
        section = source.exactly(size)
        try:
            end = _cid_length(section)
        except DamagedCAR as damage:
            on_bad(number, str(damage))
            continue
        yield number, CID(section[:end]), section[end:]


def looks_like_car(head: bytes) -> bool:
    """Whether a file that begins with these bytes is a CAR file."""
    try:
        size, at = _varint(head, 0)
    except DamagedCAR:
        return False
    return size <= len(head) - at and is_header(head[at : at + size])


def is_header(data: bytes) -> bool:
    """Whether these bytes are the header of a CAR file of version 1."""
    try:
        header = decode(data)
    except DamagedCAR:
        return False
    return isinstance(header, dict) and header.get("version") == 1 and isinstance(header.get("roots"), list)


def matches_digest(cid: CID, block: bytes) -> bool:
    """Whether a block has the SHA-256 digest in its address. Repositories use no other digest."""
    digest = cid[-34:]
    return digest.startswith(_SHA256) and digest[2:] == hashlib.sha256(block).digest()


def decode(data: bytes) -> Any:
    """The DAG-CBOR value of a block: definite lengths, text as keys, and CIDs as the only tag. Raises DamagedCAR."""
    stream = io.BytesIO(data)
    decoder = cbor2.CBORDecoder(
        stream,
        semantic_decoders=_TAGS,
        str_errors="replace",
        max_depth=MAX_DEPTH,
        allow_indefinite=False,
        strict_hashable_types=True,
    )
    try:
        value = decoder.decode()
    except cbor2.CBORDecodeEOF:
        raise DamagedCAR(tr("ends unexpectedly")) from None
    except (cbor2.CBORError, ValueError, OverflowError):
        raise DamagedCAR(tr("not valid DAG-CBOR")) from None
    if stream.tell() != len(data):
        raise DamagedCAR(tr("extra bytes after the value"))
    if isinstance(value, cbor2.CBORSimpleValue) or value is cbor2.undefined:
        raise DamagedCAR(tr("not valid DAG-CBOR"))
    return value


def _read_cid(content: object, _immutable: bool) -> CID:
    if not isinstance(content, bytes) or not content.startswith(b"\0"):
        raise cbor2.CBORDecodeError("not a CID")
    return CID(content[1:])


class _Tags(dict[int, Callable[[Any, bool], Any]]):
    """The tags of DAG-CBOR. All others are refused: cbor2 would make dates, regular expressions and more of them."""

    def __missing__(self, tag: int) -> Callable[[Any, bool], Any]:
        raise cbor2.CBORDecodeError(f"tag {tag}")


_TAGS = _Tags({_CID_TAG: _read_cid})


class _Source:
    """A file from which exact numbers of bytes are taken."""

    def __init__(self, file: Readable) -> None:
        self._file = file
        self._data = b""
        self._at = 0

    def varint(self) -> int | None:
        """The next number; None at the end of the file. Raises DamagedCAR."""
        if not self._has(1):
            return None
        self._has(_LONGEST_VARINT)
        value, self._at = _varint(self._data, self._at)
        return value

    def exactly(self, size: int) -> bytes:
        """The next `size` bytes. Raises DamagedCAR when there are fewer."""
        if not self._has(size):
            raise DamagedCAR(tr("ends unexpectedly"))
        self._at += size
        return self._data[self._at - size : self._at]

    def skip(self, size: int) -> None:
        """Skips bytes without keeping them in memory."""
        while size > 0:
            step = min(size, CHUNK)
            self.exactly(step)
            size -= step

    def _has(self, size: int) -> bool:
        """Whether `size` bytes are left; reads on as needed."""
        while len(self._data) - self._at < size:
            more = self._file.read(CHUNK)
            if not more:
                return False
            self._data = self._data[self._at :] + more
            self._at = 0
        return True


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """An unsigned LEB128 number, and where it ends."""
    value = shift = 0
    for byte in data[at : at + _LONGEST_VARINT]:
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise DamagedCAR(tr("ends unexpectedly"))


def _cid_length(section: bytes) -> int:
    """Length in bytes of the CID that a section begins with."""
    if section.startswith(_SHA256):  # version 0
        end = 34
    else:
        version, at = _varint(section, 0)
        _, at = _varint(section, at)
        _, at = _varint(section, at)
        size, at = _varint(section, at)
        if version != 1 or size > _LONGEST_DIGEST:
            raise DamagedCAR(tr("block without an address"))
        end = at + size
    if end > len(section):
        raise DamagedCAR(tr("ends unexpectedly"))
    return end
