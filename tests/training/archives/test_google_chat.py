"""Google Takeout: Chat and Hangouts."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.training.exports import ZONE, read_all, write_folder, write_json
from training.archives.google_chat import GoogleChatReader, parse_time
from training.archives.source_tree import SourceTree, open_folder

MARA, TOM = {"name": "Mara", "email": "mara@a.example", "user_type": "Human"}, {"name": "Tom", "user_type": "Human"}


def message_record(number: int, creator: dict[str, str], text: str, **more: Any) -> dict[str, Any]:
    return {
        "creator": creator,
        "created_date": f"Tuesday, March 3, 2020 at 4:05:{number:02}\u202fPM UTC",
        "text": text,
        "topic_id": "t",
        "message_id": f"m{number}",
        **more,
    }


def takeout(*records: Any) -> dict[str, str]:
    folder = "Takeout/Google Chat/"
    return {
        f"{folder}Users/User 1/user_info.json": json.dumps({"user": MARA}),
        f"{folder}Groups/DM abc/group_info.json": json.dumps({"members": [MARA, TOM]}),
        f"{folder}Groups/DM abc/messages.json": json.dumps({"messages": list(records)}),
    }


def test_chat(tmp_path: Path) -> None:
    quoted = {"quoted_message_metadata": {"quoted_message_id": {"message_id": "m1"}}}
    files = takeout(
        message_record(1, MARA, "hi"),
        message_record(2, TOM, "yes", **quoted),
        message_record(3, TOM, "", attached_files=[{"original_name": "x"}]),
        message_record(4, TOM, "gone", message_state="DELETED"),
        {"creator": MARA, "created_date": "someday", "text": "x"},
    )
    messages, bad = read_all(write_folder(tmp_path / "t", files), [GoogleChatReader()])
    assert [record.position for record in bad] == ["record 5"]
    assert [(message.sender_name, message.text, message.is_owner, message.mark) for message in messages] == [
        ("Mara", "hi", True, ""),
        ("Tom", "yes", False, ""),
        ("Tom", "", False, "media"),
        ("Tom", "gone", False, "deleted"),
    ]
    assert messages[1].reply_to == "m1"
    assert messages[0].sent_at == datetime(2020, 3, 3, 16, 5, 1, tzinfo=UTC)
    assert {message.kind for message in messages} == {"dm"}


@pytest.mark.parametrize(
    "text",
    [
        "Tuesday, March 3, 2020 at 4:05:06 PM UTC",
        "Dienstag, 3. März 2020 um 16:05:06 UTC",
        "mardi 3 mars 2020 à 16:05:06 UTC",
        "martes, 3 de marzo de 2020, 16:05:06 UTC",
        "2020年3月3日星期二 UTC 下午4:05:06",
        "2020年3月3日火曜日 16:05:06 UTC",
        "2020年3月3日 星期二 下午4:05:06 [UTC]",
        "2020년 3월 3일 화요일 오후 4시 5분 6초 UTC",
        "вторник, 3 марта 2020 г. в 16:05:06 UTC",
        "wtorek, 3 marca 2020 16:05:06 UTC",
        "3 Mart 2020 Salı 16:05:06 UTC",
        "terça-feira, 3 de março de 2020 às 16:05:06 UTC",
        "Thứ Ba, 3 tháng 3, 2020 lúc 16:05:06 UTC",
    ],
)
def test_times_in_many_languages(text: str) -> None:
    assert parse_time(text) == datetime(2020, 3, 3, 16, 5, 6, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "month"),
    [
        ("суббота, 3 октября 2020 г. в 16:05:06 UTC", 10),
        ("субота, 3 жовтня 2020 р. о 16:05:06 UTC", 10),
        ("sobota, 3 października 2020 16:05:06 UTC", 10),
        ("středa 3. června 2020 v 16:05:06 UTC", 6),
        ("pátek 3. července 2020 v 16:05:06 UTC", 7),
        ("Sabtu, 3 Oktober 2020 pukul 16.05.06 UTC", 10),
        ("maanantai 3. elokuuta 2020 klo 16.05.06 UTC", 8),
        ("Thứ Bảy, 3 tháng 10, 2020 lúc 16:05:06 UTC", 10),
    ],
)
def test_months_in_many_languages(text: str, month: int) -> None:
    assert parse_time(text) == datetime(2020, month, 3, 16, 5, 6, tzinfo=UTC)


def test_what_is_no_time_is_refused() -> None:
    for text in ("", "4:05", "March 3, 2020"):
        with pytest.raises(ValueError, match="not a time"):
            parse_time(text)


def hangout(*events: Any) -> dict[str, Any]:
    about = {
        "id": {"id": "c1"},
        "type": "STICKY_ONE_TO_ONE",
        "self_conversation_state": {"self_read_state": {"participant_id": {"gaia_id": "1"}}},
        "participant_data": [
            {"id": {"gaia_id": "1"}, "fallback_name": "Mara"},
            {"id": {"gaia_id": "2"}, "fallback_name": "Tom"},
        ],
    }
    return {"conversation": {"conversation_id": {"id": "c1"}, "conversation": about}, "events": list(events)}


def test_hangouts(tmp_path: Path) -> None:
    segments = [{"type": "TEXT", "text": "hi"}, {"type": "LINE_BREAK"}, {"type": "LINK", "text": "a.example"}]
    spoken = {
        "sender_id": {"gaia_id": "1"},
        "timestamp": "1600000000123456",
        "chat_message": {"message_content": {"segment": segments}},
        "event_id": "e1",
    }
    called = {"sender_id": {"gaia_id": "2"}, "timestamp": "1600000001000000", "event_id": "e2", "hangout_event": {}}
    path = write_json(tmp_path / "Hangouts.json", {"conversations": [hangout(spoken, called, {"event_id": "e3"})]})
    messages, bad = read_all(path, [GoogleChatReader()])
    assert [(message.text, message.is_owner, message.mark, message.kind) for message in messages] == [
        ("hi\na.example", True, "", "dm"),
        ("", False, "service", "dm"),
    ]
    assert len(bad) == 1
    assert messages[0].chat_name == "Tom"


def test_hangouts_of_old(tmp_path: Path) -> None:
    inner = hangout()["conversation"]["conversation"]
    spoken = {
        "sender_id": {"gaia_id": "2"},
        "timestamp": "1500000000000000",
        "chat_message": {"message_content": {"segment": [{"type": "TEXT", "text": "old"}]}},
        "event_id": "e1",
    }
    state = {"conversation_id": {"id": "c1"}, "conversation": inner, "event": [spoken]}
    content = {"continuation_end_timestamp": "0", "conversation_state": [{"conversation_state": state}]}
    messages, bad = read_all(write_json(tmp_path / "Hangouts.json", content), [GoogleChatReader()])
    assert bad == []
    assert [(message.text, message.chat, message.is_owner) for message in messages] == [("old", "c1", False)]


def test_reactions_say_who_reacted(tmp_path: Path) -> None:
    reactions = [
        {"emoji": {"unicode": "👍"}, "reactor_emails": ["mara@a.example"]},
        {"emoji": {}, "reactor_emails": ["x"]},
    ]
    messages, bad = read_all(
        write_folder(tmp_path / "t", takeout(message_record(1, TOM, "hi", reactions=reactions))), [GoogleChatReader()]
    )
    assert bad == []
    assert [(message.text, message.is_owner, message.mark, message.reply_to) for message in messages] == [
        ("hi", False, "", None),
        ("👍", True, "reaction", "m1"),
    ]


def test_instruction_data_that_begins_alike_is_left_to_others(tmp_path: Path) -> None:
    path = write_json(tmp_path / "data.jsonl", {"conversations": [{"from": "human", "value": "q"}]})
    assert not GoogleChatReader().sniff(SourceTree(open_folder(path), path.name, path.name, ZONE))


def test_a_first_message_that_was_deleted(tmp_path: Path) -> None:
    deleted = {
        "message_state": "DELETED",
        "deleted_date": "Tuesday, March 3, 2020 at 3:44:40 PM UTC",
        "topic_id": "t9",
        "deletion_metadata": {"deletion_type": "CREATOR"},
        "message_id": "m0",
    }
    path = write_folder(tmp_path / "t", takeout(deleted, message_record(1, MARA, "hi")))
    messages, bad = read_all(path, [GoogleChatReader()])
    assert bad == []
    assert [(message.id, message.mark, message.is_owner) for message in messages] == [
        ("m0", "deleted", False),
        ("m1", "", True),
    ]
    assert messages[0].sent_at == datetime(2020, 3, 3, 15, 44, 40, tzinfo=UTC)
    alone = write_json(tmp_path / "messages.json", {"messages": [deleted, message_record(1, MARA, "hi")]})
    assert [message.id for message in read_all(alone, [GoogleChatReader()])[0]] == ["m0", "m1"]


def test_hangouts_with_an_empty_first_conversation(tmp_path: Path) -> None:
    identity = {"gaia_id": "1", "chat_id": "1"}
    event = {
        "conversation_id": {"id": "c"},
        "sender_id": identity,
        "timestamp": "1600000000000000",
        "event_id": "e",
        "chat_message": {"message_content": {"segment": [{"type": "TEXT", "text": "hi"}]}},
    }
    content = {"conversations": [{"events": [], "conversation": {}}, {"events": [event], "conversation": {}}]}
    messages, bad = read_all(write_json(tmp_path / "Hangouts.json", content), [GoogleChatReader()])
    assert [message.text for message in messages] == ["hi"]
    assert bad == []
