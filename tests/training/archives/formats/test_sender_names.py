"""Names with colons, brackets and anything else in text exports: no line is lost, and no text becomes a name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.training.exports import ZONE, read_all
from training.archives.formats.sender_names import NameSurvey, SenderNames
from training.archives.imessage import IMessageReader
from training.archives.kakaotalk import KakaoTalkReader
from training.archives.line import LineReader
from training.archives.qq.text_exports import QQReader
from training.archives.signal.signal_export import SignalReader
from training.archives.source_tree import SourceTree, open_folder
from training.archives.whatsapp import WhatsAppReader


def split(lines: list[str], *known: str) -> list[tuple[str, str] | None]:
    survey = NameSurvey(known=known)
    for line in lines:
        survey.add(line)
    names = SenderNames(survey.names())
    return [names.split(line) for line in lines]


def test_what_recurs_is_a_name_and_what_varies_is_text() -> None:
    lines = ["Team: Berlin: one", "Team: Berlin: two", "Team: Berlin: note: three", "Ann: note: milk", "Ann: hi: you"]
    assert split(lines) == [
        ("Team: Berlin", "one"),
        ("Team: Berlin", "two"),
        ("Team: Berlin", "note: three"),
        ("Ann", "note: milk"),
        ("Ann", "hi: you"),
    ]


def test_a_few_messages_that_begin_alike_are_no_name_unless_the_file_says_so() -> None:
    lines = ["Tom: note: a", "Tom: note: b", "Tom: note: c"]
    assert split(lines) == [("Tom", "note: a"), ("Tom", "note: b"), ("Tom", "note: c")]
    assert split(["Dr: Tom: a"]) == [("Dr", "Tom: a")]
    assert split(["Dr: Tom: a"], "Dr_ Tom") == [("Dr: Tom", "a")]
    assert split(["Dr: Tom: a"], "ann", "dr: tom") == [("Dr: Tom", "a")]
    assert split(["Tom: :)", "Tom :): :)", "no name"]) == [("Tom", ":)"), ("Tom :)", ":)"), None]


def test_the_owners_name_is_known_with_its_platform() -> None:
    survey = NameSurvey(me=["whatsapp:Ann: Home", "Tom"])
    survey.add("Ann: Home: hi")
    survey.add("Tom: note: hi")
    assert survey.names() == {"Ann: Home": 1, "Tom": 1}


def test_many_different_beginnings_cost_no_memory() -> None:
    survey = NameSurvey()
    for number in range(10_000):
        survey.add(f"Tom: {number}: x: y: z")
    assert survey.names() == {"Tom": 10_000}


WHATSAPP = "[05.03.23, 14:{:02}:{:02}] "


def whatsapp(said: list[tuple[str, str]]) -> str:
    return "".join(f"{WHATSAPP.format(*divmod(n, 60))}{name}: {text}\n" for n, (name, text) in enumerate(said))


def android(said: list[tuple[str, str]]) -> str:
    return "".join(f"05.03.23, 14:{n % 60:02} - {name}: {text}\n" for n, (name, text) in enumerate(said))


def line_phone(said: list[tuple[str, str]]) -> str:
    rows = "".join(f"14:{n % 60:02}\t{name}\t{text}\n" for n, (name, text) in enumerate(said))
    return f"[LINE] Chat history in Team\nSaved on: 2023/03/06, 10:00\n\n2023/03/05(Sun)\n{rows}"


def kakaotalk_phone(said: list[tuple[str, str]]) -> str:
    rows = "".join(f"2023년 3월 5일 오후 2:{n % 60:02}, {name} : {text}\n" for n, (name, text) in enumerate(said))
    return f"Team 3 님과 카카오톡 대화\n저장한 날짜 : 2023년 3월 6일 오전 10:00\n\n\n2023년 3월 5일 오후 2:00\n{rows}"


def kakaotalk_pc(said: list[tuple[str, str]]) -> str:
    rows = "".join(f"[{name}] [오후 2:{n % 60:02}] {text}\n" for n, (name, text) in enumerate(said))
    day = "--------------- 2023년 3월 5일 일요일 ---------------"
    return f"Team 3 님과 카카오톡 대화\n저장한 날짜 : 2023-03-06 10:00:00\n\n{day}\n{rows}"


def signal(said: list[tuple[str, str]]) -> str:
    return "\n".join(f"[2023-03-05 14:{n % 60:02}] {name}: {text}  \n" for n, (name, text) in enumerate(said))


def qq(said: list[tuple[str, str]]) -> str:
    rule = "=" * 64
    head = "消息记录（此消息记录为文本格式，不支持重新导入）"
    head += f"\n\n{rule}\n消息分组:我的群聊\n{rule}\n消息对象:Team\n{rule}\n\n"
    uins: dict[str, int] = {}
    rows = (
        f"2023-03-05 14:00:{n % 60:02} {name}({uins.setdefault(name, 10001 + len(uins))})\n{text}\n\n"
        for n, (name, text) in enumerate(said)
    )
    return head + "".join(rows)


def imessage(said: list[tuple[str, str]]) -> str:
    return "".join(f"Mar 05, 2023  2:00:{n % 60:02} PM\n{name}\n{text}\n\n" for n, (name, text) in enumerate(said))


FORMATS: dict[str, tuple[Callable[[list[tuple[str, str]]], str], Any, str]] = {
    "whatsapp": (whatsapp, WhatsAppReader, "WhatsApp Chat with Team.txt"),
    "whatsapp, android": (android, WhatsAppReader, "WhatsApp Chat with Team.txt"),
    "line": (line_phone, LineReader, "chat.txt"),
    "kakaotalk, phone": (kakaotalk_phone, KakaoTalkReader, "chat.txt"),
    "kakaotalk, pc": (kakaotalk_pc, KakaoTalkReader, "chat.txt"),
    "signal": (signal, SignalReader, "chat.md"),
    "qq": (qq, QQReader, "chat.txt"),
    "imessage": (imessage, IMessageReader, "chat.txt"),
}
HARD_NAMES = (
    *(
        "Tom :)",
        "Dr: Ann",
        "a: b: c",
        "[Bo]",
        "Li (工作)",
        "12:30",
        "5.3.23",
        "مريم",
        "שרה: בית",
        "Kim : Min",
        "O'Neil",
    ),
    *('Rob "Bo" Lee', 'the "one', "- -", "😀", "x/y", "Anna-Lena", "Tom: note", "Ann at 14:05 - home", "<b>"),
)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("who", HARD_NAMES)
def test_every_name_keeps_its_lines(tmp_path: Path, name: str, who: str) -> None:
    write, reader, file = FORMATS[name]
    said = [("Zoe", "well"), *((who, text) for text in ("hi", "so: yes", "at 12:30", *(f"word {n}" for n in range(9))))]
    said += [("Zoe", "note: milk"), ("Zoe", "12:30: late"), ("Ned", "ok : then"), ("Ned", "ok")]
    (tmp_path / file).write_text(write(said), encoding="utf-8")
    messages, bad = read_all(tmp_path / file, [reader()])
    assert bad == []
    assert [(message.sender_name, message.text) for message in messages] == said
    assert {message.mark for message in messages} == {""}


NAMES = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Cf", "Zl", "Zp", "Cn", "Co")), min_size=1, max_size=25
)
TEXTS = st.text(st.sampled_from("abc :)-[]\"'é中ש😀12/.,"), min_size=1, max_size=20)


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=40, deadline=None)
@given(names=st.lists(NAMES, min_size=2, max_size=3, unique=True), texts=st.lists(TEXTS, min_size=9, max_size=15))
def test_any_names_and_texts_come_back(
    tmp_path_factory: pytest.TempPathFactory, name: str, names: list[str], texts: list[str]
) -> None:
    write, reader, file = FORMATS[name]
    names = list(dict.fromkeys(" ".join(one.split()) for one in names))
    texts = [" ".join(text.split()) for text in texts]
    assume(len(names) > 1 and all(one.strip("~@ ") == one and one[:1] != "【" for one in names) and all(texts))
    assume(not any(other.startswith(one) for one in names for other in names if one != other))
    # Everybody says something that nobody could take for a part of the name.
    said = [(one, f"x{number}") for one in names for number in range(9)]
    said += [(names[number % len(names)], f"q{text}") for number, text in enumerate(texts)]
    path = tmp_path_factory.mktemp("names") / file
    path.write_text(write(said), encoding="utf-8")
    tree = SourceTree(open_folder(path.parent), path.name, f"archive/{path.name}", ZONE)
    messages = list(reader().read(tree))
    assert [(message.sender_name, message.text) for message in messages if message.mark != "service"] == said
