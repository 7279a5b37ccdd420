"""Instagram's and Messenger's download."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.exports import read_all, write_json
from training.archives.meta.conversations import MetaReader, fix_mojibake


def spoiled(text: str) -> str:
    """As Meta writes it."""
    return text.encode().decode("latin-1")


def message_record(number: int, sender: str, text: str | None, **more: Any) -> dict[str, Any]:
    record = {"sender_name": spoiled(sender), "timestamp_ms": 1_600_000_000_000 + number * 1000, **more}
    return record if text is None else {**record, "content": spoiled(text)}


def conversation(*messages: Any, people: tuple[str, ...] = ("Tom", "Zoë")) -> dict[str, Any]:
    return {
        "participants": [{"name": spoiled(name)} for name in people],
        "messages": list(messages),
        "title": spoiled("Zoë"),
        "thread_path": "inbox/zoe_1",
    }


def test_parts_come_oldest_first_and_text_is_mended(tmp_path: Path) -> None:
    inbox = tmp_path / "your_instagram_activity" / "messages" / "inbox" / "zoe_1"
    write_json(
        inbox / "message_1.json", conversation(message_record(4, "Zoë", "tschüß 😀"), message_record(3, "Tom", "ok"))
    )
    write_json(inbox / "message_2.json", conversation(message_record(2, "Zoë", "你好"), message_record(1, "Tom", "hi")))
    messages, bad = read_all(tmp_path, [MetaReader()])
    assert bad == []
    assert [(message.sender, message.text) for message in messages] == [
        ("Tom", "hi"),
        ("Zoë", "你好"),
        ("Tom", "ok"),
        ("Zoë", "tschüß 😀"),
    ]
    assert messages[0].sent_at == datetime.fromtimestamp(1_600_000_001, UTC)
    assert {(message.kind, message.chat, message.chat_name) for message in messages} == {("dm", "inbox/zoe_1", "Zoë")}
    assert {message.platform for message in messages} == {"instagram"}


def test_downloads_of_2018_have_one_file_without_a_number(tmp_path: Path) -> None:
    write_json(tmp_path / "messages" / "inbox" / "x" / "message.json", conversation(message_record(1, "Tom", "hi")))
    messages, bad = read_all(tmp_path, [MetaReader()])
    assert ([message.text for message in messages], bad) == (["hi"], [])


def test_a_burst_within_a_millisecond_is_several_messages(tmp_path: Path) -> None:
    write_json(
        tmp_path / "inbox" / "x" / "message_1.json",
        conversation(message_record(1, "Tom", "b"), message_record(1, "Tom", "a")),
    )
    messages, _ = read_all(tmp_path, [MetaReader()])
    assert len({message.id for message in messages}) == 2
    assert {message.platform for message in messages} == {"messenger"}


def test_what_is_no_text_is_marked(tmp_path: Path) -> None:
    records = [
        message_record(5, "Tom", "Liked a message"),
        message_record(4, "Tom", None, photos=[{"uri": "x"}]),
        message_record(3, "Tom", None, sticker={"uri": "x"}),
        message_record(2, "Tom", "gone", is_unsent=True),
        message_record(1, "Tom", "Tom named the group.", type="Subscribe"),
    ]
    write_json(tmp_path / "inbox" / "x" / "message_1.json", conversation(*records, people=("Tom", "Zoë", "Kim")))
    messages, _ = read_all(tmp_path, [MetaReader()])
    assert [message.mark for message in messages] == ["service", "deleted", "sticker", "media", "service"]
    assert {message.kind for message in messages} == {"group"}


@pytest.mark.parametrize(
    ("mark", "text", "more"),
    [
        ("media", "Zoë hat einen Anhang gesendet.", {"share": {"link": "https://a.example"}}),
        ("media", "You sent a photo.", {}),
        ("service", "Zoë changed the group photo.", {}),
        ("service", "You missed a video call from Zoë.", {}),
        ("service", "Tom called Zoë.", {"call_duration": 30}),
        ("service", "You are now connected on Messenger.", {}),
        ("service", "Hat mit 😮 auf deine Nachricht reagiert ", {}),
    ],
)
def test_what_the_app_writes_in_a_persons_name_is_not_theirs(
    tmp_path: Path, mark: str, text: str, more: dict[str, Any]
) -> None:
    inbox = tmp_path / "inbox" / "x"
    write_json(
        inbox / "message_1.json", conversation(message_record(1, "Zoë", text, **more), people=("Tom Berg", "Zoë"))
    )
    messages, _ = read_all(tmp_path, [MetaReader()])
    assert [(message.mark, message.text) for message in messages] == [(mark, "" if mark == "media" else text)]


@pytest.mark.parametrize(
    "text",
    ["You called me a liar.", "You turned off the light.", "Anna sent a photo.", "haha", "Tom sent a photo?"],
)
def test_what_people_say_of_each_other_stays_theirs(tmp_path: Path, text: str) -> None:
    shared = message_record(1, "Zoë", text, share={"link": "https://a.example/story"})
    write_json(tmp_path / "inbox" / "x" / "message_1.json", conversation(shared, people=("Tom Berg", "Zoë")))
    messages, _ = read_all(tmp_path, [MetaReader()])
    assert [message.text for message in messages] == [text]


def test_the_encrypted_form_is_clean_already(tmp_path: Path) -> None:
    record = {"senderName": "Zoë", "text": "schön Ã¤", "timestamp": 1_600_000_000_000, "isUnsent": False, "media": []}
    content = {"participants": ["Tom", "Zoë"], "threadName": "Zoë_7", "messages": [record]}
    messages, bad = read_all(write_json(tmp_path / "Zoe_7.json", content), [MetaReader()])
    assert bad == []
    assert [(message.sender, message.text, message.mark) for message in messages] == [("Zoë", "schön Ã¤", "")]


def test_the_encrypted_form_may_begin_with_the_oldest(tmp_path: Path) -> None:
    common = {"senderName": "Zoë", "isUnsent": False, "media": []}
    records = [{**common, "text": str(n), "timestamp": 1_600_000_000_000 + n, "type": "text"} for n in range(3)]
    records.append({**common, "text": "Missed call", "timestamp": 1_600_000_000_009, "type": "call"})
    content = {"participants": ["Tom", "Zoë"], "threadName": "Zoë_7", "messages": records}
    messages, _ = read_all(write_json(tmp_path / "Zoe_7.json", content), [MetaReader()])
    assert [(message.text, message.mark) for message in messages] == [
        ("0", ""),
        ("1", ""),
        ("2", ""),
        ("Missed call", "service"),
    ]


def test_a_record_without_a_time_is_counted(tmp_path: Path) -> None:
    write_json(
        tmp_path / "inbox" / "x" / "message_1.json",
        conversation({"sender_name": "Tom"}, message_record(1, "Tom", "hi")),
    )
    messages, bad = read_all(tmp_path, [MetaReader()])
    assert [message.text for message in messages] == ["hi"]
    assert [record.position for record in bad] == ["record 1"]


@given(st.text())
def test_mending_undoes_the_damage_and_leaves_other_text(text: str) -> None:
    if text.isascii():
        assert fix_mojibake(text) == text
    else:
        try:
            whole = spoiled(text)
        except UnicodeEncodeError:  # half of a surrogate pair
            return
        assert fix_mojibake(whole) == text


@pytest.mark.parametrize("text", ["schön", "你好"])
def test_sound_text_stays(text: str) -> None:
    assert fix_mojibake(text) == text


def test_reactions_are_mended_and_follow_their_message(tmp_path: Path) -> None:
    reactions = [{"reaction": spoiled("❤"), "actor": spoiled("Zoë")}, {"reaction": spoiled("😂"), "actor": "Tom"}]
    inbox = tmp_path / "messages" / "inbox" / "zoe_1"
    write_json(
        inbox / "message_1.json",
        conversation(message_record(2, "Tom", "b"), message_record(1, "Tom", "a", reactions=reactions)),
    )
    messages, bad = read_all(tmp_path, [MetaReader()])
    assert bad == []
    assert [(message.sender, message.text, message.mark) for message in messages] == [
        ("Tom", "a", ""),
        ("Zoë", "❤", "reaction"),
        ("Tom", "b", ""),
    ]
