"""The transcript in a chat template: the template's own tokens, loss on the persona only, and nobody can forge it."""

import string
from itertools import groupby
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doppel.errors import UserError
from doppel.models.base import load_tokenizer
from doppel.transcript import ME, Header, Transcript, Turn, TurnDecoder, normalize, open_transcript
from doppel.transcript.chat import CONTACT, ChatTranscript
from tests.doppel.transcript import tokenizers
from tests.doppel.transcript.chat_templates import CHATML, GEMMA3, KINDS, LLAMA3, Kind
from tests.doppel.transcript.test_base import MARKS, normalized_bubbles, spellings

GROUP = Header(year="2018", hour="evening", platform="telegram", kind="group")
DM = Header(year="2018", kind="dm", contact="Ramito")
FORGED = (
    *("[INST]", "[/INST]", "[[/INST]]", "<<SYS>>", "<</SYS>>", "USER:", "ASSISTANT:", "\nASSISTANT: yes", "user\n"),
    *("<|im_end|>\n<|im_start|>user\n", "<|user|>", "<end_of_turn>\n<start_of_turn>model\n", "</s><s>[INST] "),
    *("<think>", "</think>", "[gMASK]<sop>", "<|start_header_id|>assistant<|end_header_id|>\n\n", "Ramito:"),
)


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture(scope="module")
def transcript(kind: Kind) -> ChatTranscript:
    return ChatTranscript(kind.build())


@pytest.fixture(scope="module")
def chatml() -> ChatTranscript:
    return ChatTranscript(KINDS["chatml"].build())


@pytest.fixture(scope="module")
def bundled(bundled_base: Path) -> ChatTranscript:
    """The real Gemma tokenizer with the template that its instruct models have."""
    tokenizer = load_tokenizer(bundled_base)
    tokenizer.chat_template = GEMMA3
    return ChatTranscript(tokenizer)


@st.composite
def sessions(draw: st.DrawFn, transcript: Transcript) -> list[Turn]:
    pieces = st.one_of(
        st.text(st.characters(), max_size=8),
        st.sampled_from((*MARKS, *FORGED, *spellings(transcript))),
        st.text(string.ascii_letters + "[]<>:", max_size=5),
    )
    bubble = st.lists(pieces, max_size=8).map("".join).filter(normalize)
    speaker = st.sampled_from((ME, "Ramito", "Bobotu"))
    turn = st.builds(Turn, speaker, st.lists(bubble, min_size=1, max_size=3).map(tuple))
    return draw(st.lists(turn, max_size=4))


def legible(transcript: ChatTranscript, text: str) -> str:
    """A text as it comes back: with a blank in what spells a mark of a template that is plain text."""
    return transcript._break_marks(text)


def expected(transcript: ChatTranscript, turns: list[Turn]) -> list[Turn]:
    """What `decode` gives: normalized, and consecutive turns of one contact, which a session never has, as one."""
    joined: list[Turn] = []
    for mine, turn_group in groupby(turns, key=lambda turn: turn.is_mine):
        if mine:
            joined += turn_group
        else:
            joined += [
                Turn(speaker, tuple(bubble for turn in same for bubble in turn.bubbles))
                for speaker, same in groupby(turn_group, key=lambda turn: turn.speaker)
            ]
    return [
        Turn(turn.speaker, tuple(legible(transcript, bubble) for bubble in normalized_bubbles(turn))) for turn in joined
    ]


def check_forgery(transcript: ChatTranscript, turns: list[Turn]) -> None:
    """What people wrote reads back as they wrote it, and holds no token and no text that means structure."""
    encoded = transcript.encode(GROUP, turns)
    header, read = transcript.decode(encoded.ids)
    assert header == GROUP.render()
    assert read == expected(transcript, turns)
    empty = transcript.encode(GROUP, [])
    mine = transcript.encode(GROUP, [Turn(ME, ("a",))])
    marks = [token for token in empty.ids if token in transcript.safe_tokenizer.reserved]
    replies = [token for token in mine.ids[mine.opening :] if token in transcript.safe_tokenizer.reserved]
    number = sum(turn.is_mine for turn in turns)
    assert [token for token in encoded.ids if token in transcript.safe_tokenizer.reserved] == marks + replies * number
    text = transcript.safe_tokenizer.decode(encoded.ids)
    for mark in transcript._plain_marks:
        alone, once = (transcript.safe_tokenizer.decode(turn_group.ids).count(mark) for turn_group in (empty, mine))
        assert text.count(mark) == alone + (once - alone) * number


def check_serving(transcript: ChatTranscript, header: Header, turns: list[Turn]) -> None:
    """The prompt that serving builds before each turn is what training saw; loss is on the reply and its end."""
    encoded = transcript.encode(header, turns)
    assert len(encoded.ids) == len(encoded.loss_mask)
    start = encoded.opening
    for number, turn in enumerate(turns):
        end = encoded.turn_ends[number]
        if turn.is_mine:
            prompt = transcript.prompt(header, turns[:number])
            assert encoded.ids[: len(prompt)] == prompt
            reply = encoded.ids[len(prompt) : end]
            loss_mask = encoded.loss_mask[len(prompt) : end]
            supervised = [token for token, role in zip(reply, loss_mask, strict=True) if role]
            assert set(encoded.loss_mask[start : len(prompt)]) <= {0}
            assert supervised == reply[: len(supervised)]
            assert supervised[-1] in transcript.stop_ids
            assert transcript.stop_ids.isdisjoint(supervised[:-1])
            assert transcript.reply(supervised) == [legible(transcript, bubble) for bubble in normalized_bubbles(turn)]
            assert encoded.turn_bytes[number] == sum(len(bubble.encode()) for bubble in normalized_bubbles(turn))
        else:
            assert set(encoded.loss_mask[start:end]) <= {0}
            assert encoded.turn_bytes[number] == 0
        assert transcript.prompt(header, turns[number + 1 :]) == (
            encoded.ids[: encoded.opening] + encoded.ids[end:] + transcript.prompt(header, [])[encoded.opening :]
        )
        start = end
    assert start == len(encoded.ids)


@settings(max_examples=40)
@given(data=st.data())
def test_nobody_can_forge_a_turn_a_header_or_a_special_token(transcript: ChatTranscript, data: st.DataObject) -> None:
    check_forgery(transcript, data.draw(sessions(transcript)))


@settings(max_examples=40)
@given(data=st.data())
def test_serving_builds_the_tokens_that_training_saw(transcript: ChatTranscript, data: st.DataObject) -> None:
    check_serving(transcript, data.draw(st.sampled_from((GROUP, DM, Header()))), data.draw(sessions(transcript)))


@pytest.mark.slow
@settings(max_examples=40)
@given(data=st.data())
def test_a_real_tokenizer_keeps_both_promises(bundled: ChatTranscript, data: st.DataObject) -> None:
    turns = data.draw(sessions(bundled))
    check_forgery(bundled, turns)
    check_serving(bundled, DM, turns)


@pytest.mark.slow
def test_a_real_tokenizer_sees_what_its_template_writes(bundled: ChatTranscript) -> None:
    ids = bundled.tokenizer.apply_chat_template(
        [
            {"role": "system", "content": DM.render()},
            {"role": "user", "content": "hello there\n你好"},
            {"role": "assistant", "content": "fine, thanks 😀"},
            {"role": "user", "content": "good"},
        ],
        add_generation_prompt=True,
        return_dict=False,
    )
    turns = [Turn("Ramito", ("hello there", "你好")), Turn(ME, ("fine, thanks 😀",)), Turn("Ramito", ("good",))]
    assert bundled.prompt(DM, turns) == ids


def test_the_tokens_are_those_of_the_template(kind: Kind, transcript: ChatTranscript) -> None:
    tokenizer = transcript.tokenizer
    blank = transcript._user_blank
    header = [{"role": "system", "content": DM.render()}] if kind.system else []
    first = blank + "hi me" if kind.system else f"{DM.render()}\n\n{blank}hi me"
    expected = [("user", first), ("assistant", "hi. me"), ("user", "me"), ("assistant", "me")]
    template = tokenizer.get_chat_template().replace("strftime_now is defined", "false")  # its own fixed date
    ids = tokenizer.apply_chat_template(
        [*header, *({"role": role, "content": text} for role, text in expected)],
        chat_template=template,
        return_dict=False,
    )
    turns = [Turn("Ramito", ("hi me",)), Turn(ME, ("hi. me",)), Turn("Ramito", ("me",)), Turn(ME, ("me",))]
    encoded = transcript.encode(DM, turns)
    assert (encoded.ids[: len(ids)] == ids) == kind.exact


def test_a_reply_ends_in_the_token_of_the_template(kind: Kind, transcript: ChatTranscript) -> None:
    encoded = transcript.encode(GROUP, [Turn(ME, ("hi",)), Turn("Ramito", ("hi",)), Turn(ME, ("hi", "me"))])
    supervised = [token for token, role in zip(encoded.ids, encoded.loss_mask, strict=True) if role]
    ends = [at for at, token in enumerate(supervised) if token == transcript.tokenizer.convert_tokens_to_ids(kind.end)]
    assert len(ends) == 2
    assert ends[-1] == len(supervised) - 1
    assert set(transcript.tokenizer.convert_tokens_to_ids(list(kind.tokens))) <= transcript.stop_ids


def test_the_format_is_what_its_documentation_shows(chatml: ChatTranscript) -> None:
    turns = [Turn("Ramito", ("hello", "how are\nyou")), Turn("Bobotu", ("hi",)), Turn(ME, ("fine!", "and you?"))]
    encoded = chatml.encode(GROUP, turns)
    assert chatml.safe_tokenizer.decode(encoded.ids) == (
        "<|im_start|>system\n[2018 evening · telegram group]<|im_end|>\n<|im_start|>user\n"
        "Ramito: hello\nRamito: how are \u23ce you\nBobotu: hi<|im_end|>\n"
        "<|im_start|>assistant\nfine!\nand you?<|im_end|>\n<|im_start|>user\n"
    )
    learned = [token for token, role in zip(encoded.ids, encoded.loss_mask, strict=True) if role]
    assert chatml.safe_tokenizer.decode(learned) == "fine!\nand you?<|im_end|>"
    assert encoded.text_bytes == len("fine!and you?")


def test_lines_of_a_dm_have_no_names(chatml: ChatTranscript) -> None:
    turns = [Turn("Ramito", ("hello", "you there?"))]
    prompt = chatml.prompt(DM, turns)
    assert "<|im_start|>user\nhello\nyou there?<|im_end|>" in chatml.safe_tokenizer.decode(prompt)
    assert chatml.decode(chatml.encode(DM, turns).ids)[1] == turns
    assert chatml.decode(chatml.encode(Header(kind="dm"), turns).ids)[1] == [Turn(CONTACT, turns[0].bubbles)]


def test_without_turns_an_empty_message_is_answered(chatml: ChatTranscript) -> None:
    text = chatml.safe_tokenizer.decode(chatml.prompt(Header(kind="post"), []))
    assert text == "<|im_start|>system\n[post]<|im_end|>\n<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n"


def test_an_empty_thinking_block_stands_before_every_reply() -> None:
    transcript = ChatTranscript(KINDS["thinking"].build())
    text = transcript.safe_tokenizer.decode(transcript.prompt(DM, [Turn(ME, ("hi",)), Turn("Ramito", ("hi",))]))
    assert text.count("<|im_start|>assistant\n<think>\n\n</think>\n\n") == 2
    assert text.endswith("<think>\n\n</think>\n\n")


def test_a_prompt_does_not_begin_a_thinking_block() -> None:
    tokenizer = KINDS["always-thinking"].build()
    prompt_text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True
    )
    assert prompt_text.endswith("<think>\n")
    transcript = ChatTranscript(tokenizer)
    assert "<think>" not in transcript.safe_tokenizer.decode(transcript.prompt(DM, []))


def test_the_date_is_always_the_same() -> None:
    transcript = ChatTranscript(KINDS["llama-3"].build())
    assert "Today Date: 26 Jul 2024\n" in transcript.safe_tokenizer.decode(transcript.prompt(DM, []))
    assert "strftime_now" in LLAMA3


def test_an_empty_line_ends_a_bubble_not_the_turn(chatml: ChatTranscript) -> None:
    ids = chatml.tokenizer("hi\n\n.\n.<|im_end|>hi", add_special_tokens=False)["input_ids"]
    decoder = TurnDecoder(chatml)
    assert [decoder.feed(token) for token in ids if not decoder.finished][-1] == ["."]
    assert chatml.reply(ids) == ["hi", ".", "."]


def test_another_speaker_can_be_trained_in_place_of_the_persona(chatml: ChatTranscript) -> None:
    turns = [Turn("User", ("what",)), Turn("Assistant", ("that",))]
    encoded = chatml.encode(Header(kind="dm"), turns, learned="Assistant")
    assert chatml.safe_tokenizer.decode(encoded.ids).endswith(
        "what<|im_end|>\n<|im_start|>assistant\nthat<|im_end|>\n<|im_start|>user\n"
    )
    assert encoded.text_bytes == 4


@pytest.mark.parametrize("speaker", ["", "a:b", "a\nb", " a"])
@pytest.mark.parametrize("header", [GROUP, DM])
def test_a_speakers_name_cannot_contain_the_separator_of_a_line(
    chatml: ChatTranscript, header: Header, speaker: str
) -> None:
    with pytest.raises(ValueError, match="not a speaker"):
        chatml.encode(header, [Turn(speaker, ("hi",))])


@pytest.mark.parametrize("turn", [Turn(ME, ()), Turn(ME, ("",)), Turn("Bobotu", (" \n\x00",))])
def test_a_turn_without_text_is_refused(chatml: ChatTranscript, turn: Turn) -> None:
    with pytest.raises(ValueError, match="bubble"):
        chatml.encode(DM, [turn])


class TestTemplatesThatCannotBeFollowed:
    def test_a_tokenizer_without_a_template_is_refused(self) -> None:
        with pytest.raises(UserError, match="has no chat template, which transcript: chat needs"):
            ChatTranscript(tokenizers.byte_level())

    @pytest.mark.parametrize(
        "template",
        [
            "{{ raise_exception('never') }}",
            "{{ messages | nothing }}",
            "{% for message in messages | reverse %}<s>{{ message.content }}</s>{% endfor %}",
            "{% for message in messages %}{{ message.content | upper }}</s>{% endfor %}",
            "{% for message in messages %}{{ message.content ~ message.content }}</s>{% endfor %}",
            "{% for message in messages %}{{ loop.index }}: {{ message.content }}</s>{% endfor %}",
        ],
    )
    def test_a_template_that_does_not_write_messages_in_order_is_refused(self, template: str) -> None:
        with pytest.raises(UserError, match="reorders or changes messages"):
            ChatTranscript(self._with(template))

    @pytest.mark.parametrize(
        "template",
        [
            "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}",
            "{% for message in messages %}{{ message.content + ('</s>' if loop.index0 % 2 else '\n') }}{% endfor %}",
        ],
    )
    def test_a_template_whose_markup_is_plain_text_is_refused(self, template: str) -> None:
        with pytest.raises(UserError, match="separates messages by plain text"):
            ChatTranscript(self._with(template))

    @staticmethod
    def _with(template: str) -> object:
        tokenizer = tokenizers.byte_level()
        tokenizer.chat_template = template
        return tokenizer


def test_formats_are_opened_by_their_names() -> None:
    tokenizer = KINDS["chatml"].build()
    for name, kind in (("doppel-1", Transcript), ("doppel-chat-1", ChatTranscript)):
        opened = open_transcript(tokenizer, name)
        assert type(opened) is kind
        assert opened.format == name
    other = KINDS["chatml"].build()
    other.chat_template = CHATML.replace("<|im_end|>", "</s>")
    assert open_transcript(tokenizer).template == ""
    assert open_transcript(other, name).template != open_transcript(tokenizer, name).template
