"""CAR files and the DAG-CBOR in them: blocks one by one, and a block's value. Knows no kind of record.

Whatever a file claims, nothing larger than a block may be is kept, and nothing is decoded deeper than records go.
"""

import hashlib
import struct
from collections.abc import Callable, Iterator
from typing import Any

from doppel.i18n import tr
from training.archives.formats.json_stream import CHUNK, Readable

LARGEST_BLOCK = 1 << 21
"""Bytes; servers refuse records larger than half of it."""

DEEPEST = 64
"""Lists and maps within one another."""

_LONGEST_NUMBER = 10
_SHA256 = b"\x12\x20"
_LONGEST_DIGEST = 64
_LINK = 42
_FLOATS = {25: ">e", 26: ">f", 27: ">d"}


class DamagedCAR(ValueError):
    """The bytes are no CAR file, or no DAG-CBOR, from here on; says what is wrong."""


class Link(bytes):
    """The address of a block: a CID in binary."""


def blocks(file: Readable, bad: Callable[[int, str], None]) -> Iterator[tuple[int, Link, bytes]]:
    """Number from 1, address and bytes of every block.

    Args:
        file: the CAR file, at its beginning.
        bad: hears the number of every block that is too large or has no address, and why; the next one follows.

    Raises:
        DamagedCAR: the file is none, or ends in the middle.
    """
    source = _Source(file)
    size = source.number()
    if size is None or not is_header(source.exactly(size) if size <= LARGEST_BLOCK else b""):
        raise DamagedCAR(tr("not a CAR file"))
    number = 0
    while (size := source.number()) is not None:
        number += 1
        if size > LARGEST_BLOCK:
            bad(number, tr("a block larger than any"))
            source.skip(size)
            continue
        section = source.exactly(size)
        try:
            end = _link_end(section)
        except DamagedCAR as damage:
            bad(number, str(damage))
            continue
        yield number, Link(section[:end]), section[end:]


def begins_as_car(head: bytes) -> bool:
    """Whether a file that begins with these bytes is a CAR file."""
    try:
        size, at = _number(head, 0)
    except DamagedCAR:
        return False
    return size <= len(head) - at and is_header(head[at : at + size])


def is_header(data: bytes) -> bool:
    """Whether these bytes are the header of a CAR file in version 1."""
    try:
        header = decode(data)
    except DamagedCAR:
        return False
    return isinstance(header, dict) and header.get("version") == 1 and isinstance(header.get("roots"), list)


def is_whole(link: Link, block: bytes) -> bool:
    """Whether a block is the one that its address names. Repositories know no digest but SHA-256."""
    digest = link[-34:]
    return digest.startswith(_SHA256) and digest[2:] == hashlib.sha256(block).digest()


def decode(data: bytes) -> Any:
    """The value that a block holds. Raises DamagedCAR."""
    value, end = _Decoder(data).value(0, 0)
    if end != len(data):
        raise DamagedCAR(tr("more follows than one value"))
    return value


class _Decoder:
    """Reads values of DAG-CBOR: definite lengths, text as keys, links as the only tag."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def value(self, at: int, depth: int) -> tuple[Any, int]:
        """The value at a place, and where the next one is."""
        if depth > DEEPEST:
            raise DamagedCAR(tr("nested too deeply"))
        major, minor, number, at = self._head(at)
        if major == 0:
            return number, at
        if major == 1:
            return -1 - number, at
        if major in (2, 3):
            raw = self._bytes(at, number)
            return (raw if major == 2 else raw.decode("utf-8", "replace")), at + number
        if major == 7:
            return self._simple(minor, at)
        read: Callable[[int, int, int], tuple[Any, int]] = (self._list, self._map, self._link)[major - 4]
        return read(number, at, depth)

    def _head(self, at: int) -> tuple[int, int, int, int]:
        """Kind, its lower bits, the number that comes with it, and what follows. No floats: those stand at `at`."""
        (first,) = self._bytes(at, 1)
        major, minor = first >> 5, first & 31
        at += 1
        if minor < 24 or major == 7:
            return major, minor, minor, at
        if minor > 27:
            raise DamagedCAR(tr("not DAG-CBOR"))
        size = 1 << (minor - 24)
        return major, minor, int.from_bytes(self._bytes(at, size), "big"), at + size

    def _bytes(self, at: int, size: int) -> bytes:
        if size > len(self._data) - at:
            raise DamagedCAR(tr("it ends in the middle"))
        return self._data[at : at + size]

    def _list(self, count: int, at: int, depth: int) -> tuple[list[Any], int]:
        self._expect(count, at)
        items = []
        for _ in range(count):
            item, at = self.value(at, depth + 1)
            items.append(item)
        return items, at

    def _map(self, count: int, at: int, depth: int) -> tuple[dict[str, Any], int]:
        self._expect(2 * count, at)
        items: dict[str, Any] = {}
        for _ in range(count):
            key, at = self.value(at, depth + 1)
            if not isinstance(key, str):
                raise DamagedCAR(tr("not DAG-CBOR"))
            items[key], at = self.value(at, depth + 1)
        return items, at

    def _link(self, tag: int, at: int, depth: int) -> tuple[Link, int]:
        content, at = self.value(at, depth + 1)
        if tag != _LINK or not isinstance(content, bytes) or not content.startswith(b"\0"):
            raise DamagedCAR(tr("not DAG-CBOR"))
        return Link(content[1:]), at

    def _simple(self, minor: int, at: int) -> tuple[Any, int]:
        if minor in (20, 21):
            return minor == 21, at
        if minor == 22:
            return None, at
        if minor not in _FLOATS:
            raise DamagedCAR(tr("not DAG-CBOR"))
        form = _FLOATS[minor]
        size = struct.calcsize(form)
        return struct.unpack(form, self._bytes(at, size))[0], at + size

    def _expect(self, count: int, at: int) -> None:
        """Every item takes a byte at least, so a count that promises more is a lie."""
        if count > len(self._data) - at:
            raise DamagedCAR(tr("it ends in the middle"))


class _Source:
    """A file from which exact numbers of bytes are taken."""

    def __init__(self, file: Readable) -> None:
        self._file = file
        self._data = b""
        self._at = 0

    def number(self) -> int | None:
        """The next number; None at the end of the file. Raises DamagedCAR."""
        if not self._has(1):
            return None
        self._has(_LONGEST_NUMBER)
        value, self._at = _number(self._data, self._at)
        return value

    def exactly(self, size: int) -> bytes:
        """The next bytes. Raises DamagedCAR when there are fewer."""
        if not self._has(size):
            raise DamagedCAR(tr("it ends in the middle"))
        self._at += size
        return self._data[self._at - size : self._at]

    def skip(self, size: int) -> None:
        """Leaves bytes out without keeping them."""
        while size > 0:
            step = min(size, CHUNK)
            self.exactly(step)
            size -= step

    def _has(self, size: int) -> bool:
        """Whether so many bytes are left; reads on as needed."""
        while len(self._data) - self._at < size:
            more = self._file.read(CHUNK)
            if not more:
                return False
            self._data = self._data[self._at :] + more
            self._at = 0
        return True


def _number(data: bytes, at: int) -> tuple[int, int]:
    """An unsigned number in seven bits a byte, and where it ends."""
    value = shift = 0
    for byte in data[at : at + _LONGEST_NUMBER]:
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise DamagedCAR(tr("it ends in the middle"))


def _link_end(section: bytes) -> int:
    """How long the address is with which a section begins."""
    if section.startswith(_SHA256):  # version 0
        end = 34
    else:
        version, at = _number(section, 0)
        _, at = _number(section, at)
        _, at = _number(section, at)
        size, at = _number(section, at)
        if version != 1 or size > _LONGEST_DIGEST:
            raise DamagedCAR(tr("a block without an address"))
        end = at + size
    if end > len(section):
        raise DamagedCAR(tr("it ends in the middle"))
    return end
