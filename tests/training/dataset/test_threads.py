"""Threads inside a channel: each is a conversation of its own, and no message is lost or doubled."""

import json
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.dataset.test_build import assert_accounted, build, build_messages, sessions_of
from tests.training.exports import write_folder, write_json
from tests.training.messages import line, message
from training.dataset.files import Session
from training.dataset.sessions import ThreadSplitter

START = 1_600_000_000
DAY = 24 * 60
USERS = [{"id": f"U{number}", "team_id": "T1", "name": name} for number, name in enumerate(("mara", "tom", "kim"), 1)]


def slack_record(minute: float, user: str, text: str, *, thread: float | None = None, **more: Any) -> dict[str, Any]:
    stamps = {} if thread is None else {"thread_ts": f"{START + thread * 60:.6f}"}
    return {"type": "message", "user": user, "text": text, "ts": f"{START + minute * 60:.6f}", **stamps, **more}


def workspace(folder: Path, *records: dict[str, Any]) -> Path:
    return write_folder(
        folder,
        {
            "users.json": json.dumps(USERS),
            "channels.json": json.dumps([{"id": "C1", "name": "general"}]),
            "general/2020-09-13.json": json.dumps(records),
        },
    )


def texts(session: Session) -> list[str]:
    return [bubble for turn in session.turns for bubble in turn.bubbles]


def conversations(root: Path) -> list[list[str]]:
    return sorted(map(texts, sessions_of(root)))


def test_threads_of_a_busy_channel_are_conversations_of_their_own(tmp_path: Path) -> None:
    workspace(
        tmp_path / "slack",
        slack_record(0, "U1", "who moved the plants?"),
        slack_record(1, "U2", "deploy at noon", thread=1, reply_count=4),
        slack_record(2, "U3", "I did, sorry"),
        slack_record(3, "U1", "which branch is it", thread=1),
        slack_record(4, "U3", "lunch list is here", thread=4, reply_count=2),
        slack_record(5, "U1", "they need the window"),
        slack_record(6, "U2", "the green one", thread=1),
        slack_record(7, "U1", "two soups for me", thread=4),
        slack_record(8, "U3", "will carry them back"),
        slack_record(9, "U2", "one salad", thread=4),
        slack_record(55, "U1", "noon went fine", thread=1),
        slack_record(61, "U2", "good to hear", thread=1),
    )
    report = build(tmp_path, "slack", persona={"me": ["mara"]})
    assert_accounted(report)
    assert (report.read, report.kept) == (12, 12)
    assert conversations(tmp_path) == [
        ["deploy at noon", "which branch is it", "the green one", "noon went fine", "good to hear"],
        ["lunch list is here", "two soups for me", "one salad"],
        ["who moved the plants?", "I did, sorry", "they need the window", "will carry them back"],
    ]


def test_a_reply_days_later_belongs_to_its_thread(tmp_path: Path) -> None:
    workspace(
        tmp_path / "slack",
        slack_record(0, "U2", "is the printer broken?", thread=0),
        slack_record(1, "U3", "yes since monday", thread=0),
        slack_record(2, "U2", "morning all"),
        slack_record(3, "U1", "morning"),
        slack_record(3 * DAY, "U3", "anybody for tea"),
        slack_record(3 * DAY + 1, "U1", "it prints again", thread=0),
        slack_record(3 * DAY + 2, "U1", "me please"),
    )
    report = build(tmp_path, "slack", persona={"me": ["mara"]})
    assert_accounted(report)
    assert conversations(tmp_path) == [
        ["anybody for tea", "me please"],
        ["is the printer broken?", "yes since monday", "it prints again"],
        ["morning all", "morning"],
    ]


def test_a_reply_also_sent_to_the_channel_is_there_once(tmp_path: Path) -> None:
    broadcast = slack_record(2, "U1", "found the key", thread=0, subtype="thread_broadcast", root={"user": "U2"})
    workspace(
        tmp_path / "slack",
        slack_record(0, "U2", "where is the key", thread=0),
        slack_record(1, "U3", "so what about friday"),
        broadcast,
        broadcast,
        slack_record(3, "U1", "friday is good"),
    )
    report = build(tmp_path, "slack", persona={"me": ["mara"]})
    assert_accounted(report)
    assert report.dropped == {"duplicate": 1}
    assert conversations(tmp_path) == [
        ["so what about friday", "friday is good"],
        ["where is the key", "found the key"],
    ]


def test_a_thread_whose_beginning_is_not_in_the_export(tmp_path: Path) -> None:
    workspace(
        tmp_path / "slack",
        slack_record(0, "U2", "so what about friday"),
        slack_record(1, "U3", "they found the key", thread=-DAY),
        slack_record(2, "U1", "friday is good"),
        slack_record(3, "U1", "where was it", thread=-DAY),
    )
    build(tmp_path, "slack", persona={"me": ["mara"]})
    assert conversations(tmp_path) == [
        ["so what about friday", "friday is good"],
        ["they found the key", "where was it"],
    ]


def test_a_thread_of_a_matrix_room(tmp_path: Path) -> None:
    def event(number: int, sender: str, body: str, relation: Any = None) -> dict[str, Any]:
        return {
            "type": "m.room.message",
            "sender": f"@{sender}:example.org",
            "content": {"msgtype": "m.text", "body": body, **({"m.relates_to": relation} if relation else {})},
            "origin_server_ts": (START + number * 60) * 1000,
            "event_id": f"${number}",
            "room_id": "!r:example.org",
        }

    def in_thread(last: int) -> dict[str, Any]:
        answered = {"event_id": f"${last}"}
        return {"rel_type": "m.thread", "event_id": "$1", "is_falling_back": True, "m.in_reply_to": answered}

    reaction = event(7, "mara", "", {"rel_type": "m.annotation", "event_id": "$4", "key": "👍"})
    content = {
        "room_name": "Kitchen",
        "exported_by": "Mara (@mara:example.org)",
        "messages": [
            event(1, "tom", "deploy at noon"),
            event(2, "kim", "who moved the plants?"),
            event(3, "mara", "which branch is it", in_thread(1)),
            event(4, "tom", "the green one", in_thread(3)),
            event(5, "mara", "it was me"),
            event(6, "kim", "they need the window"),
            {**reaction, "type": "m.reaction"},
        ],
    }
    write_json(tmp_path / "room.json", content)
    report = build(tmp_path, "room.json")
    assert_accounted(report)
    assert conversations(tmp_path) == [
        ["deploy at noon", "which branch is it", "the green one", "👍"],
        ["who moved the plants?", "it was me", "they need the window"],
    ]


def test_a_thread_of_a_google_chat_space(tmp_path: Path) -> None:
    mara, tom, kim = ({"name": name, "email": f"{name.lower()}@a.example"} for name in ("Mara", "Tom", "Kim"))

    def record(minute: int, creator: dict[str, str], text: str, topic: str, own: str = "") -> dict[str, Any]:
        return {
            "creator": {**creator, "user_type": "Human"},
            "created_date": f"Tuesday, March 3, 2020 at 4:{minute:02}:00 PM UTC",
            "text": text,
            "topic_id": topic,
            "message_id": f"AAAA/{topic}/{own or topic}",
        }

    records = [
        record(1, tom, "deploy at noon", "ta"),
        record(2, kim, "who moved the plants?", "tb"),
        record(3, mara, "which branch is it", "ta", "x1"),
        record(4, mara, "it was me", "tc"),
        record(5, tom, "the green one", "ta", "x2"),
        record(6, kim, "they need the window", "td"),
    ]
    write_folder(
        tmp_path / "takeout",
        {
            "Google Chat/Users/User 1/user_info.json": json.dumps({"user": mara}),
            "Google Chat/Groups/Space AAAA/group_info.json": json.dumps({"name": "Ops", "members": [mara, tom, kim]}),
            "Google Chat/Groups/Space AAAA/messages.json": json.dumps({"messages": records}),
        },
    )
    report = build(tmp_path, "takeout")
    assert_accounted(report)
    assert conversations(tmp_path) == [
        ["deploy at noon", "which branch is it", "the green one"],
        ["who moved the plants?", "it was me", "they need the window"],
    ]


def test_a_thread_of_a_reddit_chat(tmp_path: Path) -> None:
    columns = "message_id,created_at,updated_at,username,message,thread_parent_message_id,channel_url,subreddit"
    rows = [
        (1, "tom", "deploy at noon", "0"),
        (2, "kim", "who moved the plants?", "0"),
        (3, "mara", "which branch is it", "1"),
        (4, "mara", "it was me", ""),
        (5, "tom", "the green one", "1"),
    ]
    lines = [
        f"{number},2020-03-03 16:{number:02}:00 UTC,,{user},{text},{parent},room,"
        for number, user, text, parent in rows
    ]
    write_folder(
        tmp_path / "reddit",
        {
            "chat_history.csv": "\n".join((columns, *lines, "")),
            "account_gender.csv": "account_gender\n",
            "statistics.csv": "statistic,value\naccount name,mara\n",
        },
    )
    build(tmp_path, "reddit")
    assert conversations(tmp_path) == [
        ["deploy at noon", "which branch is it", "the green one"],
        ["who moved the plants?", "it was me"],
    ]


@pytest.mark.parametrize("processes", [1, 2])
def test_threads_in_large_archives_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    if processes == 2:
        monkeypatch.setattr("training.dataset.parallel_reader.LARGE_ARCHIVES", 1)
        monkeypatch.setattr("training.dataset.parallel_reader._core_count", lambda: 2)
    workspace(
        tmp_path / "slack",
        slack_record(0, "U2", "deploy at noon", thread=0),
        slack_record(1, "U3", "so what about friday"),
        slack_record(2, "U1", "which branch is it", thread=0),
        slack_record(3, "U1", "friday is good"),
    )
    build(tmp_path, "slack", persona={"me": ["mara"]})
    assert conversations(tmp_path) == [
        ["deploy at noon", "which branch is it"],
        ["so what about friday", "friday is good"],
    ]


def test_reactions_to_the_first_message_of_a_thread_stay_with_it(tmp_path: Path) -> None:
    messages = [
        message(1, "deploy at noon", sender="tom", is_owner=False),
        message(2, "so what about friday", sender="kim", is_owner=False),
        message(3, "🎉", reply_to="1", mark="reaction"),
        message(4, "friday is good"),
        message(5, "the green one", sender="tom", is_owner=False, reply_to="1", thread="1"),
    ]
    report = build_messages(tmp_path, messages)
    assert_accounted(report)
    assert conversations(tmp_path) == [
        ["deploy at noon", "🎉", "the green one"],
        ["so what about friday", "friday is good"],
    ]


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=30))
def test_every_message_is_in_the_chat_or_in_one_thread(places: list[tuple[int, bool]]) -> None:
    lines = [
        line(number, thread=str(place) if place < number and in_thread else None)
        for number, (place, in_thread) in enumerate(places)
    ]
    threads = ThreadSplitter({item.message.thread for item in lines if item.message.thread is not None})
    outside = [int(item.message.id) for item in threads.without_threads(enumerate(lines))]
    inside = [list(numbers) for numbers in threads.numbers()]
    assert sorted([*outside, *chain.from_iterable(inside)]) == list(range(len(lines)))
    for numbers in inside:
        assert numbers == sorted(numbers)
        assert len({lines[number].message.thread for number in numbers} - {None}) == 1
