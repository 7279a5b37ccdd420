"""Which messages of the owner's repeat others of theirs: announcements pasted again, and short words said very often.

Only what the owner wrote is looked at, in order of time: of texts that nearly agree (`near_duplicates`) the earliest
stays, and the same short text stays up to a cap that grows with the archive, the earliest first, because how often
somebody says "ok" is part of how they write. Where a message lies in its conversation is not known here; what that
means for it is decided in `training.dataset.trimming`.
"""

from array import array
from collections.abc import Callable
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from doppel.config import CleaningSettings
from training.archives.message import Message
from training.cleaning.near_duplicates import near_repeats, words_of

LEAST_CAP = 50
"""Times that a short text may always be said."""

_BLOCK = 1 << 14
"""Texts whose words are put together at a time."""

Repeat = Literal["near-duplicate", "repeat"]


class _Texts(msgspec.Struct):
    """What one account wrote: 24 bytes a message, and 4 a word for those long enough to be compared."""

    times: "array[float]" = msgspec.field(default_factory=lambda: array("d"))
    places: "array[int]" = msgspec.field(default_factory=lambda: array("q"))
    digests: "array[int]" = msgspec.field(default_factory=lambda: array("q"))
    lengths: "array[int]" = msgspec.field(default_factory=lambda: array("H"))
    words: "array[int]" = msgspec.field(default_factory=lambda: array("I"))


class Repeats:
    """Hears every message, then knows which of the owner's are repeats.

    Args:
        rules: `cleaning` in config.yaml.
    """

    def __init__(self, rules: CleaningSettings) -> None:
        self._rules = rules
        self._texts: dict[tuple[str, str, bool | None], _Texts] = {}
        self._found: dict[int, Repeat] = {}

    def saw(self, message: Message) -> None:
        """Takes a message that is kept, with its cleaned text. Whose it is may be known only later."""
        if message.is_owner is False:
            return
        key = (message.platform, message.sender, message.is_owner)
        texts = self._texts.get(key)
        if texts is None:
            texts = self._texts[key] = _Texts()
        words = words_of(message.text)
        texts.times.append(message.sent_at.timestamp())
        texts.places.append(_place(message))
        texts.digests.append(hash(message.text.casefold()))
        texts.lengths.append(0 if words is None else len(words))
        if words is not None:
            texts.words.extend(words)

    def settle(self, is_mine: Callable[[str, str, bool | None], bool]) -> None:
        """Decides, once it is known which accounts are the owner's."""
        mine = [texts for key, texts in self._texts.items() if is_mine(*key)]
        self._texts = {}
        if not mine:
            return
        places = np.concatenate([np.asarray(one.places, dtype=np.int64) for one in mine])
        digests = np.concatenate([np.asarray(one.digests, dtype=np.int64) for one in mine])
        lengths = np.concatenate([np.asarray(one.lengths, dtype=np.uint16) for one in mine]).astype(np.int64)
        times = np.concatenate([np.asarray(one.times, dtype=np.float64) for one in mine])
        words = np.concatenate([np.asarray(one.words, dtype=np.uint32) for one in mine])
        mine.clear()  # they are as large again
        starts = np.cumsum(lengths) - lengths
        _, first = np.unique(places, return_index=True)  # exports that overlap have messages twice
        first.sort()
        order = first[np.argsort(times[first], kind="stable")]
        is_long = lengths[order] > 0
        self._cap_short(
            places, digests, order[~is_long], max(LEAST_CAP, int(self._rules.max_repeat_share * len(order)))
        )
        if self._rules.near_duplicates:
            self._find_near(places, digests, order[is_long], (words, starts, lengths))

    @property
    def found(self) -> bool:
        """Whether there is any repeat."""
        return bool(self._found)

    def verdict(self, message: Message) -> Repeat | None:
        """Whether this message of the owner's is one repeat too many, and of which sort."""
        return self._found.get(_place(message)) if self._found else None

    def _cap_short(
        self, places: NDArray[np.int64], digests: NDArray[np.int64], order: NDArray[np.int64], cap: int
    ) -> None:
        excess = order[_occurrence(digests[order]) >= cap]
        self._found.update(dict.fromkeys(places[excess].tolist(), "repeat"))

    def _find_near(
        self,
        places: NDArray[np.int64],
        digests: NDArray[np.int64],
        order: NDArray[np.int64],
        texts: tuple[NDArray[np.uint32], NDArray[np.int64], NDArray[np.int64]],
    ) -> None:
        words, starts, lengths = texts
        is_copy = _occurrence(digests[order]) > 0
        once = order[~is_copy]
        near = once[near_repeats(_gathered(words, starts[once], lengths[once]), lengths[once])]
        for numbers in (order[is_copy], near):
            self._found.update(dict.fromkeys(places[numbers].tolist(), "near-duplicate"))


def _gathered(words: NDArray[np.uint32], starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.uint32]:
    """The words of texts that begin and are as long as said, one text after the other."""
    parts = [np.empty(0, dtype=np.uint32)]
    for first in range(0, len(lengths), _BLOCK):  # places take more room than words
        sizes = lengths[first : first + _BLOCK]
        before = np.cumsum(sizes) - sizes
        places = np.repeat(starts[first : first + _BLOCK] - before, sizes) + np.arange(int(sizes.sum()))
        parts.append(words[places])
    return np.concatenate(parts)


def _occurrence(digests: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each text how many equal ones came before it."""
    by_text = np.argsort(digests, kind="stable")
    grouped = digests[by_text]
    begins = np.ones(len(grouped), dtype=bool)
    begins[1:] = grouped[1:] != grouped[:-1]
    positions = np.arange(len(grouped))
    before = np.empty(len(grouped), dtype=np.int64)
    before[by_text] = positions - np.maximum.accumulate(np.where(begins, positions, 0))
    return before


def _place(message: Message) -> int:
    """Which message it is, in 64 bits: two of a million share them once in ten million archives."""
    return hash((message.platform, message.chat, message.id))
