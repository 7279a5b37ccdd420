"""QQ's text and mht exports, and text copied from chat windows."""

from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.exports import read_all, write_zip
from training.archives.message import Message
from training.archives.qq.text_exports import QQReader
from training.archives.source_tree import BadRecord, SourceTree, open_folder

RULE = "=" * 64
FRIEND = (
    f"消息记录（此消息记录为文本格式，不支持重新导入）\n\n{RULE}\n消息分组:我的好友\n{RULE}\n消息对象:小鹿\n{RULE}\n\n"
    "2019-09-23 8:43:38 小鹿\n在吗\n第二行\n\n第三行\n\n"
    "2019-09-23 8:44:09 风(2)号\n[图片]\n\n"
    "2019-09-23 8:46:18 风(2)号\n2019-09-23 8:00:00 开会\n来吗[表情]\n\n"
    "2019-09-23 8:47:00 系统消息(10000)\n你们成为了好友\n\n"
)
GROUP = (
    f"{RULE}\n消息分组:我的群聊\n{RULE}\n消息对象:湖边（周日）\n{RULE}\n\n"
    "2019-09-23 8:43:38 PM 【冒泡】骰娘(a)(87200175)\n1\n\n"
    "2019-09-23 8:44:09 PM 系统消息(1000000)\n某某加入本群。\n\n"
    "2019-09-23 12:46:18 AM 暗夜<night@example.com>\n2019-09-23 8:43:38 PM 小明\n[表情]\n\n"
)


def read(path: Path) -> tuple[list[Message], list[BadRecord]]:
    return read_all(path, [QQReader()])


def written(folder: Path, text: str, name: str = "chat.txt", encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def row(name: str, clock: str, body: str, color: str = "#006EFE") -> str:
    return (
        f"<tr><td><div style=color:{color};padding-left:10px;><div style=float:left;margin-right:6px;>{name}</div>"
        f"{clock}</div><div style=padding-left:20px;>{body}</div></td></tr>"
    )


def font(text: str) -> str:
    return f"<font style=\"font-size:10pt;font-family:'微软雅黑',sans-serif;\" color='000000'>{text}</font>"


def mht(*rows: str, peer: str = "小鹿", group: str = "我的好友") -> str:
    table = "\r\n".join(rows)
    return (
        "From: <Save by Tencent MsgMgr>\r\nSubject: Tencent IM Message\r\nMIME-Version: 1.0\r\n"
        'Content-Type:multipart/related;\r\n\tcharset="utf-8"\r\n\ttype="text/html";\r\n'
        '\tboundary="----=_NextPart_20190923"\r\n\r\n'
        "------=_NextPart_20190923\r\nContent-Type: text/html\r\nContent-Transfer-Encoding:7bit\r\n\r\n"
        '<html xmlns="http://www.w3.org/1999/xhtml"><head><title>QQ Message</title></head><body>'
        "<table width=100% cellspacing=0><tr><td><div style=padding-left:10px;><br><b>消息记录</b></div></td></tr>"
        f"<tr><td><div style=padding-left:10px;>消息分组:{group}</div></td></tr>"
        f"<tr><td><div style=padding-left:10px;>消息对象:{peer}</div></td></tr>"
        "<tr><td><div style=padding-left:10px;>&nbsp;</div></td></tr>"
        f"<tr><td style=color:#3568BB;font-weight:bold;>日期: 2019-09-23</td></tr>{table}\r\n"
        "</table></body></html>\r\n\r\n------=_NextPart_20190923\r\nContent-Type:image/jpeg\r\n"
        "Content-Transfer-Encoding:base64\r\nContent-Location:{AB}.dat\r\n\r\n/9j/4AAQSkZJRg==\r\n"
        "------=_NextPart_20190923--\r\n"
    )


def test_a_chat_with_a_friend(tmp_path: Path) -> None:
    messages, bad = read(written(tmp_path, FRIEND))
    assert bad == []
    assert [(message.sender, message.mark, message.text) for message in messages] == [
        ("小鹿", "", "在吗\n第二行\n\n第三行"),
        ("风(2)号", "media", ""),
        ("风(2)号", "", "2019-09-23 8:00:00 开会\n来吗"),
        ("10000", "service", "你们成为了好友"),
    ]
    assert [message.is_owner for message in messages] == [False, True, True, False]
    assert {(message.platform, message.kind, message.chat) for message in messages} == {("qq", "dm", "小鹿")}
    assert messages[0].sent_at == datetime(2019, 9, 23, 6, 43, 38, tzinfo=UTC)


def test_a_group_and_hours_of_twelve(tmp_path: Path) -> None:
    messages, bad = read(written(tmp_path, GROUP))
    assert bad == []
    assert [(message.sender, message.sender_name, message.mark, message.text) for message in messages] == [
        ("87200175", "骰娘(a)", "", "1"),
        ("1000000", "系统消息", "service", "某某加入本群。"),
        ("night@example.com", "暗夜", "", "2019-09-23 8:43:38 PM 小明"),
    ]
    assert {(message.kind, message.chat, message.chat_name) for message in messages} == {
        ("group", "湖边（周日）", "湖边（周日）")
    }
    assert messages[0].sent_at == datetime(2019, 9, 23, 18, 43, 38, tzinfo=UTC)
    assert messages[2].sent_at == datetime(2019, 9, 22, 22, 46, 18, tzinfo=UTC)
    assert [message.is_owner for message in messages] == [None, False, None]


def test_one_file_may_hold_all_chats(tmp_path: Path) -> None:
    messages, bad = read(written(tmp_path, FRIEND + GROUP))
    assert bad == []
    assert [(message.chat, message.kind) for message in messages] == [("小鹿", "dm")] * 4 + [
        ("湖边（周日）", "group")
    ] * 3


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "gb18030"])
def test_encodings_and_windows_line_ends(tmp_path: Path, encoding: str) -> None:
    messages, bad = read(written(tmp_path, FRIEND.replace("\n", "\r\n"), encoding=encoding))
    assert bad == []
    assert messages[0].text == "在吗\n第二行\n\n第三行"
    assert len(messages) == 4


def test_without_empty_lines_between_messages(tmp_path: Path) -> None:
    text = (
        "消息记录（此消息记录为文本格式，不支持重新导入）\n消息分组:最近联系人\n消息对象:小鹿\n"
        "2023-11-29 19:25:07 小鹿\n早\n2023-11-29 19:26:07 风\n晚\n"
    )
    messages, bad = read(written(tmp_path, text))
    assert bad == []
    assert [(message.sender, message.text, message.is_owner) for message in messages] == [
        ("小鹿", "早", False),
        ("风", "晚", True),
    ]


def test_a_copy_out_of_a_window_on_the_pc(tmp_path: Path) -> None:
    text = (
        "【冒泡】无情的围观熊 2/14/2020 9:16:13 PM\n（1\n\n"
        "【骰子】守善锤 2/14/2020 9:16:17 PM\n2\n3\n\n你和abc有12个共同好友，点击添加好友。\n\n"
        "克里斯 2/14/2020 9:17:10 PM\n\n守善锤撤回了一条消息\n\n"
        "克里斯 9:20:00 PM\n今天\n"
    )
    messages, bad = read(written(tmp_path, text))
    assert [(message.sender, message.mark, message.text) for message in messages] == [
        ("无情的围观熊", "", "（1"),
        ("守善锤", "", "2\n3"),
        ("守善锤", "service", "你和abc有12个共同好友，点击添加好友。"),
        ("克里斯", "deleted", ""),
        ("克里斯", "service", "守善锤撤回了一条消息"),
    ]
    assert messages[0].sent_at == datetime(2020, 2, 14, 20, 16, 13, tzinfo=UTC)
    assert [record.position for record in bad] == ["line 14"]  # which day it was, the copy does not say


def test_a_copy_out_of_a_phone(tmp_path: Path) -> None:
    text = (
        "\n— —  2020-2-21  — —\n\n德里奇化石  23:50:12 \n1\n\na dark ideation  23:50:40 \n2\n\n"
        "— —  2020-2-22  — —\n\n德里奇化石  0:10:00 \n诶？\n"
    )
    messages, bad = read(written(tmp_path, text))
    assert bad == []
    assert [(message.sender, message.text, message.sent_at.isoformat()) for message in messages] == [
        ("德里奇化石", "1", "2020-02-21T22:50:12+00:00"),
        ("a dark ideation", "2", "2020-02-21T22:50:40+00:00"),
        ("德里奇化石", "诶？", "2020-02-21T23:10:00+00:00"),
    ]


def test_halves_of_the_day_in_chinese_and_a_heading_that_ends_in_its_time(tmp_path: Path) -> None:
    text = "小明(123456) 2021/11/8 星期一 下午 4:07:37\n好\n\n小红(234567) 2021/11/8 上午 12:07:37\n嗯\n"
    messages, bad = read(written(tmp_path, text))
    assert bad == []
    assert [(message.sender, message.sent_at.hour) for message in messages] == [("123456", 15), ("234567", 23)]


def test_mht(tmp_path: Path) -> None:
    text = mht(
        row(
            "小鹿", "12:28:18", font("看&lt;b&gt;看<br>第二行"), "#42B475"
        ),  # the first colour of a section may be wrong
        row("小鹿", "12:29:18", font("嗯")),
        row("小鹿", "12:29:20", font("嗯嗯")),
        row("风", "8:30:00 PM", '<IMG src="{AB}.dat">', "#42B475"),
        row("风", "20:31:00", font("图") + '<IMG src="{AB}.dat">', "#42B475"),
        "<tr><td>日期: 2019-09-24</td></tr>",
        row("系统消息(10000)", "9:00:00", font("提示")),
    )
    messages, bad = read(write_zip(tmp_path / "qq.zip", {"小鹿.mht": text}))
    assert bad == []
    assert [(message.sender, message.mark, message.text, message.is_owner) for message in messages] == [
        ("小鹿", "", "看<b>看\n第二行", False),
        ("小鹿", "", "嗯", False),
        ("小鹿", "", "嗯嗯", False),
        ("风", "media", "", True),
        ("风", "media", "图", True),
        ("10000", "service", "提示", False),
    ]
    assert {(message.chat, message.kind) for message in messages} == {("小鹿", "dm")}
    assert messages[3].sent_at == datetime(2019, 9, 23, 18, 30, tzinfo=UTC)
    assert messages[5].sent_at == datetime(2019, 9, 24, 7, 0, tzinfo=UTC)


def test_both_exports_of_a_chat_give_the_same_ids(tmp_path: Path) -> None:
    text, _ = read(written(tmp_path, FRIEND))
    picture, _ = read(
        written(tmp_path, mht(row("小鹿", "8:43:38", font("在吗<br>第二行<br><br>第三行"))), "chat.mht"),
    )
    assert (picture[0].chat, picture[0].id) == (text[0].chat, text[0].id)


def test_a_day_that_is_none_is_counted_and_the_rest_is_read(tmp_path: Path) -> None:
    messages, bad = read(written(tmp_path, FRIEND.replace("2019-09-23 8:43:38", "2019-13-45 8:43:38")))
    assert len(messages) == 3
    assert [record.position for record in bad] == ["line 9"]


def test_a_row_cut_off_is_counted(tmp_path: Path) -> None:
    text = mht(row("小鹿", "8:43:38", font("在吗")))
    messages, bad = read(written(tmp_path, text[: text.index("在吗")], "chat.mht"))
    assert messages == []
    assert len(bad) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello\n",
        "{}",
        "2021-03-13 21:05:10 INFO started\n2021-03-13 21:05:11 INFO done (12345)\n",
        "2021-03-13 21:05:10\tnick\thi\n\n2021-03-13 21:05:10\tnick\thi\n\n",
        "13/03/2021, 21:05 - Tom: hi\n",
        "[3/13/21, 9:05:11 PM] Mara: hello\n",
        "May 17, 2022  5:29:42 PM\nMe\nhi\n\n",
        "meeting at 10:00:00\nbring tea\n",
    ],
)
def test_other_files_are_left_to_others(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, text)
    assert not QQReader().sniff(SourceTree(open_folder(path), path.name, path.name, ZoneInfo("UTC")))


@given(st.binary(max_size=40))
def test_no_bytes_stop_it(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "chat.txt").write_bytes((FRIEND * 3 + "\n").encode() + data)
    messages, _ = read(folder / "chat.txt")
    assert len(messages) >= 12
    page = mht(row("小鹿", "8:43:38", font("在吗"))).encode()
    (folder / "chat.mht").write_bytes(page.replace(b"</table>", data + b"</table>"))
    messages, _ = read(folder / "chat.mht")
    assert [message.text for message in messages][:1] == ["在吗"]


@given(st.text(alphabet=st.sampled_from("哈a1(:[]=<>/- \n"), max_size=60))
def test_any_words_stay_one_message(tmp_path_factory: pytest.TempPathFactory, words: str) -> None:
    path = tmp_path_factory.mktemp("words") / "chat.txt"
    path.write_text(FRIEND + f"2019-09-24 8:43:38 小鹿\n{words}\n\n", encoding="utf-8")
    messages, bad = read(path)
    assert bad == []
    assert messages[-1].text == words.strip()


def test_what_the_app_says_of_a_red_packet_is_nobodys(tmp_path: Path) -> None:
    body = "[QQ红包]我发了一个“普通红包”，请使用新版手机QQ查收红包。"
    messages, _ = read(written(tmp_path, FRIEND + f"2020-02-16 20:43:38 小鹿\n{body}\n\n"))
    assert (messages[-1].mark, messages[-1].text) == ("media", "")
