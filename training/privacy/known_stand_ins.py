"""Remembers the stand-ins that were made, so that a stand-in is known by having been made and not by its looks.

`+90 555 123 45 67` may be made up or somebody's number; only the one who made it can tell. The file holds keyed digests
of made-up values, eight bytes each.
"""

import hmac
import os
import re
from pathlib import Path
from typing import BinaryIO

STAND_INS_FILE = "scrub.stand-ins"

_DIGEST_BYTES = 8
_PIECE = re.compile(r"[^\W_]+")
_MAX_PIECES = 12
_REACH = 24
"""Characters beside a secret that may belong to the same stand-in."""
_MIN_SHARE = 0.75
"""How much of what was found must be the stand-in."""


class KnownStandIns:
    """The stand-ins of this build and, with the same key, of earlier ones.

    Args:
        key: of the stand-ins.
        old_file: of the previous data set; may be missing.
        new_file: written as stand-ins are made; may be the same file.
    """

    def __init__(self, key: bytes, old_file: Path, new_file: Path) -> None:
        self._key = key
        self._path = new_file
        self._file: BinaryIO | None = None
        try:
            stored = old_file.read_bytes()
        except OSError:
            stored = b""
        end = len(stored) - len(stored) % _DIGEST_BYTES  # an interrupted build may have left a part of one
        self._digests = {stored[start : start + _DIGEST_BYTES] for start in range(0, end, _DIGEST_BYTES)}

    def add(self, stand_in: str) -> None:
        """Remembers a stand-in."""
        digest = self._digest(_letters(stand_in))
        if self._file is None:
            self._file = _open_private(self._path)
            self._file.write(b"".join(sorted(self._digests)))
        if digest not in self._digests:
            self._digests.add(digest)
            self._file.write(digest)

    def covers(self, text: str, start: int, end: int) -> bool:
        """Whether what was found at `text[start:end]` is a stand-in, however spaced, or a part of one, or little more.

        With other words around it, or other digits in it, a secret may be found with the digits of a time behind it, or
        without its first group.
        """
        if self._digest(_letters(text[start:end])) in self._digests:
            return True
        if not self._digests:
            return False
        first = max(0, start - _REACH)
        pieces = [
            piece
            for piece in _PIECE.finditer(text, first, end + _REACH)
            if piece.start() > first or first == 0  # a word that was cut is none
        ]
        inside = sum(
            min(piece.end(), end) - max(piece.start(), start)
            for piece in pieces
            if piece.start() < end and piece.end() > start
        )
        for index in range(len(pieces)):
            letters, shared = "", 0
            for other in pieces[index : index + _MAX_PIECES]:
                letters += other[0]
                shared += max(0, min(other.end(), end) - max(other.start(), start))
                is_part = shared == inside
                is_most = shared >= _MIN_SHARE * (len(letters) + inside - shared)
                if (is_part or is_most) and self._has(letters):
                    return True
        return False

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()

    def _has(self, letters: str) -> bool:
        return self._digest(letters.casefold()) in self._digests

    def _digest(self, letters: str) -> bytes:
        return hmac.digest(self._key, f"stand-in\0{letters}".encode(), "sha256")[:_DIGEST_BYTES]


def _letters(text: str) -> str:
    return "".join(_PIECE.findall(text)).casefold()


def _open_private(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")
