"""The exchanges of another person, whose replies are the floor of several metrics."""

from doppel.transcript import ME, Turn
from tests.training.fidelity.cases import make_session
from training.fidelity.texts import MIN_EXCHANGES, EvaluationData, other_person_exchanges


def evaluation_data(train: int, test: int) -> EvaluationData:
    """Sessions in which Lodobo writes first, and only Ramito replies to the owner."""
    turns = (("Lodobo", "once"), (ME, "what?"), ("Ramito", "hello"), (ME, "hi"), ("Ramito", "bye"))
    sessions = [make_session(number, *turns) for number in range(train + test)]
    return EvaluationData(sessions[:train], sessions[train:], [])


def test_the_other_person_is_who_replies_most_often() -> None:
    exchanges = other_person_exchanges(evaluation_data(0, 40), 50)
    assert {exchange.reply.speaker for exchange in exchanges} == {"Ramito"}
    assert len(exchanges) == 50
    assert len({exchange.session_id for exchange in exchanges}) == 40
    byes = [exchange for exchange in exchanges if exchange.text == "bye"]
    assert all(exchange.context[-1] == Turn(ME, ("hi",)) for exchange in byes)
    assert byes


def test_training_sessions_are_used_if_the_test_split_has_too_few() -> None:
    assert len(other_person_exchanges(evaluation_data(40, 5), 60)) == 60


def test_there_are_no_exchanges_if_nobody_replied_often_enough() -> None:
    assert other_person_exchanges(evaluation_data(0, MIN_EXCHANGES // 2 - 1), 60) == []
