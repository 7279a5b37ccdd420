"""Authorship verification: would someone who knows the owner's earlier messages attribute new ones to them?

A character n-gram classifier is trained on the owner's messages against everybody else's in the training split, and
scores blocks of replies from the test split. The owner's blocks give the ceiling, other people's the floor. It never
sees generated text in training.
"""

from collections.abc import Sequence
from statistics import fmean

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

from doppel.reports.metrics import Interval, Metric
from training.fidelity.generate import EvaluationReply
from training.fidelity.statistics import mean
from training.fidelity.texts import EvaluationData, other_texts, owner_texts

_BLOCK_CHARACTERS = 400
"""Minimum length of a block: the author of a single chat message cannot be told."""
_MAX_BLOCKS = 3000
_MIN_BLOCKS = 4


def authorship_metrics(
    adapter: Sequence[EvaluationReply], prompted: Sequence[EvaluationReply], data: EvaluationData
) -> list[Metric]:
    """Metric 5 of a report: mean probability that a block is the owner's; empty when nobody else wrote enough."""
    owner_blocks, other_blocks = _blocks(owner_texts(data.train)), _blocks(other_texts(data.train))
    if min(len(owner_blocks), len(other_blocks)) < _MIN_BLOCKS or not _blocks(other_texts(data.test)):
        return []
    classifier = make_pipeline(
        TfidfVectorizer(analyzer="char", ngram_range=(2, 4), lowercase=False, sublinear_tf=True, max_features=30_000),
        LogisticRegression(C=10.0, max_iter=1000, class_weight="balanced"),
    )
    classifier.fit([*owner_blocks, *other_blocks], [1] * len(owner_blocks) + [0] * len(other_blocks))
    return [
        Metric(
            name="authorship",
            estimate=_mean_probability(classifier, [reply.text for reply in adapter]),
            floor=_mean_probability(classifier, other_texts(data.test)),
            ceiling=_mean_probability(classifier, owner_texts(data.test)),
            unit="share",
        ),
        Metric(
            name="authorship_prompted",
            estimate=_mean_probability(classifier, [reply.text for reply in prompted]),
            unit="share",
        ),
    ]


def _mean_probability(classifier: Pipeline, texts: Sequence[str]) -> Interval:
    blocks = _blocks(texts)
    if not blocks:
        return Interval.unknown()
    probabilities = [float(probability) for probability in classifier.predict_proba(blocks)[:, 1]]
    return mean(probabilities) if len(probabilities) > 1 else Interval.unknown(fmean(probabilities))


def _blocks(texts: Sequence[str]) -> list[str]:
    """Texts joined in order until they are long enough to judge; a short rest is dropped."""
    blocks: list[str] = []
    lines: list[str] = []
    size = 0
    for text in texts:
        if not text:
            continue
        lines.append(text)
        size += len(text) + 1
        if size >= _BLOCK_CHARACTERS:
            blocks.append("\n".join(lines))
            lines, size = [], 0
    step = max(1, len(blocks) // _MAX_BLOCKS)
    return blocks[::step]
