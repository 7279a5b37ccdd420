"""KakaoTalk's chat export from a PC, from phones and from a Mac."""

from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.exports import read_all
from training.archives.kakaotalk import KakaoTalkReader
from training.archives.message import Message
from training.archives.source_tree import BadRecord, SourceTree, open_folder

PC = (
    "Tom 님과 카카오톡 대화\n저장한 날짜 : 2021-03-15 10:00:00\n\n"
    "--------------- 2021년 3월 13일 토요일 ---------------\n"
    "[마라] [오후 9:05] 안녕\n"
    "[Tom] [오후 9:06] two\n\nlines [Tom] [오후 9:06] quoted\n"
    "[Tom] [오후 9:07] 사진\n"
    "[Tom] [오후 9:08] 이모티콘\n"
    "[Tom] [오후 9:09] 삭제된 메시지입니다.\n"
    "[Tom] [오후 9:10] 보이스톡 해요\n"
    "--------------- 2021년 3월 14일 일요일 ---------------\n"
    "[Tom] [오전 12:05] 자니?\n"
    "Kim님이 나갔습니다.\n"
)
ANDROID = (
    "Hiking 3 님과 카카오톡 대화\n저장한 날짜 : 2021년 3월 15일 오전 10:00\n\n\n"
    "2021년 3월 13일 오후 9:05\n"
    "2021년 3월 13일 오후 9:05, 회원님 : 안녕 : 하세요\n"
    "2021년 3월 13일 오후 9:06, Tom : two\nlines\n"
    "\n2021년 3월 14일 오전 12:05\n"
    "2021년 3월 14일 오전 12:05, Tom님이 Kim님을 초대했습니다.\n"
    "2021년 3월 14일 오전 12:06, Kim : (이모티콘) hi\n"
)
TABLE = (
    "Date,User,Message\n"
    '2021-03-13 21:05:10,"마라","hello, ""you"""\n'
    '2021-03-13 21:06:00,"Tom","two\nlines"\n'
    '2021-03-13 21:07:00,"Tom","Tom님이 들어왔습니다."\n'
    'yesterday,"Tom","x"\n'
)


def read(path: Path) -> tuple[list[Message], list[BadRecord]]:
    return read_all(path, [KakaoTalkReader()])


def written(folder: Path, text: str, name: str = "chat.txt", encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def test_a_pc(tmp_path: Path) -> None:
    messages, bad = read(written(tmp_path, PC.replace("\n", "\r\n"), encoding="utf-8-sig"))
    assert bad == []
    assert [(message.sender, message.mark, message.text) for message in messages] == [
        ("마라", "", "안녕"),
        ("Tom", "", "two\n\nlines [Tom] [오후 9:06] quoted"),
        ("Tom", "media", ""),
        ("Tom", "sticker", ""),
        ("Tom", "deleted", "삭제된 메시지입니다."),
        ("Tom", "service", "보이스톡 해요"),
        ("Tom", "", "자니?"),
        ("Tom", "service", "Kim님이 나갔습니다."),
    ]
    assert messages[0].sent_at == datetime(2021, 3, 13, 20, 5, tzinfo=UTC)
    assert messages[6].sent_at == messages[7].sent_at == datetime(2021, 3, 13, 23, 5, tzinfo=UTC)
    assert {(message.platform, message.kind, message.chat_name) for message in messages} == {("kakaotalk", "dm", "Tom")}
    assert {(message.sender, message.is_owner) for message in messages} == {("마라", None), ("Tom", False)}


def test_an_android_phone_says_which_messages_are_yours(tmp_path: Path) -> None:
    messages, bad = read(written(tmp_path, ANDROID))
    assert bad == []
    assert [(message.sender, message.is_owner, message.mark, message.text) for message in messages] == [
        ("회원님", True, "", "안녕 : 하세요"),
        ("Tom", False, "", "two\nlines"),
        ("Hiking", False, "service", "Tom님이 Kim님을 초대했습니다."),
        ("Kim", False, "media", "hi"),
    ]
    assert messages[2].sent_at == datetime(2021, 3, 13, 23, 5, tzinfo=UTC)
    assert {(message.kind, message.chat) for message in messages} == {("group", "Hiking")}


@pytest.mark.parametrize(
    "text",
    [
        "Tom 님과 카카오톡 대화\n저장한 날짜 : x\n\n2021년 3월 13일 토요일\n2021. 3. 13. 오후 9:05, Tom : hi\n",
        "Tom Talk Chats\nDate Saved : Mar 15, 2021\n\nSaturday, March 13, 2021\nMar 13, 2021 at 21:05, Tom : hi\n",
        "KakaoTalk Chats with Tom\nDate Saved : x\n\nMarch 13, 2021, 9:05 PM\nMarch 13, 2021, 9:05 PM, Tom : hi\n",
        "KakaoTalk Chats with Tom\nDate Saved : x\n\n13 March 2021 at 9:05\u202fpm, Tom : hi\n",
        "KakaoTalk Chats with Tom\nDate Saved : x\n\n2021-03-13 21:05, Tom : hi\n",
        "Tom with KakaoTalk Chats\nDate Saved : x\n\n"
        "--------------- Saturday, March 13, 2021 ---------------\n[Tom] [9:05 PM] hi\n",
        "저장한 날짜 : 2021-03-15\n\nTom 님과 카카오톡 대화\n"
        "--------------- 2021년 3월 13일 토요일 ---------------\n[Tom] [21:05] hi\n",
    ],
)
def test_other_phones_and_languages(tmp_path: Path, text: str) -> None:
    messages, bad = read(written(tmp_path, text))
    assert bad == []
    assert [(message.sender, message.text, message.chat_name) for message in messages] == [("Tom", "hi", "Tom")]
    assert messages[0].sent_at == datetime(2021, 3, 13, 20, 5, tzinfo=UTC)


def test_pictures_that_were_never_opened(tmp_path: Path) -> None:
    text = ANDROID + "2021년 3월 15일 오전 12:06, Kim : <사진 읽지 않음>\n2021년 3월 15일 오전 12:07, Kim : <3\n"
    messages, _ = read(written(tmp_path, text))
    assert [(message.mark, message.text) for message in messages[-2:]] == [("media", ""), ("", "<3")]


def test_a_mac_writes_a_table(tmp_path: Path) -> None:
    path = written(tmp_path, TABLE, "KakaoTalk_Chat_Tom_2021-03-15-10-00-00.csv", "utf-8-sig")
    messages, bad = read(path)
    assert [(message.sender, message.mark, message.text) for message in messages] == [
        ("마라", "", 'hello, "you"'),
        ("Tom", "", "two\nlines"),
        ("Tom", "service", "Tom님이 들어왔습니다."),
    ]
    assert messages[0].sent_at == datetime(2021, 3, 13, 20, 5, 10, tzinfo=UTC)
    assert [record.position for record in bad] == ["line 6"]
    assert [message.is_owner for message in messages] == [None, False, False]


def test_what_looks_like_the_other_form_is_only_quoted(tmp_path: Path) -> None:
    text = ANDROID + "[Tom] [오후 9:05] said so\n--------------- 2022년 1월 1일 토요일 ---------------\n"
    messages, bad = read(written(tmp_path, text))
    assert bad == []
    assert messages[-1].text.splitlines()[1:] == [
        "[Tom] [오후 9:05] said so",
        "--------------- 2022년 1월 1일 토요일 ---------------",
    ]


def test_damaged_records_are_counted_and_the_rest_is_read(tmp_path: Path) -> None:
    text = PC + "[Tom] [오후 12:99] never\nafter it\n[Tom] [오후 9:05] then\n"
    messages, bad = read(written(tmp_path, text))
    assert messages[-1].text == "then"
    assert [record.position for record in bad] == ["line 16", "line 17"]


def test_ids_are_unique_and_stay_the_same(tmp_path: Path) -> None:
    text = PC + "[Tom] [오후 9:05] ok\n[Tom] [오후 9:05] ok\n"
    first, _ = read(written(tmp_path, text))
    again, _ = read(written(tmp_path, text + "[Tom] [오후 9:06] more\n", "later.txt"))
    assert len({message.id for message in first}) == len(first)
    assert [message.id for message in again][: len(first)] == [message.id for message in first]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello\n",
        "Small Talk Chats\n",
        "Date,User,Message\nyesterday,Tom,hi\n",
        "date,user,text\n2021-03-13 21:05:10,Tom,hi\n",
        "[12:30] <nick> hi\n",
        "2021-03-13, 9:05 p.m. - Kim: hi\n",
        "[LINE] Chat history with Tom\nSaved on: 2021/03/15\n\n2021/03/13(Sat)\n21:05\tTom\thi\n",
        "--------------- 2021-03-13 ---------------\nlog\n",
    ],
)
def test_other_files_are_left_to_others(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, text)
    assert not KakaoTalkReader().sniff(SourceTree(open_folder(path), path.name, path.name, ZoneInfo("UTC")))


@given(st.binary(max_size=4), st.sampled_from([(PC, 8), (ANDROID, 4), (TABLE, 3)]))
def test_no_bytes_stop_it(tmp_path_factory: pytest.TempPathFactory, data: bytes, form: tuple[str, int]) -> None:
    path = tmp_path_factory.mktemp("any") / "chat.txt"
    path.write_bytes(form[0].encode() + data)
    messages, _ = read(path)
    assert len(messages) >= form[1]


_LINES = st.sampled_from(
    [
        *("[Tom] [오후 9:05] hi", "[Tom] [99:99] hi", "--------------- 2021년 2월 31일 ---------------", "plain", ""),
        *(
            "2021년 13월 13일 오후 9:05, Tom : x",
            "2021년 3월 13일 오후 9:05, Tom : x",
            "Foo 13, 2021, 9:05 PM, Tom : x",
        ),
        *("--------------- 1년 1월 1일 ---------------", "0001. 1. 1. 오전 0:00, Tom : x", "Kim님이 나갔습니다."),
    ]
)


@given(st.lists(_LINES, max_size=12), st.sampled_from([(PC, 8), (ANDROID, 4)]))
def test_every_line_is_in_a_message_or_counted(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], form: tuple[str, int]
) -> None:
    path = tmp_path_factory.mktemp("any") / "chat.txt"
    path.write_text(form[0] + "\n".join(lines), encoding="utf-8")
    messages, bad = read(path)
    assert len(messages) + len(bad) >= form[1]
    text = "\n".join(message.text for message in messages)
    if not any("0001." in line for line in lines):  # a whole message of the year 1 is counted, with all of its lines
        assert text.count("plain") + len(bad) >= lines.count("plain")


def test_a_groups_title_without_the_word_for_with(tmp_path: Path) -> None:
    text = "팀 3 카카오톡 대화\n저장한 날짜 : x\n\n\n2021년 3월 13일 오후 9:05, 김철수 : 안녕\n"
    messages, bad = read(written(tmp_path, text))
    assert bad == []
    assert [(message.chat, message.kind, message.text) for message in messages] == [("팀", "group", "안녕")]
