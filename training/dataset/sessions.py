"""From the messages of a chat to sessions: conversations cut at silences, posts joined to threads.

Decides nothing about splits or which fields a header loses; knows no export format.
"""

import hashlib
import math
from array import array
from collections import Counter, deque
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from datetime import datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import msgspec
import numpy as np

from doppel.transcript import ME, Header, Turn, hour_bucket, pseudonym, weekday_name
from training.archives.message import Message
from training.cleaning.language import language_of

DEFAULT_GAP = 3600.0
"""Seconds of silence that end a session where a chat is too small to tell."""

SHORTEST_GAP, LONGEST_GAP = 1800.0, 6 * 3600.0
GAPS_NEEDED = 200
BINS_PER_OCTAVE = 2

LARGEST_SESSION = 1000
"""Messages after which a session is cut even without a silence, as in groups that never sleep."""

REACH = 64
"""Sessions back to which a reply can still bring a message home."""

Naming = Callable[[str, str], str]
"""The pseudonym of an account, given its platform and id."""


class Line(msgspec.Struct, frozen=True, gc=False):
    """A kept message on its way into a session: which archive it came from, and whether it is the owner's."""

    source: int
    message: Message
    is_mine: bool


def fit_gap(times: Sequence[float]) -> float:
    """The silence, in seconds, that separates this chat's conversations.

    The gaps between messages have one peak within conversations and one between them; the valley between the
    two, in a histogram over log time, is the answer. Between 30 minutes and 6 hours; 1 hour for small chats.

    Args:
        times: when messages were sent, in seconds, ascending.
    """
    gaps = [later - earlier for earlier, later in pairwise(times) if later > earlier]
    if len(gaps) < GAPS_NEEDED:
        return DEFAULT_GAP
    counts = Counter(math.floor(math.log2(gap) * BINS_PER_OCTAVE) for gap in gaps)
    first = math.ceil(math.log2(SHORTEST_GAP) * BINS_PER_OCTAVE)
    last = math.floor(math.log2(LONGEST_GAP) * BINS_PER_OCTAVE)

    def height(place: int) -> tuple[float, float]:
        smooth = counts[place - 1] + 2 * counts[place] + counts[place + 1]
        return smooth, abs(place + 0.5 - math.log2(DEFAULT_GAP) * BINS_PER_OCTAVE)

    valley = min(range(first, last), key=height)
    return float(2 ** ((valley + 0.5) / BINS_PER_OCTAVE))


def cut_at_silences(lines: Iterable[Line], gap: float) -> Iterator[list[Line]]:
    """Conversations of a chat. A reply to a message of one of the last sessions rejoins it, however late.

    Args:
        lines: in order of time.
        gap: seconds of silence that end a session.
    """
    recent: deque[list[Line]] = deque()
    home: dict[str, list[Line]] = {}
    current: list[Line] = []
    for line in lines:
        message = line.message
        if current:
            silence = (message.sent_at - current[-1].message.sent_at).total_seconds()
            if silence > gap or len(current) >= LARGEST_SESSION:
                current = home.get(message.reply_to or "", [])
        if not current or len(current) >= LARGEST_SESSION:
            current = []
            recent.append(current)
            if len(recent) > REACH:
                yield _release(recent.popleft(), home)
        current.append(line)
        home[message.id] = current
    yield from recent


def join_threads(lines: Iterable[tuple[int, Line]], answered: Container[str]) -> Iterator["array[int]"]:
    """Public messages: each its own session, except that replies to a message here continue its session.

    So does a quote, of somebody else: who quotes themselves begins anew. A thread ends when the last message is known,
    so that as many threads are open as there are posts: what is kept of them are numbers.

    Args:
        lines: the messages with their numbers, in order of time.
        answered: ids of all messages that one of these answers or quotes; it may hold others.

    Yields:
        The numbers of the messages of a thread, in order; threads in the order in which they begin.
    """
    home: dict[str, int] = {}
    own: set[tuple[int, str]] = set()
    numbers, threads, sizes = array("I"), array("I"), array("H")
    for number, line in lines:
        message = line.message
        thread = None if message.reply_to is None else home.get(message.reply_to)
        is_own_quote = message.kind == "quote" and (thread, message.reply_to) in own
        if thread is None or sizes[thread] >= LARGEST_SESSION or is_own_quote:
            thread = len(sizes)
            sizes.append(0)
        sizes[thread] += 1
        numbers.append(number)
        threads.append(thread)
        if message.id in answered:
            home[message.id] = thread
            if line.is_mine:
                own.add((thread, message.id))
    order = np.argsort(np.asarray(threads, dtype=np.uint32), kind="stable")
    ordered = array("I", np.asarray(numbers, dtype=np.uint32)[order].tobytes())
    start = 0
    for size in sizes:
        yield ordered[start : start + size]
        start += size


def lead_of(lines: Sequence[Line]) -> Line:
    """The message that a session has its situation from: its first, or in public the owner's first.

    What somebody else posted may be years older than the owner's reply, and is no reply.
    """
    if lines[0].message.kind in ("post", "reply", "quote"):
        return next((line for line in lines if line.is_mine), lines[0])
    return lines[0]


def turns_of(lines: Sequence[Line], naming: Naming | None = None) -> tuple[Turn, ...]:
    """Consecutive messages of one person become the bubbles of one turn."""
    speakers = speakers_of(lines, naming)
    turns: list[tuple[str, list[str]]] = []
    for line in lines:
        speaker = ME if line.is_mine else speakers[line.message.sender]
        if not turns or turns[-1][0] != speaker:
            turns.append((speaker, []))
        turns[-1][1].append(line.message.text)
    return tuple(Turn(speaker, tuple(bubbles)) for speaker, bubbles in turns)


def speakers_of(lines: Iterable[Line], naming: Naming | None = None) -> dict[str, str]:
    """Pseudonyms of the others in a session, by account; two accounts share one only where `naming` joins them."""
    others = sorted({(line.message.sender, line.message.platform) for line in lines if not line.is_mine})
    names = {
        account: name
        for account, platform in others
        if naming is not None and (name := naming(platform, account)) != pseudonym(platform, account)
    }
    for account, platform in others:
        if account in names:
            continue
        attempt, name = 1, pseudonym(platform, account)
        while name in names.values():
            attempt += 1
            name = pseudonym(platform, f"{account}#{attempt}")
        names[account] = name
    return names


def header_of(lines: Sequence[Line], zone: ZoneInfo, contact: str | None, naming: Naming | None = None) -> Header:
    """The situation of a session, complete. Times are those of the message that leads it, in the owner's zone.

    Args:
        lines: the session, with at least one message of the owner's.
        zone: the owner's.
        contact: account of the other person, in a conversation of two.
        naming: gives an account its pseudonym; None where nobody has several accounts.
    """
    first = lead_of(lines).message
    local = first.sent_at.astimezone(zone)
    own_text = "\n".join(line.message.text for line in lines if line.is_mine)
    return Header(
        year=str(local.year),
        weekday=weekday_name(local.weekday()),
        hour=hour_bucket(local.hour),
        platform=first.platform,
        kind=first.kind,
        language=language_of(own_text),
        contact=(naming or pseudonym)(first.platform, contact) if contact and first.kind == "dm" else None,
    )


def thin_header(header: Header, session_id: str) -> Header:
    """Takes fields away for 15 % of sessions, so that every field is optional when serving.

    Which ones follows from the id alone: half of them lose the whole header, the others each field by a coin.
    """
    digest = hashlib.sha256(f"header {session_id}".encode()).digest()
    chance = int.from_bytes(digest[:4]) / 2**32
    if chance >= 0.15:
        return header
    if chance < 0.075:
        return Header()
    kept = {
        name: getattr(header, name)
        for position, name in enumerate(header.__struct_fields__)
        if digest[4] >> (position % 8) & 1
    }
    return Header(**kept)


def session_id(first: Message) -> str:
    """Stable across builds: a digest of platform, chat and first message."""
    return hashlib.sha256(f"{first.platform}\0{first.chat}\0{first.id}".encode()).hexdigest()[:16]


def without_repeats(messages: Iterable[tuple[int, Message]]) -> Iterator[tuple[bool, int, Message]]:
    """Adds to every (number, message) whether the same message came before, as in exports that overlap.

    Copies have the same time, and messages come in order of time, so only ids of one moment are remembered.
    """
    moment: datetime | None = None
    seen: set[str] = set()
    for number, message in messages:
        if message.sent_at != moment:
            moment = message.sent_at
            seen.clear()
        yield message.id in seen, number, message
        seen.add(message.id)


def _release(session: list[Line], home: dict[str, list[Line]]) -> list[Line]:
    for line in session:
        home.pop(line.message.id, None)
    return session
