"""Every format with local times: the clock's changes, clocks that disagree, and newest-first files keep the order."""

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.training.exports import read_all, telegram_chat, telegram_message
from training.archives.imessage import IMessageReader
from training.archives.irc import IRCReader
from training.archives.kakaotalk import KakaoTalkReader
from training.archives.line import LineReader
from training.archives.message import Message
from training.archives.qq.text_exports import QQReader
from training.archives.signal.signal_export import SignalReader
from training.archives.source_tree import BadRecord
from training.archives.telegram import TelegramReader
from training.archives.wechat.csv_exports import WeChatCSVReader
from training.archives.whatsapp import WhatsAppReader

Stamps = list[datetime]


def whatsapp(stamps: Stamps) -> str:
    return "".join(f"{at:%d.%m.%y, %H:%M} - {'Tom' if n % 2 else 'Ann'}: m{n}\n" for n, at in enumerate(stamps))


def whatsapp_thai(stamps: Stamps) -> str:
    return "".join(
        f"{at.day}/{at.month}/{at.year + 543} {at:%H:%M} - {'Tom' if n % 2 else 'Ann'}: m{n}\n"
        for n, at in enumerate(stamps)
    )


def line(stamps: Stamps) -> str:
    text, day = "[LINE] Chat history with Tom\nSaved on: 2024/03/06, 10:00\n\n", ""
    for n, at in enumerate(stamps):
        text += f"{at:%a, %m/%d/%Y}\n" if day != f"{at:%d}" else ""
        day = f"{at:%d}"
        text += f"{at:%I:%M %p}\t{'Tom' if n % 2 else 'Ann'}\tm{n}\n"
    return text


def kakaotalk(stamps: Stamps) -> str:
    rows = (f"{at.year}년 {at.month}월 {at.day}일 {at:%H:%M}, {'Tom' if n % 2 else '회원님'} : m{n}\n"
            for n, at in enumerate(stamps))  # fmt: skip
    return "Tom 님과 카카오톡 대화\n저장한 날짜 : 2024년 3월 6일 10:00\n\n" + "".join(rows)


def kakaotalk_table(stamps: Stamps) -> str:
    rows = (f'{at:%Y-%m-%d %H:%M}:00,"{"Tom" if n % 2 else "Ann"}","m{n}"\n' for n, at in enumerate(stamps))
    return "Date,User,Message\n" + "".join(rows)


def signal(stamps: Stamps) -> str:
    return "\n".join(f"[{at:%Y-%m-%d %H:%M}] {'Tom' if n % 2 else 'Me'}: m{n}  \n" for n, at in enumerate(stamps))


def imessage(stamps: Stamps) -> str:
    return "".join(
        f"{at:%b %d, %Y} {at:%I:%M:00 %p}\n{'Tom' if n % 2 else 'Me'}\nm{n}\n\n" for n, at in enumerate(stamps)
    )


def qq(stamps: Stamps) -> str:
    rule = "=" * 64
    head = "消息记录（此消息记录为文本格式，不支持重新导入）"
    head += f"\n\n{rule}\n消息分组:我的好友\n{rule}\n消息对象:Tom\n{rule}\n\n"
    return head + "".join(
        f"{at:%Y-%m-%d %H:%M}:00 {'Tom' if n % 2 else 'Ann'}\nm{n}\n\n" for n, at in enumerate(stamps)
    )


def weechat(stamps: Stamps) -> str:
    return "".join(f"{at:%Y-%m-%d %H:%M}:00\t{'tom' if n % 2 else 'ann'}\tm{n}\n" for n, at in enumerate(stamps))


def wechat(stamps: Stamps) -> str:
    rows = (f"{n},文本,{'Tom' if n % 2 else 'Ann'},{at:%Y/%m/%d %H:%M},m{n}\n" for n, at in enumerate(stamps))
    return "消息ID,类型,发送人,时间,内容\n" + "".join(rows)


def wechat_american(stamps: Stamps) -> str:
    rows = (f"{n},文本,{'Tom' if n % 2 else 'Ann'},{at:%m/%d/%Y %H:%M},m{n}\n" for n, at in enumerate(stamps))
    return "消息ID,类型,发送人,时间,内容\n" + "".join(rows)


def telegram(stamps: Stamps) -> str:
    """Exports before 2022 have local times only."""
    messages = [telegram_message(n, 1001 + n % 2 * 1001, f"m{n}", date=at.isoformat()) for n, at in enumerate(stamps)]
    for message in messages:
        del message["date_unixtime"]
    return json.dumps(telegram_chat(messages))


Format = tuple[Callable[[Stamps], str], Any, str]
TEXTS: dict[str, Format] = {
    "whatsapp": (whatsapp, WhatsAppReader, "WhatsApp Chat with Tom.txt"),
    "whatsapp in Thailand": (whatsapp_thai, WhatsAppReader, "WhatsApp Chat with Tom.txt"),
    "line": (line, LineReader, "chat.txt"),
    "kakaotalk": (kakaotalk, KakaoTalkReader, "chat.txt"),
    "kakaotalk table": (kakaotalk_table, KakaoTalkReader, "chat.csv"),
    "signal": (signal, SignalReader, "chat.md"),
    "imessage": (imessage, IMessageReader, "Tom.txt"),
    "qq": (qq, QQReader, "chat.txt"),
    "irc": (weechat, IRCReader, "irc.libera.#tea.weechatlog"),
    "wechat": (wechat, WeChatCSVReader, "chat.csv"),
    "wechat from a spreadsheet": (wechat_american, WeChatCSVReader, "chat.csv"),
}
FORMATS: dict[str, Format] = {**TEXTS, "telegram": (telegram, TelegramReader, "result.json")}


def read(folder: Path, name: str, *stamps: str) -> list[Message]:
    write, reader, file = FORMATS[name]
    path = folder / file
    path.write_text(write([datetime.fromisoformat(stamp) for stamp in stamps]), encoding="utf-8")
    messages, bad = read_all(path, [reader()])
    assert bad == []
    return [message for message in messages if message.text.startswith("m")]


def in_order(messages: list[Message]) -> list[str]:
    return [message.text for message in sorted(messages, key=lambda message: message.sent_at)]


@pytest.mark.parametrize("name", FORMATS)
def test_the_hour_that_comes_twice(tmp_path: Path, name: str) -> None:
    day = "2023-10-29T"
    messages = read(tmp_path, name, *(f"{day}{at}" for at in ("01:50", "02:20", "02:59", "02:00", "02:30", "03:00")))
    assert [f"{message.sent_at:%H:%M}" for message in messages] == [
        *("23:50", "00:20", "00:59"),
        *("01:00", "01:30", "02:00"),
    ]
    assert in_order(messages) == ["m0", "m1", "m2", "m3", "m4", "m5"]
    assert len({message.id for message in messages}) == 6


@pytest.mark.parametrize("name", TEXTS)
def test_the_hour_that_never_was(tmp_path: Path, name: str) -> None:
    messages = read(tmp_path, name, *(f"2023-03-26T{at}" for at in ("01:50", "02:30", "03:05", "03:06")))
    assert in_order(messages) == ["m0", "m1", "m2", "m3"]


@pytest.mark.parametrize("name", TEXTS)
def test_clocks_that_disagree(tmp_path: Path, name: str) -> None:
    clocks = ("14:05", "14:09", "14:06", "14:10", "14:07", "14:07")
    messages = read(tmp_path, name, *(f"2023-05-14T{at}" for at in clocks))
    assert in_order(messages) == ["m0", "m1", "m2", "m3", "m4", "m5"]
    assert f"{messages[0].sent_at:%H:%M}" == "12:05"
    assert all(message.sent_at.hour == 12 and message.sent_at.minute <= 10 for message in messages)


@pytest.mark.parametrize("name", TEXTS)
def test_the_newest_first(tmp_path: Path, name: str) -> None:
    days = ("2023-05-19", "2023-05-18", "2023-05-18", "2023-05-15", "2023-05-14", "2023-05-13")
    messages = read(tmp_path, name, *(f"{day}T14:05" for day in days))
    assert in_order(messages) == ["m5", "m4", "m3", "m2", "m1", "m0"]


@pytest.mark.parametrize("name", TEXTS)
def test_two_parts_in_one_file_are_sorted(tmp_path: Path, name: str) -> None:
    days = ("2023-05-17", "2023-05-18", "2023-05-19", "2023-04-14", "2023-04-15", "2023-04-16")
    messages = read(tmp_path, name, *(f"{day}T14:05" for day in days))
    assert in_order(messages) == ["m3", "m4", "m5", "m0", "m1", "m2"]
    assert {f"{message.sent_at:%H:%M}" for message in messages} == {"12:05"}


def bad_dates(folder: Path, reader: Any, file: str, text: str) -> tuple[list[Message], list[BadRecord]]:
    (folder / file).write_text(text, encoding="utf-8")
    return read_all(folder / file, [reader()])


def test_a_file_whose_dates_fit_no_order_is_told_in_one_line(tmp_path: Path) -> None:
    text = "".join(f"{day}, 14:05 - Ann: hi\n" for day in ("13/3/21", "14/3/21", "3/15/21", "3/16/21", "17/3/21"))
    messages, (bad,) = bad_dates(tmp_path, WhatsAppReader, "chat.txt", text)
    assert messages == []
    assert (bad.file, bad.position) == (str(tmp_path / "chat.txt"), "dates")
    assert bad.reason.startswith("the file was left out, as 2 of its dates fit neither day/month/year nor")
    persian = "".join(f"1402/12/{day}, 14:05 - Ann: hi\n" for day in range(10, 20))
    messages, (bad,) = bad_dates(tmp_path, WhatsAppReader, "chat.txt", persian)
    assert messages == []
    assert "10 of its dates" in bad.reason


def test_short_years_of_a_whole_file(tmp_path: Path) -> None:
    text = "".join(f"{day}, 14:05 - Ann: hi\n" for day in ("23/3/5", "23/3/30", "24/1/2", "24/2/1"))
    messages, bad = bad_dates(tmp_path, WhatsAppReader, "chat.txt", text)
    assert bad == []
    assert [f"{message.sent_at:%Y-%m-%d}" for message in messages] == [
        *("2023-03-05", "2023-03-30"),
        *("2024-01-02", "2024-02-01"),
    ]
    messages, _ = bad_dates(tmp_path, WhatsAppReader, "chat.txt", text.replace("23/", "66/").replace("24/", "67/"))
    assert [f"{message.sent_at:%Y-%m-%d}" for message in messages[::3]] == ["2023-03-05", "2024-02-01"]
