"""Stored messages become turns."""

import itertools
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from bot.chat.prompt import to_turns
from bot.store.inbox import PromptMessage
from doppel.transcript import ME, Header, Transcript, Turn, pseudonym

ANN, BOB, EVE = (pseudonym("telegram", sender) for sender in ("7", "8", "9"))


def stored(messages: Sequence[tuple[str | None, str]]) -> list[PromptMessage]:
    """Messages that answer nothing, with ids `m0`, `m1` and so on."""
    return [PromptMessage(sender, text, f"m{number}", False) for number, (sender, text) in enumerate(messages)]


def answer(sender: str, text: str, to: tuple[str | None, str, str | None], *, addressed: bool = True) -> PromptMessage:
    """A message that answers one with this sender, text and id."""
    return PromptMessage(sender, text, f"answer {text}", addressed, *to)


def test_consecutive_messages_of_one_speaker_are_one_turn() -> None:
    said = [("7", "a"), ("7", "b"), (None, "c"), (None, "d"), ("8", "e"), ("7", "f")]
    assert to_turns("telegram", stored(said)) == [
        Turn(ANN, ("a", "b")),
        Turn(ME, ("c", "d")),
        Turn(BOB, ("e",)),
        Turn(ANN, ("f",)),
    ]


def test_empty_and_invisible_texts_are_left_out() -> None:
    said = [("7", "a"), (None, " \n"), ("7", "\ufeff"), ("7", "b")]
    assert to_turns("telegram", stored(said)) == [Turn(ANN, ("a", "b"))]


def test_pseudonyms_differ_by_platform() -> None:
    assert to_turns("discord", stored([("7", "a")]))[0].speaker != ANN


def test_what_is_answered_stands_before_the_message() -> None:
    turns = to_turns(
        "telegram", [*stored([("7", "hi")]), answer("7", "what do you think?", ("8", "we leave\r\nat 9", "x"))]
    )
    assert turns == [Turn(ANN, ("hi",)), Turn(BOB, ("we leave\nat 9",)), Turn(ANN, ("what do you think?",))]


def test_an_older_message_of_the_persona_is_a_turn_of_the_persona() -> None:
    earlier = stored([("7", "a"), (None, "b"), ("7", "c"), (None, "d"), ("8", "e")])
    assert to_turns("telegram", [*earlier, answer("7", "why?", (None, "b", "m1"))])[-3:] == [
        Turn(BOB, ("e",)),
        Turn(ME, ("b",)),
        Turn(ANN, ("why?",)),
    ]


def test_nothing_is_repeated_that_stands_right_before() -> None:
    before = stored([("7", "hi"), ("8", "we leave at 9")])
    told = [Turn(ANN, ("hi",)), Turn(BOB, ("we leave at 9",))]
    assert to_turns("telegram", [*before, answer("7", "ok?", ("8", "we leave at 9", "m1"))]) == [
        *told,
        Turn(ANN, ("ok?",)),
    ]
    part = answer("7", "ok?", ("8", "at 9", "m1"))
    assert to_turns("telegram", [*before, part]) == [*told, Turn(ANN, ("ok?",))]
    between = stored([("7", "hi"), ("8", "we leave at 9"), ("7", "hm")])
    assert to_turns("telegram", [*between, part]) == [*told, Turn(ANN, ("hm", "ok?"))]
    own = answer("7", "ok?", ("7", "hm", "m2"))
    assert to_turns("telegram", [*between, own]) == [*told, Turn(ANN, ("hm", "ok?"))]


def test_several_messages_that_answer_one_show_it_once() -> None:
    messages = [answer("7", text, ("8", "we leave at 9", "x")) for text in ("is that true?", "tell me")]
    assert to_turns("telegram", messages) == [Turn(BOB, ("we leave at 9",)), Turn(ANN, ("is that true?", "tell me"))]


def test_a_bubble_without_an_id_is_found_by_its_text() -> None:
    unconfirmed = [PromptMessage(None, "see you at 9")]
    assert to_turns("telegram", [*unconfirmed, answer("7", "ok", (None, "see you at 9", "x"))]) == [
        Turn(ME, ("see you at 9",)),
        Turn(ANN, ("ok",)),
    ]
    assert to_turns("telegram", [*unconfirmed, answer("7", "ok", ("8", "see you at 9", "x"))])[1] == Turn(
        BOB, ("see you at 9",)
    )


def test_what_a_mere_context_message_answers_is_added_only_if_it_is_nowhere() -> None:
    before = stored([("8", "we leave at 9"), (None, "fine"), ("9", "when?")])
    assert to_turns("telegram", [*before, answer("7", "lol", ("8", "we leave at 9", "m0"), addressed=False)])[-2:] == [
        Turn(EVE, ("when?",)),
        Turn(ANN, ("lol",)),
    ]
    assert to_turns("telegram", [*before, answer("7", "lol", ("8", "older", "x"), addressed=False)])[-2:] == [
        Turn(BOB, ("older",)),
        Turn(ANN, ("lol",)),
    ]


_SENDERS = st.none() | st.text(max_size=5)


@given(
    st.lists(
        st.builds(
            PromptMessage,
            _SENDERS,
            st.text(max_size=30),
            st.none() | st.sampled_from("abc"),
            st.booleans(),
            _SENDERS,
            st.none() | st.text(max_size=30),
            st.none() | st.sampled_from("abc"),
        ),
        max_size=8,
    )
)
def test_whatever_was_written_can_be_encoded(tiny_transcript: Transcript, messages: list[PromptMessage]) -> None:
    turns = to_turns("telegram", messages)
    tiny_transcript.prompt(Header(), turns)
    assert all(one.speaker != two.speaker for one, two in itertools.pairwise(turns))
