"""Relevance of replies to their own context."""

from doppel.engine import Sampling
from doppel.reports.metrics import by_name
from doppel.transcript import ME
from tests.training.fidelity.cases import make_exchange, make_session
from training.fidelity.adapted_model import AdaptedModel
from training.fidelity.generate import EvaluationReply, actual_replies, generate_replies
from training.fidelity.measures.relevance import matched_share, relevance_metrics, train_matcher
from training.fidelity.texts import EvaluationData

NO_DATA = EvaluationData([], [], [])


def test_a_single_reply_is_the_floor_of_the_best_of_several(adapted: AdaptedModel) -> None:
    exchanges = [make_exchange(number, f"what {number}?") for number in range(8)]
    replies, actual = generate_replies(adapted, exchanges, Sampling(max_tokens=10)), actual_replies(exchanges)
    metrics = by_name(relevance_metrics(adapted, NO_DATA, replies, replies, actual, best=actual))
    best = metrics["candidates_relevance_self_judged"]
    assert best.estimate == best.ceiling == metrics["relevance_self_judged"].ceiling
    assert best.floor == metrics["relevance_self_judged"].estimate
    assert "candidates_relevance_self_judged" not in by_name(
        relevance_metrics(adapted, NO_DATA, replies, replies, actual)
    )


def test_the_matcher_judges_once_the_archive_has_enough_to_learn_from(adapted: AdaptedModel) -> None:
    topics = [
        ("where shall we eat", "pizza please"),
        ("did you see the match", "what a late goal"),
        ("hello", "hi you"),
    ]
    train = [
        make_session(number, ("Ramito", topics[number % 3][0]), (ME, topics[number % 3][1])) for number in range(300)
    ]
    matcher = train_matcher(EvaluationData(train, [], []))
    assert matcher is not None
    assert train_matcher(EvaluationData(train[:100], [], [])) is None
    exchanges = [make_exchange(number, topics[number % 2][0]) for number in range(41)]
    fitting = [EvaluationReply(exchange, (topics[number % 2][1],)) for number, exchange in enumerate(exchanges)]
    assert matched_share(matcher, fitting).value > 0.7
    assert matched_share(matcher, [EvaluationReply(exchange, ("hi you",)) for exchange in exchanges]).value < 0.7
