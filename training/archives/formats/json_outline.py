"""A bounded look at a JSON file, for recognizing it whatever comes first in it.

What the first kilobytes show depends on chance: a list of contacts before the chats, a deleted first message, keys in
another order. The outline has the keys and the first items of everything in the first megabytes.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec

from doppel.errors import UserError
from training.archives.encodings import ByteStream, Utf8Stream, decoded
from training.archives.formats.json_stream import DamagedJSON, JsonStream
from training.archives.source_tree import CountingFile, SourceTree

SNIFFED_BYTES = 1 << 22
"""How much of a file is looked at. Items beyond the sampled ones are skipped by the C scanner, so this is fast."""

SAMPLED_ITEMS = 20
"""How many items of each array are in the outline."""

_SMALL = 1 << 15
"""A file of at most so many bytes is parsed whole: exports may have tens of thousands of small ones."""

_MAX_DEPTH = 8
_SPACE = b"\xef\xbb\xbf \t\r\n"


def outline(tree: SourceTree, file: str) -> Any:
    """The JSON value of a file, without what lies beyond `SNIFFED_BYTES`, and of a larger one only the first items.

    None if the file is not a JSON object or array. Cached in the tree, as several readers ask about each file.
    """
    if file not in tree.outlines:
        tree.outlines[file] = _read(tree, file)
    return tree.outlines[file]


def sampled_objects(value: Any) -> list[dict[str, Any]]:
    """The objects of a sampled array; empty if the value is no array."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _read(tree: SourceTree, file: str) -> Any:
    head = tree.head(file, _SMALL + 1).removeprefix(b"\xef\xbb\xbf")
    if not head.lstrip(_SPACE).startswith((b"{", b"[")):
        return None
    if len(head) <= _SMALL:
        with suppress(ValueError, RecursionError):
            return msgspec.json.decode(decoded(head))
    holder: list[Any] = []
    survey = tree.for_survey()
    survey.opened = set()  # looking at a file is not reading it
    # Damage, also to a zip, is the end of what is looked at; whoever reads the file reports it.
    with suppress(DamagedJSON, UserError), survey.open(file) as opened:
        _sample(JsonStream(_beginning(opened)), holder.append, 0)
    return holder[0] if holder else None


def _sample(stream: JsonStream, put: Callable[[Any], None], depth: int) -> None:
    """Passes the next value to `put`; containers before they are filled, so that an early end loses nothing."""
    mark = stream.peek()
    if mark == "{" and depth < _MAX_DEPTH:
        members: dict[str, Any] = {}
        put(members)
        for key in stream.members():
            members[key] = None
            _sample(stream, partial(members.__setitem__, key), depth + 1)
    elif mark == "[" and depth < _MAX_DEPTH:
        items: list[Any] = []
        put(items)
        for number in stream.elements():
            if number <= SAMPLED_ITEMS:
                _sample(stream, items.append, depth + 1)
            else:
                stream.skip()
    else:
        put(stream.value())


def _beginning(file: CountingFile) -> Utf8Stream:
    return Utf8Stream(_Beginning(file), lambda: _Beginning(file.again()))


class _Beginning:
    """The first `SNIFFED_BYTES` of a file."""

    def __init__(self, file: ByteStream) -> None:
        self._file = file
        self._left = SNIFFED_BYTES

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(data)
        return data

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
