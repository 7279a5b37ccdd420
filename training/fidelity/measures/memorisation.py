"""Memorisation: does the adapter recite training messages, more than the owner repeats themselves and others?

For each reply, the longest run of words that also occurs in the training messages, the owner's and apart from them
other people's; the owner's own later replies are the baseline. A message told again with a few words exchanged is
recited, too; and one stock reply to everything is counted. Such replies are rare and independent of each other, so that
the intervals of shares are Wilson's. Runs are looked up by rolling hashes instead of comparing text.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from statistics import quantiles

import numpy as np
from numpy.typing import NDArray

from doppel.reports.metrics import Interval, Metric, wilson_interval
from training.fidelity.generate import EvaluationReply
from training.fidelity.measures.habits import words
from training.fidelity.statistics import bootstrap, mean

MAX_RUN = 64
"""Words up to which a run is measured; anything longer is a recitation."""
LONG_RUN = 8
"""Words from which a repeated run counts as learned by heart."""
_SHORT_RUN = 4
_RECITED_SHARE = 0.8
"""Of a text of `LONG_RUN` words or more: in short runs of the corpus. Then a word here and there was exchanged."""

PARROTED_RUN = 5
"""Words in a row of the message it answers from which a reply repeats it."""

_HASH_BASE = np.uint64(1_000_003)
_HASH_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_SEPARATOR = np.uint64(0)  # between two messages: no run crosses it


class WordRuns:
    """Finds runs of words in a corpus.

    Args:
        texts: the corpus.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._word_ids: dict[str, int] = {}
        corpus = [self._add_words(words(text)) for text in texts]
        self._corpus = (
            np.concatenate([np.append(ids, _SEPARATOR) for ids in corpus]) if corpus else np.zeros(0, np.uint64)
        )
        self._hashes_by_length: dict[int, NDArray[np.uint64]] = {}

    def longest(self, text: str) -> int:
        """Words of the longest run of `text` that occurs in the corpus, up to `MAX_RUN`."""
        ids = self._ids(text)
        low, high = 0, min(MAX_RUN, len(ids))
        while low < high:  # a text with a run of n words has one of n - 1
            middle = (low + high + 1) // 2
            if _are_in(self._corpus_hashes(middle), _hash_runs(ids, middle)).any():
                low = middle
            else:
                high = middle - 1
        return low

    def is_recited(self, text: str) -> bool:
        """Whether a text of `LONG_RUN` words or more has that many in a row from the corpus, or is made of its runs."""
        ids = self._ids(text)
        if len(ids) < LONG_RUN:
            return False
        if _are_in(self._corpus_hashes(LONG_RUN), _hash_runs(ids, LONG_RUN)).any():
            return True
        covered = np.zeros(len(ids), dtype=bool)
        starts = np.flatnonzero(_are_in(self._corpus_hashes(_SHORT_RUN), _hash_runs(ids, _SHORT_RUN)))
        for offset in range(_SHORT_RUN):
            covered[starts + offset] = True
        return bool(covered.mean() >= _RECITED_SHARE)

    def _ids(self, text: str) -> NDArray[np.uint64]:
        """(N,) the number of each word; one of no word in the corpus for those that are not in it."""
        ids = np.array([self._word_ids.get(word, -1) for word in words(text)], dtype=np.int64)
        return np.where(ids < 0, np.iinfo(np.int32).max, ids).astype(np.uint64)

    def _add_words(self, text_words: list[str]) -> NDArray[np.uint64]:
        word_ids = self._word_ids
        return np.array([word_ids.setdefault(word, len(word_ids) + 1) for word in text_words], dtype=np.uint64)

    def _corpus_hashes(self, length: int) -> NDArray[np.uint64]:
        """Sorted hashes of all runs of this length."""
        if length not in self._hashes_by_length:
            hashes = _hash_runs(self._corpus, length)
            if len(hashes):
                separators = np.convolve(self._corpus == _SEPARATOR, np.ones(length, dtype=np.int64), mode="valid")
                hashes = np.unique(hashes[separators == 0])
            self._hashes_by_length[length] = hashes
        return self._hashes_by_length[length]


def memorisation_metrics(
    adapter: Sequence[EvaluationReply],
    actual: Sequence[EvaluationReply],
    training_texts: Iterable[str],
    contact_texts: Iterable[str],
) -> list[Metric]:
    """Metric 7 of a report: mean and 99th percentile of the longest run, and the share of long ones.

    Args:
        adapter: the adapter's replies.
        actual: all of the owner's in the test split, the baseline.
        training_texts: what the owner wrote in the training split.
        contact_texts: what other people wrote there, which nobody expects to be told again.
    """
    runs, contact_runs = WordRuns(training_texts), WordRuns(contact_texts)
    lengths, actual_lengths = (_run_lengths(runs, replies) for replies in (adapter, actual))
    groups, actual_groups = (
        [reply.exchange.session_id for reply in replies if reply.bubbles] for replies in (adapter, actual)
    )
    return [
        Metric(
            name="verbatim_run",
            estimate=mean(lengths, groups),
            ceiling=mean(actual_lengths, actual_groups),
            lower_is_better=True,
            unit="count",
        ),
        Metric(
            name="verbatim_run_99",
            estimate=_percentile_99(lengths, groups),
            ceiling=_percentile_99(actual_lengths, actual_groups),
            lower_is_better=True,
            unit="count",
        ),
        Metric(
            name="recited",
            estimate=_recited_share(runs, adapter),
            ceiling=_recited_share(runs, actual),
            lower_is_better=True,
            unit="share",
        ),
        Metric(
            name="recited_from_contacts",
            estimate=_recited_share(contact_runs, adapter),
            ceiling=_recited_share(contact_runs, actual),
            lower_is_better=True,
            unit="share",
        ),
        Metric(
            name="parroted",
            estimate=_share_where(adapter, is_parroted),
            ceiling=_share_where(actual, is_parroted),
            lower_is_better=True,
            unit="share",
        ),
        Metric(
            name="commonest_reply",
            estimate=_commonest_share(adapter),
            ceiling=_commonest_share(actual),
            lower_is_better=True,
            unit="share",
        ),
    ]


def is_parroted(reply: EvaluationReply) -> bool:
    """Whether a reply says again what it answers: a whole message, or `PARROTED_RUN` words of one in a row."""
    answered = [words(bubble) for bubble in reply.exchange.context[-1].bubbles]
    said = words(reply.text)
    if said in answered:
        return True
    runs = {tuple(said[at : at + PARROTED_RUN]) for at in range(len(said) - PARROTED_RUN + 1)}
    return any(
        tuple(message[at : at + PARROTED_RUN]) in runs
        for message in answered
        for at in range(len(message) - PARROTED_RUN + 1)
    )


def _run_lengths(runs: WordRuns, replies: Sequence[EvaluationReply]) -> list[float]:
    return [float(runs.longest(reply.text)) for reply in replies if reply.bubbles]


def _share_where(replies: Sequence[EvaluationReply], applies: Callable[[EvaluationReply], bool]) -> Interval:
    """The share of the replies with text to which something applies."""
    written = [reply for reply in replies if reply.bubbles]
    return wilson_interval(sum(map(applies, written)), len(written))


def _recited_share(runs: WordRuns, replies: Sequence[EvaluationReply]) -> Interval:
    return _share_where(replies, lambda reply: runs.is_recited(reply.text))


def _commonest_share(replies: Sequence[EvaluationReply]) -> Interval:
    """The share of replies that have the same words as the commonest."""
    counts = Counter(tuple(words(reply.text)) or (reply.text,) for reply in replies if reply.bubbles)
    return wilson_interval(max(counts.values(), default=0), counts.total())


def _percentile_99(lengths: Sequence[float], groups: Sequence[str]) -> Interval:
    if len(lengths) < 2:
        return Interval.unknown()
    return bootstrap(groups, lambda rows: quantiles([lengths[row] for row in rows] * 2, n=100)[98])


def _are_in(sorted_hashes: NDArray[np.uint64], hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which of the hashes are among the sorted ones; `numpy.isin` would sort these again in each call."""
    if not len(sorted_hashes):
        return np.zeros(len(hashes), dtype=bool)
    positions = np.minimum(np.searchsorted(sorted_hashes, hashes), len(sorted_hashes) - 1)
    return np.asarray(sorted_hashes[positions] == hashes)


def _hash_runs(ids: NDArray[np.uint64], length: int) -> NDArray[np.uint64]:
    """Hash of every run of `length` ids: a polynomial modulo 2^64."""
    if length < 1 or len(ids) < length:
        return np.zeros(0, np.uint64)
    count = len(ids) - length + 1
    hashes = np.zeros(count, np.uint64)
    with np.errstate(over="ignore"):
        for offset in range(length):
            hashes = hashes * _HASH_BASE + ids[offset : offset + count] * _HASH_FACTOR
    return hashes
