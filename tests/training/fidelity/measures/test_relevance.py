"""Relevance of replies to their own context."""

from doppel.engine import Sampling
from doppel.reports.metrics import by_name
from tests.training.fidelity.cases import make_exchange
from training.fidelity.adapted_model import AdaptedModel
from training.fidelity.generate import actual_replies, generate_replies
from training.fidelity.measures.relevance import relevance_metrics


def test_a_single_reply_is_the_floor_of_the_best_of_several(adapted: AdaptedModel) -> None:
    exchanges = [make_exchange(number, f"what {number}?") for number in range(8)]
    replies, actual = generate_replies(adapted, exchanges, Sampling(max_tokens=10)), actual_replies(exchanges)
    metrics = by_name(relevance_metrics(adapted, replies, replies, actual, actual))
    best = metrics["candidates_relevance"]
    assert best.estimate == best.ceiling == metrics["relevance"].ceiling
    assert best.floor == metrics["relevance"].estimate
    assert "candidates_relevance" not in by_name(relevance_metrics(adapted, replies, replies, actual))
