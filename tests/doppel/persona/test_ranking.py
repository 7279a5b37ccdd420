"""Which candidate is the most like the owner, on numbers that can be counted by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doppel.persona.ranking import WEIGHTS, ReplyCandidate, best_candidate, log_likelihood_gain, novelty


def test_the_gain_is_summed_over_tokens() -> None:
    assert log_likelihood_gain([-1.0, -2.0], [-3.0, -2.5]) == pytest.approx(2.5)
    assert log_likelihood_gain([], []) == 0
    with pytest.raises(ValueError, match="zip"):
        log_likelihood_gain([-1.0], [])


def test_novelty_is_the_share_of_new_trigrams() -> None:
    assert novelty(["hello"], []) == 1
    assert novelty(["Hello!"], ["hello"]) == 0
    assert novelty(["abcd"], ["abc"]) == pytest.approx(2 / 4)  # " ab", "abc" are known; "bcd", "cd " are not
    assert novelty(["哈"], ["哈", "嗯"]) == 0
    assert novelty([], ["x"]) == 0


def test_a_reply_only_the_adapter_expects_wins() -> None:
    anybody = ReplyCandidate(("how are you",), [-0.1, -0.1], [-0.1, -0.2])
    owner = ReplyCandidate(("wotcha",), [-2.0, -2.0], [-5.0, -4.0])
    assert best_candidate([anybody, owner], []) == 1


def test_a_relevant_reply_wins_over_a_generic_one() -> None:
    anything = ReplyCandidate(("ok",), [-1.0], [-2.0], [-2.0])
    answer = ReplyCandidate(("at the station",), [-3.0], [-4.0], [-9.0])
    assert best_candidate([anything, answer], []) == 1
    assert (
        best_candidate([anything, ReplyCandidate(answer.bubbles, [-3.0], [-4.0])], []) == 0
    )  # nothing was said before


def test_relevance_outweighs_likeness() -> None:
    owners = ReplyCandidate(("wotcha",), [-1.0], [-9.0], [-9.0])
    answer = ReplyCandidate(("at the station",), [-2.0], [-2.0], [-3.0])
    assert best_candidate([owners, answer], []) == 1


def test_novelty_decides_between_equals_up_to_its_weight() -> None:
    stale, fresh = (
        ReplyCandidate(("see you soon then",), [-1.0], [-2.0]),
        ReplyCandidate(("what a mess",), [-1.0], [-2.0]),
    )
    recent = ["see you soon"]
    assert best_candidate([stale, fresh], recent) == 1
    liked = ReplyCandidate(stale.bubbles, [-1.0 + WEIGHTS.novelty / WEIGHTS.likeness], [-2.0])
    assert best_candidate([liked, fresh], recent) == 0


def test_a_repeated_message_always_loses() -> None:
    repeated = ReplyCandidate(("OK, see you!",), [0.0], [-9.0])
    other = ReplyCandidate(("hm",), [-9.0], [0.0])
    assert best_candidate([repeated, other], ["ok see you"]) == 1
    assert best_candidate([repeated, other], []) == 0
    half = ReplyCandidate(("ok see you", "and thanks"), [0.0], [-9.0])  # one bubble is new
    assert best_candidate([other, half], ["ok see you"]) == 1


def test_an_empty_reply_loses_and_a_single_candidate_wins() -> None:
    silent = ReplyCandidate((), [0.0], [-9.0])
    assert best_candidate([silent, ReplyCandidate(("ok",))], ["ok"]) == 1
    assert best_candidate([silent], []) == 0


@given(st.lists(st.lists(st.text(max_size=8), max_size=3), min_size=1, max_size=5), st.lists(st.text(max_size=8)))
def test_any_candidates_have_a_best(replies: list[list[str]], recent: list[str]) -> None:
    assert 0 <= best_candidate([ReplyCandidate(tuple(reply)) for reply in replies], recent) < len(replies)
    assert all(0 <= novelty(reply, recent) <= 1 for reply in replies)
