"""Groups the messages of a chat into sessions: conversations separated by silences, posts joined into threads."""

import hashlib
import math
from array import array
from collections import Counter, deque
from collections.abc import Callable, Container, Iterable, Iterator, Sequence, Set
from datetime import datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import msgspec
import numpy as np

from doppel.transcript import ME, Header, Turn, hour_bucket, pseudonym, weekday_name
from doppel.transcript.language import language_of
from training.archives.message import Mark, Message

DEFAULT_GAP = 3600.0
"""Seconds of silence that end a session in chats with too few messages to estimate it."""

MIN_GAP, MAX_GAP = 1800.0, 6 * 3600.0
MIN_GAP_COUNT = 200
"""Fewer gaps between messages are too few for an estimate."""
BINS_PER_OCTAVE = 2

MAX_SESSION_MESSAGES = 1000
"""A session ends after this many messages even without a silence, as in groups that never sleep."""

OPEN_SESSIONS = 64
"""How many of the latest sessions of a chat a late reply can still join."""

GetPseudonym = Callable[[str, str], str]
"""Returns the pseudonym of an account, given its platform and id."""


class SessionMessage(msgspec.Struct, frozen=True, gc=False):
    """A message, the number of its archive, and whether it is the owner's."""

    source: int
    message: Message
    is_mine: bool


def estimate_gap(times: Sequence[float]) -> float:
    """The silence, in seconds, that separates the conversations of a chat.

    Gaps between messages have one peak within conversations and another between them. The estimate is the valley
    between the peaks in a histogram over log time, limited to 30 minutes to 6 hours.

    Args:
        times: when messages were sent, in seconds, ascending.
    """
    gaps = [later - earlier for earlier, later in pairwise(times) if later > earlier]
    if len(gaps) < MIN_GAP_COUNT:
        return DEFAULT_GAP
    counts = Counter(math.floor(math.log2(gap) * BINS_PER_OCTAVE) for gap in gaps)
    first = math.ceil(math.log2(MIN_GAP) * BINS_PER_OCTAVE)
    last = math.floor(math.log2(MAX_GAP) * BINS_PER_OCTAVE)

    def height(bin_number: int) -> tuple[float, float]:
        smooth = counts[bin_number - 1] + 2 * counts[bin_number] + counts[bin_number + 1]
        return smooth, abs(bin_number + 0.5 - math.log2(DEFAULT_GAP) * BINS_PER_OCTAVE)

    valley = min(range(first, last), key=height)
    return float(2 ** ((valley + 0.5) / BINS_PER_OCTAVE))


def split_at_silences(messages: Iterable[SessionMessage], gap: float) -> Iterator[list[SessionMessage]]:
    """Splits a chat into sessions. A reply to a message of a recent session joins that session, however late.

    Args:
        messages: in order of time.
        gap: seconds of silence that end a session.
    """
    recent: deque[list[SessionMessage]] = deque()
    session_of: dict[str, list[SessionMessage]] = {}  # by message id, for the recent sessions
    current: list[SessionMessage] = []
    for item in messages:
        message = item.message
        if current:
            silence = (message.sent_at - current[-1].message.sent_at).total_seconds()
            if silence > gap or len(current) >= MAX_SESSION_MESSAGES:
                current = session_of.get(message.reply_to or "", [])
        if not current or len(current) >= MAX_SESSION_MESSAGES:
            current = []
            recent.append(current)
            if len(recent) > OPEN_SESSIONS:
                yield _closed(recent.popleft(), session_of)
        current.append(item)
        session_of[message.id] = current
    yield from recent


class ThreadSplitter:
    """Takes the threads out of a chat, each a conversation of its own beside the one that it interrupts.

    Only message numbers, and the ids of the messages in threads, are in memory.

    Args:
        first_ids: ids of the messages that begin a thread.
    """

    def __init__(self, first_ids: Set[str]) -> None:
        self._thread_of = {first: first for first in first_ids}  # by message id
        self._numbers: dict[str, array[int]] = {}

    def without_threads(self, messages: Iterable[tuple[int, SessionMessage]]) -> Iterator[SessionMessage]:
        """The messages that are in no thread; a reaction belongs where the message is that it is to.

        Args:
            messages: with their numbers, in order of time.
        """
        thread_of = self._thread_of
        for number, item in messages:
            message = item.message
            thread = message.thread or thread_of.get(message.id)
            if thread is None and message.mark == Mark.REACTION:
                thread = thread_of.get(message.reply_to or "")
            if thread is None:
                yield item
            else:
                thread_of[message.id] = thread
                self._numbers.setdefault(thread, array("I")).append(number)

    def numbers(self) -> Iterable["array[int]"]:
        """The message numbers of each thread, in order of time. Known once all messages have been split."""
        yield from self._numbers.values()


def join_threads(messages: Iterable[tuple[int, SessionMessage]], answered: Container[str]) -> Iterator["array[int]"]:
    """Joins public messages into threads: replies and quotes continue the thread of the message they refer to.

    Quoting oneself starts a new thread. A thread may go on until the last message, so as many threads are open as
    there are posts; only message numbers are in memory.

    Args:
        messages: with their numbers, in order of time.
        answered: ids of all messages that another one refers to; may contain others.

    Yields:
        The message numbers of a thread, in order; threads in the order in which they begin.
    """
    thread_of: dict[str, int] = {}
    own: set[tuple[int, str]] = set()
    numbers, threads, sizes = array("I"), array("I"), array("H")
    for number, item in messages:
        message = item.message
        thread = None if message.reply_to is None else thread_of.get(message.reply_to)
        is_own_quote = message.kind == "quote" and (thread, message.reply_to) in own
        if thread is None or sizes[thread] >= MAX_SESSION_MESSAGES or is_own_quote:
            thread = len(sizes)
            sizes.append(0)
        sizes[thread] += 1
        numbers.append(number)
        threads.append(thread)
        if message.id in answered:
            thread_of[message.id] = thread
            if item.is_mine:
                own.add((thread, message.id))
    order = np.argsort(np.asarray(threads, dtype=np.uint32), kind="stable")
    ordered = array("I", np.asarray(numbers, dtype=np.uint32)[order].tobytes())
    start = 0
    for size in sizes:
        yield ordered[start : start + size]
        start += size


def lead_message(session: Sequence[SessionMessage]) -> SessionMessage:
    """The message that determines a session's header: its first, or the owner's first in public threads.

    A post of somebody else may be years older than the owner's reply to it.
    """
    if session[0].message.kind in ("post", "reply", "quote"):
        return next((item for item in session if item.is_mine), session[0])
    return session[0]


def build_turns(session: Sequence[SessionMessage], get_pseudonym: GetPseudonym | None = None) -> tuple[Turn, ...]:
    """The turns of a session: consecutive messages of one person are the bubbles of one turn."""
    speakers = speaker_names(session, get_pseudonym)
    turns: list[tuple[str, list[str]]] = []
    for item in session:
        speaker = ME if item.is_mine else speakers[item.message.sender]
        if not turns or turns[-1][0] != speaker:
            turns.append((speaker, []))
        turns[-1][1].append(item.message.text)
    return tuple(Turn(speaker, tuple(bubbles)) for speaker, bubbles in turns)


def speaker_names(session: Iterable[SessionMessage], get_pseudonym: GetPseudonym | None = None) -> dict[str, str]:
    """Pseudonyms of the others in a session, by account. They differ unless `get_pseudonym` links two accounts."""
    others = sorted({(item.message.sender, item.message.platform) for item in session if not item.is_mine})
    names = {
        account: name
        for account, platform in others
        if get_pseudonym is not None and (name := get_pseudonym(platform, account)) != pseudonym(platform, account)
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


def build_header(
    session: Sequence[SessionMessage],
    zone: ZoneInfo,
    contact: str | None,
    get_pseudonym: GetPseudonym | None = None,
) -> Header:
    """The complete header of a session. Times are those of its lead message in the owner's time zone.

    Args:
        session: at least one message is the owner's.
        zone: the owner's time zone.
        contact: account of the other person in a direct chat.
        get_pseudonym: None if nobody has several accounts.
    """
    lead = lead_message(session).message
    local = lead.sent_at.astimezone(zone)
    own_text = "\n".join(item.message.text for item in session if item.is_mine)
    return Header(
        year=str(local.year),
        weekday=weekday_name(local.weekday()),
        hour=hour_bucket(local.hour),
        platform=lead.platform,
        kind=lead.kind,
        language=language_of(own_text),
        contact=(get_pseudonym or pseudonym)(lead.platform, contact) if contact and lead.kind == "dm" else None,
    )


def session_id(first: Message) -> str:
    """A digest of platform, chat and first message, stable across builds."""
    return hashlib.sha256(f"{first.platform}\0{first.chat}\0{first.id}".encode()).hexdigest()[:16]


def mark_duplicates(messages: Iterable[tuple[int, Message]]) -> Iterator[tuple[bool, int, Message]]:
    """Adds to every (number, message) whether the same message came before, as in overlapping exports.

    Copies have the same time, and messages come in order of time, so only the ids of one moment are kept.
    """
    moment: datetime | None = None
    seen: set[str] = set()
    for number, message in messages:
        if message.sent_at != moment:
            moment = message.sent_at
            seen.clear()
        yield message.id in seen, number, message
        seen.add(message.id)


def _closed(session: list[SessionMessage], session_of: dict[str, list[SessionMessage]]) -> list[SessionMessage]:
    """A session that no message can join any more, removed from `session_of`."""
    for item in session:
        session_of.pop(item.message.id, None)
    return session
