"""Splits sessions by time, whole sessions only: the last tenth is the test, what comes before it validation.

Works on a summary of each session, so that a million messages need not be in memory. Knows no formats.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence

import msgspec

from doppel.transcript import Turn
from training.dataset.files import Split

TEST_PERCENT = 10
VALIDATION_PERCENT = 5

_SHORT = 8
"""Words (or characters of scripts without spaces) below which a repeated session is style, not a copy."""

_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|\w+")


class Summary(msgspec.Struct, frozen=True, gc=False):
    """What a split needs to know of a session.

    Attributes:
        ended_at: time of its last message, seconds since 1970: all of a session lies before it.
        id: breaks ties.
        mine: messages of the owner's in it.
        likeness: equal for sessions that say the same; empty for very short ones.
        position, length: where the session lies among the records.
    """

    ended_at: float
    id: str
    mine: int
    likeness: bytes
    position: int
    length: int


def split_by_time(sessions: Iterable[Summary]) -> list[tuple[Split, Summary]]:
    """Sessions in order of time with their splits, by the owner's messages: 85 %, 5 %, 10 %.

    Training always gets the first session, and the test the last as soon as there are two.
    """
    ordered = sorted(sessions, key=lambda one: (one.ended_at, one.id))
    total = sum(one.mine for one in ordered)
    after = 0
    splits: list[tuple[Split, Summary]] = []
    for session in reversed(ordered):
        split: Split = "train"
        is_first = session is ordered[0]  # something has to be left to learn from
        if not is_first and after * 100 < TEST_PERCENT * total:
            split = "test"
        elif not is_first and after * 100 < (TEST_PERCENT + VALIDATION_PERCENT) * total:
            split = "validation"
        splits.append((split, session))
        after += session.mine
    return splits[::-1]


def leaks(splits: Sequence[tuple[Split, Summary]]) -> set[str]:
    """Ids of the sessions outside the test that say the same as one in the test."""
    tested = {session.likeness for split, session in splits if split == "test" and session.likeness}
    return {session.id for split, session in splits if split != "test" and session.likeness in tested}


def likeness(turns: Sequence[Turn]) -> bytes:
    """A digest of who says which words, without case and punctuation; empty for fewer than eight words."""
    parts = [(turn.is_mine, _WORD.findall(" ".join(turn.bubbles).casefold())) for turn in turns]
    if sum(len(words) for _, words in parts) < _SHORT:
        return b""
    text = "\n".join(f"{int(is_mine)} {' '.join(words)}" for is_mine, words in parts)
    return hashlib.sha256(text.encode()).digest()[:16]
