"""Finds near-duplicate texts with MinHash over word bigrams and locality-sensitive hashing (LSH).

Candidates are compared exactly: a near-duplicate can be missed by chance, but there are no false positives. Texts
shorter than `MIN_WORDS` are ignored, because people naturally repeat short messages.
"""

import re
from array import array
from functools import lru_cache
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

MIN_WORDS = 8
"""Shorter texts are never near-duplicates. In scripts without spaces each character counts as a word."""

MIN_SIMILARITY = 0.8
"""Jaccard similarity of the word bigrams from which two texts are near-duplicates.

Changing one word of twenty makes a near-duplicate, changing one of ten does not.
"""

_MAX_WORDS = 400
"""Only the beginning of a longer text is compared."""

_BANDS, _ROWS = 8, 4
"""A pair of similarity 0.8 becomes a candidate with probability 98 %, one of 0.9 with more than 99.9 %."""

_BLOCK = 1 << 18
"""Words hashed at a time: enough to be fast in numpy, few enough to use little memory."""

_MAX_BUCKET = 16
"""Texts kept per bucket: message templates fill buckets, and comparing with all of them would be quadratic."""

_CACHED_TEXTS = 1 << 16
"""Texts whose bigrams are cached as sets, about a kilobyte each."""

_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|\w+")
_ONLY_WORDS = bytes(code if chr(code).isalnum() or chr(code) == "_" else 32 for code in range(128)).ljust(256)
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_INCREMENT = np.uint64(0xBF58476D1CE4E5B9)
_HALF = np.uint64(32)

Hashes = NDArray[np.uint64]


def word_hashes(text: str) -> "array[int] | None":
    """Hashes of the words of a text, ignoring case and punctuation; None if it has fewer than `MIN_WORDS`."""
    if len(text) < MIN_WORDS:
        return None
    if text.isascii():
        if len(text.split()) < MIN_WORDS:  # the usual case
            return None
        words = text.lower().encode().translate(_ONLY_WORDS).split()  # faster than _WORD, with the same result
    else:
        words = " ".join(_WORD.findall(text.casefold())).encode("utf-8", "surrogatepass").split()
    return array("I", map(crc32, words[:_MAX_WORDS])) if len(words) >= MIN_WORDS else None


def find_near_duplicates(words: NDArray[np.uint32], lengths: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which texts are near-duplicates of an earlier text that is not one itself.

    Args:
        words: `word_hashes` of all texts, concatenated, the earliest text first.
        lengths: number of words of each text, at least two.

    Returns:
        A mask over the texts.
    """
    is_duplicate = np.zeros(len(lengths), dtype=bool)
    if len(lengths) < 2:
        return is_duplicate
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
    return _compare(pairs, np.cumsum(lengths - 1), keys, is_duplicate)


def _pairs(words: NDArray[np.uint32], lengths: NDArray[np.int64]) -> Hashes:
    """A hash for each bigram, text by text."""
    wide = words.astype(np.uint64)
    mixed = (wide[:-1] * _MULTIPLIER) ^ ((wide[1:] + _INCREMENT) * _INCREMENT)
    mixed = (mixed ^ (mixed >> np.uint64(29))) * _MULTIPLIER
    inside = np.ones(len(mixed), dtype=bool)
    inside[np.cumsum(lengths)[:-1] - 1] = False  # bigrams do not cross texts
    pairs: Hashes = mixed[inside]
    return pairs ^ (pairs >> _HALF)


def _bucket_keys(pairs: Hashes, lengths: NDArray[np.int64]) -> Hashes:
    """LSH bucket keys, shape (texts, bands): equal for texts whose MinHash values in a band are equal."""
    starts = np.cumsum(lengths) - lengths
    rng = np.random.default_rng(20)  # the same on every machine and in every run
    keys = np.empty((len(lengths), _BANDS), dtype=np.uint64)
    for band in range(_BANDS):
        key = np.full(len(lengths), band, dtype=np.uint64)
        for _ in range(_ROWS):
            factor, shift = rng.integers(1, 2**64, size=2, dtype=np.uint64)
            hashed = pairs * (factor | np.uint64(1)) + shift
            hashed ^= hashed >> _HALF
            key = (key ^ np.minimum.reduceat(hashed * _INCREMENT, starts)) * _MULTIPLIER
        keys[:, band] = key
    return keys


def _compare(
    pairs: NDArray[np.uint32], ends: NDArray[np.int64], keys: Hashes, is_duplicate: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Compares texts that share a bucket, the earliest first; fills and returns `is_duplicate`."""
    shared = np.zeros(keys.shape, dtype=bool)
    for band in range(_BANDS):  # one at a time, as sorting needs several times the memory of its input
        by_key = np.argsort(keys[:, band])
        ordered = keys[by_key, band]
        has_next = ordered[1:] == ordered[:-1]
        shared[by_key[1:], band] |= has_next
        shared[by_key[:-1], band] |= has_next

    @lru_cache(maxsize=_CACHED_TEXTS)
    def pairs_of(number: int) -> frozenset[int]:
        return frozenset(pairs[int(ends[number - 1]) if number else 0 : int(ends[number])].tolist())

    buckets: dict[int, list[int]] = {}
    for number in np.flatnonzero(shared.any(axis=1)).tolist():
        own = pairs_of(number)
        own_buckets = [buckets.setdefault(key, []) for key in keys[number][shared[number]].tolist()]
        seen: set[int] = set()
        for bucket in own_buckets:
            if any(_are_similar(own, pairs_of(other)) for other in bucket if other not in seen):
                is_duplicate[number] = True
                break
            seen.update(bucket)
        else:
            for bucket in own_buckets:
                if len(bucket) < _MAX_BUCKET:
                    bucket.append(number)
    return is_duplicate


def _are_similar(first: frozenset[int], second: frozenset[int]) -> bool:
    if min(len(first), len(second)) < MIN_SIMILARITY * max(len(first), len(second)):
        return False
    shared = len(first & second)
    return shared >= MIN_SIMILARITY * (len(first) + len(second) - shared)
