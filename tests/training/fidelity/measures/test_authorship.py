"""Authorship verification against the owner's earlier messages."""

from doppel.reports.metrics import by_name
from doppel.transcript import ME
from tests.training.fidelity.cases import casual, formal, make_session
from training.fidelity.measures.authorship import authorship_metrics
from training.fidelity.texts import EvaluationData


def test_replies_like_the_owners_are_attributed_to_the_owner() -> None:
    pairs = zip(casual(300), formal(300), strict=True)
    sessions = [
        make_session(number, ("Ramito", "\n".join(other.bubbles)), (ME, "\n".join(own.bubbles)))
        for number, (own, other) in enumerate(pairs)
    ]
    data = EvaluationData(sessions[:200], sessions[200:], [])
    metrics = by_name(authorship_metrics(casual(90, 5), formal(90, 6), data))
    assert metrics["authorship"].estimate.value > 0.8
    assert metrics["authorship_prompted"].estimate.value < 0.2
