"""Statistics of a finished data set, collected in one pass: when, with whom, how long, in which languages.

Memory does not depend on the size of the data set. Sessions store only the time of their first message, so all their
messages count at that time.
"""

import heapq
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, tzinfo
from itertools import chain, count, zip_longest

import msgspec

from doppel.transcript import render
from doppel.transcript.language import language_of
from training.dataset.files import Session

EXAMPLE_COUNT = 10

MAX_BUBBLES = 8
"""Longer turns are counted together."""

BYTES_PER_TOKEN = 3.8
"""UTF-8 bytes per token of the bundled model, measured on transcripts of the sample archive."""

_BATCH_CHARACTERS = 1 << 20  # tokenized together
_READABLE_CHARACTERS = 500  # an example that fits on a screen
_EXACT_TOKENS = 1024  # longer sessions are rounded up, by less than 1/512

CountTokens = Callable[[Sequence[str]], list[int]]
"""Returns the number of tokens of each text."""


class DatasetStatistics(msgspec.Struct, kw_only=True):
    """Counts of a data set.

    Attributes:
        sessions: number of sessions.
        own_messages: number of the owner's messages.
        other_messages: number of all other messages.
        months: all messages by (year, month), in the owner's time zone.
        hours: the owner's messages by (weekday from Monday, hour), in the owner's time zone.
        contacts: messages of others by pseudonym.
        lengths: the owner's messages by power of two of their characters: 0 is 1, 1 is 2-3, 2 is 4-7, ...
        bubbles: the owner's turns by number of bubbles, at most `MAX_BUBBLES`.
        languages: the owner's messages by language of their session; "" if unknown.
        tokens: sessions by number of tokens; long ones are rounded up.
        examples: a few sessions of different kinds, always the same for the same data set.
    """

    sessions: int = 0
    own_messages: int = 0
    other_messages: int = 0
    months: Counter[tuple[int, int]] = msgspec.field(default_factory=Counter)
    hours: Counter[tuple[int, int]] = msgspec.field(default_factory=Counter)
    contacts: Counter[str] = msgspec.field(default_factory=Counter)
    lengths: Counter[int] = msgspec.field(default_factory=Counter)
    bubbles: Counter[int] = msgspec.field(default_factory=Counter)
    languages: Counter[str] = msgspec.field(default_factory=Counter)
    tokens: Counter[int] = msgspec.field(default_factory=Counter)
    examples: list[Session] = []

    def length_quantile(self, share: float) -> int:
        """The number of tokens that this share of the sessions does not exceed."""
        left = math.ceil(share * self.sessions)
        for length in sorted(self.tokens):
            left -= self.tokens[length]
            if left <= 0:
                return length
        return 0

    def share_within(self, length: int) -> float:
        """The share of sessions with at most this number of tokens."""
        within = sum(number for tokens, number in self.tokens.items() if tokens <= length)
        return within / max(1, self.sessions)


def collect_statistics(sessions: Iterable[Session], zone: tzinfo, count_tokens: CountTokens) -> DatasetStatistics:
    """Collects the statistics of sessions in one pass.

    Args:
        sessions: of a data set.
        zone: the owner's time zone.
        count_tokens: for example `estimate_tokens`.
    """
    statistics = DatasetStatistics()
    examples = _ExampleSelection()
    batch: list[str] = []
    size = 0
    for session in sessions:
        _count_session(session, session.started_at.astimezone(zone), statistics)
        examples.add(session)
        batch.append(render(session.header, session.turns))
        size += len(batch[-1])
        if size >= _BATCH_CHARACTERS:
            statistics.tokens.update(map(_rounded, count_tokens(batch)))
            batch, size = [], 0
    if batch:
        statistics.tokens.update(map(_rounded, count_tokens(batch)))
    statistics.examples = examples.selected()
    return statistics


def estimate_tokens(texts: Sequence[str]) -> list[int]:
    """The number of tokens of each text, estimated from its bytes."""
    return [math.ceil(len(text.encode()) / BYTES_PER_TOKEN) for text in texts]


def _count_session(session: Session, local_start: datetime, statistics: DatasetStatistics) -> None:
    statistics.sessions += 1
    own = others = 0
    for turn in session.turns:
        if not turn.is_mine:
            others += len(turn.bubbles)
            statistics.contacts[turn.speaker] += len(turn.bubbles)
            continue
        own += len(turn.bubbles)
        statistics.bubbles[min(len(turn.bubbles), MAX_BUBBLES)] += 1
        statistics.lengths.update(len(bubble).bit_length() - 1 for bubble in turn.bubbles)
    statistics.own_messages += own
    statistics.other_messages += others
    statistics.months[local_start.year, local_start.month] += own + others
    statistics.hours[local_start.weekday(), local_start.hour] += own
    statistics.languages[_language(session)] += own


def _language(session: Session) -> str:
    """The language in the header, or detected again if the header lacks it."""
    if session.header.language is not None:
        return session.header.language
    own_text = "\n".join(bubble for turn in session.turns if turn.is_mine for bubble in turn.bubbles)
    return language_of(own_text) or ""


def _rounded(tokens: int) -> int:
    """Rounds long sessions up, so that there are few distinct lengths."""
    step = 1 << max(0, tokens.bit_length() - _EXACT_TOKENS.bit_length())
    return -(-tokens // step) * step


class _ExampleSelection:
    """Selects a few sessions of each kind, in the order of their ids, which is as good as random."""

    def __init__(self) -> None:
        self._heaps: dict[str, list[tuple[bool, int, int, Session]]] = {}
        self._numbers = count()

    def add(self, session: Session) -> None:
        """Keeps the session if it comes before one that was kept."""
        heap = self._heaps.setdefault(session.header.kind or "", [])
        # Negative, as the heap removes its smallest element first. The number prevents comparing sessions.
        entry = (_is_readable(session), -int(session.id, 16), next(self._numbers), session)
        if len(heap) < EXAMPLE_COUNT:
            heapq.heappush(heap, entry)
        elif entry > heap[0]:
            heapq.heapreplace(heap, entry)

    def selected(self) -> list[Session]:
        """Sessions of alternating kinds; those that fit on a screen come first."""
        kinds = [
            sorted(self._heaps[kind], reverse=True) for kind in sorted(self._heaps, key=lambda kind: (not kind, kind))
        ]
        alternating: Iterator[tuple[bool, int, int, Session]] = (
            entry for entry in chain.from_iterable(zip_longest(*kinds)) if entry is not None
        )
        return [entry[-1] for entry in sorted(alternating, key=lambda entry: not entry[0])][:EXAMPLE_COUNT]


def _is_readable(session: Session) -> bool:
    return sum(len(bubble) for turn in session.turns for bubble in turn.bubbles) <= _READABLE_CHARACTERS
