"""The messages of a chat in one archive as columns of numbers, so that the copies of a chat can be compared fast.

A text is represented by a hash that ignores what exporters write differently: spaces, case and emoji variants. How much
a text tells is estimated in bits: everybody says "ok", hardly anybody the same ten words in the same minute.
"""

import re
from array import array
from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from training.archives.message import Mark, Message
from training.dataset.message_store import StoredChat
from training.dataset.small_talk import is_small_talk

MIN_DISTINCTIVE_BITS = 12
"""A text of at least three words is unlikely to be said by chance at the same time elsewhere."""

_BITS_PER_WORD = 4
_MAX_BITS = 32
_WORDS_PER_CHARACTER = 2 / 3
"""In scripts without spaces between words."""
_DERIVED_ID = re.compile(r"-?\d+-[0-9a-f]{16}-\d+(?:-answer)?|.*/[0-9a-f]{8}/\d+")
"""Ids that readers derive from time, sender and text, because the export has none."""
_GLOBAL_ID = re.compile(
    r"\d{10}\.\d{6}|\$[\w+/=-]{20,}(?::\S+)?|(?![^/]+/reaction/)[\w-]{6,}/[\w-]{6,}(?:/\S+)?|(?!\d{13}-)[\w-]{24,}"
)
"""Ids that a service gives to one message in the world: snowflakes, Slack's times, Matrix's and Google's ids."""
_SNOWFLAKE_LENGTHS = range(15, 21)
_DENSE = re.compile("[\u0e00-\u0e7f\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]+")
"""Thai, Burmese, Khmer, Japanese and Chinese: no spaces between words."""
_UNWRITTEN = dict.fromkeys(map(ord, "\ufe0e\ufe0f\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"))
_MAX_NAMES = 8
_REACTION = Mark.REACTION  # enum members are looked up slowly in Python 3.11

Account = tuple[str, str]
"""Platform and id."""


class Timeline(msgspec.Struct):
    """Messages in order of time.

    Attributes:
        times: seconds since 1970.
        texts: hashes of the texts.
        ids: hashes of the ids.
        senders: positions in `accounts`.
        accounts: everybody who wrote.
        bits: how much each text tells.
        is_global: whether each id is one that no other message of the service has.
    """

    times: NDArray[np.float64]
    texts: NDArray[np.int64]
    ids: NDArray[np.int64]
    senders: NDArray[np.int32]
    accounts: list[Account]
    bits: NDArray[np.uint8]
    is_global: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.times)

    @property
    def is_by_minute(self) -> bool:
        """Whether no time has seconds."""
        return bool(len(self.times)) and not np.any(self.times % 60)


class ChatCopy(msgspec.Struct):
    """The messages of a chat in one archive, or in several that continue one another.

    Attributes:
        chat: where they are stored.
        sources: numbers of the archives.
        numbers: of the messages in the chat.
        replies: hashes of the ids that the messages reply to; 0 for none.
        timeline: the messages.
        owners: what the exports say about each account: whether it is the owner's.
        names: the names of each account.
        derived_ids: whether the ids are not the service's.
        has_group: whether an archive calls it a group.
        partial: how many messages come from an export that lacks the other side.
    """

    chat: StoredChat
    sources: tuple[int, ...]
    numbers: NDArray[np.int64]
    replies: NDArray[np.int64]
    timeline: Timeline
    owners: dict[Account, set[bool | None]]
    names: dict[Account, dict[str, None]]
    derived_ids: bool = False
    has_group: bool = False
    partial: int = 0

    @property
    def start(self) -> float:
        """The time of the first message."""
        return float(self.timeline.times[0])

    @property
    def end(self) -> float:
        """The time of the last message."""
        return float(self.timeline.times[-1])

    @property
    def fullness(self) -> tuple[float, ...]:
        """Compares copies: the better one has both sides, the service's ids, finer times, replies, more messages."""
        times = self.timeline.times
        fineness = 0 if self.timeline.is_by_minute else 2 if np.any(times % 1) else 1
        return (
            self.partial < len(times),
            len(self.timeline.accounts) > 1,
            not self.derived_ids,
            fineness,
            bool(self.replies.any()),
            len(times),
            -self.start,
        )


def read_copies(chat: StoredChat) -> list[ChatCopy]:
    """The copies of a chat, by archive."""
    order = chat.order()
    sources = chat.sources()[order]
    by_source = np.argsort(sources, kind="stable")
    starts = np.flatnonzero(np.diff(sources[by_source], prepend=-1))
    return [_read(chat, int(sources[numbers[0]]), order[numbers]) for numbers in np.split(by_source, starts[1:])]


def concatenated(copies: Sequence[ChatCopy]) -> ChatCopy:
    """Copies in one chat of which each begins after the one before has ended, as one."""
    if len(copies) == 1:
        return copies[0]
    accounts: dict[Account, int] = {}
    senders, owners, names = [], dict[Account, set[bool | None]](), dict[Account, dict[str, None]]()
    for copy in copies:
        places = [accounts.setdefault(account, len(accounts)) for account in copy.timeline.accounts]
        senders.append(np.asarray(places, dtype=np.int32)[copy.timeline.senders])
        for account in copy.timeline.accounts:
            owners.setdefault(account, set()).update(copy.owners[account])
            names.setdefault(account, {}).update(copy.names[account])
    timelines = [copy.timeline for copy in copies]
    return ChatCopy(
        chat=copies[0].chat,
        sources=tuple(source for copy in copies for source in copy.sources),
        numbers=np.concatenate([copy.numbers for copy in copies]),
        replies=np.concatenate([copy.replies for copy in copies]),
        timeline=Timeline(
            times=np.concatenate([timeline.times for timeline in timelines]),
            texts=np.concatenate([timeline.texts for timeline in timelines]),
            ids=np.concatenate([timeline.ids for timeline in timelines]),
            senders=np.concatenate(senders),
            accounts=list(accounts),
            bits=np.concatenate([timeline.bits for timeline in timelines]),
            is_global=np.concatenate([timeline.is_global for timeline in timelines]),
        ),
        owners=owners,
        names=names,
        derived_ids=all(copy.derived_ids for copy in copies),
        has_group=any(copy.has_group for copy in copies),
        partial=sum(copy.partial for copy in copies),
    )


def text_values(text: str) -> tuple[int, int]:
    """A hash of what a text says, however an exporter writes it, and how much it tells: some bits for each of its
    different words if there are several.
    """
    if text.isascii():
        words = text.casefold().split()
        count = len(set(words))
    else:
        words = text.translate(_UNWRITTEN).casefold().split()
        count = len(set(words))
        if dense := sum(map(len, _DENSE.findall(text))):
            count = max(count, count - 1 + int(dense * _WORDS_PER_CHARACTER))
    if count > 1 and is_small_talk(words):
        count = 0
    return hash("".join(words)), min(_MAX_BITS, _BITS_PER_WORD * count) if count > 1 else 0


def _read(chat: StoredChat, source: int, numbers: NDArray[np.int64]) -> ChatCopy:
    texts, ids, replies, senders, bits, is_global = (
        array("q"),
        array("q"),
        array("q"),
        array("i"),
        array("B"),
        array("B"),
    )
    writers: dict[tuple[str, str, str, bool | None], int] = {}
    accounts: dict[Account, int] = {}
    owners: dict[Account, set[bool | None]] = {}
    names: dict[Account, dict[str, None]] = {}
    derived = partial = 0
    has_group = False
    for message in _messages(chat, numbers):
        identifier, reply_to = message.id, message.reply_to
        text_hash, told = text_values(message.text)
        texts.append(text_hash)
        ids.append(hash(identifier))
        replies.append(0 if reply_to is None else hash(reply_to))
        bits.append(0 if message.mark == _REACTION else told)
        writer = (message.platform, message.sender, message.sender_name, message.is_owner)
        if (sender := writers.get(writer)) is None:
            account = writer[:2]
            sender = writers[writer] = accounts.setdefault(account, len(accounts))
            owners.setdefault(account, set()).add(message.is_owner)
            if len(known := names.setdefault(account, {})) < _MAX_NAMES:
                known[message.sender_name] = None
        senders.append(sender)
        if identifier.isdecimal():
            is_global.append(len(identifier) in _SNOWFLAKE_LENGTHS)
        else:
            is_derived = _DERIVED_ID.fullmatch(identifier) is not None
            derived += is_derived
            is_global.append(not is_derived and _GLOBAL_ID.fullmatch(identifier) is not None)
        partial += message.is_one_sided
        has_group = has_group or message.kind == "group"
    return ChatCopy(
        chat=chat,
        sources=(source,),
        numbers=numbers,
        replies=np.asarray(replies, dtype=np.int64),
        timeline=Timeline(
            times=chat.times_of(numbers),
            texts=np.asarray(texts, dtype=np.int64),
            ids=np.asarray(ids, dtype=np.int64),
            senders=np.asarray(senders, dtype=np.int32),
            accounts=list(accounts),
            bits=np.asarray(bits, dtype=np.uint8),
            is_global=np.asarray(is_global, dtype=np.bool_),
        ),
        owners=owners,
        names=names,
        derived_ids=2 * derived > len(numbers),
        has_group=has_group,
        partial=partial,
    )


def _messages(chat: StoredChat, numbers: NDArray[np.int64]) -> Iterator[Message]:
    return map(chat.message, numbers.tolist())
