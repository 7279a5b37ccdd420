"""Finds the owner's messages that repeat others of theirs: announcements pasted again, and very frequent short texts.

Of near-duplicates (`near_duplicates`) the earliest stays. Equal short texts stay up to a cap that grows with the
archive, because how often somebody says "ok" is part of how they write. `training.dataset.trimming` decides which
repeats are then cut from their sessions.
"""

from array import array
from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import NDArray

from doppel.config import CleaningSettings
from training.archives.message import Message
from training.cleaning.near_duplicates import find_near_duplicates, word_hashes
from training.cleaning.rules import DropReason

MIN_REPEAT_CAP = 50
"""How often a short text may always occur."""

_BLOCK = 1 << 14
"""Texts whose words are gathered at a time."""

_NOTHING: NDArray[np.int64] = np.empty(0, dtype=np.int64)


class _Texts(msgspec.Struct):
    """The texts of one account: 24 bytes a message, plus 4 a word for texts long enough to be compared."""

    times: "array[float]" = msgspec.field(default_factory=lambda: array("d"))
    message_hashes: "array[int]" = msgspec.field(default_factory=lambda: array("q"))
    text_hashes: "array[int]" = msgspec.field(default_factory=lambda: array("q"))
    lengths: "array[int]" = msgspec.field(default_factory=lambda: array("H"))
    words: "array[int]" = msgspec.field(default_factory=lambda: array("I"))


class RepeatDetector:
    """Collects all messages with `add`, then finds the owner's repeats with `resolve`.

    Args:
        settings: `cleaning` in config.yaml.
    """

    def __init__(self, settings: CleaningSettings) -> None:
        self._settings = settings
        self._texts: dict[tuple[str, str, bool | None], _Texts] = {}
        self._reasons: dict[int, DropReason] = {}

    def add(self, message: Message) -> None:
        """Takes a message that is kept, with its cleaned text. Its author may be identified only later."""
        if message.is_owner is False:
            return
        key = (message.platform, message.sender, message.is_owner)
        texts = self._texts.get(key)
        if texts is None:
            texts = self._texts[key] = _Texts()
        words = word_hashes(message.text)
        texts.times.append(message.sent_at.timestamp())
        texts.message_hashes.append(message_hash(message.platform, message.chat, hash(message.id)))
        texts.text_hashes.append(hash(message.text.casefold()))
        texts.lengths.append(0 if words is None else len(words))
        if words is not None:
            texts.words.extend(words)

    def resolve(self, is_mine: Callable[[str, str, bool | None], bool], left_out: NDArray[np.int64] = _NOTHING) -> None:
        """Finds the repeats, once the owner's accounts are known; no message can be added afterwards.

        Args:
            is_mine: whether an account, given with what the export says about it, is the owner's.
            left_out: hashes of messages that repeat nothing, as they are only copies.
        """
        mine = [texts for key, texts in self._texts.items() if is_mine(*key)]
        self._texts = {}
        if not mine:
            return
        messages = np.concatenate([np.asarray(texts.message_hashes, dtype=np.int64) for texts in mine])
        contents = np.concatenate([np.asarray(texts.text_hashes, dtype=np.int64) for texts in mine])
        lengths = np.concatenate([np.asarray(texts.lengths, dtype=np.uint16) for texts in mine]).astype(np.int64)
        times = np.concatenate([np.asarray(texts.times, dtype=np.float64) for texts in mine])
        words = np.concatenate([np.asarray(texts.words, dtype=np.uint32) for texts in mine])
        mine.clear()  # frees as much memory as the arrays above take
        starts = np.cumsum(lengths) - lengths
        _, first = np.unique(messages, return_index=True)  # overlapping exports contain messages twice
        first.sort()
        if len(left_out):
            first = first[~np.isin(messages[first], left_out)]
        order = first[np.argsort(times[first], kind="stable")]
        is_long = lengths[order] > 0
        cap = max(MIN_REPEAT_CAP, int(self._settings.max_repeat_share * len(order)))
        self._cap_short_texts(messages, contents, order[~is_long], cap)
        if self._settings.near_duplicates:
            self._find_near_duplicates(messages, contents, order[is_long], (words, starts, lengths))

    @property
    def has_repeats(self) -> bool:
        """Whether any repeat was found."""
        return bool(self._reasons)

    def reason_for(self, message: Message, stored_chat: tuple[str, str] | None = None) -> DropReason | None:
        """Why this message of the owner's is a repeat; None if it is not.

        Args:
            message: as it was added.
            stored_chat: platform and chat with which it was added, if these have changed.
        """
        if not self._reasons:
            return None
        platform, chat = stored_chat or (message.platform, message.chat)
        return self._reasons.get(message_hash(platform, chat, hash(message.id)))

    def _cap_short_texts(
        self, messages: NDArray[np.int64], contents: NDArray[np.int64], order: NDArray[np.int64], cap: int
    ) -> None:
        excess = order[_occurrence(contents[order]) >= cap]
        self._reasons.update(dict.fromkeys(messages[excess].tolist(), DropReason.REPEAT))

    def _find_near_duplicates(
        self,
        messages: NDArray[np.int64],
        contents: NDArray[np.int64],
        order: NDArray[np.int64],
        texts: tuple[NDArray[np.uint32], NDArray[np.int64], NDArray[np.int64]],
    ) -> None:
        words, starts, lengths = texts
        is_copy = _occurrence(contents[order]) > 0
        distinct = order[~is_copy]
        gathered = _gather(words, starts[distinct], lengths[distinct])
        near = distinct[find_near_duplicates(gathered, lengths[distinct])]
        for numbers in (order[is_copy], near):
            self._reasons.update(dict.fromkeys(messages[numbers].tolist(), DropReason.NEAR_DUPLICATE))


def _gather(words: NDArray[np.uint32], starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.uint32]:
    """The words of the texts with these starts and lengths, concatenated."""
    parts = [np.empty(0, dtype=np.uint32)]
    for first in range(0, len(lengths), _BLOCK):  # in blocks, as the indices take more memory than the words
        sizes = lengths[first : first + _BLOCK]
        before = np.cumsum(sizes) - sizes
        indices = np.repeat(starts[first : first + _BLOCK] - before, sizes) + np.arange(int(sizes.sum()))
        parts.append(words[indices])
    return np.concatenate(parts)


def _occurrence(digests: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each text the number of equal ones before it."""
    by_text = np.argsort(digests, kind="stable")
    grouped = digests[by_text]
    begins = np.ones(len(grouped), dtype=bool)
    begins[1:] = grouped[1:] != grouped[:-1]
    positions = np.arange(len(grouped))
    before = np.empty(len(grouped), dtype=np.int64)
    before[by_text] = positions - np.maximum.accumulate(np.where(begins, positions, 0))
    return before


def message_hash(platform: str, chat: str, id_hash: int) -> int:
    """Identifies a message in 64 bits, given the hash of its id; a collision among a million messages has a chance of
    1 in 10 million.
    """
    return hash((platform, chat, id_hash))
