"""What is trained on in an epoch: joined as in a prompt, cut anew, and the same for the same epoch."""

import random
import re
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from transformers import PreTrainedTokenizerBase

from doppel.transcript import ME, Header, Transcript, Turn
from training.dataset.files import Session
from training.lora.epochs import EpochSource, join_sessions
from training.lora.examples import Example

DAY = datetime(2020, 1, 1, tzinfo=UTC)


def session(number: int, *turns: tuple[str, str], chat: str = "Ramito", kind: str = "dm") -> Session:
    return Session(
        id=str(number),
        split="train",
        chat=chat,
        started_at=DAY + timedelta(days=number),
        header=Header(kind=kind, hour="night", year=str(2000 + number)),
        turns=tuple(Turn(speaker, (text,)) for speaker, text in turns),
    )


def chat(count: int, **options: str) -> list[Session]:
    return [
        session(number, ("Ramito", f"question {number}"), (ME, f"answer {number}"), **options)
        for number in range(count)
    ]


def joined(sessions: list[Session], history: int, seed: int = 0) -> list[Session]:
    return join_sessions(sessions, history, random.Random(seed))


def test_sessions_of_a_chat_are_joined_up_to_the_history_of_a_prompt() -> None:
    sessions = chat(200)
    whole = joined(sessions, history=10)
    lengths = [sum(len(turn.bubbles) for turn in one.turns) for one in whole]
    assert set(lengths) == {2, 4, 6, 8, 10, 12}
    assert [turn for one in whole for turn in one.turns] == [turn for one in sessions for turn in one.turns]


def test_a_joined_session_has_the_header_of_its_last_one() -> None:
    for one in joined(chat(30), history=10):
        last_answer = one.turns[-1].bubbles[0].removeprefix("answer ")
        assert one.id == last_answer
        assert one.header.year == str(2000 + int(last_answer))


def test_a_session_that_the_owner_begins_starts_anew() -> None:
    begun_by_me = [session(number, (ME, "by the way"), ("Ramito", "yes?")) for number in range(20)]
    assert joined(begun_by_me, history=40) == begun_by_me


def test_who_ends_one_session_and_begins_the_next_has_one_turn() -> None:
    sessions = [session(0, (ME, "hi"), ("Ramito", "hello")), session(1, ("Ramito", "still there?"), (ME, "yes"))]
    (one,) = next(whole for seed in range(99) if len(whole := joined(sessions, history=9, seed=seed)) == 1)
    assert one.turns[1] == Turn("Ramito", ("hello", "still there?"))


def test_other_chats_and_posts_stay_apart() -> None:
    posts = chat(20, kind="post")
    assert joined(posts, history=40) == posts
    apart = [session(number, ("Ramito", "hi"), (ME, "hi"), chat=f"chat {number}") for number in range(20)]
    assert joined(apart, history=40) == apart


def test_without_history_nothing_is_joined() -> None:
    assert joined(chat(20), history=0) == chat(20)


@pytest.fixture
def source(tiny_tokenizer: PreTrainedTokenizerBase) -> EpochSource:
    return EpochSource(
        sessions=chat(40), transcript=Transcript(tiny_tokenizer), max_length=64, history=10, languages=[], seed=3
    )


def own_text(examples: list[Example]) -> list[int]:
    return sorted(token for one in examples for token, role in zip(one.ids, one.loss_mask, strict=True) if role)


def test_every_epoch_teaches_the_same_text_in_another_form(source: EpochSource) -> None:
    first, second = list(source.examples(0)), list(source.examples(1))
    assert own_text(first) == own_text(second)
    assert first != second
    assert list(source.examples(0)) == first


def test_sessions_that_nobody_answered_are_left_out_and_counted(source: EpochSource) -> None:
    alone = session(9, (ME, "hello? anybody?"))
    with_alone = msgspec.structs.replace(source, sessions=[*source.sessions, alone])
    assert with_alone.unanswered == 1
    assert source.unanswered == 0
    assert sum(example.supervised for example in with_alone.examples(0)) == sum(
        example.supervised for example in source.examples(0)
    )


def test_other_examples_are_in_every_epoch(source: EpochSource) -> None:
    other = Example([1, 2, 3], [0, 1, 1], 2)
    mixed = msgspec.structs.replace(source, others=[other] * 7)
    assert all(list(mixed.examples(epoch)).count(other) == 7 for epoch in range(3))


def test_an_epoch_that_will_not_be_finished_begins_with_recent_sessions(source: EpochSource) -> None:
    def mean_age(examples: list[Example]) -> float:
        text = "".join(source.transcript.tokenizer.decode(one.ids) for one in examples[: len(examples) // 4])
        numbers = [int(number) for number in re.findall(r"answer (\d+)", text)]
        return sum(numbers) / len(numbers)

    long = msgspec.structs.replace(source, sessions=chat(400), history=0)
    assert mean_age(list(long.examples(0, recent_first=True))) > mean_age(list(long.examples(0))) + 50
    assert own_text(list(long.examples(0, recent_first=True))) == own_text(list(long.examples(0)))
