"""A portrait of a finished data set: when, to whom, how long and in which languages, counted in one pass.

Memory depends on neither the number of sessions nor that of messages: what is kept are counts and a few examples.
Knows no archive and no page; sessions hold no time but their first, so every message counts at that one.
"""

import heapq
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, tzinfo
from itertools import chain, count, zip_longest

import msgspec

from doppel.transcript import render
from training.cleaning.language import language_of
from training.dataset.files import Session

EXAMPLES = 10

MOST_BUBBLES = 8
"""Turns of so many bubbles and more are counted together."""

BYTES_PER_TOKEN = 3.8
"""UTF-8 bytes of a transcript to one token of the bundled model, as measured on the sample archive."""

_BATCH = 1 << 20  # characters that are turned into tokens together
_READABLE = 500  # characters of an example that fits a screen
_EXACT = 1024  # longer sessions are rounded up, by less than a 512th

CountTokens = Callable[[Sequence[str]], list[int]]
"""How many tokens each text has."""


class Portrait(msgspec.Struct, kw_only=True):
    """What was counted. `mine` are the owner's messages, `others` everybody else's.

    Attributes:
        sessions: how many.
        mine, others: messages.
        months: messages of both by (year, month), in the owner's zone.
        hours: the owner's messages by (weekday from Monday, hour), in the owner's zone.
        contacts: messages of others by pseudonym, of which there are 2.6e5 at most.
        lengths: the owner's messages by doubling of their characters: 0 is 1, 1 is 2-3, 2 is 4-7, ...
        bubbles: the owner's turns by bubbles, at most `MOST_BUBBLES`.
        languages: the owner's messages by language of their session; an empty name where it cannot be told.
        tokens: sessions by tokens; long ones rounded up.
        examples: a few sessions, of different kinds where there are some, the same for the same data set.
    """

    sessions: int = 0
    mine: int = 0
    others: int = 0
    months: Counter[tuple[int, int]] = msgspec.field(default_factory=Counter)
    hours: Counter[tuple[int, int]] = msgspec.field(default_factory=Counter)
    contacts: Counter[str] = msgspec.field(default_factory=Counter)
    lengths: Counter[int] = msgspec.field(default_factory=Counter)
    bubbles: Counter[int] = msgspec.field(default_factory=Counter)
    languages: Counter[str] = msgspec.field(default_factory=Counter)
    tokens: Counter[int] = msgspec.field(default_factory=Counter)
    examples: list[Session] = []

    def tokens_at(self, share: float) -> int:
        """The length that this share of the sessions does not exceed."""
        left = math.ceil(share * self.sessions)
        for length in sorted(self.tokens):
            left -= self.tokens[length]
            if left <= 0:
                return length
        return 0

    def fitting(self, length: int) -> float:
        """Share of the sessions of at most so many tokens."""
        fit = sum(number for tokens, number in self.tokens.items() if tokens <= length)
        return fit / max(1, self.sessions)


def portray(sessions: Iterable[Session], zone: tzinfo, count_tokens: CountTokens) -> Portrait:
    """Counts sessions, each looked at once.

    Args:
        sessions: of a data set.
        zone: the owner's.
        count_tokens: for example `estimated_tokens`.
    """
    portrait = Portrait()
    examples = _Examples()
    batch: list[str] = []
    size = 0
    for session in sessions:
        _look_at(session, session.started_at.astimezone(zone), portrait)
        examples.consider(session)
        batch.append(render(session.header, session.turns))
        size += len(batch[-1])
        if size >= _BATCH:
            portrait.tokens.update(map(_rounded, count_tokens(batch)))
            batch, size = [], 0
    if batch:
        portrait.tokens.update(map(_rounded, count_tokens(batch)))
    portrait.examples = examples.chosen()
    return portrait


def estimated_tokens(texts: Sequence[str]) -> list[int]:
    """Tokens of texts, by their bytes."""
    return [math.ceil(len(text.encode()) / BYTES_PER_TOKEN) for text in texts]


def _look_at(session: Session, local: datetime, portrait: Portrait) -> None:
    portrait.sessions += 1
    mine = others = 0
    for turn in session.turns:
        if not turn.is_mine:
            others += len(turn.bubbles)
            portrait.contacts[turn.speaker] += len(turn.bubbles)
            continue
        mine += len(turn.bubbles)
        portrait.bubbles[min(len(turn.bubbles), MOST_BUBBLES)] += 1
        portrait.lengths.update(len(bubble).bit_length() - 1 for bubble in turn.bubbles)
    portrait.mine += mine
    portrait.others += others
    portrait.months[local.year, local.month] += mine + others
    portrait.hours[local.weekday(), local.hour] += mine
    portrait.languages[_language(session)] += mine


def _language(session: Session) -> str:
    """As the header says, or told anew where the header was thinned."""
    if session.header.language is not None:
        return session.header.language
    own = "\n".join(bubble for turn in session.turns if turn.is_mine for bubble in turn.bubbles)
    return language_of(own) or ""


def _rounded(tokens: int) -> int:
    """The number itself, or a little more: so that there are not as many different ones as sessions."""
    step = 1 << max(0, tokens.bit_length() - _EXACT.bit_length())
    return -(-tokens // step) * step


class _Examples:
    """Keeps the few sessions of each kind that come first in an order as good as chance."""

    def __init__(self) -> None:
        self._heaps: dict[str, list[tuple[bool, int, int, Session]]] = {}
        self._numbers = count()

    def consider(self, session: Session) -> None:
        """Takes a session in if it comes before one that was kept."""
        heap = self._heaps.setdefault(session.header.kind or "", [])
        # Ids are digests; negative, as the heap gives up its smallest. The number keeps sessions from being compared.
        place = (_is_readable(session), -int(session.id, 16), next(self._numbers), session)
        if len(heap) < EXAMPLES:
            heapq.heappush(heap, place)
        elif place > heap[0]:
            heapq.heapreplace(heap, place)

    def chosen(self) -> list[Session]:
        """The kinds in turn, until there are enough; what fits a screen comes before what does not."""
        kinds = [
            sorted(self._heaps[kind], reverse=True) for kind in sorted(self._heaps, key=lambda kind: (not kind, kind))
        ]
        in_turn: Iterator[tuple[bool, int, int, Session]] = (
            place for place in chain.from_iterable(zip_longest(*kinds)) if place is not None
        )
        return [place[-1] for place in sorted(in_turn, key=lambda place: not place[0])][:EXAMPLES]


def _is_readable(session: Session) -> bool:
    return sum(len(bubble) for turn in session.turns for bubble in turn.bubbles) <= _READABLE
