"""The transcript format: training and serving see the same tokens, and nobody can forge its structure."""

import string
import unicodedata
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from doppel.errors import UserError
from doppel.models.base import load_tokenizer
from doppel.transcript import (
    ME,
    NEWLINE_SIGN,
    Header,
    Transcript,
    Turn,
    TurnDecoder,
    hour_bucket,
    normalize,
    pseudonym,
    weekday_name,
)
from tests.doppel.transcript import tokenizers

HEADER = Header(year="2018", weekday="Tue", hour="evening", platform="telegram", kind="dm", contact="Ramito")

MARKS = (
    *("\n", "\r\n", "\r", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029", "\n\n", "\n\n\n"),
    *(NEWLINE_SIGN, f" {NEWLINE_SIGN} ", "\u21b5", "\u2581", "\u0120", "\u010a", "\x00", "\ufeff", "\ufffd", "\u200b"),
    *(
        "me:",
        "\nme:",
        "\n\nme: yes",
        "Ramito:",
        ":",
        "[",
        "]",
        "[2018 Tue evening · telegram dm]",
        "·",
        " ",
        "  ",
        "\t",
    ),
    *(
        "<0x0A>",
        "<0x0D>",
        "<0x0A><0x0A>",
        "<s>",
        "</s>",
        "<unk>",
        "<pad>",
        "<eos>",
        "<bos>",
        "<end_of_turn>",
        "<table>",
    ),
    *(
        "\u0301",
        "\u212b",
        "\uff1c/s\uff1e",
        "\u203b",
        "\u3042",
        "\U0001f469\u200d\U0001f467",
        "\u4f60\u597d",
        "hi",
        ".",
    ),
)


@pytest.fixture(scope="module", params=["byte_level", "blank_first_bpe", "blank_first_unigram"])
def transcript(request: pytest.FixtureRequest) -> Transcript:
    return Transcript(getattr(tokenizers, request.param)())


@pytest.fixture(scope="module")
def byte_level() -> Transcript:
    return Transcript(tokenizers.byte_level())


@pytest.fixture(scope="module")
def bundled(bundled_base: Path) -> Transcript:
    return Transcript(load_tokenizer(bundled_base))


def spellings(transcript: Transcript) -> list[str]:
    """How every special and every added token of the tokenizer is written."""
    added = [token.content for token in transcript.tokenizer.added_tokens_decoder.values()]
    return sorted({*added, *transcript.tokenizer.all_special_tokens})


def texts(transcript: Transcript) -> st.SearchStrategy[str]:
    """Arbitrary Unicode (lone surrogates too), the format's own marks and the tokenizer's tokens, mixed."""
    pieces = st.one_of(
        st.text(st.characters(), max_size=8),
        st.sampled_from(MARKS),
        st.sampled_from(spellings(transcript)),
        st.text(string.ascii_letters + "[]<>:", max_size=5),
    )
    return st.lists(pieces, max_size=8).map("".join)


@st.composite
def sessions(draw: st.DrawFn, transcript: Transcript) -> list[Turn]:
    bubble = texts(transcript).filter(normalize)
    speaker = st.sampled_from((ME, "Ramito", "Bobotu"))
    turn = st.builds(Turn, speaker, st.lists(bubble, min_size=1, max_size=3).map(tuple))
    return draw(st.lists(turn, max_size=4))


def normalized_bubbles(turn: Turn) -> tuple[str, ...]:
    return tuple(normalize(bubble) for bubble in turn.bubbles)


def check_forgery(transcript: Transcript, turns: list[Turn]) -> None:
    """What other people wrote reads back as what they wrote, and holds no token that means structure."""
    encoded = transcript.encode(HEADER, turns)
    header, read = transcript.decode(encoded.ids)
    assert header == HEADER.render()
    assert [turn.speaker for turn in read] == [turn.speaker for turn in turns]
    for was, now in zip(turns, read, strict=True):
        assert now.bubbles == normalized_bubbles(was)
    tokenizer = transcript.tokenizer
    structure = {
        token_id
        for token_id, token in tokenizer.added_tokens_decoder.items()
        if token.special and token_id != tokenizer.unk_token_id
    }
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    assert encoded.ids[: len(start)] == start
    assert structure.isdisjoint(encoded.ids[len(start) :])
    line_ends = tokenizer.decode(encoded.ids, clean_up_tokenization_spaces=False).count("\n")
    assert line_ends == 2 + sum(len(turn.bubbles) + 1 for turn in turns)


def check_serving(transcript: Transcript, turns: list[Turn]) -> None:
    """The prompt that serving builds before each turn is what training saw, token for token."""
    encoded = transcript.encode(HEADER, turns)
    assert len(encoded.ids) == len(encoded.loss_mask)
    start = encoded.opening
    for number, turn in enumerate(turns):
        if turn.is_mine:
            prompt = transcript.prompt(HEADER, turns[:number])
            assert encoded.ids[: len(prompt)] == prompt
            reply = encoded.ids[len(prompt) : encoded.turn_ends[number]]
            assert set(encoded.loss_mask[start : len(prompt)]) == {0}
            assert 0 not in encoded.loss_mask[len(prompt) : encoded.turn_ends[number]]
            assert transcript.reply(reply) == list(normalized_bubbles(turn))
            assert encoded.turn_bytes[number] == sum(len(bubble.encode()) for bubble in normalized_bubbles(turn))
        else:
            assert set(encoded.loss_mask[start : encoded.turn_ends[number]]) == {0}
            assert encoded.turn_bytes[number] == 0
        start = encoded.turn_ends[number]
    assert start == len(encoded.ids)


@given(data=st.data())
def test_nobody_can_forge_a_turn_a_header_or_a_special_token(transcript: Transcript, data: st.DataObject) -> None:
    check_forgery(transcript, data.draw(sessions(transcript)))


@given(data=st.data())
def test_serving_builds_the_tokens_that_training_saw(transcript: Transcript, data: st.DataObject) -> None:
    check_serving(transcript, data.draw(sessions(transcript)))


@pytest.mark.slow
@settings(max_examples=60)
@given(data=st.data())
def test_the_bundled_tokenizer_keeps_both_promises(bundled: Transcript, data: st.DataObject) -> None:
    turns = data.draw(sessions(bundled))
    check_forgery(bundled, turns)
    check_serving(bundled, turns)


@pytest.mark.slow
def test_no_special_or_added_token_of_the_bundled_tokenizer_can_be_written(bundled: Transcript) -> None:
    tokens = [token for token in spellings(bundled) if normalize(token)]
    added = {id_ for id_, token in bundled.tokenizer.added_tokens_decoder.items() if len(token.content) > 1}
    for first in range(0, len(tokens), 200):
        turn = Turn("Ramito", tuple(tokens[first : first + 200]))
        encoded = bundled.encode(HEADER, [turn])
        assert bundled.decode(encoded.ids)[1] == [Turn("Ramito", normalized_bubbles(turn))]
        assert added.isdisjoint(encoded.ids[encoded.opening : -1])


def test_every_special_or_added_token_is_written_out(transcript: Transcript) -> None:
    allowed = {transcript.tokenizer.convert_tokens_to_ids("\u3042"), transcript.tokenizer.unk_token_id}
    reserved = set(transcript.tokenizer.added_tokens_decoder) - allowed
    for token in spellings(transcript):
        if not normalize(token):
            continue
        turn = Turn("Ramito", (token, f"a{token}b", token * 3))
        encoded = transcript.encode(HEADER, [turn])
        assert reserved.isdisjoint(encoded.ids[encoded.opening :])
        assert transcript.decode(encoded.ids)[1] == [Turn("Ramito", normalized_bubbles(turn))]


def test_the_format_is_what_its_documentation_shows(byte_level: Transcript) -> None:
    header = Header(
        year="2018", weekday="Tue", hour="evening", platform="telegram", kind="dm", language="en", contact="Ramito"
    )
    turns = [Turn("Ramito", ("hello", "how are\nyou")), Turn(ME, ("fine!",))]
    encoded = byte_level.encode(header, turns)
    assert byte_level.tokenizer.decode(encoded.ids) == (
        "[2018 Tue evening · telegram dm · en · with Ramito]\n\n"
        f"Ramito: hello\n how are {NEWLINE_SIGN} you\n\n"
        "me: fine!\n\n"
    )
    mine = [id_ for id_, role in zip(encoded.ids, encoded.loss_mask, strict=True) if role]
    assert byte_level.tokenizer.decode(mine) == " fine!\n\n"
    assert encoded.text_bytes == len("fine!")


def test_another_speaker_than_the_persona_can_be_trained(byte_level: Transcript) -> None:
    turns = [Turn("User", ("2 + 2?",)), Turn(ME, ("no idea",)), Turn("Assistant", ("four",))]
    usual, other = byte_level.encode(HEADER, turns), byte_level.encode(HEADER, turns, "Assistant")
    assert other.ids == usual.ids
    assert other.turn_bytes == [0, 0, 4]
    learned = [token for token, role in zip(other.ids, other.loss_mask, strict=True) if role]
    assert byte_level.tokenizer.decode(learned) == " four\n\n"


def test_without_turns_the_persona_speaks_first(byte_level: Transcript) -> None:
    prompt = byte_level.prompt(Header(kind="post"), [])
    assert byte_level.tokenizer.decode(prompt) == "[post]\n\nme:"


@pytest.mark.parametrize("field", ["a]", "[a", "a · b", "a\nb", "", "a\u2028b"])
def test_a_header_field_cannot_contain_the_separators_of_the_header(field: str) -> None:
    with pytest.raises(ValueError, match="not a header"):
        Header(contact=field).render()


@pytest.mark.parametrize("speaker", ["", "a:b", "a\nb", " a", "a\u2028"])
def test_a_speakers_name_cannot_contain_the_separator_of_a_turn(transcript: Transcript, speaker: str) -> None:
    with pytest.raises(ValueError, match="not a speaker"):
        transcript.encode(HEADER, [Turn(speaker, ("hi",))])


@pytest.mark.parametrize("turn", [Turn(ME, ()), Turn(ME, ("",)), Turn("Bobotu", (" \n\x00",))])
def test_a_turn_without_text_is_refused(transcript: Transcript, turn: Turn) -> None:
    with pytest.raises(ValueError, match="bubble"):
        transcript.encode(HEADER, [turn])


def test_a_tokenizer_that_loses_line_breaks_is_refused() -> None:
    with pytest.raises(UserError, match="line breaks"):
        Transcript(tokenizers.line_losing())


@given(st.text(st.characters()))
def test_normalizing_twice_changes_nothing(text: str) -> None:
    once = normalize(text)
    assert normalize(once) == once
    assert unicodedata.is_normalized("NFC", once)
    assert once == once.strip()
    assert NEWLINE_SIGN not in once
    once.encode()


@given(st.text(string.printable + "é你😀"))
def test_normalizing_keeps_ordinary_text(text: str) -> None:
    assume(not set(text) & set("\r\v\f"))
    assert normalize(text) == text.strip()


class TestTurnDecoder:
    @given(data=st.data())
    def test_bubbles_come_out_one_by_one(self, transcript: Transcript, data: st.DataObject) -> None:
        bubbles = data.draw(st.lists(texts(transcript).filter(normalize), min_size=1, max_size=4))
        encoded = transcript.encode(HEADER, [Turn(ME, tuple(bubbles))])
        reply = encoded.ids[len(transcript.prompt(HEADER, [])) :]
        decoder = TurnDecoder(transcript)
        given_out: list[str] = []
        for token in reply:
            assert not decoder.finished
            given_out += decoder.feed(token)
        assert decoder.finished
        assert decoder.partial == ""
        assert decoder.close() == []
        assert given_out == [normalize(bubble) for bubble in bubbles]

    @given(data=st.data())
    def test_whatever_is_generated_reads_as_its_text_does(self, byte_level: Transcript, data: st.DataObject) -> None:
        likely = [byte_level.tokenizer.convert_tokens_to_ids(text) for text in ("Ċ", "ĊĊ", ".Ċ", ".ĊĊ", "hi", "Ġ")]
        ids = data.draw(st.lists(st.one_of(st.sampled_from(likely), st.integers(0, len(byte_level.tokenizer) - 1))))
        decoder = TurnDecoder(byte_level)
        bubbles = [bubble for token in ids for bubble in decoder.feed(token)]
        ended = decoder.finished
        bubbles += decoder.close()
        before_stop = ids[
            : next((position for position, id_ in enumerate(ids) if id_ in byte_level.stop_ids), len(ids))
        ]
        text_ids = [id_ for id_ in before_stop if id_ not in byte_level.forbidden_ids]  # markup is left out
        whole, empty_line, _ = byte_level.tokenizer.decode(text_ids).partition("\n\n")
        lines = [line.replace("\ufffd", "").replace(f" {NEWLINE_SIGN} ", "\n").strip() for line in whole.split("\n")]
        assert bubbles == [line for line in lines if line]
        assert ended == (bool(empty_line) or before_stop != ids)

    def test_a_character_is_held_back_until_all_its_bytes_are_generated(self, byte_level: Transcript) -> None:
        decoder = TurnDecoder(byte_level)
        shown = []
        for token in byte_level.tokenizer(" hi 😀", add_special_tokens=False)["input_ids"]:
            decoder.feed(token)
            shown.append(decoder.partial)
        assert shown[-4:] == ["hi", "hi", "hi", "hi 😀"]
        assert not any("\ufffd" in text for text in shown)

    def test_an_incomplete_character_is_left_out(self, byte_level: Transcript) -> None:
        ids = byte_level.tokenizer(" hi 😀", add_special_tokens=False)["input_ids"]
        assert byte_level.reply(ids[:-1]) == ["hi"]

    def test_nothing_is_taken_after_the_turn_is_over(self, transcript: Transcript) -> None:
        stop = min(transcript.stop_ids)
        hi = transcript.tokenizer("hi", add_special_tokens=False)["input_ids"]
        assert transcript.reply([*hi, stop, *hi]) == ["hi"]

    def test_a_special_token_ends_the_turn_and_is_never_text(self, transcript: Transcript) -> None:
        hi = transcript.tokenizer("hi", add_special_tokens=False)["input_ids"]
        for special in transcript.tokenizer.all_special_ids + transcript.tokenizer.convert_tokens_to_ids(
            list(tokenizers.SPECIAL)
        ):
            assert transcript.reply([*hi, special, *hi]) == ["hi"]

    def test_text_and_turn_end_in_one_token(self, byte_level: Transcript) -> None:
        ids = byte_level.tokenizer("hi.\n.\n\n", add_special_tokens=False)["input_ids"]
        assert byte_level.reply([*ids, *ids]) == ["hi.", "."]


def test_pseudonyms_are_stable_names_that_are_never_the_personas() -> None:
    names = {pseudonym("telegram", str(account)) for account in range(500)}
    assert len(names) > 495
    assert pseudonym("telegram", "1") == pseudonym("telegram", "1") != pseudonym("twitter", "1")
    assert all(name.isalpha() and name[0].isupper() and name != ME for name in names)


def test_weekday_and_part_of_the_day_are_named() -> None:
    assert [hour_bucket(hour) for hour in (0, 5, 6, 12, 18, 23)] == [
        *("night", "night", "morning", "afternoon", "evening", "evening")
    ]
    assert weekday_name(0) == "Mon"
    assert weekday_name(6) == "Sun"
