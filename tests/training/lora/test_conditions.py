"""Headers and names that differ from epoch to epoch, and what must never change."""

import random
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doppel.transcript import ME, Header, Turn
from training.dataset.files import Session
from training.lora.conditions import (
    drop_fields,
    favour_recent,
    header_vocabulary,
    rename,
    vary,
    without_unanswered,
)

FULL = Header(year="2020", weekday="Mon", hour="night", platform="web", kind="group", language="en", contact="Ramito")
SPEAKERS = (ME, "Ramito", "Bobotu", "Ramitoso")


def session(*turns: Turn, header: Header = FULL, day: int = 0) -> Session:
    return Session(
        id=str(day),
        split="train",
        chat="Ramito",
        started_at=datetime(2020, 1, 1, tzinfo=UTC) + timedelta(days=day),
        header=header,
        turns=turns,
        kind=header.kind,
    )


sessions = st.builds(
    lambda turns: session(*turns),
    st.lists(
        st.builds(
            Turn,
            st.sampled_from(SPEAKERS),
            st.lists(st.text(max_size=20) | st.just("hello Ramito"), min_size=1, max_size=3).map(tuple),
        ),
        min_size=1,
        max_size=8,
    ),
)


@given(sessions, st.randoms(use_true_random=False))
def test_renaming_keeps_who_is_who_and_every_word_but_the_names(one: Session, draw: random.Random) -> None:
    renamed = rename(one, draw)
    pairs = {(before.speaker, after.speaker) for before, after in zip(one.turns, renamed.turns, strict=True)}
    assert len(pairs) == len({before for before, _ in pairs}) == len({after for _, after in pairs})
    assert (ME, ME) in pairs or all(before != ME for before, _ in pairs)
    new_names = {after for before, after in pairs if before != ME} | {renamed.header.contact}
    assert new_names.isdisjoint(SPEAKERS)
    for before, after in zip(one.turns, renamed.turns, strict=True):
        for text, shown in zip(before.bubbles, after.bubbles, strict=True):
            assert shown == text.replace("Ramito", str(renamed.header.contact))


@given(sessions, st.integers())
def test_the_same_draw_varies_alike_and_fields_are_only_taken_away(one: Session, seed: int) -> None:
    varied = vary(one, ["en"], random.Random(seed))
    assert varied == vary(one, ["en"], random.Random(seed))
    for name in Header.__struct_fields__:
        value = getattr(varied.header, name)
        assert value in {None, getattr(one.header, name)} or name == "contact"
    assert (varied.id, varied.started_at, varied.kind) == (one.id, one.started_at, one.kind)


def test_names_within_chinese_are_renamed_and_longer_words_are_not() -> None:
    renamed = rename(session(Turn("Ramito", ("我跟Ramito说了", "Ramitoso"))), random.Random(0))
    assert renamed.turns[0].bubbles == (f"我跟{renamed.header.contact}说了", "Ramitoso")


def test_headers_lose_fields_for_fifteen_percent() -> None:
    one = session(Turn("Ramito", ("hi",)), Turn(ME, ("hello",)))
    draw = random.Random(0)
    headers = [vary(one, ["en"], draw).header for _ in range(20_000)]
    without = Counter(name for header in headers for name in Header.__struct_fields__ if getattr(header, name) is None)
    assert sum(header == Header() for header in headers) / len(headers) == pytest.approx(0.075, abs=0.01)
    assert all(count / len(headers) == pytest.approx(0.1125, abs=0.01) for count in without.values())
    assert sum(header.contact not in {None, "Ramito"} for header in headers) / len(headers) == pytest.approx(
        0.15 * (1 - 0.1125), abs=0.01
    )


def test_dropping_takes_each_field_half_of_the_time() -> None:
    draw = random.Random(1)
    headers = [drop_fields(FULL, draw) for _ in range(4_000)]
    assert all(any(getattr(header, name) for header in headers) for name in Header.__struct_fields__)
    assert any(header == Header() for header in headers)


def test_a_reply_without_its_question_keeps_its_kind() -> None:
    alone = session(Turn(ME, ("so true",)), header=Header(kind="reply", year="2020"))
    draw = random.Random(0)
    headers = {vary(alone, ["en"], draw).header for _ in range(500)}
    assert {header.kind for header in headers} == {"reply"}
    assert None in {header.year for header in headers}


def test_the_language_is_that_of_the_others_in_the_conversation() -> None:
    chinese = session(Turn("Ramito", ("今天我们去哪里吃饭",)), Turn(ME, ("I don't know what you want",)))
    assert {vary(chinese, ["en", "zh"], random.Random(seed)).header.language for seed in range(99)} == {"zh", None}
    assert {vary(chinese, ["en"], random.Random(seed)).header.language for seed in range(99)} == {"en", None}
    post = session(Turn(ME, ("今天我们去哪里吃饭",)), header=Header(kind="post", language="zh"))
    assert {vary(post, ["en", "zh"], random.Random(seed)).header.language for seed in range(99)} == {None}


def test_rare_languages_are_taken_for_mistakes() -> None:
    headers = [Header(language="en")] * 90 + [Header(language="zh")] * 8 + [Header(language="es")] * 2 + [Header()] * 50
    assert header_vocabulary(headers)["language"] == ["en", "zh"]
    assert header_vocabulary([Header(language="zh")])["language"] == ["zh"]


def test_what_nobody_answered_is_left_out_of_chats_only() -> None:
    answered = session(Turn(ME, ("hi",)), Turn("Ramito", ("hello",)))
    unanswered = session(Turn(ME, ("hello?", "anyone?")))
    post = session(Turn(ME, ("a thought",)), header=Header(kind="post"))
    assert without_unanswered([answered, unanswered, post]) == [answered, post]
    assert without_unanswered([unanswered]) == [unanswered]


def test_recent_sessions_tend_to_come_first() -> None:
    by_age = [session(Turn(ME, ("hi",)), day=day) for day in range(1000)]
    ordered = favour_recent(by_age, random.Random(0))
    assert sorted(ordered, key=lambda one: one.started_at) == by_age
    days = [int(one.id) for one in ordered]
    newest, oldest = (sum(day // 250 == quarter for day in days[:250]) for quarter in (3, 0))
    assert newest > 4 * oldest > 0
    assert favour_recent([], random.Random(0)) == []
