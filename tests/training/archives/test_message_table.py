"""CSV files of messages."""

import csv
import io
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.exports import ZONE, read_all
from training.archives.message_table import MessageTableReader
from training.archives.source_tree import SourceTree, open_folder

READER = MessageTableReader()


def table(*rows: list[str]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


def sniffs(folder: Path, content: str) -> bool:
    (folder / "file").write_text(content)
    return READER.sniff(SourceTree(open_folder(folder), "file", "file", ZONE))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
def test_the_three_columns(tmp_path: Path, encoding: str) -> None:
    rows = table(
        ["username", "text", "timestamp"],
        ["小林", "喝茶吗？", "2023-01-15 12:34:56"],
        ["Tom", "yes,\nplease", "1673782500"],
        ["Tom", "now", "1673782501000"],
        ["小林", "好", "2023/1/15 12:36"],
        ["小林", "好", "2023-01-15T11:37:00Z"],
        ["小林", "好", "2023-01-15T11:38:00Z", "one value too many"],
        ["小林", "?", "one day"],
        ["Tom"],
    )
    (tmp_path / "tea.csv").write_bytes(rows.encode(encoding))
    messages, bad = read_all(tmp_path / "tea.csv", [READER])
    assert [(message.sender, message.text) for message in messages] == [
        ("小林", "喝茶吗？"),
        ("Tom", "yes,\nplease"),
        ("Tom", "now"),
        ("小林", "好"),
        ("小林", "好"),
        ("小林", "好"),
    ]
    assert messages[0].sent_at == datetime(2023, 1, 15, 11, 34, 56, tzinfo=UTC)  # Berlin
    assert messages[1].sent_at == datetime(2023, 1, 15, 11, 35, tzinfo=UTC)
    assert messages[3].sent_at == datetime(2023, 1, 15, 11, 36, tzinfo=UTC)
    assert {(message.platform, message.chat, message.kind, message.is_owner) for message in messages} == {
        ("table", "tea", "dm", None)
    }
    assert len({message.id for message in messages}) == 6
    assert [record.position for record in bad] == ["record 9", "record 10"]


def test_every_known_column(tmp_path: Path) -> None:
    rows = table(
        ["ID", "Platform", "Chat", "Author", "Content", "Date", "Reply_To", "Is_Me"],
        ["1", "ICQ", "club", "a", "x", "2003-02-01 10:00:00 UTC", "", "true"],
        ["2", "ICQ", "club", "b", "y", "2003-02-01 10:01:00+01:00", "1", "0"],
        ["3", "ICQ", "club", "c", "z", "2003-02-01", "", ""],
        ["1", "", "", "a", "w", "2003.02.01 10:00", "", "1"],
    )
    (tmp_path / "old.csv").write_text(rows)
    messages, bad = read_all(tmp_path / "old.csv", [READER])
    assert bad == []
    assert [
        (message.id, message.platform, message.chat, message.kind, message.reply_to, message.is_owner)
        for message in messages
    ] == [
        ("1", "icq", "club", "group", None, True),
        ("2", "icq", "club", "group", "1", False),
        ("3", "icq", "club", "group", None, None),
        ("1", "table", "old", "dm", None, True),
    ]
    assert [message.sent_at.hour for message in messages[:2]] == [10, 9]


@pytest.mark.parametrize(
    "header",
    [
        "Date,User,Message",
        '"Date","User","Message"',
        "ID,Timestamp,Contents,Attachments",
        "AuthorID,Author,Date,Content,Attachments,Reactions",
        "id,MsgSvrID,type_name,is_sender,talker,room_name,msg,src,CreateTime",
        "id,permalink,thread_id,date,ip,from,to,subject,body",
        "message_id,created_at,updated_at,username,message,thread_parent_message_id,channel_url",
        "instruction,input,output",
        "name,age",
        "",
    ],
)
def test_the_tables_of_others_are_not_claimed(tmp_path: Path, header: str) -> None:
    assert not sniffs(tmp_path, header + "\n1,2,3,4\n")


def test_it_is_claimed_by_its_columns_alone(tmp_path: Path) -> None:
    assert sniffs(tmp_path, "timestamp, username ,text\r\n")


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_never_raise(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "file").write_bytes(b"username,text,timestamp\na,b,1\n" + data)
        tree = SourceTree(open_folder(Path(folder)), "file", "file", ZONE)
        assert READER.sniff(tree)
        assert next(READER.read(tree)).text == "b"
        list(READER.read(tree))
