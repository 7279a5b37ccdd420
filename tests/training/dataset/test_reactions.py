"""Which reactions become words of the owner's, and that every other one is accounted for."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from doppel.adapters.habits import read_habits
from doppel.transcript.stickers import is_emoji
from tests.training.dataset.test_build import assert_accounted, build, build_messages, sessions_of
from tests.training.exports import telegram_account, telegram_chat, telegram_message, write_json
from tests.training.messages import line, message
from training.archives.formats.reactions import reactions_to
from training.archives.message import Message
from training.dataset.trimming import separate_reactions


def reaction(number: int, to: int, sender: str = "me", text: str = "👍", **more: Any) -> Message:
    return message(number, text, at=to, sender=sender, reply_to=str(to), mark="reaction", **more)


def session_texts(root: Path) -> list[list[tuple[bool, str]]]:
    return [[(turn.is_mine, text) for turn in session.turns for text in turn.bubbles] for session in sessions_of(root)]


def test_the_owners_reaction_is_their_answer_where_they_say_nothing_else(tmp_path: Path) -> None:
    report = build_messages(
        tmp_path,
        [
            message(1, "shall we?", sender="ana"),
            reaction(101, 1),
            message(2, "at eight", sender="ana"),
            reaction(102, 2),
            message(3, "fine", sender="me"),
            reaction(103, 3, "ana"),
            message(4, "good", sender="ana"),
            reaction(104, 4, text="❤"),
        ],
    )
    assert_accounted(report)
    assert report.dropped == {"reaction": 2}
    assert session_texts(tmp_path) == [
        [(False, "shall we?"), (True, "👍"), (False, "at eight"), (True, "fine"), (False, "good"), (True, "❤")]
    ]


def test_words_much_later_leave_the_reaction_its_place(tmp_path: Path) -> None:
    report = build_messages(
        tmp_path, [message(1, "done", sender="ana"), reaction(101, 1), message(2, "morning", at=900, sender="me")]
    )
    assert_accounted(report)
    assert session_texts(tmp_path) == [[(False, "done"), (True, "👍")], [(True, "morning")]]


def test_a_reaction_to_what_is_not_there_says_nothing(tmp_path: Path) -> None:
    report = build_messages(
        tmp_path,
        [
            message(1, "hi", sender="ana"),
            message(2, "https://a.example/x", sender="ana"),
            reaction(102, 2),
            message(3, "seen it", sender="me"),
        ],
    )
    assert_accounted(report)
    assert report.dropped == {"link-only": 1, "reaction": 1}
    assert session_texts(tmp_path) == [[(False, "hi"), (True, "seen it")]]


def test_whose_a_reaction_is_may_be_known_only_at_the_end(tmp_path: Path) -> None:
    unknown: dict[str, Any] = {"is_owner": None}
    archive = [
        message(1, "shall we?", sender="ana", sender_name="Ana", **unknown),
        reaction(101, 1, **unknown),
        reaction(102, 1, "bo", sender_name="Bo", **unknown),
        message(2, "yes", sender="bo", sender_name="Bo", **unknown),
    ]
    report = build_messages(tmp_path, archive, persona={"me": ["me"]})
    assert_accounted(report)
    assert report.dropped == {"reaction": 1}
    assert session_texts(tmp_path) == [[(False, "shall we?"), (True, "👍"), (False, "yes")]]


def test_exports_that_overlap_have_a_reaction_once(tmp_path: Path) -> None:
    archive = [message(1, "shall we?", sender="ana"), reaction(101, 1), message(2, "ok", sender="ana")]
    report = build_messages(tmp_path, archive, archive)
    assert_accounted(report)
    assert report.dropped == {"duplicate": 3}


def test_the_rhythm_does_not_count_reactions(tmp_path: Path) -> None:
    words = [message(n, f"text {n}", sender="me" if n % 2 else "ana", at=n * 1.37) for n in range(40)]
    build_messages(tmp_path, words)
    before = read_habits(tmp_path / "data" / "sample")
    answered = msgspec.structs.replace(reaction(91, 60), reply_to="90")
    with_reactions = [*words, message(90, "fine?", sender="ana", at=60), answered]
    build_messages(tmp_path, with_reactions)
    assert session_texts(tmp_path)[-1][-1] == (True, "👍")
    assert read_habits(tmp_path / "data" / "sample") == before


def test_from_an_export_to_a_session(tmp_path: Path) -> None:
    recent = [{"from": "Mara Lind", "from_id": "user1001", "date": "2017-07-15T04:40:00"}]
    asked = telegram_message(2, 2002, "tea at five?", reactions=[{"type": "emoji", "emoji": "👍", "recent": recent}])
    sticker = telegram_message(3, 2002, "", media_type="sticker", sticker_emoji="😀", file="x")
    chat = telegram_chat([telegram_message(1, 1001, "hello"), asked, sticker])
    write_json(tmp_path / "result.json", telegram_account(chat))
    assert_accounted(build(tmp_path, "result.json"))
    assert session_texts(tmp_path) == [[(True, "hello"), (False, "tea at five?"), (True, "👍"), (False, "😀")]]


def test_nobody_reacts_twice_or_to_themselves() -> None:
    one = message(1, "a", sender="ana")
    found = list(
        reactions_to(one, [("ana", "Ana", "❤"), ("bo", "", "👍"), ("bo", "Bo", "❤"), ("", "x", "❤"), ("cy", "Cy", "")])
    )
    assert [(m.sender, m.sender_name, m.text, m.is_owner, m.reply_to) for m in found] == [("bo", "bo", "👍", None, "1")]
    assert not list(reactions_to(message(1, "a", kind="post"), [("bo", "Bo", "👍")]))
    assert not list(reactions_to(message(1, "a", mark="deleted"), [("bo", "Bo", "👍")]))


@pytest.mark.parametrize(
    ("text", "shows"),
    [
        ("😀", True),
        ("❤️", True),
        ("👩‍👧", True),
        ("wave", False),
        (":)", False),
        ("", False),
        (None, False),
        ("好", False),
    ],
)
def test_what_a_sticker_shows(text: Any, shows: bool) -> None:
    assert is_emoji(text) is shows


@given(st.lists(st.tuples(st.sampled_from(["me", "ana", "bo"]), st.booleans(), st.integers(0, 6))))
def test_no_line_is_lost_and_none_that_is_words_goes(parts: list[tuple[str, bool, int]]) -> None:
    lines = [
        line(n, "x", sender=who, **({"mark": "reaction", "reply_to": str(to)} if reacts else {}))
        for n, (who, reacts, to) in enumerate(parts)
    ]
    kept, needless = separate_reactions(lines)
    assert sorted([*kept, *needless], key=lambda one: int(one.message.id)) == lines
    assert all(line.message.mark == "reaction" for line in needless)
    assert all(line.is_mine for line in kept if line.message.mark == "reaction")
