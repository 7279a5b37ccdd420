"""LINE's chat export from phones and the desktop app."""

from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.exports import read_all
from training.archives.line import LineReader
from training.archives.message import Message
from training.archives.source_tree import BadRecord, SourceTree, open_folder

PHONE = (
    "[LINE] Chat history with Tom\nSaved on: 2021/03/15 10:00\n\n"
    "2021/03/13(Sat)\n"
    "21:05\tMara\thello\n"
    '21:06\tTom\t"two\nlines, ""quoted"""\n'
    "21:07\tTom\t[Sticker]\n"
    "21:08\tTom\t[Photo]\n"
    "21:09\t\tTom unsent a message.\n"
    "21:10\tTom\t☎ Call time 1:23\n"
    "\n2021/03/14(Sun)\n"
    '00:05\tMara\t"quoted" as it is\n'
)


def read(path: Path) -> tuple[list[Message], list[BadRecord]]:
    return read_all(path, [LineReader()])


def written(folder: Path, text: str, name: str = "chat.txt", encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def sniff(path: Path) -> bool:
    return LineReader().sniff(SourceTree(open_folder(path), path.name, path.name, ZoneInfo("UTC")))


def test_a_phone(tmp_path: Path) -> None:
    messages, bad = read(written(tmp_path, PHONE, encoding="utf-8-sig"))
    assert bad == []
    assert [(message.sender, message.mark, message.text) for message in messages] == [
        ("Mara", "", "hello"),
        ("Tom", "", 'two\nlines, "quoted"'),
        ("Tom", "sticker", ""),
        ("Tom", "media", ""),
        ("Tom", "deleted", "Tom unsent a message."),
        ("Tom", "service", "☎ Call time 1:23"),
        ("Mara", "", '"quoted" as it is'),
    ]
    assert messages[0].sent_at == datetime(2021, 3, 13, 20, 5, tzinfo=UTC)
    assert messages[-1].sent_at == datetime(2021, 3, 13, 23, 5, tzinfo=UTC)
    assert {(message.platform, message.kind, message.chat, message.chat_name) for message in messages} == {
        ("line", "dm", "Mara & Tom", "Tom")
    }
    assert {(message.sender, message.is_owner) for message in messages} == {("Mara", None), ("Tom", False)}
    assert messages[0].origin == "chat.txt:5"


@pytest.mark.parametrize(
    ("title", "day", "clock", "kind"),
    [
        ("[LINE] Tomとのトーク履歴\n保存日時：2021/03/15 10:00", "2021/03/13(土)", "21:05", "dm"),
        ("[LINE] Hikingのトーク履歴\n保存日時：2021/03/15 10:00", "2021/03/13(土)", "午後9:05", "group"),
        ("[LINE] 與Tom的聊天記錄\n儲存日期：2021/03/15 10:00", "2021/03/13（六）", "下午09:05", "dm"),
        ("[LINE] 与Tom的聊天记录\n保存日期：2021/03/15 10:00", "2021/03/13（周六）", "21:05", "dm"),
        ("[LINE] Chat history in Hiking\nSaved on: 3/15/2021, 10:00", "Sat, 3/13/2021", "9:05 PM", "group"),
        ("[LINE] Chat history with Tom\nSaved on: 15/3/2021, 10:00", "Sat, 13/3/2021", "09:05PM", "dm"),
        ("[LINE] Tom님과의 대화\n저장한 날짜 : 2021/03/15", "2021년 3월 13일 토요일", "오후 9:05", "dm"),
        ("[LINE] Chat history with Tom\nSaved on: 2021/03/15", "2021.03.13 Saturday", "21:05", "dm"),
    ],
)
def test_languages(tmp_path: Path, title: str, day: str, clock: str, kind: str) -> None:
    messages, bad = read(written(tmp_path, f"{title}\r\n\r\n{day}\r\n{clock}\tTom\t你好\r\n"))
    assert bad == []
    assert [(message.sender, message.text, message.kind) for message in messages] == [("Tom", "你好", kind)]
    assert messages[0].sent_at == datetime(2021, 3, 13, 20, 5, tzinfo=UTC)


def test_the_weekday_tells_day_from_month(tmp_path: Path) -> None:
    head = "[LINE] Chat history with Tom\nSaved on: 1\n\n"
    for line, month in (("Tue, 2/3/2021", 3), ("Wed, 2/3/2021", 2)):
        messages, _ = read(written(tmp_path, f"{head}{line}\n21:05\tTom\thi\n"))
        assert messages[0].sent_at.month == month


def test_a_day_that_somebody_wrote_is_text(tmp_path: Path) -> None:
    text = PHONE.replace("hello\n", '"when?\n2021/05/01(Sat)\nor so"\n')
    messages, bad = read(written(tmp_path, text))
    assert bad == []
    assert messages[0].text == "when?\n2021/05/01(Sat)\nor so"
    assert messages[1].sent_at == datetime(2021, 3, 13, 20, 6, tzinfo=UTC)


def test_the_desktop_app_puts_blanks_between(tmp_path: Path) -> None:
    lines = [f"21:0{n} Mara Lind word{n} and more" for n in range(6)]
    text = "\n".join(["2021.03.13 Saturday", *lines, "21:07 Tom hello you", "and a second line", "21:08 Tom Stickers"])
    text += "\n21:09 Kim joined the group.\n\n2021.03.14 Sunday\n09:00 Tom [Photo]\n"
    messages, bad = read(written(tmp_path, text, "[LINE]Hiking.txt"))
    assert bad == []
    assert [(message.sender, message.mark, message.text) for message in messages[5:]] == [
        ("Mara Lind", "", "word5 and more"),
        ("Tom", "", "hello you\nand a second line"),
        ("Tom", "sticker", ""),
        ("Hiking", "service", "Kim joined the group."),
        ("Tom", "media", ""),
    ]
    assert messages[-1].sent_at == datetime(2021, 3, 14, 8, 0, tzinfo=UTC)


@pytest.mark.parametrize("tab", ["\t", " "])
def test_only_the_desktop_app_writes_without_brackets(tmp_path: Path, tab: str) -> None:
    day = "2021.03.13 星期六" if tab == " " else "[LINE] 與小明的聊天記錄\n儲存日期：1\n\n2021/03/13（六）"
    text = f"{day}\n21:05{tab}小明{tab}圖片\n21:06{tab}小明{tab}圖片呢\n"
    messages, bad = read(written(tmp_path, text))
    assert bad == []
    first = ("", "圖片") if tab == "\t" else ("media", "")
    assert [(message.mark, message.text) for message in messages] == [first, ("", "圖片呢")]


def test_what_belongs_to_no_message_is_counted(tmp_path: Path) -> None:
    text = "[LINE] Chat history with Tom\nSaved on: 1\n\n2021/03/13(Sat)\n25:99\tTom\tx\nand on\n21:05\tTom\ty\n"
    messages, bad = read(written(tmp_path, text))
    assert [message.text for message in messages] == ["y"]
    assert [record.position for record in bad] == ["line 5", "line 6"]


def test_ids_are_unique_and_stay_the_same(tmp_path: Path) -> None:
    text = PHONE + "00:06\tTom\tok\n00:06\tTom\tok\n"
    first, _ = read(written(tmp_path, text))
    again, _ = read(written(tmp_path, text + "00:07\tTom\tmore\n", "later.txt"))
    assert len({message.id for message in first}) == len(first)
    assert [message.id for message in again][: len(first)] == [message.id for message in first]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "gb18030"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    text = "[LINE] 与小明的聊天记录\n保存日期：2021/03/15\n\n2021/03/13（六）\n21:05\t小明\t明天见\n"
    messages, _ = read(written(tmp_path, text, encoding=encoding))
    assert [message.text for message in messages] == ["明天见"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello\n",
        "[LINE] is an app\n",
        "2021/03/13\n21:05 went home\n",
        "13/03/2021, 21:05 - Tom: hi\n",
        "--------------- 2021년 3월 13일 토요일 ---------------\n[Tom] [오후 9:05] hi\n",
        "2021년 3월 13일 토요일\n2021. 3. 13. 오후 9:05, Tom : hi\n",
        "2021-03-13 21:05:10\tnick\thi\n",
    ],
)
def test_other_files_are_left_to_others(tmp_path: Path, text: str) -> None:
    assert not sniff(written(tmp_path, text))


@given(st.binary(max_size=4))
def test_no_bytes_stop_it(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "chat.txt"
    path.write_bytes(PHONE.encode() + data)
    messages, _ = read(path)
    assert len(messages) >= 7


_LINES = st.sampled_from(
    [
        *("21:05\tTom\thi", "21:06\tMara\t", "2021/03/14(Sun)", "0001/01/01(Mon)", "99:99\tTom\tx", "plain", "", '"'),
        *("21:07\t\tleft", "Sat, 31/31/2021", "2021.02.31 Monday", "\t", "9:05 PM\tTom\tx"),
    ]
)


@given(st.lists(_LINES, max_size=12))
def test_every_line_is_in_a_message_or_counted(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    path = tmp_path_factory.mktemp("any") / "chat.txt"
    path.write_text(PHONE + "\n".join(lines), encoding="utf-8")
    messages, bad = read(path)
    timed = sum(line.startswith(("21:0", "9:05")) for line in lines)
    assert len(messages) + len(bad) >= 7 + timed
    kept = "\n".join(message.text for message in messages)
    noted = len(bad)
    assert kept.count("plain") + noted >= lines.count("plain")


@pytest.mark.parametrize("name", ["[LINE] Tom _).txt", "[LINE] Tom :).txt"])
def test_a_name_is_known_from_a_files_name_that_cannot_have_all_of_it(tmp_path: Path, name: str) -> None:
    text = "2023.03.05 日曜日\n14:05 Ann is the plumber coming\n14:06 Tom :) at ten\n14:08 Tom :) he rings: twice\n"
    (tmp_path / name).write_text(text, encoding="utf-8")
    messages, bad = read_all(tmp_path / name, [LineReader()])
    assert bad == []
    assert [(message.sender, message.text, message.kind) for message in messages] == [
        ("Ann", "is the plumber coming", "dm"),
        ("Tom :)", "at ten", "dm"),
        ("Tom :)", "he rings: twice", "dm"),
    ]
