"""Which candidate is the most like the owner, on numbers that can be counted by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doppel.persona.ranking import LIKENESS, NOVELTY, Candidate, best, gain, novelty


def test_a_gain_is_what_all_tokens_gain() -> None:
    assert gain([-1.0, -2.0], [-3.0, -2.5]) == pytest.approx(2.5)
    assert gain([], []) == 0
    with pytest.raises(ValueError, match="zip"):
        gain([-1.0], [])


def test_novelty_is_the_share_of_new_runs() -> None:
    assert novelty(["hello"], []) == 1
    assert novelty(["Hello!"], ["hello"]) == 0
    assert novelty(["abcd"], ["abc"]) == pytest.approx(2 / 4)  # " ab", "abc" are known; "bcd", "cd " are not
    assert novelty(["哈"], ["哈", "嗯"]) == 0
    assert novelty([], ["x"]) == 0


def test_what_only_the_adapter_expects_wins_over_what_anybody_says() -> None:
    anybody = Candidate(("how are you",), [-0.1, -0.1], [-0.1, -0.2])
    owner = Candidate(("wotcha",), [-2.0, -2.0], [-5.0, -4.0])
    assert best([anybody, owner], []) == 1


def test_what_answers_wins_over_what_could_be_said_to_anything() -> None:
    anything = Candidate(("ok",), [-1.0], [-2.0], [-2.0])
    answer = Candidate(("at the station",), [-3.0], [-4.0], [-9.0])
    assert best([anything, answer], []) == 1
    assert best([anything, Candidate(answer.bubbles, [-3.0], [-4.0])], []) == 0  # nothing was said before


def test_to_the_point_counts_more_than_to_be_the_owners() -> None:
    owners = Candidate(("wotcha",), [-1.0], [-9.0], [-9.0])
    answer = Candidate(("at the station",), [-2.0], [-2.0], [-3.0])
    assert best([owners, answer], []) == 1


def test_novelty_decides_between_equals_and_no_further_than_its_weight() -> None:
    stale, fresh = Candidate(("see you soon then",), [-1.0], [-2.0]), Candidate(("what a mess",), [-1.0], [-2.0])
    recent = ["see you soon"]
    assert best([stale, fresh], recent) == 1
    liked = Candidate(stale.bubbles, [-1.0 + NOVELTY / LIKENESS], [-2.0])
    assert best([liked, fresh], recent) == 0


def test_a_repeated_message_loses_however_much_it_is_liked() -> None:
    repeated = Candidate(("OK, see you!",), [0.0], [-9.0])
    other = Candidate(("hm",), [-9.0], [0.0])
    assert best([repeated, other], ["ok see you"]) == 1
    assert best([repeated, other], []) == 0
    half = Candidate(("ok see you", "and thanks"), [0.0], [-9.0])  # one bubble is new
    assert best([other, half], ["ok see you"]) == 1


def test_silence_loses_to_speech_and_a_lone_candidate_wins() -> None:
    silent = Candidate((), [0.0], [-9.0])
    assert best([silent, Candidate(("ok",))], ["ok"]) == 1
    assert best([silent], []) == 0


@given(st.lists(st.lists(st.text(max_size=8), max_size=3), min_size=1, max_size=5), st.lists(st.text(max_size=8)))
def test_any_texts_have_a_best(replies: list[list[str]], recent: list[str]) -> None:
    assert 0 <= best([Candidate(tuple(one)) for one in replies], recent) < len(replies)
    assert all(0 <= novelty(one, recent) <= 1 for one in replies)
