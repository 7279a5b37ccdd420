"""Instruction data among the training examples: the share asked for, always the same, not in the persona's voice."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doppel.config import MixSettings, TrainingSettings
from doppel.errors import UserError
from doppel.transcript import ME, Header, Transcript, Turn
from doppel.transcript.chat import ChatTranscript
from tests.doppel.transcript.chat_templates import KINDS
from tests.tiny import build_transcript
from training.archives.formats.instructions import Dialogue, DialogueTurn
from training.lora.examples import Example, count_tokens
from training.lora.mixing import MixedExamples, dialogue_examples, load_mix

LENGTH = 128


@pytest.fixture(scope="module")
def transcript() -> Transcript:
    return build_transcript()


def own(transcript: Transcript, count: int = 100) -> list[Example]:
    encoded = transcript.encode(Header(kind="dm"), [Turn("Ramito", ("how are you",)), Turn(ME, ("fine thanks",))])
    return [Example(encoded.ids, encoded.loss_mask, encoded.text_bytes)] * count


def write(path: Path, count: int) -> None:
    records = [{"instruction": f"what is {one} plus {one}", "output": f"that is {2 * one}"} for one in range(count)]
    path.write_text(json.dumps(records))


def mixed(root: Path, transcript: Transcript, *, replay: float = 0, seed: int = 0, **shares: float) -> MixedExamples:
    ingredients = tuple(MixSettings(path=f"{name}.json", share=share) for name, share in shares.items())
    training = TrainingSettings(mix=ingredients, replay=replay, seed=seed)
    return load_mix(training, root, own(transcript), transcript, LENGTH)


def text(transcript: Transcript, ids: list[int]) -> str:
    decoded = transcript.tokenizer.decode(ids)
    assert isinstance(decoded, str)
    return decoded


def test_only_the_assistant_is_learned_under_a_name_and_a_header_that_are_not_the_personas(
    transcript: Transcript,
) -> None:
    said = (
        DialogueTurn("system", "Be brief."),
        DialogueTurn("user", "2 + 2?"),
        DialogueTurn("assistant", "four\nI think"),
        DialogueTurn("user", "ok"),
    )
    (example,) = dialogue_examples(Dialogue("record 1", (*said, DialogueTurn("assistant", "bye"))), transcript, LENGTH)
    learned = [token for token, role in zip(example.ids, example.loss_mask, strict=True) if role]
    assert text(transcript, learned) == " four ⏎ I think\n\n bye\n\n"
    assert text(transcript, example.ids).startswith(
        "<bos>[instruction]\n\nSystem: Be brief.\n\nUser: 2 + 2?\n\nAssistant: "
    )
    assert "me:" not in text(transcript, example.ids)


def test_in_a_chat_template_the_assistant_has_the_place_of_the_assistant() -> None:
    chatml = ChatTranscript(KINDS["chatml"].build())
    dialogue = Dialogue("record 1", (DialogueTurn("user", "two and two?"), DialogueTurn("assistant", "four")))
    (example,) = dialogue_examples(dialogue, chatml, LENGTH)
    decoded = text(chatml, example.ids)
    assert "system\n[instruction]<|im_end|>" in decoded
    assert "<|im_start|>assistant\nfour<|im_end|>" in decoded
    learned = [token for token, role in zip(example.ids, example.loss_mask, strict=True) if role]
    assert text(chatml, learned) == "four<|im_end|>"


def test_long_dialogues_are_cut_and_learned_whole(transcript: Transcript) -> None:
    said = [
        one
        for at in range(30)
        for one in (DialogueTurn("user", f"question {at}"), DialogueTurn("assistant", f"answer {at}"))
    ]
    pieces = dialogue_examples(Dialogue("record 1", tuple(said)), transcript, 64)
    assert all(len(piece.ids) <= 64 for piece in pieces)
    learned = [token for piece in pieces for token, role in zip(piece.ids, piece.loss_mask, strict=True) if role]
    assert text(transcript, learned) == "".join(f" answer {at}\n\n" for at in range(30))


@settings(max_examples=12)
@given(first=st.floats(0.05, 0.4), second=st.floats(0.05, 0.3), replay=st.sampled_from([0, 0.1]))
def test_every_file_gets_its_share_of_the_tokens(
    tmp_path_factory: pytest.TempPathFactory, transcript: Transcript, first: float, second: float, replay: float
) -> None:
    root = tmp_path_factory.mktemp("mix")
    write(root / "a.json", 400)
    write(root / "b.json", 400)
    found = mixed(root, transcript, replay=replay, a=first, b=second)
    total = (count_tokens(own(transcript)) + count_tokens(found.examples)) / (1 - replay)
    for source, wanted in zip(found.sources, (first, second), strict=True):
        assert source.tokens / total == pytest.approx(wanted, abs=0.015)  # a dialogue is 0.01 of it
        assert source.share == pytest.approx(source.tokens / total, abs=1e-4)


def test_the_same_seed_takes_the_same_dialogues(tmp_path: Path, transcript: Transcript) -> None:
    write(tmp_path / "a.json", 1000)
    once = mixed(tmp_path, transcript, a=0.3)
    assert mixed(tmp_path, transcript, a=0.3) == once
    other = mixed(tmp_path, transcript, a=0.3, seed=1)
    assert other.examples != once.examples
    asked = [text(transcript, example.ids).split("plus ")[1].split("\n")[0] for example in once.examples]
    assert len(set(asked)) == len(asked)
    assert max(map(int, asked)) > 900  # from all of the file, not from where it begins


def test_a_small_file_is_repeated_and_said_so(
    tmp_path: Path, transcript: Transcript, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "a.json", 20)
    found = mixed(tmp_path, transcript, a=0.3)
    assert found.sources[0].share == pytest.approx(0.3, abs=0.02)
    assert "too small for its share, so it is read " in capsys.readouterr().err
    write(tmp_path / "a.json", 3)
    found = mixed(tmp_path, transcript, a=0.5)
    assert found.sources[0].dialogues == 12
    assert found.sources[0].share < 0.3
    assert "too small for 50.0% of the training, even when read 4 times" in capsys.readouterr().err


def test_a_dialogue_larger_than_the_share_is_passed_over(tmp_path: Path, transcript: Transcript) -> None:
    records = [{"prompt": "tell me more", "completion": "word " * 2000}] * 9 + [{"prompt": "hi", "completion": "yes"}]
    (tmp_path / "a.json").write_text(json.dumps(records))
    assert mixed(tmp_path, transcript, a=0.02).sources[0].tokens < 200


def test_bad_records_are_named_and_counted(
    tmp_path: Path, transcript: Transcript, capsys: pytest.CaptureFixture[str]
) -> None:
    good: list[Any] = [{"prompt": "hi", "completion": f"hello {one}"} for one in range(50)]
    (tmp_path / "a.json").write_text(json.dumps([*good, *[{"prompt": "hi"}] * 7]))
    found = mixed(tmp_path, transcript, a=0.1)
    assert found.sources[0].left_out == 7
    shown = capsys.readouterr().err
    assert shown.count("; skipped") == 3
    assert "a.json, record 51: no question and answer fields" in shown
    assert "7 records skipped in all" in shown


def test_nothing_asked_for_is_nothing_mixed_in(tmp_path: Path, transcript: Transcript) -> None:
    assert mixed(tmp_path, transcript) == MixedExamples([], [])


def test_a_missing_file_is_one_clear_line(tmp_path: Path, transcript: Transcript) -> None:
    with pytest.raises(UserError, match=r"a\.json: no such file"):
        mixed(tmp_path, transcript, a=0.1)
