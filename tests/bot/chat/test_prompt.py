"""Stored messages become turns."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from bot.chat.prompt import to_turns
from doppel.transcript import ME, Header, Transcript, Turn, pseudonym

ANN, BOB = pseudonym("telegram", "7"), pseudonym("telegram", "8")


def test_consecutive_messages_of_one_speaker_are_one_turn() -> None:
    said = [("7", "a"), ("7", "b"), (None, "c"), (None, "d"), ("8", "e"), ("7", "f")]
    assert to_turns("telegram", said) == [
        Turn(ANN, ("a", "b")),
        Turn(ME, ("c", "d")),
        Turn(BOB, ("e",)),
        Turn(ANN, ("f",)),
    ]


def test_empty_and_invisible_texts_are_left_out() -> None:
    assert to_turns("telegram", [("7", "a"), (None, " \n"), ("7", "\ufeff"), ("7", "b")]) == [Turn(ANN, ("a", "b"))]


def test_pseudonyms_differ_by_platform() -> None:
    assert to_turns("discord", [("7", "a")])[0].speaker != ANN


@given(st.lists(st.tuples(st.none() | st.text(max_size=5), st.text(max_size=30)), max_size=8))
def test_whatever_was_written_can_be_encoded(tiny_transcript: Transcript, said: list[tuple[str | None, str]]) -> None:
    turns = to_turns("telegram", said)
    tiny_transcript.prompt(Header(), turns)
    assert all(one.speaker != two.speaker for one, two in itertools.pairwise(turns))
