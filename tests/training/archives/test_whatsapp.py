"""WhatsApp's chat export in the forms of both phones."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doppel.message import Message
from tests.training.exports import read_all, write_zip
from training.archives.tree import BadRecord
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
    assert [(one.sender, one.mark, one.text) for one in messages[1:]] == [
        ("Mara", "", "hello\nsecond line\n1/2 of it"),
        ("Tom", "media", ""),
        ("Tom", "deleted", "This message was deleted"),
        ("Tom", "", "see you at 12:30: ok?"),
    ]
    assert messages[0].mark == "service"
    assert messages[1].sent_at == datetime(2021, 3, 13, 20, 5, tzinfo=UTC)
    assert {one.kind for one in messages} == {"dm"}
    assert {one.chat for one in messages} == {"Mara & Tom"}
    assert [one.is_owner for one in messages if one.sender == "Tom"] == [False] * 4
    assert messages[1].is_owner is None


def test_iphone_month_first_and_halves_of_the_day(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "WhatsApp Chat - Tom.zip", {"_chat.txt": IOS})
    messages, bad = read(path)
    assert bad == []
    assert [one.mark for one in messages] == ["service", "", "media", ""]
    assert messages[1].sent_at == datetime(2021, 3, 13, 20, 5, 11, tzinfo=UTC)
    assert messages[3].sent_at == datetime(2021, 3, 13, 23, 0, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("[2021/3/13 下午9:05:10] 小明: 你好", datetime(2021, 3, 13, 20, 5, 10, tzinfo=UTC)),
        ("2021/3/13 上午12:05 - 小明: 你好", datetime(2021, 3, 12, 23, 5, tzinfo=UTC)),
        ("13.3.2021 klo 21.05 - Aino: 你好", datetime(2021, 3, 13, 20, 5, tzinfo=UTC)),
        ("13.03.21, 21:05 - Tom: 你好", datetime(2021, 3, 13, 20, 5, tzinfo=UTC)),
        ("13/3/21 9:05 p. m. - Ana: 你好", datetime(2021, 3, 13, 20, 5, tzinfo=UTC)),
        ("2021-03-13, 9:05 p.m. - Kim: 你好", datetime(2021, 3, 13, 20, 5, tzinfo=UTC)),
    ],
)
def test_stamps_of_many_places(tmp_path: Path, line: str, expected: datetime) -> None:
    messages, bad = read(written(tmp_path, line + "\n"))
    assert bad == []
    assert [(one.text, one.sent_at) for one in messages] == [("你好", expected)]


def test_the_whole_file_tells_day_from_month(tmp_path: Path) -> None:
    days = ["02/03/2021", "05/03/2021", "01/04/2021"]  # only day first runs forward
    messages, _ = read(written(tmp_path, "".join(f"{day}, 10:00 - Tom: x\n" for day in days)))
    assert [one.sent_at.month for one in messages] == [3, 3, 4]


def test_a_group_has_several_speakers_and_keeps_its_name(tmp_path: Path) -> None:
    text = "".join(f"13/03/2021, 21:0{n} - {name}: hi\n" for n, name in enumerate(("Mara", "Tom", "Kim")))
    messages, _ = read(written(tmp_path, text, "WhatsApp Chat with Hiking.txt"))
    assert {(one.kind, one.chat) for one in messages} == {("group", "Hiking")}


def test_the_same_message_twice_in_a_minute_is_two_and_ids_stay_the_same(tmp_path: Path) -> None:
    text = "13/03/2021, 21:05 - Tom: ok\n13/03/2021, 21:05 - Tom: ok\n"
    first, _ = read(written(tmp_path, text))
    again, _ = read(written(tmp_path, text + "13/03/2021, 21:06 - Tom: more\n", "later.txt"))
    assert len({one.id for one in first}) == 2
    assert [one.id for one in again][:2] == [one.id for one in first]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "gb18030"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    messages, _ = read(written(tmp_path, "2021/3/13 21:05 - 小明: 你好，明天见\r\n", encoding=encoding))
    assert [one.text for one in messages] == ["你好，明天见"]


def test_a_day_that_is_none_is_counted_and_the_rest_is_read(tmp_path: Path) -> None:
    messages, bad = read(written(tmp_path, "31/02/2021, 10:00 - Tom: x\n13/03/2021, 10:00 - Tom: y\n"))
    assert [one.text for one in messages] == ["y"]
    assert [one.position for one in bad] == ["line 1"]


@pytest.mark.parametrize("text", ["", "hello\n", "[12:30] <nick> hi\n", "2021-03-13 21:05:10 nick(123)\nhi\n", "{}"])
def test_other_files_are_left_to_others(tmp_path: Path, text: str) -> None:
    from zoneinfo import ZoneInfo

    from training.archives.tree import Tree, open_folder

    path = written(tmp_path, text)
    assert not WhatsAppReader().sniff(Tree(open_folder(path), path.name, path.name, ZoneInfo("UTC")))


@given(st.binary(max_size=300))
def test_no_bytes_stop_it(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "chat.txt"
    path.write_bytes(ANDROID.encode() + data)
    messages, _ = read(path)
    assert len(messages) >= 5
