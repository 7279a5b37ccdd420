"""Sessions: silences, replies that override them, threads, turns, headers."""

import random
from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doppel.transcript import Header, pseudonym
from tests.training.messages import line, message
from training.dataset import sessions
from training.dataset.sessions import (
    DEFAULT_GAP,
    SessionMessage,
    build_header,
    build_turns,
    estimate_gap,
    join_threads,
    mark_duplicates,
    session_id,
    speaker_names,
    split_at_silences,
)

HOUR = 3600.0
BERLIN = ZoneInfo("Europe/Berlin")


def ids(found: list[list[SessionMessage]]) -> list[list[str]]:
    return [[line.message.id for line in session] for session in found]


def test_a_silence_ends_a_session() -> None:
    lines = [line(1, at=0), line(2, at=59), line(3, at=59 + 61), line(4, at=3 * 24 * 60 + 121)]
    assert ids(list(split_at_silences(lines, HOUR))) == [["1", "2"], ["3"], ["4"]]


def test_days_apart_with_the_same_seconds_is_a_silence() -> None:
    assert len(list(split_at_silences([line(1, at=0), line(2, at=24 * 60)], HOUR))) == 2


def test_a_reply_overrides_the_silence() -> None:
    lines = [line(1, at=0), line(2, at=500, reply_to="1"), line(3, at=501)]
    assert ids(list(split_at_silences(lines, HOUR))) == [["1", "2", "3"]]


def test_a_reply_rejoins_a_session_that_is_not_the_last() -> None:
    lines = [line(1, at=0), line(2, at=100), line(3, at=300, reply_to="1"), line(4, at=301), line(5, at=900)]
    assert ids(list(split_at_silences(lines, HOUR))) == [["1", "3", "4"], ["2"], ["5"]]


def test_a_reply_within_a_conversation_does_not_tear_it_apart() -> None:
    lines = [line(1, at=0), line(2, at=100), line(3, at=101, reply_to="1")]
    assert ids(list(split_at_silences(lines, HOUR))) == [["1"], ["2", "3"]]


def test_a_reply_to_something_unknown_starts_anew() -> None:
    assert len(list(split_at_silences([line(1, at=0), line(2, at=100, reply_to="77")], HOUR))) == 2


def test_a_chat_that_never_sleeps_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MAX_SESSION_MESSAGES", 10)
    assert [len(session) for session in split_at_silences([line(number) for number in range(25)], HOUR)] == [10, 10, 5]


@given(
    st.lists(st.tuples(st.integers(0, 200), st.none() | st.integers(0, 40)), max_size=60),
    st.sampled_from([1, 3, 64]),
)
def test_no_message_is_lost_or_doubled_and_time_runs_forward(steps: list[tuple[int, int | None]], reach: int) -> None:
    at, lines = 0, []
    for number, (step, reply_to) in enumerate(steps):
        at += step
        lines.append(line(number, at=at, reply_to=None if reply_to is None else str(reply_to)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sessions, "OPEN_SESSIONS", reach)
        for found in (list(split_at_silences(lines, HOUR)), threads_of(lines)):
            assert sorted(int(line) for session in ids(found) for line in session) == list(range(len(lines)))
            for session in found:
                assert session
                assert session == sorted(session, key=lambda one: one.message.sent_at)


def threads_of(lines: list[SessionMessage]) -> list[list[SessionMessage]]:
    answered = {line.message.reply_to or "" for line in lines}
    return [[lines[number] for number in thread] for thread in join_threads(enumerate(lines), answered)]


def test_who_quotes_themselves_begins_a_thread_and_who_quotes_others_does_not() -> None:
    lines = [
        line(1, kind="post"),
        line(2, kind="post", sender="ana"),
        line(3, kind="quote", reply_to="1"),
        line(4, kind="quote", reply_to="2"),
        line(5, kind="reply", reply_to="1"),
        line(6, kind="reply", reply_to="3"),
    ]
    assert ids(threads_of(lines)) == [["1", "5"], ["2", "4"], ["3", "6"]]


def test_a_thread_has_no_more_messages_than_a_session() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sessions, "MAX_SESSION_MESSAGES", 3)
        lines = [line(number, kind="reply", reply_to=str(number - 1)) for number in range(1, 9)]
        assert ids(threads_of(lines)) == [["1", "2", "3"], ["4", "5", "6"], ["7", "8"]]


def test_posts_stand_alone_and_threads_together() -> None:
    lines = [
        line(1, kind="post"),
        line(2, kind="post"),
        line(3, kind="reply", reply_to="1", at=9000),
        line(4, kind="reply", reply_to="unknown"),
        line(5, kind="reply", reply_to="3", at=9001),
    ]
    threads = threads_of(lines)
    assert ids(threads) == [["1", "3", "5"], ["2"], ["4"]]
    assert [turn.bubbles for turn in build_turns(threads[0])] == [("hello", "hello", "hello")]
    assert build_header(threads[2], BERLIN, None).kind == "reply"


def test_the_gap_is_the_valley_between_the_two_peaks() -> None:
    rng = random.Random(1)
    now, times = 0.0, []
    for _ in range(300):
        for _ in range(8):
            now += rng.lognormvariate(3.5, 1)  # half a minute within a conversation
            times.append(now)
        now += rng.lognormvariate(10.5, 0.4)  # ten hours between conversations
    assert 1800 <= estimate_gap(times) <= 4 * 3600
    assert estimate_gap(times[:100]) == DEFAULT_GAP
    assert estimate_gap([5.0] * 1000) == DEFAULT_GAP


@given(st.lists(st.floats(0, 1e9), max_size=400))
def test_the_gap_stays_in_its_bounds(times: list[float]) -> None:
    assert 1800 <= estimate_gap(sorted(times)) <= 6 * 3600


def test_consecutive_messages_become_bubbles() -> None:
    lines = [line(1, "a", sender="ana"), line(2, "b", sender="ana"), line(3, "c"), line(4, "d", sender="ana")]
    ana = pseudonym("test", "ana")
    assert [(turn.speaker, turn.bubbles) for turn in build_turns(lines)] == [
        (ana, ("a", "b")),
        ("me", ("c",)),
        (ana, ("d",)),
    ]


def test_two_accounts_with_one_pseudonym_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "pseudonym", lambda platform, account: "Bo" if "#" not in account else "Bo2")
    lines = [line(1, sender="zoe"), line(2, sender="ana"), line(3)]
    assert speaker_names(lines) == {"ana": "Bo", "zoe": "Bo2"}
    assert speaker_names(lines[::-1]) == {"ana": "Bo", "zoe": "Bo2"}


def test_the_header_tells_the_situation_in_the_owners_zone() -> None:
    night = [line(1, "I know what you mean", at=14 * 60)]  # 23:00 UTC on a Monday is 1:00 on Tuesday in Berlin
    assert build_header(night, BERLIN, "ana") == Header(
        year="2020",
        weekday="Tue",
        hour="night",
        platform="test",
        kind="dm",
        language="en",
        contact=pseudonym("test", "ana"),
    )
    assert build_header([line(1, kind="group")], BERLIN, "ana").contact is None


def test_the_language_is_the_owners() -> None:
    lines = [line(1, "what are you up to, my friend", sender="ana"), line(2, "没什么，在家呢")]
    assert build_header(lines, BERLIN, None).language == "zh"


def test_copies_of_a_message_are_found_by_time_and_id() -> None:
    first, second = message(1, at=0), message(2, at=0)
    later = message(1, at=5)
    found = [repeat for repeat, _, _ in mark_duplicates([(0, first), (0, second), (1, first), (1, later)])]
    assert found == [False, False, True, False]


def test_session_ids_are_stable_and_different() -> None:
    assert session_id(message(1)) == session_id(message(1, "edited", sent_at=message(1).sent_at + timedelta(days=1)))
    assert session_id(message(1)) != session_id(message(2))
    assert session_id(message(1)) != session_id(message(1, chat="other"))
