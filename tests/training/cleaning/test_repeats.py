"""Which of the owner's messages repeat others: what is pasted, what is said too often, and what is left alone."""

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doppel.config import CleaningSettings
from tests.training.dataset.test_build import assert_accounted, build_messages, sessions_of
from tests.training.messages import message
from training.archives.message import Message
from training.cleaning.repeats import MIN_REPEAT_CAP, RepeatDetector

LONG = "please remember to bring your own cup to the meeting on friday at noon in the big room upstairs"


def verdicts(messages: Sequence[Message], **rules: Any) -> list[str | None]:
    """What becomes of each message; the owner is `me`."""
    repeats = RepeatDetector(CleaningSettings(**rules))
    for sent in messages:
        repeats.add(sent)
    repeats.resolve(lambda _, account, verdict: account == "me" if verdict is None else verdict)
    return [repeats.reason_for(message) if message.sender == "me" else None for message in messages]


def test_a_pasted_text_stays_once() -> None:
    messages = [message(1, LONG), message(2, LONG), message(3, LONG.upper() + "!"), message(4, "something else")]
    assert verdicts(messages) == [None, "near-duplicate", "near-duplicate", None]
    assert verdicts(messages, near_duplicates=False) == [None] * 4


def test_the_earliest_stays_whatever_the_order_of_reading() -> None:
    assert verdicts([message(2, LONG), message(1, LONG)]) == ["near-duplicate", None]


def test_what_others_write_is_nobodys_repeat() -> None:
    others = [message(number, LONG, sender="ana") for number in range(3)]
    assert verdicts([*others, message(9, LONG)]) == [None] * 4


def test_whose_it_is_may_be_known_only_at_the_end() -> None:
    rows = [message(number, LONG, sender=("me", "ana")[number % 2], is_owner=None) for number in range(4)]
    assert verdicts(rows) == [None, None, "near-duplicate", None]


def test_accounts_of_the_owner_on_several_platforms_are_one_writer() -> None:
    assert verdicts([message(1, LONG), message(1, LONG, platform="other", at=5)]) == [None, "near-duplicate"]


def test_short_words_may_be_said_so_often() -> None:
    rows = [message(number, "ok" if number % 2 else "OK") for number in range(MIN_REPEAT_CAP + 10)]
    assert verdicts(rows) == [None] * MIN_REPEAT_CAP + ["repeat"] * 10


def test_the_cap_grows_with_the_archive() -> None:
    rows = [message(number, "ok" if number < 150 else f"number {number}") for number in range(1000)]
    assert Counter(verdicts(rows, max_repeat_share=0.1)) == {None: 950, "repeat": 50}
    assert Counter(verdicts(rows, max_repeat_share=0.01)) == {None: 900, "repeat": 100}
    assert Counter(verdicts(rows, max_repeat_share=1.0)) == {None: 1000}


def test_exports_that_overlap_count_once() -> None:
    rows = [message(number, "ok") for number in range(MIN_REPEAT_CAP)]
    assert verdicts([*rows, *rows]) == [None] * (2 * MIN_REPEAT_CAP)
    assert verdicts([message(1, LONG), message(1, LONG)]) == [None, None]


def test_nothing_of_the_owners() -> None:
    assert verdicts([]) == []
    assert verdicts([message(1, LONG, sender="ana")]) == [None]


ROWS = st.lists(
    st.tuples(st.sampled_from(["ok", "no", LONG, LONG + " today", "", "哈哈"]), st.integers(0, 40), st.booleans()),
    max_size=60,
)


@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_of_reading_does_not_matter_and_something_always_stays(
    rows: list[tuple[str, int, bool]], dice: random.Random
) -> None:
    messages = [
        message(number, text, at=at + number / 1000, sender="me" if is_mine else "ana")
        for number, (text, at, is_mine) in enumerate(rows)
    ]
    found = {message.id: verdict for message, verdict in zip(messages, verdicts(messages), strict=True)}
    shuffled = messages[:]
    dice.shuffle(shuffled)
    assert {message.id: verdict for message, verdict in zip(shuffled, verdicts(shuffled), strict=True)} == found
    mine = {message.text for message in messages if message.is_owner}
    assert {
        message.text.removesuffix(" today") for message in messages if message.is_owner and found[message.id] is None
    } == {text.removesuffix(" today") for text in mine}


# In a build ----------------------------------------------------------------------------------------------------------


def own_bubbles(root: Path) -> list[str]:
    return [
        bubble for session in sessions_of(root) for turn in session.turns if turn.is_mine for bubble in turn.bubbles
    ]


def test_an_announcement_is_learned_once(tmp_path: Path) -> None:
    day = 24 * 60
    rows = [message(number, LONG, chat=f"chat {number}", at=number * day) for number in range(5)]
    rows += [
        message(10 + number, "and you?", sender="ana", chat=f"chat {number}", at=number * day - 1) for number in (0, 1)
    ]
    report = build_messages(tmp_path, rows)
    assert_accounted(report)
    assert report.dropped == {"near-duplicate": 4, "no turn of yours": 1}
    assert own_bubbles(tmp_path) == [LONG]
    assert report.owner.kept == 1


def test_what_answers_a_question_is_not_cut_from_it(tmp_path: Path) -> None:
    day = 24 * 60
    rows = [message(number, "ok", at=number * day) for number in range(MIN_REPEAT_CAP)]
    rows += [
        message(1000, "coming tonight?", sender="ana", at=100 * day),
        message(1001, "ok", at=100 * day + 1),
        message(1002, "bring the map", sender="ana", at=100 * day + 2),
        message(1003, "it is packed already", at=100 * day + 3),
        message(1004, "great", sender="ana", at=100 * day + 4),
        message(1005, "ok", at=100 * day + 5),
    ]
    report = build_messages(tmp_path, rows)
    assert_accounted(report)
    assert report.dropped == {"repeat": 2, "no turn of yours": 1}
    last = sessions_of(tmp_path)[-1]
    assert [turn.bubbles[0] for turn in last.turns] == ["bring the map", "it is packed already", "great"]


@pytest.mark.parametrize("cleaning", [{}, {"near_duplicates": False}, {"max_repeat_share": 1.0}])
def test_every_message_is_accounted_for(tmp_path: Path, cleaning: dict[str, Any]) -> None:
    dice = random.Random(1)
    rows = [
        message(
            number,
            dice.choice(["ok", "ok", "haha", LONG, f"{LONG} {number}", f"number {number}"]),
            sender=dice.choice(["me", "me", "ana", "tom"]),
            chat=dice.choice("abc"),
            kind="group",
            at=number * dice.choice([1, 50]),
        )
        for number in range(600)
    ]
    report = build_messages(tmp_path, rows[:400], rows[200:], cleaning=cleaning)
    assert_accounted(report)
    assert report.read == 800
    assert report.kept == sum(len(turn.bubbles) for session in sessions_of(tmp_path) for turn in session.turns)
    assert report.dropped["duplicate"] == 200
