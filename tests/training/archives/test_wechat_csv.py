"""WeChat CSV exports of several programs."""

import csv
import io
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.exports import ZONE, read_all
from training.archives.message import Message
from training.archives.source_tree import BadRecord, SourceTree, open_folder
from training.archives.wechat.csv_exports import WeChatCSVReader

DUMP = ["id", "MsgSvrID", "type_name", "is_sender", "talker", "room_name", "msg", "src", "CreateTime"]
TRACE = [
    *("localId", "TalkerId", "Type", "SubType", "IsSender", "CreateTime"),
    *("Status", "StrContent", "StrTime", "Remark", "NickName", "Sender"),
]
SESSION = ["消息ID", "类型", "发送人", "时间", "内容", "备注", "昵称", "更多信息"]
ID = 7000000000000000000


def table(*rows: list[str]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


def dumped(number: int, text: str, kind: str = "文本", own: str = "0", room: str = "wxid_deer") -> list[str]:
    talker = "wxid_me" if own == "1" else "wxid_deer"
    return [str(number), str(ID + number), kind, own, talker, room, text, "", f"2024/10/4 11:{number:02}"]


def traced(
    number: int, text: str, sender: str, *, kind: str = "1", share: str = "0", names: str = "小鹿,鹿"
) -> list[str]:
    own = "1" if sender == "我" else "0"
    seconds = str(1_600_000_000 + number)
    return [str(number), "3", kind, share, own, seconds, "", text, "2020-09-13 14:26:40", *names.split(","), sender]


DUMPED = table(DUMP, dumped(1, "在吗"), dumped(2, "在，\n怎么了", own="1"))


def read(
    folder: Path, text: str, name: str = "chat.csv", encoding: str = "utf-8"
) -> tuple[list[Message], list[BadRecord]]:
    (folder / name).write_bytes(text.encode(encoding))
    return read_all(folder / name, [WeChatCSVReader()])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030"])
def test_a_private_chat_of_pywxdump(tmp_path: Path, encoding: str) -> None:
    messages, bad = read(tmp_path, DUMPED, encoding=encoding)
    assert bad == []
    assert [(message.sender, message.text, message.is_owner, message.id) for message in messages] == [
        ("wxid_deer", "在吗", False, str(ID + 1)),
        ("wxid_me", "在，\n怎么了", True, str(ID + 2)),
    ]
    assert {(message.platform, message.chat, message.kind) for message in messages} == {("wechat", "wxid_deer", "dm")}
    assert messages[0].sent_at == datetime(2024, 10, 4, 9, 1, tzinfo=UTC)


def test_kinds_of_messages(tmp_path: Path) -> None:
    rows = [
        dumped(1, "看[旺柴]\n\n[引用](2024-10-04 11:00:00)鹿:在\n吗", "引用回复"),
        dumped(2, "图片", "图片"),
        dumped(3, "", "动画表情"),
        dumped(4, "你撤回了一条消息", "系统通知"),
        dumped(5, "鹿拍了拍我", "拍一拍"),
        dumped(6, "标题", "(分享)卡片式链接"),
        dumped(7, "记录", "合并转发的聊天记录"),
        dumped(8, "hi", "text"),
        dumped(9, "什么", "未知-11000,0"),
        dumped(10, "语音通话", "语音通话"),
        [*dumped(11, "别人的话", "文本"), "True"],
    ]
    messages, bad = read(tmp_path, table([*DUMP, "is_forward"], *rows))
    assert bad == []
    assert [(message.mark, message.text) for message in messages] == [
        ("", "看[旺柴]"),
        ("media", ""),
        ("sticker", ""),
        ("deleted", "你撤回了一条消息"),
        ("service", "鹿拍了拍我"),
        ("media", ""),
        ("forward", ""),
        ("", "hi"),
        ("media", ""),
        ("service", "语音通话"),
        ("forward", ""),
    ]


@pytest.mark.parametrize(
    ("text", "mark", "kept"),
    [
        ("在[引用 鹿：你好[旺柴]]", "", "在"),
        ("[链接]十种茶", "media", ""),
        ("[转账] 100元", "media", ""),
        ("[语音通话]", "service", "[语音通话]"),
        ("[聊天记录]鹿和风的聊天记录", "forward", ""),
        ("[动画表情]", "sticker", ""),
        ("你撤回了一条消息", "deleted", "你撤回了一条消息"),
        ("我听说你撤回了一条消息", "", "我听说你撤回了一条消息"),
        ("[旺柴]好", "", "[旺柴]好"),
        ("[引用]是什么意思", "", "[引用]是什么意思"),
    ],
)
def test_what_weflow_calls_a_text(tmp_path: Path, text: str, mark: str, kept: str) -> None:
    header = [name for name in DUMP if name != "room_name"]
    row = [cell for name, cell in zip(DUMP, dumped(1, text, "text"), strict=True) if name != "room_name"]
    messages, bad = read(tmp_path, table(header, row))
    assert bad == []
    assert [(message.mark, message.text) for message in messages] == [(mark, kept)]


def test_pasted_and_quoting_texts_are_texts(tmp_path: Path) -> None:
    messages, _ = read(tmp_path, table(DUMP, dumped(1, "长", "粘贴的文本"), dumped(2, "嗯", "带有引用的文本消息")))
    assert [(message.mark, message.text) for message in messages] == [("", "长"), ("", "嗯")]


def test_a_quote_is_linked_to_the_message_of_these_words_at_that_time(tmp_path: Path) -> None:
    quoting = "带有引用的文本消息"
    rows = [
        dumped(1, "在吗"),
        dumped(2, "好", own="1"),
        dumped(3, "在吗"),
        dumped(4, "在\n\n[引用](2024-10-04 11:01:00)鹿:在吗", quoting, own="1"),
        dumped(5, "什么\n\n[引用](2024-10-04 11:59:00)鹿:在吗", quoting, own="1"),
        dumped(6, "没有\n\n[引用](2024-10-04 11:01:00)鹿:别的话", quoting, own="1"),
        dumped(7, "嗯[引用 鹿：在吗]", "text", own="1"),
        dumped(8, "[捂脸]\n引用：wxid_me: 好", quoting),
        dumped(9, "别的群\n\n[引用](2024-10-04 11:01:00)鹿:在吗", quoting, room="1@chatroom"),
    ]
    messages, bad = read(tmp_path, table(DUMP, *rows))
    assert bad == []
    linked = {
        int(message.id) - ID: (message.text, message.reply_to and int(message.reply_to) - ID) for message in messages
    }
    assert list(linked.values())[3:] == [
        ("在", 1),
        ("什么", 3),  # the last one of these words: the clock of the export may be another one
        ("没有", None),
        ("嗯", 3),
        ("[捂脸]", 2),
        ("别的群", None),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("语音时长：3.2秒\n翻译结果：明天见", "明天见"),
        ("语音时长：3.2秒", ""),
        ("明天见", "明天见"),
        ("[语音转文字] 明天见", "明天见"),
        ("[微信语音转文字] 明天见", "明天见"),
        ("[语音]", ""),
        ("语音", ""),
        ("[语音消息 - 转文字失败]", ""),
        ("media/voices/voice_1.wav", ""),
        ("<msg><voicemsg voicelength='3200'/></msg>", ""),
        ("", ""),
    ],
)
def test_what_a_voice_said_is_kept_where_the_export_has_it(tmp_path: Path, text: str, said: str) -> None:
    traces = table(TRACE, traced(1, text, "鹿", kind="34"))
    for content in (table(DUMP, dumped(1, text, "语音")), table(DUMP, dumped(1, text, "voice")), traces):
        (message,), bad = read(tmp_path, content)
        assert bad == []
        assert (message.mark, message.text) == ("media", said)


def test_groups_and_files_that_do_not_name_their_chat(tmp_path: Path) -> None:
    messages, _ = read(tmp_path, table(DUMP, dumped(1, "hi", room="1@chatroom")))
    assert {(message.kind, message.chat) for message in messages} == {("group", "1@chatroom")}
    messages, _ = read(tmp_path, table(DUMP, dumped(1, "hi", room=""), dumped(2, "ho", own="1", room="")))
    assert {(message.kind, message.chat) for message in messages} == {("dm", "wxid_deer")}
    three = [["1", "0", "文本", "0", f"wxid_{name}", "", "hi", "", "2024-10-04 11:42:33"] for name in "abc"]
    messages, _ = read(tmp_path, table(DUMP, *three), name="茶_0_5000.csv")
    assert {(message.kind, message.chat) for message in messages} == {("group", "茶")}
    assert len({message.id for message in messages}) == 3


def test_numbers_that_a_spreadsheet_spoilt_are_no_ids(tmp_path: Path) -> None:
    rows = [dumped(1, "hi"), dumped(2, "ho")]
    for row in rows:
        row[1] = "7.00E+18"
    messages, _ = read(tmp_path, table(DUMP, *rows))
    assert len({message.id for message in messages}) == 2
    assert messages == read(tmp_path, table(DUMP, *rows))[0]


def test_older_tables_hold_json(tmp_path: Path) -> None:
    header = [*DUMP[:6], "content", "CreateTime"]
    row = ["1", str(ID), "文本", "1", "我", "wxid_deer", '{"src": "", "msg": "早"}', "1600000000"]
    (message,), bad = read(tmp_path, table(header, row))
    assert bad == []
    assert (message.text, message.is_owner, message.sent_at.year) == ("早", True, 2020)


def test_all_chats_of_memotrace(tmp_path: Path) -> None:
    rows = [
        traced(1, "在吗", "鹿"),
        traced(2, "在", "我"),
        traced(3, "", "鹿", kind="49", share="57"),
        traced(4, "<msg/>", "鹿", kind="3"),
        traced(5, "以上是打招呼的内容", "鹿", kind="10000"),
        traced(6, "大家好", "小王", names="茶会,茶会"),
        traced(7, "好", "我", names="茶会,茶会"),
    ]
    messages, bad = read(tmp_path, table(TRACE, *rows))
    assert bad == []
    assert [
        (message.chat_name, message.kind, message.sender, message.mark, message.text, message.is_owner)
        for message in messages
    ] == [
        ("小鹿", "dm", "鹿", "", "在吗", False),
        ("小鹿", "dm", "我", "", "在", True),
        ("小鹿", "dm", "鹿", "", "", False),
        ("小鹿", "dm", "鹿", "media", "", False),
        ("小鹿", "dm", "鹿", "service", "以上是打招呼的内容", False),
        ("茶会", "group", "小王", "", "大家好", False),
        ("茶会", "group", "我", "", "好", True),
    ]
    assert messages[0].sent_at == datetime(2020, 9, 13, 12, 26, 41, tzinfo=UTC)


def test_older_tables_of_memotrace_have_a_value_more(tmp_path: Path) -> None:
    rows = [traced(1, "在吗", "鹿"), traced(2, "在", "我")]
    older = [[*row[:9], str(ID + number), *row[9:]] for number, row in enumerate(rows)]
    messages, bad = read(tmp_path, table(TRACE, *older))
    assert bad == []
    assert [(message.id, message.chat_name, message.sender, message.text) for message in messages] == [
        (str(ID), "小鹿", "鹿", "在吗"),
        (str(ID + 1), "小鹿", "我", "在"),
    ]


def test_one_chat_of_memotrace(tmp_path: Path) -> None:
    rows = [
        [str(ID), "文本", "小鹿", "2024-10-04 11:42:33", "在吗", "小鹿", "鹿", "more"],
        [str(ID + 1), "图片", "风", "2024-10-04 11:42:40", "image/1.jpg", "风", "风", "more"],
        [str(ID + 2), "系统消息", "小鹿", "2024-10-04 11:42:50", '"小鹿" 撤回了一条消息', "小鹿", "鹿", "more"],
    ]
    messages, bad = read(tmp_path, table(SESSION, *rows), name="小鹿(1).csv")
    assert bad == []
    assert [(message.sender, message.mark, message.text, message.is_owner) for message in messages] == [
        ("小鹿", "", "在吗", False),
        ("风", "media", "", True),
        ("小鹿", "deleted", '"小鹿" 撤回了一条消息', False),
    ]
    assert {(message.kind, message.chat_name) for message in messages} == {("dm", "小鹿")}
    messages, _ = read(tmp_path, table(SESSION, *rows), name="chat.csv")
    assert {message.is_owner for message in messages} == {None}


def test_chatlog(tmp_path: Path) -> None:
    header = ["Time", "SenderName", "Sender", "TalkerName", "Talker", "Content"]
    rows = [
        ["2024-10-04 11:42:33", "鹿", "wxid_deer", "小鹿", "wxid_deer", "在吗"],
        ["2024-10-04 11:42:40", "我", "wxid_me", "小鹿", "wxid_deer", "![图片](http://127.0.0.1/image/1)"],
        ["2024-10-04 11:43:00", "我", "wxid_me", "小鹿", "wxid_deer", "> 鹿(wxid_deer) 10-04 11:42:33\n> 在吗\n在\n的"],
        ["2024-10-04 11:43:10", "鹿", "wxid_deer", "小鹿", "wxid_deer", "> [引用]\n> 3 比 2"],
    ]
    messages, bad = read(tmp_path, table(header, *rows))
    assert bad == []
    assert [(message.sender, message.sender_name, message.mark, message.is_owner) for message in messages] == [
        ("wxid_deer", "鹿", "", None),
        ("wxid_me", "我", "media", True),
        ("wxid_me", "我", "", True),
        ("wxid_deer", "鹿", "", None),
    ]
    assert (messages[2].text, messages[2].reply_to) == ("在\n的", messages[0].id)
    assert (messages[3].text, messages[3].reply_to) == ("> 3 比 2", None)


def test_a_row_that_makes_no_sense_is_counted_and_the_rest_is_read(tmp_path: Path) -> None:
    rows = [dumped(1, "a"), ["2"], [*dumped(3, "b")[:-1], "never"], dumped(4, "c")]
    messages, bad = read(tmp_path, table(DUMP, *rows))
    assert [message.text for message in messages] == ["a", "c"]
    assert [record.position for record in bad] == ["record 3", "record 4"]


@pytest.mark.parametrize("text", ["", "username,text,timestamp\n", "Date,User,Message\n", "id,bid,正文\n", "{}"])
def test_other_files_are_left_to_others(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.csv").write_text(text, encoding="utf-8")
    assert not WeChatCSVReader().sniff(SourceTree(open_folder(tmp_path), "x.csv", "x.csv", ZONE))


@given(st.binary(max_size=40), st.sampled_from([DUMP, TRACE, SESSION]))
def test_no_bytes_stop_it(tmp_path_factory: pytest.TempPathFactory, data: bytes, header: list[str]) -> None:
    path = tmp_path_factory.mktemp("any") / "x.csv"
    path.write_bytes((DUMPED * 3).encode() + b"\n" + data)
    assert len(read_all(path, [WeChatCSVReader()])[0]) >= 6
    path.write_bytes(table(header).encode("utf-8-sig") + data)
    read_all(path, [WeChatCSVReader()])
