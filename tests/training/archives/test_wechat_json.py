"""WeChat JSON exports of chatlog, WeFlow and echotrace."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.exports import ZONE, read_all, write_json
from training.archives.message import Message
from training.archives.source_tree import BadRecord, SourceTree, open_folder
from training.archives.wechat.json_exports import WeChatJSONReader

DEER, ME, ROOM = "wxid_deer", "wxid_me", "1@chatroom"
FIRST = 1_763_519_753
AVATAR = "data:image/jpeg;base64," + "A" * 100_000


def listed(number: int, sender: str, text: str, *, kind: int = 1, share: int = 0, **more: Any) -> dict[str, Any]:
    """A record of chatlog's, a second after the one before."""
    return {
        "seq": (FIRST + number) * 1000,
        "time": datetime.fromtimestamp(FIRST + number, UTC).isoformat(),
        "talker": DEER,
        "talkerName": "小鹿",
        "isChatRoom": False,
        "sender": sender,
        "senderName": {DEER: "鹿"}.get(sender, ""),
        "isSelf": sender == ME,
        "type": kind,
        "subType": share,
        "content": text,
        **more,
    }


def kept(number: int, text: str | None, kind: str = "文本消息", *, own: Any = 0, **more: Any) -> dict[str, Any]:
    """A record of WeFlow's."""
    return {
        "localId": number,
        "createTime": FIRST + number,
        "formattedTime": "2025-11-19 10:35:53",
        "type": kind,
        "localType": 1,
        "content": text,
        "isSend": own,
        "senderUsername": ME if own else DEER,
        "senderDisplayName": "风" if own else "鹿",
        "source": "",
        **more,
    }


def session(*messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    described = {"wxid": DEER, "nickname": "鹿", "displayName": "小鹿", "type": "私聊", "avatar": AVATAR}
    return {
        "weflow": {"version": "1.0.3", "exportedAt": 1},
        "session": {**described, **more},
        "messages": list(messages),
        "avatars": {DEER: AVATAR},
    }


def read(folder: Path, content: Any) -> tuple[list[Message], list[BadRecord]]:
    return read_all(write_json(folder / "chat.json", content), [WeChatJSONReader()])


def test_chatlog(tmp_path: Path) -> None:
    quote = {"refer": {"seq": 0, "time": listed(1, DEER, "")["time"], "sender": DEER, "type": 1, "content": "在吗"}}
    messages, bad = read(
        tmp_path,
        [
            listed(1, DEER, "在吗"),
            listed(2, ME, "在", kind=49, share=57, contents=quote),
            listed(3, DEER, "", kind=3, contents={"md5": "0"}),
            listed(4, DEER, "", kind=47),
            listed(5, DEER, "", kind=49, share=5, contents={"title": "标题", "url": "https://example.org"}),
            listed(6, DEER, "", kind=49, share=19),
            listed(7, "系统消息", "鹿撤回了一条消息", kind=10000),
            listed(8, "wxid_x", "大家好", talker=ROOM, talkerName="茶会", isChatRoom=True),
            listed(9, "gh_news", "今日要闻", talker="gh_news"),
        ],
    )
    assert bad == []
    assert [(message.mark, message.text, message.is_owner) for message in messages] == [
        ("", "在吗", False),
        ("", "在", True),
        ("media", "", False),
        ("sticker", "", False),
        ("media", "", False),
        ("forward", "", False),
        ("deleted", "鹿撤回了一条消息", None),
        ("", "大家好", False),
        ("bot", "今日要闻", False),
    ]
    assert [message.reply_to for message in messages][:2] == [None, messages[0].id]
    first = messages[0]
    assert (first.platform, first.chat, first.chat_name, first.kind, first.sender) == (
        "wechat",
        DEER,
        "小鹿",
        "dm",
        DEER,
    )
    assert (first.sender_name, first.sent_at) == ("鹿", datetime.fromtimestamp(FIRST + 1, UTC))
    assert (messages[7].chat, messages[7].kind) == (ROOM, "group")
    assert len({message.id for message in messages}) == 9


def test_chatlog_may_wrap_its_list(tmp_path: Path) -> None:
    messages, bad = read(tmp_path, {"talker": DEER, "length": 1, "messages": [listed(1, DEER, "在吗")], "sender": ""})
    assert bad == []
    assert [message.text for message in messages] == ["在吗"]


def test_weflow(tmp_path: Path) -> None:
    first = "8000000000000000001"
    messages, bad = read(
        tmp_path,
        session(
            kept(1, "在吗", platformMessageId=first),
            kept(2, "在[引用 鹿：在吗]", "引用消息", own=1, platformMessageId="0", replyToMessageId=first),
            kept(3, "[图片]", "图片消息"),
            kept(4, "[表情包]", "动画表情"),
            kept(5, "你们成为了好友", "系统消息", own=None),
            kept(6, None, "聊天记录合并转发"),
            kept(7, "?", "未知类型(1234)"),
            kept(8, "[表情包：哈哈]", "动画表情", own=1, emojiCaption="哈哈"),
        ),
    )
    assert bad == []
    assert [
        (message.mark, message.text, message.is_owner, message.sender, message.sender_name) for message in messages
    ] == [
        ("", "在吗", False, DEER, "鹿"),
        ("", "在", True, ME, "风"),
        ("media", "", False, DEER, "鹿"),
        ("sticker", "", False, DEER, "鹿"),
        ("service", "你们成为了好友", None, DEER, "鹿"),
        ("forward", "", False, DEER, "鹿"),
        ("media", "", False, DEER, "鹿"),
        ("media", "[哈哈]", True, ME, "风"),
    ]
    assert messages[1].reply_to == messages[0].id == first
    assert {(message.chat, message.kind, message.chat_name) for message in messages} == {(DEER, "dm", "小鹿")}
    assert messages[0].sent_at == datetime.fromtimestamp(FIRST + 1, UTC)
    assert len({message.id for message in messages}) == 8


def test_weflow_says_what_is_quoted_and_what_was_spoken(tmp_path: Path) -> None:
    messages, bad = read(
        tmp_path,
        session(
            kept(1, "在吗"),
            kept(2, "在", "引用消息", own=1, quotedSender="鹿", quotedContent="在吗"),
            kept(3, "在[引用 鹿：在吗]", "引用消息", own=1),
            kept(4, "在[引用 鹿：没说过]", "引用消息", own=1),
            kept(5, "明天见", "语音消息"),
            kept(6, "[语音消息]", "语音消息"),
        ),
    )
    assert bad == []
    first = messages[0].id
    assert [(message.text, message.reply_to) for message in messages[1:4]] == [
        ("在", first),
        ("在", first),
        ("在", None),
    ]
    assert [(message.mark, message.text) for message in messages[4:]] == [("media", "明天见"), ("media", "")]


def test_echotrace_and_groups(tmp_path: Path) -> None:
    content = session(kept(1, "大家好"), wxid=ROOM, type="群聊")
    del content["weflow"]
    messages, bad = read(tmp_path, content)
    assert bad == []
    assert [(message.chat, message.kind, message.text) for message in messages] == [(ROOM, "group", "大家好")]


def test_people_in_a_list_of_their_own(tmp_path: Path) -> None:
    content = session(
        {"createTime": FIRST, "isSend": True, "senderID": 1, "type": "文本消息", "content": "早"},
        {"createTime": FIRST, "isSend": False, "senderID": 2, "type": "文本消息", "content": "早"},
    )
    people = [{"senderID": 1, "wxid": ME, "displayName": "", "nickname": "风"}, {"senderID": 2, "wxid": DEER}]
    messages, bad = read(
        tmp_path, {"weflow": content["weflow"], "session": content["session"], "senders": people, **content}
    )
    assert bad == []
    assert [(message.sender, message.sender_name, message.is_owner) for message in messages] == [
        (ME, "风", True),
        (DEER, DEER, False),
    ]


def test_damaged_records_are_counted_and_the_rest_is_read(tmp_path: Path) -> None:
    messages, bad = read(tmp_path, [listed(1, DEER, "a"), {"talker": DEER}, listed(3, DEER, "b", time="never")])
    assert [message.text for message in messages] == ["a"]
    assert [record.position for record in bad] == ["record 2", "record 3"]
    messages, bad = read(tmp_path, session(kept(1, "a"), kept(2, "b", createTime=None), kept(3, "c", own="?")))
    assert [message.text for message in messages] == ["a"]
    assert [record.position for record in bad] == ["record 2", "record 3"]


@pytest.mark.parametrize(
    "content",
    [
        {},
        [],
        [{"messages": []}],
        {"session": {"id": 1}, "messages": []},
        {"session": {"wxid": 1}},
        [{"type": 1, "time": 2}],
    ],
)
def test_other_files_are_left_to_others(tmp_path: Path, content: Any) -> None:
    write_json(tmp_path / "x.json", content)
    assert not WeChatJSONReader().sniff(SourceTree(open_folder(tmp_path), "x.json", "x.json", ZONE))


@pytest.mark.parametrize("content", [[listed(1, DEER, f"text {number}") for number in range(4)]])
@given(at=st.integers(700, 1300), damage=st.binary(max_size=4))
def test_damage_anywhere_stops_no_build(
    tmp_path_factory: pytest.TempPathFactory, content: Any, at: int, damage: bytes
) -> None:
    whole = json.dumps(content).encode()
    path = tmp_path_factory.mktemp("any") / "x.json"
    path.write_bytes(whole[:at] + damage + whole[at:])
    messages, bad = read_all(path, [WeChatJSONReader()])
    assert len(messages) == 4 or bad
