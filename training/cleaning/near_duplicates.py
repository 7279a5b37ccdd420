"""Finds texts that nearly repeat an earlier one: MinHash over pairs of words, candidates by locality-sensitive hashing.

Candidates are compared exactly, so chance can hide a pair but never makes one up. Texts below `SHORTEST` words are
not for here: they repeat because people do. Knows texts only, not whose they are or what becomes of a repeat.
"""

import re
from array import array
from functools import lru_cache
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

SHORTEST = 8
"""Words (or characters of scripts without spaces) from which a text can nearly repeat another."""

LIKE = 0.8
"""Pairs of neighbouring words that two texts share, of all that either has, from which one repeats the other.

One word changed in a text of twenty is a repeat, in one of ten it is not.
"""

_LONGEST = 400
"""Words of a text that are looked at."""

_BANDS, _ROWS = 8, 4
"""A pair of likeness 0.8 becomes a candidate with 98 %, one of 0.9 with more than 99.9 %."""

_BLOCK = 1 << 18
"""Words that are hashed together: enough for numpy to be fast, few enough to be small."""

_COMPARED = 16
"""Texts of one bucket that a further one is compared with: templates fill buckets and must not take for ever."""

_REMEMBERED = 1 << 16
"""Texts whose pairs are kept as sets, a kilobyte each; those of others are put together again when asked for."""

_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|\w+")
_ONLY_WORDS = bytes(code if chr(code).isalnum() or chr(code) == "_" else 32 for code in range(128)).ljust(256)
_ODD = np.uint64(0x9E3779B97F4A7C15)
_MIXED = np.uint64(0xBF58476D1CE4E5B9)
_HALF = np.uint64(32)

Hashes = NDArray[np.uint64]


def words_of(text: str) -> "array[int] | None":
    """Hashes of the text's words, without case and punctuation; None for a text with too few of them."""
    if len(text) < SHORTEST:
        return None
    if text.isascii():
        if len(text.split()) < SHORTEST:  # most are
            return None
        said = text.lower().encode().translate(_ONLY_WORDS).split()  # what the pattern finds, found faster
    else:
        said = " ".join(_WORD.findall(text.casefold())).encode("utf-8", "surrogatepass").split()
    return array("I", map(crc32, said[:_LONGEST])) if len(said) >= SHORTEST else None


def near_repeats(words: NDArray[np.uint32], lengths: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which texts nearly repeat an earlier one that is no repeat itself.

    Args:
        words: what `words_of` gave for each text, one after the other, the earliest text first.
        lengths: how many words each text has, at least two.
    """
    found = np.zeros(len(lengths), dtype=bool)
    if len(lengths) < 2:
        return found
    ends = np.cumsum(lengths)
    pairs = np.empty(int(ends[-1]) - len(lengths), dtype=np.uint32)
    keys = np.empty((len(lengths), _BANDS), dtype=np.uint64)
    first = 0
    while first < len(lengths):
        start = int(ends[first] - lengths[first])
        last = max(first + 1, int(np.searchsorted(ends, start + _BLOCK, side="right")))
        block = _pairs(words[start : int(ends[last - 1])], lengths[first:last])
        pairs[start - first : int(ends[last - 1]) - last] = block >> _HALF
        keys[first:last] = _bucket_keys(block, lengths[first:last] - 1)
        first = last
    return _compare(pairs, np.cumsum(lengths - 1), keys, found)


def _pairs(words: NDArray[np.uint32], lengths: NDArray[np.int64]) -> Hashes:
    """A hash for each two neighbouring words of a text."""
    wide = words.astype(np.uint64)
    mixed = (wide[:-1] * _ODD) ^ ((wide[1:] + _MIXED) * _MIXED)
    mixed = (mixed ^ (mixed >> np.uint64(29))) * _ODD
    inside = np.ones(len(mixed), dtype=bool)
    inside[np.cumsum(lengths)[:-1] - 1] = False  # the last word of a text and the first of the next are no neighbours
    pairs: Hashes = mixed[inside]
    return pairs ^ (pairs >> _HALF)


def _bucket_keys(pairs: Hashes, lengths: NDArray[np.int64]) -> Hashes:
    """For each text the buckets in which it lies, one a band: equal for texts whose minima in the band are equal."""
    starts = np.cumsum(lengths) - lengths
    dice = np.random.default_rng(20)  # the same on every machine and in every run
    keys = np.empty((len(lengths), _BANDS), dtype=np.uint64)
    for band in range(_BANDS):
        key = np.full(len(lengths), band, dtype=np.uint64)
        for _ in range(_ROWS):
            factor, shift = dice.integers(1, 2**64, size=2, dtype=np.uint64)
            hashed = pairs * (factor | np.uint64(1)) + shift
            hashed ^= hashed >> _HALF
            key = (key ^ np.minimum.reduceat(hashed * _MIXED, starts)) * _ODD
        keys[:, band] = key
    return keys


def _compare(
    pairs: NDArray[np.uint32], ends: NDArray[np.int64], keys: Hashes, found: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Goes through the texts that share a bucket with another, the earliest first, and compares."""
    shared = np.zeros(keys.shape, dtype=bool)
    for band in range(_BANDS):  # one at a time: sorting takes several times the room of what is sorted
        by_key = np.argsort(keys[:, band])
        ordered = keys[by_key, band]
        has_next = ordered[1:] == ordered[:-1]
        shared[by_key[1:], band] |= has_next
        shared[by_key[:-1], band] |= has_next

    @lru_cache(maxsize=_REMEMBERED)
    def pairs_of(number: int) -> frozenset[int]:
        return frozenset(pairs[int(ends[number - 1]) if number else 0 : int(ends[number])].tolist())

    buckets: dict[int, list[int]] = {}
    for number in np.flatnonzero(shared.any(axis=1)).tolist():
        own = pairs_of(number)
        mine = [buckets.setdefault(key, []) for key in keys[number][shared[number]].tolist()]
        seen: set[int] = set()
        for bucket in mine:
            if any(_alike(own, pairs_of(other)) for other in bucket if other not in seen):
                found[number] = True
                break
            seen.update(bucket)
        else:
            for bucket in mine:
                if len(bucket) < _COMPARED:
                    bucket.append(number)
    return found


def _alike(one: frozenset[int], other: frozenset[int]) -> bool:
    if min(len(one), len(other)) < LIKE * max(len(one), len(other)):
        return False
    shared = len(one & other)
    return shared >= LIKE * (len(one) + len(other) - shared)
