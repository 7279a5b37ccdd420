"""Runs of words that replies copy from the training messages."""

from doppel.reports.metrics import by_name
from tests.training.fidelity.cases import casual, make_exchange
from training.fidelity.generate import EvaluationReply
from training.fidelity.measures.memorisation import LONG_RUN, WordRuns, memorisation_metrics


def test_the_longest_run_is_found_within_one_message() -> None:
    runs = WordRuns(["one two three four five", "six seven"])
    assert runs.longest("then two three four came") == 3
    assert runs.longest("five six seven") == 2
    assert runs.longest("nothing") == 0
    assert runs.longest("") == 0


def test_replies_that_recite_a_training_message_are_counted() -> None:
    message = "the quick brown fox jumps over the lazy dog and runs far away"
    reciting = [EvaluationReply(make_exchange(number), (message,)) for number in range(40)]
    metrics = by_name(memorisation_metrics(reciting, casual(40), [message]))
    assert metrics["recited"].estimate.value == 1
    assert metrics["verbatim_run"].estimate.value > LONG_RUN
    assert metrics["recited"].ceiling is not None
    assert metrics["recited"].ceiling.value == 0
