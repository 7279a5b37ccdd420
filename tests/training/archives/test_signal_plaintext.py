"""Signal's own plain-text export."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.exports import ZONE, read_all
from training.archives.message import Message
from training.archives.signal.plaintext_export import SignalPlaintextReader
from training.archives.source_tree import BadRecord, SourceTree, open_folder

FIRST = 1_700_000_000_000
ANA = "YW5hYW5hYW5hYW5hYW5hYQ=="
PEOPLE: list[dict[str, Any]] = [
    {"version": "1", "backupTimeMs": str(FIRST), "mediaRootBackupKey": "", "currentAppVersion": "Desktop 8.0"},
    {"account": {"profileKey": "", "givenName": "Mara", "familyName": "Lind"}},
    {"recipient": {"id": "1", "self": {}}},
    {"recipient": {"id": "2", "contact": {"aci": ANA, "e164": "4915100000000", "profileGivenName": "Ana"}}},
    {"recipient": {"id": "3", "group": {"masterKey": "a2V5", "snapshot": {"title": {"title": "Pond"}}}}},
    {"recipient": {"id": "4", "contact": {"e164": "4915100000001", "nickname": {"given": "Bo", "family": "B"}}}},
    {"recipient": {"id": "5", "releaseNotes": {}}},
    {"chat": {"id": "7", "recipientId": "2", "expireTimerVersion": 1}},
    {"chat": {"id": "8", "recipientId": "3"}},
    {"chat": {"id": "9", "recipientId": "5"}},
]


def item(number: int, author: str, text: str | None = None, *, chat: str = "7", **more: Any) -> dict[str, Any]:
    direction = "outgoing" if author == "1" else "incoming"
    content = {} if text is None else {"standardMessage": {"text": {"body": text}, **more.pop("standard", {})}}
    sent = str(FIRST + 1000 * number)
    return {"chatItem": {"chatId": chat, "authorId": author, "dateSent": sent, direction: {}, **content, **more}}


def written(folder: Path, *frames: Any) -> Path:
    path = folder / "main.jsonl"
    path.write_text(
        "".join(json.dumps(frame, ensure_ascii=False) + "\n" for frame in (*PEOPLE, *frames)), encoding="utf-8"
    )
    return path


def read(folder: Path, *frames: Any) -> tuple[list[Message], list[BadRecord]]:
    return read_all(written(folder, *frames), [SignalPlaintextReader()])


def test_a_private_chat(tmp_path: Path) -> None:
    quote = {"targetSentTimestamp": str(FIRST + 1000), "authorId": "2", "text": {"body": "hi"}}
    reaction = {"emoji": "\U0001f44d", "authorId": "2", "sentTimestamp": str(FIRST + 9000)}
    messages, bad = read(
        tmp_path, item(1, "2", "hi"), item(2, "1", "yo", standard={"quote": quote, "reactions": [reaction]})
    )
    assert bad == []
    assert [
        (message.sender, message.sender_name, message.mark, message.text, message.is_owner) for message in messages
    ] == [
        (ANA, "Ana", "", "hi", False),
        ("Me", "Mara Lind", "", "yo", True),
        (ANA, "Ana", "reaction", "\U0001f44d", False),
    ]
    assert {(message.platform, message.chat, message.kind, message.chat_name) for message in messages} == {
        ("signal", ANA, "dm", "Ana")
    }
    assert messages[0].sent_at == datetime.fromtimestamp(FIRST / 1000 + 1, UTC)
    assert messages[1].reply_to == messages[0].id


def test_what_items_are(tmp_path: Path) -> None:
    mention = {"start": 3, "length": 1, "mentionAci": ANA}
    messages, bad = read(
        tmp_path,
        item(
            1,
            "4",
            chat="8",
            standard={},
            standardMessage={"text": {"body": "\U0001f600 \ufffc!", "bodyRanges": [mention]}},
        ),
        item(2, "4", "look", chat="8", standard={"attachments": [{"pointer": {}}]}),
        item(3, "1", chat="8", stickerMessage={"sticker": {"emoji": "\U0001f602"}}),
        item(4, "1", chat="8", stickerMessage={"sticker": {}}),
        item(5, "4", chat="8", remoteDeletedMessage={}),
        item(6, "4", chat="8", updateMessage={"groupCall": {}}),
        item(7, "4", chat="8", viewOnceMessage={}),
        item(8, "4", chat="8", directStoryReplyMessage={"textReply": {"text": {"body": "nice"}}}),
        item(9, "4", "new", chat="8", revisions=[item(0, "4", "old", chat="8")["chatItem"]]),
        item(10, "5", "What is new", chat="9"),
    )
    assert bad == []
    assert [(message.mark, message.text) for message in messages] == [
        ("", "\U0001f600 @Ana!"),
        ("media", "look"),
        ("media", "\U0001f602"),
        ("sticker", ""),
        ("deleted", ""),
        ("service", ""),
        ("media", ""),
        ("", "nice"),
        ("", "new"),
        ("bot", "What is new"),
    ]
    assert (messages[0].kind, messages[0].chat_name, messages[0].sender_name) == ("group", "Pond", "Bo B")
    assert messages[8].sent_at == datetime.fromtimestamp(FIRST / 1000, UTC)


def test_damaged_frames_are_counted_and_the_rest_is_read(tmp_path: Path) -> None:
    frames: tuple[Any, ...] = (
        {"chat": {"id": "x"}},
        item(1, "99", "nobody"),
        {"chatItem": 1},
        [],
        {"stickerPack": {}},
        item(2, "2", "hi"),
    )
    messages, bad = read(tmp_path, *frames)
    assert [message.text for message in messages] == ["hi"]
    assert [record.position for record in bad] == ["record 11", "record 12", "record 13"]


@pytest.mark.parametrize("text", ["", "{}", '{"chatItem": {}}', '{"account": 1}', "[1]", '{"version": 1}\n'])
def test_other_files_are_left_to_others(tmp_path: Path, text: str) -> None:
    (tmp_path / "x").write_text(text)
    assert not SignalPlaintextReader().sniff(SourceTree(open_folder(tmp_path), "x", "x", ZONE))


@given(st.binary(max_size=60))
def test_no_bytes_stop_it(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = written(tmp_path_factory.mktemp("any"), item(1, "2", "hi"))
    path.write_bytes(path.read_bytes() + data)
    assert len(read_all(path, [SignalPlaintextReader()])[0]) >= 1
