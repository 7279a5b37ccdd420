"""WhatsApp's chat export from both kinds of phones."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.exports import read_all, write_zip
from training.archives.message import Message
from training.archives.source_tree import BadRecord
from training.archives.whatsapp import WhatsAppReader

ANDROID = (
    "13/03/2021, 21:05 - Messages and calls are end-to-end encrypted. Tap to learn more.\n"
    "13/03/2021, 21:05 - Mara: hello\nsecond line\n1/2 of it\n"
    "13/03/2021, 21:06 - Tom: <Media omitted>\n"
    "13/03/2021, 21:07 - Tom: This message was deleted\n"
    "13/03/2021, 21:08 - Tom: see you at 12:30: ok? <This message was edited>\n"
)
IOS = (
    "\u200e[3/13/21, 9:05:10\u202fPM] Tom: \u200eMessages and calls are end-to-end encrypted.\n"
    "[3/13/21, 9:05:11\u202fPM] Mara: hello\n"
    "\u200e[3/13/21, 9:06:00\u202fPM] Tom: \u200eimage omitted\n"
    "[3/14/21, 12:00:30\u202fAM] Tom: midnight\n"
)


def read(path: Path) -> tuple[list[Message], list[BadRecord]]:
    return read_all(path, [WhatsAppReader()])


def written(folder: Path, text: str, name: str = "chat.txt", encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def test_android(tmp_path: Path) -> None:
    messages, bad = read(written(tmp_path, ANDROID, "WhatsApp Chat with Tom.txt"))
    assert bad == []
    assert [(message.sender, message.mark, message.text) for message in messages[1:]] == [
        ("Mara", "", "hello\nsecond line\n1/2 of it"),
        ("Tom", "media", ""),
        ("Tom", "deleted", "This message was deleted"),
        ("Tom", "", "see you at 12:30: ok?"),
    ]
    assert messages[0].mark == "service"
    assert messages[1].sent_at == datetime(2021, 3, 13, 20, 5, tzinfo=UTC)
    assert {message.kind for message in messages} == {"dm"}
    assert {message.chat for message in messages} == {"Mara & Tom"}
    assert [message.is_owner for message in messages if message.sender == "Tom"] == [False] * 4
    assert messages[1].is_owner is None


def test_iphone_month_first_and_halves_of_the_day(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "WhatsApp Chat - Tom.zip", {"_chat.txt": IOS})
    messages, bad = read(path)
    assert bad == []
    assert [message.mark for message in messages] == ["service", "", "media", ""]
    assert messages[1].sent_at == datetime(2021, 3, 13, 20, 5, 11, tzinfo=UTC)
    assert messages[3].sent_at == datetime(2021, 3, 13, 23, 0, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("[2021/3/13 下午9:05:10] 小明: 你好", datetime(2021, 3, 13, 20, 5, 10, tzinfo=UTC)),
        ("2021/3/13 上午12:05 - 小明: 你好", datetime(2021, 3, 12, 23, 5, tzinfo=UTC)),
        ("13.3.2021 klo 21.05 - Aino: 你好", datetime(2021, 3, 13, 20, 5, tzinfo=UTC)),
        ("13/03/2021 à 21:05 - Zoé: 你好", datetime(2021, 3, 13, 20, 5, tzinfo=UTC)),
        ("13/03/2021 às 21:05 - Rui: 你好", datetime(2021, 3, 13, 20, 5, tzinfo=UTC)),
        ("13.03.21, 21:05 - Tom: 你好", datetime(2021, 3, 13, 20, 5, tzinfo=UTC)),
        ("13/3/21 9:05 p. m. - Ana: 你好", datetime(2021, 3, 13, 20, 5, tzinfo=UTC)),
        ("2021-03-13, 9:05 p.m. - Kim: 你好", datetime(2021, 3, 13, 20, 5, tzinfo=UTC)),
        ("2021. 3. 13. 오후 9:05 - 지우: 你好", datetime(2021, 3, 13, 20, 5, tzinfo=UTC)),
        ("[2021/3/13 午後9:05:10] 葵: 你好", datetime(2021, 3, 13, 20, 5, 10, tzinfo=UTC)),
        ("13/3/21 9:05 μ.μ. - Nikos: 你好", datetime(2021, 3, 13, 20, 5, tzinfo=UTC)),
        ("13/3/2021، 9:05 م - Omar: 你好", datetime(2021, 3, 13, 20, 5, tzinfo=UTC)),
        ("13.03.2021 ÖS 9:05 - Ayse: 你好", datetime(2021, 3, 13, 20, 5, tzinfo=UTC)),
        ("13/03/2021, 9:05 pm - Ravi: 你好", datetime(2021, 3, 13, 20, 5, tzinfo=UTC)),
        ("[13-03-21 21:05:10] Joost: 你好", datetime(2021, 3, 13, 20, 5, 10, tzinfo=UTC)),
        ("2021/3/13 中午12:05 - 小明: 你好", datetime(2021, 3, 13, 11, 5, tzinfo=UTC)),
    ],
)
def test_stamps_of_many_places(tmp_path: Path, line: str, expected: datetime) -> None:
    messages, bad = read(written(tmp_path, line + "\n"))
    assert bad == []
    assert [(message.text, message.sent_at) for message in messages] == [("你好", expected)]


@pytest.mark.parametrize(
    ("text", "mark"),
    [
        ("Standort: https://maps.google.com/?q=52.1,13.2", "media"),
        ("ubicación: https://maps.google.com/?q=1,2", "media"),
        ("location: https://maps.google.com/?q=1,2", "media"),
        ("meet me here: https://maps.google.com/?q=1,2 ok?", ""),
        ("Verpasster Sprachanruf", "service"),
        ("Videollamada perdida", "service"),
        ("未接语音通话", "service"),
        ("不在着信", "service"),
        ("Verpasster Sprachanruf von Oma, ruf zurück", ""),
        ("這則訊息已刪除", "deleted"),
        ("此訊息已刪除", "deleted"),
        ("你刪除了這則訊息", "deleted"),
        ("<미디어 파일을 제외한 내보내기>", "media"),
        ("\u200eKontaktkarte ausgelassen", "media"),
    ],
)
def test_what_phones_write_in_their_owners_language(tmp_path: Path, text: str, mark: str) -> None:
    line = f"13/03/2021, 21:05 - Tom: {text}\n13/03/2021, 21:06 - Mara: ok\n"
    messages, _ = read(written(tmp_path, line))
    assert [message.mark for message in messages] == [mark, ""]


def test_a_document_is_named_twice(tmp_path: Path) -> None:
    text = (
        "13/03/2021, 21:05 - Tom: tea list.pdf (file attached)\ntea list.pdf\n"
        "13/03/2021, 21:06 - Tom: tea list.pdf (file attached)\nsee page 2\n"
    )
    messages, _ = read(written(tmp_path, text))
    assert [(message.mark, message.text) for message in messages] == [("media", ""), ("media", "see page 2")]


def test_the_whole_file_tells_day_from_month(tmp_path: Path) -> None:
    days = ["02/03/2021", "05/03/2021", "01/04/2021"]  # only day first runs forward
    messages, _ = read(written(tmp_path, "".join(f"{day}, 10:00 - Tom: x\n" for day in days)))
    assert [message.sent_at.month for message in messages] == [3, 3, 4]


def test_a_group_has_several_speakers_and_keeps_its_name(tmp_path: Path) -> None:
    text = "".join(f"13/03/2021, 21:0{n} - {name}: hi\n" for n, name in enumerate(("Mara", "Tom", "Kim")))
    messages, _ = read(written(tmp_path, text, "WhatsApp Chat with Hiking.txt"))
    assert {(message.kind, message.chat) for message in messages} == {("group", "Hiking")}


def test_the_same_message_twice_in_a_minute_is_two_and_ids_stay_the_same(tmp_path: Path) -> None:
    text = "13/03/2021, 21:05 - Tom: ok\n13/03/2021, 21:05 - Tom: ok\n"
    first, _ = read(written(tmp_path, text))
    again, _ = read(written(tmp_path, text + "13/03/2021, 21:06 - Tom: more\n", "later.txt"))
    assert len({message.id for message in first}) == 2
    assert [message.id for message in again][:2] == [message.id for message in first]


@pytest.mark.parametrize(
    ("body", "mark", "text"),
    [
        ("<Medien ausgeschlossen>", "media", ""),
        ("<Multimedia omitido>", "media", ""),
        ("<Без медиафайлов>", "media", ""),
        ("<已略去多媒體檔案>", "media", ""),
        ("IMG-20210313-WA0001.jpg (file attached)\nlook", "media", "look"),
        ("My report.pdf (Datei angehängt)", "media", ""),
        ("\u200eimage omitted", "media", ""),
        ("\u200e圖片已略去", "media", ""),
        ("\u200esticker omitted", "sticker", ""),
        ("look at this \u200e<attached: 00000012-PHOTO-2021-03-13.jpg>", "media", "look at this"),
        ("\u200eMissed voice call", "service", "Missed voice call"),
        ("Diese Nachricht wurde gelöscht.", "deleted", "Diese Nachricht wurde gelöscht."),
        ("此訊息已刪除", "deleted", "此訊息已刪除"),
        ("You deleted", "", "You deleted"),
        ("corrected <Se editó este mensaje.>", "", "corrected"),
        ("corrected \u200e<This message was edited>", "", "corrected"),
        ("@\u2068Kim Lee\u2069 come", "", "@Kim Lee come"),
        ("I <3 this", "", "I <3 this"),
        ("page 3 of book.pdf (the blue one)", "", "page 3 of book.pdf (the blue one)"),
    ],
)
def test_what_the_app_puts_in_place_of_text(tmp_path: Path, body: str, mark: str, text: str) -> None:
    messages, bad = read(written(tmp_path, f"13/03/2021, 21:05 - Tom: {body}\n"))
    assert bad == []
    assert [(message.sender, message.mark, message.text) for message in messages] == [("Tom", mark, text)]


def test_a_placeholder_in_any_language_is_known_by_its_repetition(tmp_path: Path) -> None:
    text = "".join(f"13/03/2021, 21:0{n} - Tom: <ingen fil her>\n" for n in range(3))
    messages, _ = read(written(tmp_path, text + "13/03/2021, 21:05 - Tom: <aha>\n"))
    assert [message.mark for message in messages] == ["media", "media", "media", ""]


def test_system_lines_name_no_speaker(tmp_path: Path) -> None:
    text = (
        "13/03/2021, 21:05 - Mara: hi\n13/03/2021, 21:06 - Tom: hi\n"
        '13/03/2021, 21:07 - Mara changed the subject to "plan: b"\n'
    )
    messages, _ = read(written(tmp_path, text))
    assert [(message.kind, message.mark) for message in messages] == [("dm", ""), ("dm", ""), ("dm", "service")]


def test_who_sends_only_pictures_is_there_too(tmp_path: Path) -> None:
    text = "".join(
        f"[13/03/2021, 21:05:0{n}] {who}: {body}\n"
        for n, (who, body) in enumerate([("Mara", "a"), ("Tom", "b"), ("~\u202fKim", "\u200eimage omitted")])
    )
    messages, _ = read(written(tmp_path, text))
    assert [(message.kind, message.sender) for message in messages] == [
        ("group", "Mara"),
        ("group", "Tom"),
        ("group", "Kim"),
    ]


@pytest.mark.parametrize(
    "name",
    [
        "WhatsApp Chat with Tom.txt",
        "WhatsApp Chat mit Tom.txt",
        "WhatsApp Chat - Tom (1).txt",
        "Chat de WhatsApp con Tom.txt",
        "Discussion WhatsApp avec Tom.txt",
        "Conversa do WhatsApp com Tom.txt",
        "Чат WhatsApp с контактом Tom.txt",
        "与Tom的WhatsApp聊天.txt",
        "Tom ile WhatsApp Sohbeti.txt",
    ],
)
def test_the_file_name_tells_whom_the_chat_is_with(tmp_path: Path, name: str) -> None:
    text = "13/03/2021, 21:05 - Mara: hi\n13/03/2021, 21:06 - Tom: hi\n"
    messages, _ = read(written(tmp_path, text, name))
    assert [(message.chat_name, message.is_owner) for message in messages] == [("Tom", None), ("Tom", False)]


@pytest.mark.parametrize(("half", "month"), [("PM", 2), ("pm", 3)])
def test_where_nothing_tells_the_custom_does(tmp_path: Path, half: str, month: int) -> None:
    messages, _ = read(written(tmp_path, f"02/03/2021, 9:05 {half} - Tom: x\n"))
    assert messages[0].sent_at.month == month


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "gb18030"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    messages, _ = read(written(tmp_path, "2021/3/13 21:05 - 小明: 你好，明天见\r\n", encoding=encoding))
    assert [message.text for message in messages] == ["你好，明天见"]


def test_a_day_that_is_none_is_counted_and_the_rest_is_read(tmp_path: Path) -> None:
    messages, bad = read(written(tmp_path, "31/02/2021, 10:00 - Tom: x\n13/03/2021, 10:00 - Tom: y\n"))
    assert [message.text for message in messages] == ["y"]
    assert [record.position for record in bad] == ["line 1"]


@pytest.mark.parametrize("text", ["", "hello\n", "[12:30] <nick> hi\n", "2021-03-13 21:05:10 nick(123)\nhi\n", "{}"])
def test_other_files_are_left_to_others(tmp_path: Path, text: str) -> None:
    from zoneinfo import ZoneInfo

    from training.archives.source_tree import SourceTree, open_folder

    path = written(tmp_path, text)
    assert not WhatsAppReader().sniff(SourceTree(open_folder(path), path.name, path.name, ZoneInfo("UTC")))


@given(st.binary(max_size=4))
def test_no_bytes_stop_it(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "chat.txt"
    path.write_bytes(ANDROID.encode() + data)
    messages, _ = read(path)
    assert len(messages) >= 5


def test_a_damaged_byte_does_not_change_the_encoding(tmp_path: Path) -> None:
    path = tmp_path / "chat.txt"
    path.write_bytes("13/03/2021, 21:05 - Кира: привет как дела\n".encode() + b"13/03/2021, 21:06 - Tom: \x80\n")
    messages, _ = read(path)
    assert [message.text for message in messages] == ["привет как дела", "€"]


@pytest.mark.parametrize(
    ("body", "mark", "text"),
    [
        ("cute \u200eimage omitted", "media", "cute"),
        ("report.pdf • \u200e3 pages \u200edocument omitted", "media", ""),
        ("\u200evideo note omitted", "media", ""),
        ("\u200eLocation: https://maps.example/?q=1,2", "media", ""),
        ("live location shared", "media", ""),
        ("\u200eVoice call, \u200e12 min", "service", "Voice call, 12 min"),
        ("Missed video call", "service", "Missed video call"),
        ("POLL:\nwhen?\nOPTION: now (1 vote)", "service", "POLL:\nwhen?\nOPTION: now (1 vote)"),
        ("你删除了此消息", "deleted", "你删除了此消息"),
        ("null", "", "null"),
        ("the image was omitted", "", "the image was omitted"),
        ("voice calls are best", "", "voice calls are best"),
    ],
)
def test_what_the_app_writes_and_what_people_do(tmp_path: Path, body: str, mark: str, text: str) -> None:
    messages, _ = read(written(tmp_path, f"[13/03/2021, 9:05:10] Tom: hi\n[13/03/2021, 9:05:11] Tom: {body}\n"))
    assert [(message.mark, message.text) for message in messages[1:]] == [(mark, text)]


def test_pictures_to_be_looked_at_once_are_no_words_where_there_are_several(tmp_path: Path) -> None:
    messages, _ = read(written(tmp_path, "13/03/2021, 21:05 - Tom: null\n" * 3 + "13/03/2021, 21:06 - Tom: hi\n"))
    assert [(message.mark, message.text) for message in messages] == [("media", "")] * 3 + [("", "hi")]


def test_arabic_dates_have_signs_of_direction_in_them(tmp_path: Path) -> None:
    text = "\u200f13\u200f/3\u200f/2021 9:05 م - Tom: مرحبا\n\u200f١٣\u200f/٣\u200f/٢٠٢١ ٩:٠٦ م - منى: أهلا\n"
    messages, bad = read(written(tmp_path, text))
    assert bad == []
    assert [(message.sender, message.text) for message in messages] == [("Tom", "مرحبا"), ("منى", "أهلا")]
    assert [message.sent_at.minute for message in messages] == [5, 6]
    assert {message.sent_at.hour for message in messages} == {20}


def test_a_file_that_is_missing_in_finnish(tmp_path: Path) -> None:
    messages, _ = read(written(tmp_path, "13.3.2021 klo 21.05 - Tom: <Media jätettiin pois>\n"))
    assert [(message.mark, message.text) for message in messages] == [("media", "")]


def test_notices_with_a_colon_are_nobodys_messages(tmp_path: Path) -> None:
    said = ["Tom: hi", "Ann: hi: you", "Tom: note: milk", 'Rob "Bo" Lee: yes', 'Rob "Bo" Lee: no', "Tom Berg: me too"]
    notices = [
        'Tom changed the subject to "a: b"',
        'Tom changed the subject from "x: c" to "y: d"',
        "Tom changed the group description to: be kind",
        'You changed the subject to "plan: eat"',
    ]
    text = "".join(f"05.03.23, 14:{number:02} - {line}\n" for number, line in enumerate(said + notices))
    messages, bad = read(written(tmp_path, text))
    assert bad == []
    assert [f"{message.sender}: {message.text}" for message in messages if not message.mark] == said
    assert [message.text for message in messages if message.mark == "service"] == notices
