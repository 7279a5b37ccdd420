"""Conversations of which only the owner's side is known: posts, counted, and no example of how to begin one."""

from pathlib import Path
from typing import Any

import pytest

from tests.training.dataset.test_build import assert_accounted, build, build_messages, sessions_of
from tests.training.exports import (
    telegram_account,
    telegram_chat,
    telegram_message,
    tweet,
    twitter_files,
    write_folder,
    write_json,
)
from tests.training.messages import message
from training.archives.message import Message
from training.dataset.one_sided import MIN_MONOLOGUE

DAY = 24 * 60


def own(number: int, **more: Any) -> Message:
    """A message of an export with the owner's words only."""
    return message(number, f"my words, number {number}", is_one_sided=True, **more)


def kinds(root: Path) -> list[str | None]:
    return [session.kind for session in sessions_of(root)]


def test_words_without_the_other_side_become_posts_of_one_message(tmp_path: Path) -> None:
    report = build_messages(tmp_path, [own(number) for number in range(1, 41)])
    assert_accounted(report)
    assert report.one_sided == report.kept == 40
    (source,) = report.sources.values()
    assert (source.one_sided, source.chats[0].one_sided) == (40, 40)
    assert report.summary()["one_sided"] == 40
    assert kinds(tmp_path) == ["post"] * 40
    # Without its kind, such a message would read as the beginning of a conversation.
    assert {session.header.kind for session in sessions_of(tmp_path)} == {"post"}
    assert {len(turn.bubbles) for session in sessions_of(tmp_path) for turn in session.turns} == {1}
    assert {session.header.contact for session in sessions_of(tmp_path)} == {None}


def test_another_export_that_has_the_other_side_makes_it_a_conversation(tmp_path: Path) -> None:
    both = [
        message(1, "my words, number 1", at=0),
        message(2, "yes?", at=1, sender="ana", sender_name="Ana"),
        message(3, "my words, number 3", at=2),
        message(4, "my words, number 4", at=2 * DAY),
        message(5, "hm", at=3 * DAY, sender="ana", sender_name="Ana"),
        message(6, "so", at=3 * DAY + 1),
    ]
    package = [own(1, at=0), own(3, at=2), own(4, at=2 * DAY), own(6, at=3 * DAY + 1)]
    report = build_messages(tmp_path, package, both)
    assert_accounted(report)
    assert report.one_sided == 0
    assert set(kinds(tmp_path)) == {"dm"}
    # What nobody answered within the time of the other export was answered by nobody.
    assert len(kinds(tmp_path)) == 3


def test_what_the_other_export_does_not_cover_stays_one_sided(tmp_path: Path) -> None:
    both = [message(11, "hi", at=10 * DAY, sender="ana", sender_name="Ana"), message(12, "hello you", at=10 * DAY + 1)]
    report = build_messages(tmp_path, [own(1, at=0), own(2, at=1), own(3, at=20 * DAY)], both)
    assert report.one_sided == 3
    assert sorted(map(str, kinds(tmp_path))) == ["dm", "post", "post", "post"]


def test_an_archive_with_only_ones_own_words_in_several_chats(tmp_path: Path) -> None:
    channels = [message(number, f"word {number}", kind="group", chat=f"c{number % 2}") for number in range(6)]
    report = build_messages(tmp_path, channels)
    assert report.one_sided == 6
    assert set(kinds(tmp_path)) == {"post"}


def test_a_chat_that_somebody_else_wrote_in_is_a_conversation_also_if_nothing_of_it_is_kept(tmp_path: Path) -> None:
    messages = [message(number, f"word {number}") for number in range(2 * MIN_MONOLOGUE)]
    picture = message(99, "", sender="ana", sender_name="Ana", mark="media")
    assert build_messages(tmp_path, [*messages, picture]).one_sided == 0


@pytest.mark.parametrize(("count", "one_sided"), [(2, 0), (MIN_MONOLOGUE, MIN_MONOLOGUE)])
def test_a_long_monologue_is_notes_to_oneself_and_a_short_one_an_opening(
    tmp_path: Path, count: int, one_sided: int
) -> None:
    report = build_messages(tmp_path, [message(number, f"word {number}", at=number * DAY) for number in range(count)])
    assert report.one_sided == one_sided


def test_replies_without_what_they_answer_keep_their_kind_and_are_counted(tmp_path: Path) -> None:
    posts = [
        message(1, "a post of mine", kind="post", at=0),
        message(2, "and more", kind="reply", reply_to="1", at=1),
        *(message(n, f"reply {n}", kind="reply", reply_to=f"away{n}", at=n * DAY) for n in range(10, 50)),
        message(60, "so true", kind="quote", reply_to="gone", at=60 * DAY),
    ]
    report = build_messages(tmp_path, posts)
    assert_accounted(report)
    assert report.one_sided == 41
    alone = [session for session in sessions_of(tmp_path) if session.kind != "post"]
    assert {session.header.kind for session in alone} == {"reply", "quote"}
    assert all(session.header.kind == session.kind for session in alone)


def test_saved_messages(tmp_path: Path) -> None:
    saved = telegram_chat(
        [telegram_message(1, 1001, "milk and bread"), telegram_message(2, 1001, "call the dentist")],
        id=1001,
        type="saved_messages",
    )
    chat = telegram_chat([telegram_message(1, 2002, "hi"), telegram_message(2, 1001, "hello there")])
    write_json(tmp_path / "result.json", telegram_account(saved, chat))
    report = build(tmp_path, "result.json")
    assert report.one_sided == 2
    assert sorted(map(str, kinds(tmp_path))) == ["dm", "post", "post"]


def test_a_tweet_to_somebody_is_no_opening(tmp_path: Path) -> None:
    tweets = [tweet(1, "@tom good morning"), tweet(2, ".@ana says it best"), tweet(3, "tea. tea with @tom")]
    write_folder(tmp_path / "archive", twitter_files(tweets=tweets))
    build(tmp_path, "archive")
    openings = {session.turns[0].bubbles[0]: session.header.kind for session in sessions_of(tmp_path)}
    assert openings.pop("tea. tea with @tom") in ("post", None)
    assert openings == {"@tom good morning": "reply", ".@ana says it best": "reply"}
