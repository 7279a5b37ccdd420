"""weibo-crawler's files."""

import csv
import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.exports import ZONE, read_all, write_json
from training.archives.message import Message
from training.archives.source_tree import BadRecord, SourceTree, open_folder
from training.archives.weibo import WeiboReader

COLUMNS = [
    "id",
    "bid",
    "正文",
    "原始图片url",
    "视频url",
    "位置",
    "日期",
    "工具",
    "点赞数",
    "评论数",
    "转发数",
    "话题",
    "@用户",
]
HEADER = [*COLUMNS, "是否原创", "源用户id", "源用户昵称", *(f"源微博{name}" for name in COLUMNS)]
FIRST = 4_454_000_000_000_000


def post(number: int, text: str, **more: Any) -> dict[str, Any]:
    return {
        "user_id": 1000000001,
        "screen_name": "风",
        "id": FIRST + number,
        "bid": "Abc",
        "text": text,
        "pics": "",
        "video_url": "",
        "location": "",
        "created_at": "2019-12-28",
        "source": "",
        "attitudes_count": 1,
        **more,
    }


def source(number: int, text: str, **more: Any) -> dict[str, Any]:
    return post(number, text, **{"user_id": 1000000002, "screen_name": "鹿", **more})


def crawled(*posts: dict[str, Any]) -> dict[str, Any]:
    user = {"id": "1000000001", "screen_name": "风", "gender": "f", "statuses_count": 9, "description": ""}
    return {"user": user, "weibo": list(posts)}


def read(folder: Path, *posts: dict[str, Any]) -> tuple[list[Message], list[BadRecord]]:
    return read_all(write_json(folder / "1000000001.json", crawled(*posts)), [WeiboReader()])


def test_posts(tmp_path: Path) -> None:
    messages, bad = read(
        tmp_path,
        post(1, "今天的#星光# "),
        post(2, "看图 查看图片", pics="https://example.org/1.jpg", full_created_at="2019-12-28 20:10:05"),
        post(3, "很长的话...全文", created_at="2019-12-28T07:10:05"),
        post(
            4, "好大。风的微博视频", video_url="https://example.org/1.mp4", created_at="Sat Dec 28 20:10:05 +0800 2019"
        ),
    )
    assert bad == []
    assert [(message.text, message.mark, message.kind) for message in messages] == [
        ("今天的#星光#", "", "post"),
        ("看图", "media", "post"),
        ("很长的话", "", "post"),
        ("好大。", "media", "post"),
    ]
    assert [message.sent_at for message in messages] == [
        datetime(2019, 12, 28, 4, tzinfo=UTC),
        datetime(2019, 12, 28, 12, 10, 5, tzinfo=UTC),
        datetime(2019, 12, 27, 23, 10, 5, tzinfo=UTC),
        datetime(2019, 12, 28, 12, 10, 5, tzinfo=UTC),
    ]
    first = messages[0]
    assert (first.platform, first.chat, first.sender, first.sender_name) == ("weibo", "posts", "1000000001", "风")
    assert (first.id, first.is_owner, first.reply_to) == (str(FIRST + 1), None, None)


def test_reposts_are_quotes_and_bring_what_they_are_about(tmp_path: Path) -> None:
    gone = source(7, "抱歉，此微博已被作者删除", user_id="", screen_name="")
    messages, bad = read(
        tmp_path,
        post(1, "说得好//@小王:哈哈//@小李: 嗯", retweet=source(6, "原文")),
        post(2, "转发微博", retweet=source(6, "原文")),
        post(3, "//@小王:哈哈", retweet=gone),
        post(4, "回复@小王:不是//@小王:是吗", retweet=source(8, "别的", pics="https://example.org/1.jpg")),
        post(5, "http://example.org//@a 不是链"),
    )
    assert bad == []
    assert [(message.text, message.mark, message.kind, message.sender) for message in messages] == [
        ("说得好", "", "quote", "1000000001"),
        ("原文", "", "post", "1000000002"),
        ("", "retweet", "quote", "1000000001"),
        ("原文", "", "post", "1000000002"),
        ("", "retweet", "quote", "1000000001"),
        ("抱歉，此微博已被作者删除", "deleted", "post", "?"),
        ("不是", "", "quote", "1000000001"),
        ("别的", "media", "post", "1000000002"),
        ("http://example.org//@a 不是链", "", "post", "1000000001"),
    ]
    assert [message.reply_to for message in messages] == [
        *(str(FIRST + 6), None, str(FIRST + 6), None, str(FIRST + 7), None, str(FIRST + 8), None, None)
    ]


def row(number: int, text: str, about: str = "") -> list[str]:
    own = [f"{FIRST + number}\t", "Abc", text, "", "", "", "2019-12-28", "", "1", "2", "3", "", ""]
    if not about:
        return [*own, "True", *[""] * (2 + len(COLUMNS))]
    theirs = [str(FIRST + number + 100), "Abd", about, "https://example.org/1.jpg", *own[4:]]
    return [*own, "False", "1000000002", "鹿", *theirs]


def table(*rows: list[str], header: list[str] = HEADER) -> str:
    text = io.StringIO()
    csv.writer(text).writerows([header, *rows])
    return text.getvalue()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "gb18030"])
def test_tables(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "风" / "1000000001.csv"
    path.parent.mkdir()
    path.write_bytes(table(row(1, "早"), row(2, "是//@小王:嗯", "原文")).encode(encoding))
    messages, bad = read_all(path, [WeiboReader()])
    assert bad == []
    assert [
        (message.id, message.text, message.mark, message.sender, message.sender_name, message.reply_to)
        for message in messages
    ] == [
        (str(FIRST + 1), "早", "", "1000000001", "风", None),
        (str(FIRST + 2), "是", "", "1000000001", "风", str(FIRST + 102)),
        (str(FIRST + 102), "原文", "media", "1000000002", "鹿", None),
    ]


def test_tables_of_originals_only(tmp_path: Path) -> None:
    path = tmp_path / "1000000001.csv"
    path.write_text(table(row(1, "早")[: len(COLUMNS)], header=COLUMNS), encoding="utf-8")
    messages, _ = read_all(path, [WeiboReader()])
    assert [(message.text, message.kind) for message in messages] == [("早", "post")]


def test_damaged_records_are_counted_and_the_rest_is_read(tmp_path: Path) -> None:
    messages, bad = read(
        tmp_path, post(1, "a"), {"id": 2}, post(3, "b", created_at="昨天"), post(4, "c", id="x"), post(5, "d")
    )
    assert [message.text for message in messages] == ["a", "d"]
    assert [record.position for record in bad] == ["record 2", "record 3", "record 4"]


@pytest.mark.parametrize("text", ["", "{}", '{"user": {"id": 1}, "weibo": []}', "id,bid\n", "id,text,日期\n", "[]"])
def test_other_files_are_left_to_others(tmp_path: Path, text: str) -> None:
    (tmp_path / "x").write_text(text, encoding="utf-8")
    assert not WeiboReader().sniff(SourceTree(open_folder(tmp_path), "x", "x", ZONE))


@given(st.integers(0, 900), st.binary(max_size=4))
def test_damage_anywhere_stops_no_build(tmp_path_factory: pytest.TempPathFactory, at: int, damage: bytes) -> None:
    whole = json.dumps(crawled(*(post(number, f"text {number}") for number in range(4)))).encode()
    start = whole.index(b'"weibo"') + 11
    path = tmp_path_factory.mktemp("any") / "x.json"
    path.write_bytes(whole[: start + at] + damage + whole[start + at :])
    messages, bad = read_all(path, [WeiboReader()])
    assert len(messages) == 4 or bad


def test_what_the_site_writes_to_pictures_is_nobodys(tmp_path: Path) -> None:
    messages, _ = read(tmp_path, post(1, "分享图片", pics="https://a.example/1.jpg"), post(2, "分享图片", pics=""))
    assert [(message.mark, message.text) for message in messages] == [("media", ""), ("", "分享图片")]


def test_a_post_that_speaks_to_somebody_opens_nothing(tmp_path: Path) -> None:
    messages, _ = read(tmp_path, post(1, "@小鹿 生日快乐"), post(2, "今天和@小鹿 喝茶"))
    assert [(message.kind, message.reply_to, message.text) for message in messages] == [
        ("reply", None, "@小鹿 生日快乐"),
        ("post", None, "今天和@小鹿 喝茶"),
    ]
