"""Cuts a bubble that is too long for a platform where a person would: line, sentence, word. Knows no platform."""

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
    """Pieces of at most `limit`, in order; only white space at the cuts is lost.

    Args:
        text: any text.
        limit: longest piece, in the units of `length`; at least the length of one character.
        length: measures a text in the platform's units; grows with every character.
    """
    pieces = []
    rest = text.strip()
    while length(rest) > limit:
        room = _longest_prefix(rest, limit, length)
        cut = _cut(rest, room)
        pieces.append(rest[:cut].rstrip())
        rest = rest[cut:].lstrip()
    return [piece for piece in (*pieces, rest) if piece]


def _longest_prefix(text: str, limit: int, length: Callable[[str], int]) -> int:
    """How many characters fit; at least one, so that there is always progress."""
    low, high = 1, min(len(text), limit)
    while low < high:
        middle = (low + high + 1) // 2
        if length(text[:middle]) <= limit:
            low = middle
        else:
            high = middle - 1
    return low


def _cut(text: str, room: int) -> int:
    """Where to cut so that at most `room` characters come before: not in the first half, if there is a choice."""
    for boundary in _BOUNDARIES:
        cuts = [
            match.start()
            for match in boundary.finditer(text, 0, room + 1)
            if max(1, room // 2) <= match.start() <= room
        ]
        if cuts:
            return cuts[-1]
    cut = room
    while cut > 1 and _belongs_to_previous(text, cut):
        cut -= 1
    return cut if cut > 1 or not _belongs_to_previous(text, cut) else room


def _belongs_to_previous(text: str, at: int) -> bool:
    """Whether a cut before `text[at]` would tear one visible character."""
    character = text[at]
    return (
        unicodedata.combining(character) != 0
        or character in _JOINERS
        or ord(character) in _SKIN_TONES
        or text[at - 1] == _JOINERS[0]
    )
