"""Runs of words that replies copy from the training messages."""

from doppel.reports.metrics import by_name
from tests.training.fidelity.cases import casual, make_exchange
from training.fidelity.generate import EvaluationReply
from training.fidelity.measures.memorisation import LONG_RUN, WordRuns, is_parroted, memorisation_metrics


def test_the_longest_run_is_found_within_one_message() -> None:
    runs = WordRuns(["one two three four five", "six seven"])
    assert runs.longest("then two three four came") == 3
    assert runs.longest("five six seven") == 2
    assert runs.longest("nothing") == 0
    assert runs.longest("") == 0


def test_replies_that_recite_a_training_message_are_counted() -> None:
    message = "the quick brown fox jumps over the lazy dog and runs far away"
    reciting = [EvaluationReply(make_exchange(number), (message,)) for number in range(40)]
    metrics = by_name(memorisation_metrics(reciting, casual(40), [message], ["somebody else said this"]))
    assert metrics["recited"].estimate.value == 1
    assert metrics["recited_from_contacts"].estimate.value == 0
    assert metrics["verbatim_run"].estimate.value > LONG_RUN
    assert metrics["recited"].ceiling is not None
    assert metrics["recited"].ceiling.value == 0


def test_a_message_told_again_with_a_word_exchanged_is_recited() -> None:
    runs = WordRuns(["the quick brown fox jumps over the lazy dog and runs far away", "see you at the station"])
    assert runs.longest("the quick brown fox jumps under the lazy dog and runs away") < LONG_RUN
    assert runs.is_recited("the quick brown fox jumps under the lazy dog and runs away")
    assert not runs.is_recited("the quick brown fox jumps under")  # short: anybody says that
    assert not runs.is_recited("a quick dog and a brown fox are lazy and far from the station")


def test_one_stock_reply_is_counted_as_often_as_it_is_given() -> None:
    stock = [EvaluationReply(make_exchange(number), ("No idea!" if number % 2 else "no idea",)) for number in range(10)]
    others = [EvaluationReply(make_exchange(number), (f"story {number}",)) for number in range(30)]
    metrics = by_name(memorisation_metrics([*stock, *others], others, [], []))
    assert metrics["commonest_reply"].estimate.value == 0.25
    assert metrics["commonest_reply"].ceiling is not None
    assert metrics["commonest_reply"].ceiling.value == 1 / 30


def test_what_a_contact_wrote_is_counted_apart() -> None:
    message = "the quick brown fox jumps over the lazy dog and runs far away"
    reciting = [EvaluationReply(make_exchange(number), (message,)) for number in range(40)]
    metrics = by_name(memorisation_metrics(reciting, casual(40), ["my own words"], [message]))
    assert metrics["recited"].estimate.value == 0
    assert metrics["recited_from_contacts"].estimate.value == 1


def test_a_reply_is_parroted_if_it_says_again_what_it_answers() -> None:
    exchange = make_exchange(0, "shall we go to the lake on Sunday or not")
    said = {"yes": False, "Shall we go to the lake on Sunday or not?": True, "you go to the lake on Sunday": True}
    assert {text: is_parroted(EvaluationReply(exchange, (text,))) for text in said} == said
