"""Splits a bubble that is too long for a platform at line, sentence or word boundaries."""

import re
import unicodedata
from collections.abc import Callable

_BOUNDARIES = (
    re.compile(r"\n+"),
    re.compile(r"(?<=[.!?…])\s+|(?<=[。！？])"),
    re.compile(r"\s+|(?<=[，、；,;])"),
)
_JOINERS = "\u200d\ufe0e\ufe0f"
_SKIN_TONES = range(0x1F3FB, 0x1F400)


def split(text: str, limit: int, length: Callable[[str], int]) -> list[str]:
    """Splits a text into pieces of at most `limit`, in order; only white space at the cuts is lost.

    Args:
        text: any text.
        limit: maximum length of a piece, in the units of `length`; at least that of one character.
        length: returns the length of a text in the platform's units; must grow with every character.
    """
    pieces = []
    rest = text.strip()
    while length(rest) > limit:
        max_length = _longest_prefix(rest, limit, length)
        cut = _cut(rest, max_length)
        pieces.append(rest[:cut].rstrip())
        rest = rest[cut:].lstrip()
    return [piece for piece in (*pieces, rest) if piece]


def _longest_prefix(text: str, limit: int, length: Callable[[str], int]) -> int:
    """How many characters fit; at least one, so that splitting always makes progress."""
    low, high = 1, min(len(text), limit)
    while low < high:
        middle = (low + high + 1) // 2
        if length(text[:middle]) <= limit:
            low = middle
        else:
            high = middle - 1
    return low


def _cut(text: str, max_length: int) -> int:
    """Where to cut within `max_length` characters: at the best boundary of the second half, if there is one."""
    for boundary in _BOUNDARIES:
        cuts = [
            match.start()
            for match in boundary.finditer(text, 0, max_length + 1)
            if max(1, max_length // 2) <= match.start() <= max_length
        ]
        if cuts:
            return cuts[-1]
    cut = max_length
    while cut > 1 and _splits_character(text, cut):
        cut -= 1
    return cut if cut > 1 or not _splits_character(text, cut) else max_length


def _splits_character(text: str, at: int) -> bool:
    """Whether a cut before `text[at]` would split one visible character."""
    character = text[at]
    return (
        unicodedata.combining(character) != 0
        or character in _JOINERS
        or ord(character) in _SKIN_TONES
        or text[at - 1] == _JOINERS[0]
    )
