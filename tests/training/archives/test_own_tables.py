"""Tables of one's own: columns that are named or guessed, times in any form, and what is said when that fails."""

import json
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from doppel.config import ArchiveSettings
from doppel.errors import UserError
from tests.training.archives.hostile import EXPORTS, write
from tests.training.exports import ZONE, read_all
from training.archives.discovery import discover, installed_readers
from training.archives.message import Message
from training.archives.message_table import MessageTableReader

TEXT = {"text": "Text", "time": "Date Created"}


def read(path: Path, **settings: Any) -> list[Message]:
    """The messages of a table with these settings, none of whose records is bad."""
    table = ArchiveSettings.model_validate({"path": str(path), **settings})
    discovery = discover([str(path)], path.parent, ZONE, installed_readers(), tables={str(path): table})
    with closing(discovery):
        messages = [message for source in discovery.sources for message in source.reader.read(source.tree)]
        assert [source.tree.bad_records for source in discovery.sources] == [[]] * len(discovery.sources)
    return messages


def file(folder: Path, name: str, content: str | bytes) -> Path:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder / name


def test_named_columns_without_a_sender_are_ones_own_posts(tmp_path: Path) -> None:
    path = file(
        tmp_path, "p.csv", "Nr,Text,Date Created,Likes\n1,hello,2021-03-04 10:11:12 UTC,5\n2,you,1614852672,0\n"
    )
    messages = read(path, columns={**TEXT, "id": "nr"}, platform="blog")
    assert [(message.id, message.kind, message.is_owner, message.platform, message.text) for message in messages] == [
        ("1", "post", True, "blog", "hello"),
        ("2", "post", True, "blog", "you"),
    ]
    assert {message.sent_at for message in messages} == {datetime(2021, 3, 4, 10, 11, 12, tzinfo=UTC)}


def test_named_columns_of_a_chat_in_json(tmp_path: Path) -> None:
    records = [
        {"who": {"nick": "Tom"}, "room": "tea", "what": "hi", "when": {"at": 1_600_000_000_000}, "key": 1},
        {"who": {"nick": "Ann"}, "room": "tea", "what": "yes", "when": {"at": 1_600_000_001_000}, "key": 2, "to": 1},
        {"who": {"nick": "Ann"}, "room": "walk", "what": "no", "when": {"at": 1_600_000_002_000}, "key": 3},
    ]
    columns = {
        **{"text": "what", "time": "when.at", "sender": "who.nick", "chat": "room", "id": "key", "reply_to": "to"},
    }
    for name, content in (
        ("a.json", json.dumps(records)),
        ("b.jsonl", "\n".join(map(json.dumps, records))),
        ("c.json", json.dumps({"version": 1, "messages": records})),
    ):
        messages = read(file(tmp_path, name, content), columns=columns)
        assert [(message.chat, message.kind, message.sender, message.reply_to) for message in messages] == [
            ("tea", "dm", "Tom", None),
            ("tea", "dm", "Ann", "1"),
            ("walk", "dm", "Ann", None),
        ]
        assert {message.is_owner for message in messages} == {None}
    assert {message.kind for message in read(tmp_path / "a.json", columns=columns, kind="group")} == {"group"}


@pytest.mark.parametrize(
    "header",
    [
        "text,created_at",
        "Message,Timestamp",
        "tweet,date",
        "内容,发布时间",
        "Full Text;Date Created",
        "id\tbody\tsent_at",
    ],
)
def test_plain_names_are_guessed(tmp_path: Path, header: str) -> None:
    delimiter = next(mark for mark in ";\t," if mark in header)
    row = delimiter.join(["9"] * (header.count(delimiter) - 1) + ["hello", "2021-03-04 10:11"])
    messages, bad = read_all(file(tmp_path, "posts.csv", f"{header}\n{row}\n"))
    assert not bad
    assert [(message.text, message.kind, message.is_owner) for message in messages] == [("hello", "post", True)]


def test_a_second_sender_or_a_chat_makes_it_a_chat(tmp_path: Path) -> None:
    posts = "author,text,time\nTom,a,1600000000\nTom,b,1600000001\n"
    assert {message.kind for message in read_all(file(tmp_path, "a.csv", posts))[0]} == {"post"}
    chat = posts + "Ann,c,1600000002\n"
    assert {message.kind for message in read_all(file(tmp_path, "b.csv", chat))[0]} == {"dm"}
    named = "author,text,time,channel\nTom,a,1600000000,tea\n"
    assert [(m.kind, m.chat) for m in read_all(file(tmp_path, "c.csv", named))[0]] == [("dm", "tea")]


def test_scraped_tweets(tmp_path: Path) -> None:
    rows = (
        "id,conversation_id,created_at,date,time,timezone,user_id,username,name,place,tweet,language,retweet,reply_to\n"
        "10,10,2021-03-04 10:11:12 CET,2021-03-04,10:11:12,+0100,7,mara,Mara,,hello,en,False,[]\n"
        "12,10,2021-03-04 10:12:12 CET,2021-03-04,10:12:12,+0100,7,mara,Mara,,again,en,False,[{'id': '7'}]\n"
    )
    messages, bad = read_all(file(tmp_path, "tweets.csv", rows))
    assert not bad
    assert [(m.platform, m.kind, m.text, m.sender, m.reply_to) for m in messages] == [
        ("twitter", "post", "hello", "mara", None),
        ("twitter", "reply", "again", "mara", "10"),
    ]
    assert messages[0].sent_at == datetime(2021, 3, 4, 9, 11, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("1614852672", (10, 11, 12)),
        ("1614852672000", (10, 11, 12)),
        ("1614852672000000", (10, 11, 12)),
        ("1614852672,5", (10, 11, 12)),
        ("2021-03-04T11:11:12+01:00", (10, 11, 12)),
        ("2021-03-04 10:11:12 UTC", (10, 11, 12)),
        ("Thu Mar 04 10:11:12 +0000 2021", (10, 11, 12)),
        ("Thu, 4 Mar 2021 10:11:12 +0000", (10, 11, 12)),
        ("Mar 4, 2021 11:11 AM", (10, 11, 0)),
        ("4 March 2021, 11:11", (10, 11, 0)),
        ("2021/3/4 11:11", (10, 11, 0)),
        ("2021年3月4日 上午11:11", (10, 11, 0)),
        ("04.03.2021 11:11", (10, 11, 0)),
    ],
)
def test_times(tmp_path: Path, written: str, expected: tuple[int, int, int]) -> None:
    row = json.dumps({"text": "hi", "time": written})
    (message,) = read_all(file(tmp_path, "a.jsonl", row + "\n"))[0]
    sent_at = message.sent_at
    assert (sent_at.day, sent_at.month, sent_at.hour, sent_at.minute, sent_at.second) == (4, 3, *expected)


def test_day_and_month_are_told_apart_by_the_whole_file(tmp_path: Path) -> None:
    american = "text;time\na;03/04/2021 10:00\nb;03/05/2021 10:00\nc;03/25/2021 10:00\n"
    messages = read_all(file(tmp_path, "a.csv", american))[0]
    assert [(m.sent_at.month, m.sent_at.day) for m in messages] == [(3, 4), (3, 5), (3, 25)]
    by_order = "text;time\na;30/04/2021 10:00\nb;01/05/2021 10:00\nc;02/05/2021 10:00\n"
    messages = read_all(file(tmp_path, "b.csv", by_order))[0]
    assert [(m.sent_at.month, m.sent_at.day) for m in messages] == [(4, 30), (5, 1), (5, 2)]


def test_dates_that_fit_no_order_are_told(tmp_path: Path) -> None:
    rows = "text;time\na;25/03/2021 10:00\nb;26/03/2021 10:00\nc;27/03/2021 10:00\n"
    rows += "d;03/28/2021 10:00\ne;03/29/2021 10:00\n"
    discovery = discover([str(file(tmp_path, "a.csv", rows))], tmp_path, ZONE, installed_readers())
    with closing(discovery):
        (source,) = discovery.sources
        assert [m.text for m in source.reader.read(source.tree)] == ["a", "b", "c"]
    assert source.tree.bad_count == 2
    assert source.tree.notes[0].startswith("2 dates fit neither day/month nor month/day")


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        ({"text": "Txt"}, "no column `Txt` for `text`; there are: nr, text, date created"),
        ({"text": "Text", "sender": "who"}, "no column `who` for `sender`; there are: nr, text, date created"),
        ({"text": "Text"}, None),
    ],
)
def test_a_column_that_is_not_there_is_one_line(tmp_path: Path, columns: dict[str, str], line: str | None) -> None:
    path = file(tmp_path, "posts.csv", "Nr,Text,Date Created\n1,hello,2021-03-04 10:11\n")
    if line is None:
        assert len(read(path, columns=columns)) == 1
        return
    with pytest.raises(UserError) as error:
        read(path, columns=columns)
    assert str(error.value).endswith(line)


def test_a_table_whose_columns_are_not_plain_says_what_to_write(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="columns a, b, c; name those with the text and the time under `columns`"):
        read_all(file(tmp_path, "odd.csv", "a,b,c\n1,2,3\n"))


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"PK\x03\x04" + b"\0" * 30 + b"[Content_Types].xml", "an Excel workbook; save it as CSV UTF-8"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 100, "an Excel workbook; save it as CSV UTF-8"),
        (b"PK\x03\x04" + b"\0" * 30 + b"chat.txt", "a zip; name it .zip"),
        (b"<html><table><tr><td>hi", "a web page; export again as CSV or JSON"),
        (b"\x1f\x8b\x08" + b"\0" * 50, "a compressed file; unpack it first"),
    ],
)
def test_what_is_not_what_its_name_says(tmp_path: Path, data: bytes, line: str) -> None:
    path = file(tmp_path, "chat.csv", data)
    with pytest.raises(UserError) as error:
        read_all(path)
    assert str(error.value) == f"{path}: {line}"
    file(tmp_path, "good.csv", "username,text,timestamp\nTom,hi,1600000000\n")
    discovery = discover([str(tmp_path)], tmp_path, ZONE, installed_readers())
    discovery.close()
    assert discovery.unread().hints == {str(path): line}


@pytest.mark.parametrize("name", [name for name in EXPORTS if name[0] != "table"])
def test_what_another_reader_reads_is_never_read_as_a_table(tmp_path: Path, name: tuple[str, str]) -> None:
    path = write(tmp_path, EXPORTS[name], as_zip=False)
    discovery = discover([str(path)], tmp_path, ZONE, installed_readers())
    discovery.close()
    assert not [source for source in discovery.sources if isinstance(source.reader, MessageTableReader)]


def test_the_files_beside_an_export_are_not_guessed(tmp_path: Path) -> None:
    files = {**EXPORTS["discord", ""], "notes.csv": b"text,time\nx,1600000000\n"}
    discovery = discover([str(write(tmp_path, files, as_zip=False))], tmp_path, ZONE, installed_readers())
    discovery.close()
    assert {source.reader.name for source in discovery.sources} == {"discord"}
