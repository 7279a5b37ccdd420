"""Writing habits: how far the distributions of countable features in generated replies are from the owner's.

Length, bubbles, emoji, punctuation, case and scripts by Wasserstein distance, in standard deviations of the owner's
own; first and last words by Jensen-Shannon divergence, in bits. Spread and variety are measured apart from means: a
doppelgänger that is right on average and always the same is a caricature. For each feature it is also counted whether
the mean is the owner's, neither below nor above it, as far as so many replies can tell. Saying nothing is a habit, too.
"""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from statistics import fmean, pstdev

import numpy as np
from scipy.stats import wasserstein_distance

from doppel.reports.metrics import Interval, Metric, wilson_interval
from training.fidelity.generate import EvaluationReply
from training.fidelity.statistics import RowIndices, bootstrap, jackknife, mean

_WORD = re.compile(r"[\u3400-\u9fff\u3040-\u30ff\uac00-\ud7af]|[^\W_]+(?:['’][^\W_]+)*")
_ROUNDS = 100
_SELF_BLEU_SAMPLE = 120


def _emoji_count(text: str) -> float:
    return float(sum(unicodedata.category(character) == "So" for character in text))


def _punctuation_share(text: str) -> float:
    return sum(unicodedata.category(character).startswith("P") for character in text) / max(1, len(text))


def _uppercase_share(text: str) -> float:
    letters = [character for character in text if character.isalpha() and character.lower() != character.upper()]
    return sum(map(str.isupper, letters)) / len(letters) if letters else 0.0


def _cjk_share(text: str) -> float:
    letters = [character for character in text if character.isalpha()]
    return sum(character >= "\u2e80" for character in letters) / len(letters) if letters else 0.0


_FEATURES: dict[str, Callable[[EvaluationReply], float]] = {
    "length": lambda reply: math.log1p(len(reply.text)),
    "bubbles": lambda reply: float(len(reply.bubbles)),
    "words_a_bubble": lambda reply: fmean(len(words(bubble)) for bubble in reply.bubbles),
    "emoji": lambda reply: _emoji_count(reply.text),
    "punctuation": lambda reply: _punctuation_share(reply.text),
    "case": lambda reply: _uppercase_share(reply.text),
    "opening_capital": lambda reply: float(reply.text[:1].isupper()),
    "plain_ending": lambda reply: float(reply.text[-1:].isalnum()),
    "script": lambda reply: _cjk_share(reply.text),
}


def words(text: str) -> list[str]:
    """Words in lower case; every Chinese, Japanese or Korean character is one."""
    return _WORD.findall(text.lower())


def habit_metrics(
    adapter: Sequence[EvaluationReply],
    prompted: Sequence[EvaluationReply],
    actual: Sequence[EvaluationReply],
    earlier: Sequence[EvaluationReply],
    other: Sequence[EvaluationReply] = (),
) -> list[Metric]:
    """Metric 4 of a report; the arguments are those of `two_sample_metrics`."""
    owner = _non_empty(actual)
    from_adapter, from_base, from_earlier = (_non_empty(replies) for replies in (adapter, prompted, earlier))
    from_other = _non_empty(other)
    floor_replies = from_other or from_base
    estimates, floors, ceilings = (
        _distances(replies, owner) for replies in (from_adapter, floor_replies, from_earlier)
    )
    prompted_distances = _distances(from_base, owner) if from_other else floors
    return [
        *(
            Metric(name=name, estimate=estimate, floor=floors[name], ceiling=ceilings[name], lower_is_better=True)
            for name, estimate in estimates.items()
        ),
        Metric(name="habits_distance_prompted", estimate=prompted_distances["habits_distance"], lower_is_better=True),
        Metric(
            name="habits_within",
            estimate=_share_within(from_adapter, owner),
            floor=_share_within(floor_replies, owner),
            ceiling=_share_within(from_earlier, owner),
            unit="share",
        ),
        Metric(
            name="silent",
            estimate=_silent_share(adapter),
            floor=_silent_share(prompted),
            ceiling=_silent_share(actual),
            lower_is_better=True,
            unit="share",
        ),
        *_variety_metrics(from_adapter, floor_replies, from_earlier, owner),
    ]


def outside_habits(replies: Sequence[EvaluationReply], owner: Sequence[EvaluationReply]) -> list[str]:
    """The features whose mean differs from the owner's by more than two samples of one person would (95 %)."""
    sides = [_non_empty(side) for side in (replies, owner)]
    if not all(sides):
        return list(_FEATURES)
    outside = []
    for name, feature in _FEATURES.items():
        mine, theirs = (_mean_interval(feature, side) for side in sides)
        margin = math.hypot(*((interval.high - interval.low) / 2 for interval in (mine, theirs)))
        if abs(mine.value - theirs.value) > margin:
            outside.append(name)
    return outside


def _share_within(replies: Sequence[EvaluationReply], owner: Sequence[EvaluationReply]) -> Interval:
    if not replies or not owner:
        return Interval.unknown()
    return Interval.exact(1 - len(outside_habits(replies, owner)) / len(_FEATURES))


def _mean_interval(feature: Callable[[EvaluationReply], float], replies: Sequence[EvaluationReply]) -> Interval:
    return mean([feature(reply) for reply in replies], [reply.exchange.session_id for reply in replies])


def _silent_share(replies: Sequence[EvaluationReply]) -> Interval:
    return wilson_interval(sum(not reply.bubbles for reply in replies), len(replies))


def _non_empty(replies: Sequence[EvaluationReply]) -> list[EvaluationReply]:
    return [reply for reply in replies if reply.bubbles]


def _distances(replies: Sequence[EvaluationReply], owner: Sequence[EvaluationReply]) -> dict[str, Interval]:
    """Each distance by the name of its metric; the first is the mean of the others."""
    measures = {f"habit_{name}": _wasserstein(feature, replies, owner) for name, feature in _FEATURES.items()}
    for name, index in (("opening_words", 0), ("closing_words", -1)):
        measures[f"habit_{name}"] = _word_divergence(index, replies, owner)
    distances = {name: _bootstrap(replies, measure) for name, measure in measures.items()}
    together = _bootstrap(replies, lambda rows: fmean(measure(rows) for measure in measures.values()))
    return {"habits_distance": together, **distances}


def _wasserstein(
    feature: Callable[[EvaluationReply], float], replies: Sequence[EvaluationReply], owner: Sequence[EvaluationReply]
) -> Callable[[RowIndices], float]:
    values, owner_values = (np.array([feature(reply) for reply in side]) for side in (replies, owner))
    scale = pstdev(owner_values) if len(owner_values) > 1 else 0.0
    return lambda rows: float(wasserstein_distance(values[rows], owner_values)) / (scale or 1.0)


def _word_divergence(
    index: int, replies: Sequence[EvaluationReply], owner: Sequence[EvaluationReply]
) -> Callable[[RowIndices], float]:
    owner_counts = Counter(_word_at(reply, index) for reply in owner)
    reply_words = [_word_at(reply, index) for reply in replies]
    return lambda rows: jensen_shannon(Counter(reply_words[row] for row in rows), owner_counts)


def _word_at(reply: EvaluationReply, index: int) -> str:
    reply_words = words(reply.text)
    return reply_words[index] if reply_words else reply.text[:1]


def jensen_shannon(left: Counter[str], right: Counter[str]) -> float:
    """Jensen-Shannon divergence in bits, 0 (equal) to 1 (nothing in common). Lin, 1991."""
    total_left, total_right = left.total() or 1, right.total() or 1
    divergence = 0.0
    for key in left.keys() | right.keys():
        p, q = left[key] / total_left, right[key] / total_right
        middle = (p + q) / 2
        divergence += sum(part / 2 * math.log2(part / middle) for part in (p, q) if part)
    return divergence


def _variety_metrics(
    adapter: Sequence[EvaluationReply],
    floor: Sequence[EvaluationReply],
    ceiling: Sequence[EvaluationReply],
    owner: Sequence[EvaluationReply],
) -> list[Metric]:
    """Distinct word pairs, self-BLEU, spread of lengths and of style, each relative to the owner's, which is 1."""
    metrics = []
    for name, measure in (("distinct_2", distinct), ("self_bleu", self_bleu), ("length_spread", _length_spread)):
        owner_value = measure([reply.text for reply in owner]) or 1.0
        estimate, floor_value, ceiling_value = (
            _jackknife(side, _relative(measure, side, owner_value)) for side in (adapter, floor, ceiling)
        )
        metrics.append(Metric(name=name, estimate=estimate, floor=floor_value, ceiling=ceiling_value))
    estimate, floor_value, ceiling_value = (
        _jackknife(side, _style_spread(side, owner)) for side in (adapter, floor, ceiling)
    )
    return [*metrics, Metric(name="style_spread", estimate=estimate, floor=floor_value, ceiling=ceiling_value)]


def _style_spread(
    replies: Sequence[EvaluationReply], owner: Sequence[EvaluationReply]
) -> Callable[[RowIndices], float]:
    """How much the features vary from reply to reply: the mean over features of the ratio to the owner's deviation."""
    ratios = []
    for feature in _FEATURES.values():
        owner_deviation = pstdev(feature(reply) for reply in owner) if owner else 0.0
        if owner_deviation:
            ratios.append((np.array([feature(reply) for reply in replies]), owner_deviation))
    return lambda rows: fmean(float(values[rows].std()) / scale for values, scale in ratios) if ratios else math.nan


def _relative(
    measure: Callable[[Sequence[str]], float], replies: Sequence[EvaluationReply], owner_value: float
) -> Callable[[RowIndices], float]:
    return lambda rows: measure([replies[row].text for row in rows]) / owner_value


def distinct(texts: Sequence[str], order: int = 2) -> float:
    """Share of distinct word n-grams among all (Li and others, 2016)."""
    grams = [gram for text in texts for gram in _ngrams(words(text), order)]
    return len(set(grams)) / len(grams) if grams else 0.0


def self_bleu(texts: Sequence[str], order: int = 2) -> float:
    """Mean share of each text's word n-grams that occur in the others (after Zhu and others, Texygen, 2018)."""
    sample = [set(_ngrams(words(text), order)) for text in texts[:_SELF_BLEU_SAMPLE]]
    counts = Counter(gram for grams in sample for gram in grams)
    shares = [sum(counts[gram] > 1 for gram in grams) / len(grams) for grams in sample if grams]
    return fmean(shares) if shares else 0.0


def _length_spread(texts: Sequence[str]) -> float:
    return pstdev(math.log1p(len(text)) for text in texts) if len(texts) > 1 else 0.0


def _ngrams(tokens: Sequence[str], order: int) -> list[tuple[str, ...]]:
    return [tuple(tokens[index : index + order]) for index in range(len(tokens) - order + 1)]


def _bootstrap(replies: Sequence[EvaluationReply], statistic: Callable[[RowIndices], float]) -> Interval:
    if not replies:
        return Interval.unknown()
    return bootstrap([reply.exchange.session_id for reply in replies], statistic, _ROUNDS)


def _jackknife(replies: Sequence[EvaluationReply], statistic: Callable[[RowIndices], float]) -> Interval:
    if not replies:
        return Interval.unknown()
    return jackknife([reply.exchange.session_id for reply in replies], statistic)
