"""Reddit's data request and dumps."""

import io
import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.exports import ZONE, read_all, write_folder, write_zip
from training.archives import source_tree as tree
from training.archives.formats import json_stream, zstd
from training.archives.reddit import RedditReader
from training.archives.source_tree import SourceTree, open_folder

READER = RedditReader()
COMMENTS = "id,permalink,date,ip,subreddit,gildings,link,parent,body,media\n"
POSTS = "id,permalink,date,ip,subreddit,gildings,title,url,body\n"
MESSAGES = "id,permalink,thread_id,date,ip,from,to,subject,body\n"
CHAT = (
    "message_id,created_at,updated_at,username,message,thread_parent_message_id,channel_url,subreddit,"
    "channel_name,conversation_type\n"
)
LINK = "https://www.reddit.com/r/tea/comments/p1/which_pot/"


def request() -> dict[str, str]:
    """The tables of a data request of `mara_l`, with two that hold nothing to read."""
    when = "2023-01-15 12:34:56 UTC"
    return {
        "statistics.csv": "statistic,value\r\naccount name,mara_l\r\nexport time,2024-01-01\r\n",
        "ip_logs.csv": "date,ip\n2023-01-01,192.0.2.1\n",
        "comment_headers.csv": "id,permalink,date,ip,subreddit,gildings,link,parent\nc1,x,y,,tea,0,x,\n",
        "comments.csv": COMMENTS
        + f'c1,x,{when},192.0.2.1,tea,0,{LINK},,"iron, surely\r\n\r\nI&#39;d say",\r\n'
        + f"c2,x,{when},,tea,0,{LINK},t1_c1,and you?,\r\n"
        + f"c3,x,{when},,tea,0,{LINK},c9,why,\r\n"
        + f"c4,x,{when},,tea,0,{LINK},{LINK}c8/,[removed],\r\n"
        + f"c5,x,never,,tea,0,{LINK},c1,when?,\r\n",
        "posts.csv": POSTS
        + f"p1,{LINK},{when},,tea,0,Which pot?,{LINK},I have two.\r\n"
        + f"p2,x,{when},,r/tea,0,My pot,https://i.redd.it/a.jpg,\r\n",
        "messages.csv": MESSAGES
        + f"m1,x,m1,{when},,tom_b,mara_l,pots,which &amp; why?\r\n"
        + f"m2,x,m1,{when},,mara_l,tom_b,re: pots,iron\r\n"
        + f"m3,x,m3,{when},,reddit,mara_l,welcome,hello\r\n",
        "chat_history.csv": CHAT
        + f"h1,{when},,tom_b,hey,,chan1,,Tom,direct\r\n"
        + f"h2,{when},,mara_l,hi,h1,chan1,,Tom,direct\r\n"
        + "h3,2023-02-01T08:00:00.000Z,,mara_l,all,0,chan2,tea,pots,group\r\n",
    }


def comment(number: int, body: str, **more: Any) -> dict[str, Any]:
    return {
        "id": f"c{number}",
        "author": "tom_b",
        "body": body,
        "created_utc": 1_673_786_096 + number,
        "parent_id": "t3_p1",
        "link_id": "t3_p1",
        "subreddit": "tea",
        **more,
    }


def submission(number: int, title: str, selftext: str = "", **more: Any) -> dict[str, Any]:
    return {
        "author": "mara_l",
        "created_utc": str(1_673_786_000 + number),
        "id": f"p{number}",
        "selftext": selftext,
        "subreddit": "tea",
        "title": title,
        "url": LINK,
        **more,
    }


def lines(*records: Any) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def test_a_data_request(tmp_path: Path) -> None:
    messages, bad = read_all(write_zip(tmp_path / "export.zip", request(), "export_mara/"), [READER])
    assert [(record.position, "never" in record.reason) for record in bad] == [("record 8", True)]
    comments = [message for message in messages if message.kind == "reply"]
    assert [(message.id, message.text, message.reply_to, message.mark) for message in comments] == [
        ("t1_c1", "iron, surely\n\nI'd say", "t3_p1", ""),
        ("t1_c2", "and you?", "t1_c1", ""),
        ("t1_c3", "why", "t1_c9", ""),
        ("t1_c4", "[removed]", "t1_c8", "deleted"),
    ]
    posts = [message for message in messages if message.kind == "post"]
    assert [(message.id, message.text, message.mark) for message in posts] == [
        ("t3_p1", "Which pot?\nI have two.", ""),
        ("t3_p2", "My pot", "media"),
    ]
    assert {(message.chat, message.sender, message.is_owner) for message in comments + posts} == {
        ("r/tea", "mara_l", True)
    }
    assert comments[0].sent_at == datetime(2023, 1, 15, 12, 34, 56, tzinfo=UTC)


def test_private_messages_and_chat(tmp_path: Path) -> None:
    messages, _ = read_all(write_folder(tmp_path / "export", request()), [READER])
    private = [message for message in messages if message.id.startswith("m")]
    assert [(message.chat, message.chat_name, message.text, message.is_owner, message.mark) for message in private] == [
        ("mara_l tom_b", "tom_b", "pots\nwhich & why?", False, ""),
        ("mara_l tom_b", "tom_b", "iron", True, ""),
        ("mara_l reddit", "reddit", "welcome\nhello", False, "service"),
    ]
    chat = [message for message in messages if message.id.startswith("h")]
    assert [(message.chat, message.kind, message.text, message.is_owner, message.reply_to) for message in chat] == [
        ("chan1", "dm", "hey", False, None),
        ("chan1", "dm", "hi", True, "h1"),
        ("chan2", "group", "all", True, None),
    ]


def test_one_table_alone(tmp_path: Path) -> None:
    files = request()
    (tmp_path / "renamed").write_text("\ufeff" + files["messages.csv"], encoding="utf-16-le")
    (tmp_path / "posts").write_text(files["posts.csv"], encoding="utf-8-sig")
    messages, _ = read_all(tmp_path / "renamed", [READER])
    assert [message.is_owner for message in messages] == [None, None, None]
    messages, _ = read_all(tmp_path / "posts", [READER])
    assert [(message.is_owner, message.sender) for message in messages] == [(True, "owner")] * 2


def test_other_archives_beside_the_tables_are_still_found(tmp_path: Path) -> None:
    """A folder with folders in it is not claimed as a whole."""
    write_folder(tmp_path / "archive", {**request(), "deeper/posts.csv": request()["posts.csv"]})
    assert not READER.sniff(SourceTree(open_folder(tmp_path / "archive"), "", "archive", ZONE))
    messages, _ = read_all(tmp_path / "archive", [READER])
    assert len([message for message in messages if message.kind == "post"]) == 4


@pytest.mark.parametrize("packed", [False, True])
def test_a_dump(tmp_path: Path, packed: bool) -> None:
    data = lines(
        submission(1, "Which pot?", "I have two &amp; a cup."),
        submission(2, "Gone", "[removed]"),
        submission(3, "Look", crosspost_parent="t3_p0"),
        submission(4, "Picture", url="https://i.redd.it/a.png"),
        comment(1, "iron &gt; clay"),
        comment(2, "[deleted]", author="[deleted]"),
        comment(3, "beep", author="AutoModerator", parent_id=35 * 36 + 1),
        comment(4, "no time", created_utc=None),
    )
    data = data + b'{"broken\n' + b"[1]\n\n" + lines(comment(5, "last", parent_id="t1_c1"))
    path = tmp_path / "dump"
    path.write_bytes(zstandard.ZstdCompressor().compress(data) if packed else data)
    messages, bad = read_all(path, [READER])
    assert [(message.id, message.kind, message.text, message.reply_to, message.mark) for message in messages] == [
        ("t3_p1", "post", "Which pot?\nI have two & a cup.", None, ""),
        ("t3_p2", "post", "Gone", None, "deleted"),
        ("t3_p3", "post", "Look", None, "forward"),
        ("t3_p4", "post", "Picture", None, "media"),
        ("t1_c1", "reply", "iron > clay", "t3_p1", ""),
        ("t1_c2", "reply", "[deleted]", "t3_p1", "deleted"),
        ("t1_c3", "reply", "beep", "t1_z1", "bot"),
        ("t1_c5", "reply", "last", "t1_c1", ""),
    ]
    assert {(message.chat, message.is_owner) for message in messages} == {("r/tea", None)}
    assert [record.position for record in bad] == ["record 8", "record 9", "record 10"]


def test_a_dump_with_a_long_window_and_several_frames(tmp_path: Path) -> None:
    first = lines(*(comment(number, "x" * 300) for number in range(2000)))
    parameters = zstandard.ZstdCompressionParameters(window_log=27, enable_ldm=True)
    target = io.BytesIO()
    with zstandard.ZstdCompressor(compression_params=parameters).stream_writer(target, closefd=False) as writer:
        writer.write(first)
    path = tmp_path / "RC_2023-01.zst"
    path.write_bytes(target.getvalue() + zstandard.ZstdCompressor().compress(lines(comment(9999, "end"))))
    messages, bad = read_all(path, [READER])
    assert (len(messages), messages[-1].text, bad) == (2001, "end", [])


@pytest.mark.parametrize("damage", ["cut", "garbage behind", "flipped"])
def test_a_damaged_dump_keeps_what_came_before(tmp_path: Path, damage: str) -> None:
    packed = zstandard.ZstdCompressor(write_checksum=True).compress(lines(*(comment(n, str(n) * 40) for n in range(5))))
    changed = {"cut": packed[:-3], "garbage behind": packed + b"garbage!", "flipped": packed[:-1] + b"\x00"}
    first = zstandard.ZstdCompressor().compress(lines(comment(100, "first")))
    (tmp_path / "dump.zst").write_bytes(first + changed[damage])
    messages, bad = read_all(tmp_path / "dump.zst", [READER])
    assert messages[0].text == "first"
    assert [record.position for record in bad] == ["end of file"]


def test_a_bomb_and_a_line_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "BOMB_BYTES", 1 << 20)
    start = lines(comment(1, "first"))
    (tmp_path / "bomb.zst").write_bytes(zstandard.ZstdCompressor().compress(start + b"\n" * (32 << 20)))
    messages, bad = read_all(tmp_path / "bomb.zst", [READER])
    assert [message.text for message in messages] == ["first"]
    assert "decompression bomb" in bad[0].reason

    monkeypatch.setattr(zstd, "LARGEST_RECORD", 1000)
    assert json_stream.LARGEST_RECORD > 1000
    data = start + b'{"a": "' + b"x" * 600_000 + b"\n" + lines(comment(2, "second")) + b"y" * 2000
    (tmp_path / "dump.json").write_bytes(data)
    messages, bad = read_all(tmp_path / "dump.json", [READER])
    assert [message.text for message in messages] == ["first", "second"]
    assert [record.position for record in bad] == ["line 2", "line 4"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b'{"author": "a", "created_utc": 1, "subreddit": "x"}\n',
        b'{"data": [1]}\n{"author": "a", "created_utc": 1, "subreddit": "x", "body": "b"}\n',
        b"id,date,body\n1,2,3\n",
        b"statistic,value\naccount name,mara_l\n",
        zstandard.ZstdCompressor().compress(b"not a dump\n"),
        zstd.ZSTD_MAGIC + b"\xff" * 100,
    ],
)
def test_others_are_not_claimed(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    assert not READER.sniff(SourceTree(open_folder(tmp_path), "file", "file", ZONE))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_damage_raises_and_every_line_is_accounted_for(data: st.DataObject) -> None:
    whole = bytearray(lines(*(comment(number, "some words") for number in range(4))))
    head = len(lines(comment(0, "some words")))
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(head, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dump"
        path.write_bytes(whole)
        messages, bad = read_all(path, [READER])
    assert len(messages) + len(bad) == sum(bool(line.strip()) for line in bytes(whole).split(b"\n"))
