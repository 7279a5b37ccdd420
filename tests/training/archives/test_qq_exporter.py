"""qq-chat-exporter's JSON, whole and in chunks."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.exports import ZONE, read_all, write_folder, write_json, write_zip
from training.archives.message import Message
from training.archives.qq.chat_exporter import QQExporterReader
from training.archives.source_tree import BadRecord, SourceTree, open_folder

ME, DEER = "u_me", "u_deer"
FIRST = 7_600_000_000_000_000_000


def message_record(number: int, sender: str, *elements: tuple[str, dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {
        "id": str(FIRST + number),
        "seq": str(number),
        "timestamp": 1_600_000_000_000 + number * 1000,
        "time": "2020-09-13 20:26:40",
        "sender": {"uid": sender, "uin": {ME: "111111", DEER: "222222"}.get(sender, "0"), "name": "名字"},
        "type": "type_1",
        "content": {
            "text": "",
            "html": "",
            "elements": [{"type": kind, "data": data} for kind, data in elements],
            "resources": [],
        },
        "recalled": False,
        "system": False,
        **more,
    }


def text(words: str) -> tuple[str, dict[str, Any]]:
    return "text", {"text": words}


def info(**more: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "QQChatExporter V5 / https://github.com/shuakami/qq-chat-exporter", "version": "5.5.1"},
        "chatInfo": {"name": "小鹿", "type": "private", "selfUid": ME, "selfUin": "111111", "selfName": "风", **more},
        "statistics": {"totalMessages": 1, "senders": [{"uid": DEER, "name": "小鹿", "messageCount": 1}]},
    }


def exported(*messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**info(**more), "messages": list(messages), "exportOptions": {"includedFields": ["id"]}}


def read(path: Path, content: Any) -> tuple[list[Message], list[BadRecord]]:
    return read_all(write_json(path, content), [QQExporterReader()])


def test_a_private_chat(tmp_path: Path) -> None:
    messages, bad = read(
        tmp_path / "friend_222222_20260129.json",
        exported(
            message_record(1, DEER, text("在吗")),
            message_record(2, ME, text("在"), ("face", {"id": "264", "name": "/捂脸"})),
        ),
    )
    assert bad == []
    assert [(message.id, message.sender, message.text, message.is_owner) for message in messages] == [
        (str(FIRST + 1), "222222", "在吗", False),
        (str(FIRST + 2), "111111", "在/捂脸", True),
    ]
    assert {(message.platform, message.kind, message.chat, message.chat_name) for message in messages} == {
        ("qq", "dm", "222222", "小鹿")
    }
    assert messages[0].sent_at == datetime(2020, 9, 13, 12, 26, 41, tzinfo=UTC)


def test_what_a_message_is_made_of(tmp_path: Path) -> None:
    picture = ("image", {"filename": "a.jpg", "url": "https://example.org/a.jpg"})
    sticker = ("market_face", {"id": "1", "name": "[害羞]"})
    reply = ("reply", {"messageId": "790", "referencedMessageId": str(FIRST + 1), "content": "在吗"})
    records = [
        message_record(2, DEER, reply, ("at", {"uid": ME, "name": "风"}), text(" 好")),
        message_record(3, DEER, picture),
        message_record(4, DEER, picture, text("看")),
        message_record(5, DEER, sticker),
        message_record(6, DEER, ("reply", {"messageId": "790"}), sticker, text("嗯")),
        message_record(7, DEER, text("说错了"), recalled=True),
        message_record(8, DEER, ("system", {"text": "小鹿 加入本群"}), system=True),
        message_record(9, DEER, ("forward", {"title": "聊天记录"})),
        message_record(10, DEER, ("json", {"title": "一首歌"})),
    ]
    messages, bad = read(tmp_path / "x.json", exported(*records, type="group", name="茶会", peerUin="333333"))
    assert bad == []
    assert [(message.mark, message.text) for message in messages] == [
        ("", "@风 好"),
        ("media", ""),
        ("media", "看"),
        ("media", "[害羞]"),
        ("", "嗯"),
        ("deleted", "说错了"),
        ("service", "小鹿 加入本群"),
        ("forward", ""),
        ("media", ""),
    ]
    assert [message.reply_to for message in messages] == [str(FIRST + 1), *[None] * 8]
    assert {(message.kind, message.chat) for message in messages} == {("group", "333333")}


def test_older_exports(tmp_path: Path) -> None:
    old = {
        "messageId": str(FIRST),
        "timestamp": "2022-10-29T06:42:53.000Z",
        "sender": {"uin": "222222", "name": "小鹿", "groupCard": "鹿"},
        "content": {"text": "[回复 风: 早] 晚[图片: a.jpg]", "reply": {"referencedMessageId": "7"}},
    }
    bare = {"time": "2022-10-29 08:43:00", "sender": {"name": "小鹿"}, "content": "纯文本"}
    messages, bad = read(tmp_path / "old.json", exported(old, bare, selfUid=None, selfUin=None))
    assert bad == []
    assert [(message.sender, message.sender_name, message.text, message.mark) for message in messages] == [
        ("222222", "鹿", "晚", "media"),
        ("小鹿", "小鹿", "纯文本", ""),
    ]
    assert [message.sent_at.minute for message in messages] == [42, 43]
    assert (messages[0].reply_to, messages[0].is_owner, messages[0].chat) == ("7", None, "小鹿")
    assert messages[1].id
    assert messages[0].sent_at.hour == messages[1].sent_at.hour == 6


def chunked() -> dict[str, str]:
    manifest = {**info(), "chunked": {"format": "jsonl", "chunks": [{"relativePath": "chunks/c000001.jsonl"}]}}
    lines = [json.dumps(message_record(number, DEER, text(f"第{number}")), ensure_ascii=False) for number in range(4)]
    return {
        "manifest.json": json.dumps(manifest, ensure_ascii=False),
        "chunks/c000001.jsonl": "\n".join(lines[:2]) + "\n{broken\n",
        "chunks/c000002.jsonl": "\n".join(lines[2:]),
        "avatars.json": "{}",
    }


def test_chunks(tmp_path: Path) -> None:
    for path in (write_folder(tmp_path / "export", chunked()), write_zip(tmp_path / "x.zip", chunked(), "export/")):
        messages, bad = read_all(path, [QQExporterReader()])
        assert [message.text for message in messages] == ["第0", "第1", "第2", "第3"]
        assert [(record.position, record.file.endswith("chunks/c000001.jsonl")) for record in bad] == [
            ("record 3", True)
        ]


def test_damaged_records_are_counted_and_the_rest_is_read(tmp_path: Path) -> None:
    records = [
        message_record(1, DEER, text("a")),
        message_record(2, DEER, text("b"), timestamp="never"),
        message_record(3, DEER, text("c")),
    ]
    messages, bad = read(tmp_path / "x.json", exported(*records, {"id": "4"}, message_record(5, DEER, text("d"))))
    assert [message.text for message in messages] == ["a", "c", "d"]
    assert [record.position for record in bad] == ["record 2", "record 4"]


@pytest.mark.parametrize("content", [{}, [], {"metadata": {}, "messages": []}, {"chatInfo": {"name": "x"}}])
def test_other_files_are_left_to_others(tmp_path: Path, content: Any) -> None:
    write_json(tmp_path / "x.json", content)
    assert not QQExporterReader().sniff(SourceTree(open_folder(tmp_path), "x.json", "x.json", ZONE))
    assert not QQExporterReader().sniff(SourceTree(open_folder(tmp_path), "", "folder", ZONE))


@given(st.integers(0, 900), st.binary(max_size=4))
def test_damage_anywhere_stops_no_build(tmp_path_factory: pytest.TempPathFactory, at: int, damage: bytes) -> None:
    whole = json.dumps(
        exported(*(message_record(number, DEER, text(f"text {number}")) for number in range(4)))
    ).encode()
    start = whole.index(b'"messages"') + 14
    path = tmp_path_factory.mktemp("any") / "x.json"
    path.write_bytes(whole[: start + at] + damage + whole[start + at :])
    messages, bad = read_all(path, [QQExporterReader()])
    assert len(messages) == 4 or bad


def test_a_sticker_without_a_name_of_its_own_says_nothing(tmp_path: Path) -> None:
    messages, _ = read(tmp_path / "x.json", exported(message_record(1, DEER, ("market_face", {"name": "[商城表情]"}))))
    assert [(message.mark, message.text) for message in messages] == [("sticker", "")]


def test_messages_may_come_before_the_chat(tmp_path: Path) -> None:
    message = {
        "id": "1",
        "timestamp": 1700000000000,
        "sender": {"uid": "u_ann", "uin": "111", "name": "Ann"},
        "type": "type_1",
        "content": {"text": "hi", "elements": []},
    }
    chat = {"name": "Tom", "type": "private", "selfUid": "u_ann", "selfUin": "111"}
    path = tmp_path / "chat.json"
    path.write_text(json.dumps({"messages": [message], "metadata": {"name": "x"}, "chatInfo": chat}))
    assert QQExporterReader().sniff(SourceTree(open_folder(path), path.name, path.name, ZONE))
    (read,), bad = read_all(path)
    assert (read.platform, read.chat, read.kind, read.is_owner, bad) == ("qq", "Tom", "dm", True, [])
