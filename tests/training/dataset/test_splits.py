"""Splits by time and whole session, and what must not leak into the test."""

from hypothesis import given
from hypothesis import strategies as st

from doppel.transcript import Turn
from training.dataset.splits import SessionSummary, content_digest, leaking_sessions, split_by_time


def summary(number: int, mine: int = 1, same: bytes = b"") -> SessionSummary:
    return SessionSummary(
        ended_at=float(number), id=f"{number:04}", own_messages=mine, content_digest=same, position=0, length=0
    )


def test_the_last_tenth_is_the_test_and_what_is_before_it_validation() -> None:
    splits = [split for split, _ in split_by_time(summary(number) for number in range(100))]
    assert splits == ["train"] * 85 + ["validation"] * 5 + ["test"] * 10


def test_shares_count_the_owners_messages_not_sessions() -> None:
    sessions = [summary(number, mine=1) for number in range(90)] + [summary(99, mine=10)]
    assert [split for split, _ in split_by_time(sessions)].count("test") == 1


def test_few_sessions() -> None:
    assert [split for split, _ in split_by_time([])] == []
    assert [split for split, _ in split_by_time([summary(1)])] == ["train"]
    assert [split for split, _ in split_by_time([summary(2), summary(1)])] == ["train", "train"]


def test_a_long_session_at_the_end_stays_in_training() -> None:
    """It would take most of what there is to learn from."""
    sessions = [*(summary(number) for number in range(100)), summary(100, mine=1005)]
    assert {split for split, _ in split_by_time(sessions)} == {"train"}


@given(st.lists(st.integers(1, 60), min_size=1, max_size=60))
def test_each_split_is_as_near_to_its_share_as_whole_sessions_allow(sizes: list[int]) -> None:
    splits = split_by_time(summary(number, mine) for number, mine in enumerate(sizes))
    total = sum(sizes)
    test = sum(session.own_messages for split, session in splits if split == "test")
    held_out = sum(session.own_messages for split, session in splits if split != "train")
    assert held_out <= 0.2 * total
    before = [session.own_messages for split, session in splits if split != "test"]
    if test and len(before) > 1:
        nearest_test = next(session.own_messages for split, session in splits if split == "test")
        assert abs(test - 0.1 * total) <= abs(test - nearest_test - 0.1 * total) + 1e-9
        further = test + before[-1]
        assert further > 0.2 * total or abs(test - 0.1 * total) <= abs(further - 0.1 * total) + 1e-9


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 30)), unique_by=lambda one: one[0], min_size=1))
def test_nothing_in_training_is_later_than_what_is_held_out(sessions: list[tuple[int, int]]) -> None:
    splits = split_by_time(summary(number, mine) for number, mine in sessions)
    order = {"train": 0, "validation": 1, "test": 2}
    assert [order[split] for split, _ in splits] == sorted(order[split] for split, _ in splits)
    assert [session.ended_at for _, session in splits] == sorted(session.ended_at for _, session in splits)
    assert splits[0][0] == "train"


def test_sessions_that_say_the_same_as_the_test_leave_training() -> None:
    splits = split_by_time([summary(1, 8, b"a"), summary(2, 8, b"b"), summary(3, 8), summary(4, 2, b"a")])
    assert leaking_sessions(splits) == {"0001"}


def test_likeness_is_about_words_and_who_says_them() -> None:
    text = "this is the very same thing that I always say"
    one = content_digest([Turn("me", (text,))])
    assert one
    assert one == content_digest([Turn("me", (text.upper(), "!!"))])
    assert one != content_digest([Turn("Bo", (text,))])
    assert content_digest([Turn("Bo", (text,))]) == content_digest([Turn("Da", (text,))])
    assert content_digest([Turn("me", ("今天天气真好我们出去玩吧",))])


def test_short_repeats_are_style_and_stay() -> None:
    assert content_digest([Turn("me", ("lol",))]) == b""
    assert content_digest([Turn("me", ("哈哈哈哈",))]) == b""
