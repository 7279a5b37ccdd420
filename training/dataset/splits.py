"""Splits sessions by time: the last tenth is the test split, the part before it validation, the rest training.

Only a summary of each session is in memory, so that data sets of millions of messages can be split.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence

import msgspec

from doppel.transcript import Turn
from training.dataset.files import Split

TEST_PERCENT = 10
VALIDATION_PERCENT = 5
MAX_HELD_OUT_PERCENT = 20
"""Of the owner's messages, in test and validation together."""

_MIN_WORDS = 8
"""Equal sessions with fewer words are a matter of style, not copies. CJK characters count as words."""

_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|\w+")


class SessionSummary(msgspec.Struct, frozen=True, gc=False):
    """What splitting needs to know of a session.

    Attributes:
        ended_at: time of its last message, seconds since 1970.
        id: breaks ties.
        own_messages: number of the owner's messages.
        content_digest: equal for sessions with the same words; empty for very short ones.
        position, length: where the session is in its `RecordFile`.
    """

    ended_at: float
    id: str
    own_messages: int
    content_digest: bytes
    position: int
    length: int


def split_by_time(sessions: Iterable[SessionSummary]) -> list[tuple[Split, SessionSummary]]:
    """Sessions in order of time with their splits: about 85 %, 5 % and 10 % of the owner's messages.

    A session belongs where its middle falls, so that each split is as near to its share as whole sessions allow; a long
    one at the end stays in training rather than take more than a fifth out of it. The first session is always in
    training, and the other splits may be empty.
    """
    ordered = sorted(sessions, key=lambda session: (session.ended_at, session.id))
    total = sum(session.own_messages for session in ordered)
    later = 0  # own messages in the sessions after this one
    splits: list[tuple[Split, SessionSummary]] = []
    for session in reversed(ordered):
        middle = later + session.own_messages / 2
        later += session.own_messages
        split: Split = "train"
        if session is not ordered[0] and later * 100 <= MAX_HELD_OUT_PERCENT * total:
            if middle * 100 <= TEST_PERCENT * total:
                split = "test"
            elif middle * 100 <= (TEST_PERCENT + VALIDATION_PERCENT) * total:
                split = "validation"
        splits.append((split, session))
    return splits[::-1]


def leaking_sessions(splits: Sequence[tuple[Split, SessionSummary]]) -> set[str]:
    """Ids of the sessions outside the test split that have the same words as one in it."""
    in_test = {session.content_digest for split, session in splits if split == "test" and session.content_digest}
    return {session.id for split, session in splits if split != "test" and session.content_digest in in_test}


def content_digest(turns: Sequence[Turn]) -> bytes:
    """A digest of who says which words, ignoring case and punctuation; empty for fewer than eight words."""
    parts = [(turn.is_mine, _WORD.findall(" ".join(turn.bubbles).casefold())) for turn in turns]
    if sum(len(words) for _, words in parts) < _MIN_WORDS:
        return b""
    text = "\n".join(f"{int(is_mine)} {' '.join(words)}" for is_mine, words in parts)
    return hashlib.sha256(text.encode()).digest()[:16]
