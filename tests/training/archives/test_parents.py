"""parents.jsonl: which files are recognized, and the messages of their lines."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doppel.errors import UserError
from tests.training.exports import read_all
from training.archives.discovery import installed_readers
from training.archives.message import Message
from training.archives.parents import PARENTS, UNKNOWN, ParentsReader, time_of_post
from training.archives.source_tree import BadRecord


def write_parents(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return path


def read(tmp_path: Path, *records: Any) -> tuple[list[Message], list[BadRecord]]:
    return read_all(write_parents(tmp_path / "parents.jsonl", *records), [ParentsReader()])


def test_a_line_becomes_a_post_of_somebody_else(tmp_path: Path) -> None:
    (one,), bad = read(
        tmp_path,
        {"id": 77, "author": "@tom", "name": "Tom", "text": "tea &amp; toast", "created_at": "2018-10-10T00:00:05Z"},
    )
    assert bad == []
    assert (one.id, one.platform, one.chat, one.kind) == ("77", "twitter", PARENTS, "post")
    assert (one.sender, one.sender_name, one.is_owner) == ("tom", "Tom", False)
    assert one.text == "tea & toast"
    assert one.sent_at == datetime(2018, 10, 10, 0, 0, 5, tzinfo=UTC)
    assert (one.reply_to, one.mark) == (None, "")


def test_an_answer_loses_the_names_it_begins_with_on_twitter_alone(tmp_path: Path) -> None:
    text = {"author": "tom", "text": "@mara @bo yes &lt;3", "reply_to": "5"}
    messages, _ = read(tmp_path, {"id": "6", **text}, {"id": "7", "platform": "Mastodon", **text})
    assert [(message.platform, message.text, message.reply_to) for message in messages] == [
        ("twitter", "yes <3", "5"),
        ("mastodon", "@mara @bo yes &lt;3", "5"),
    ]


def test_what_is_gone_is_marked_as_deleted(tmp_path: Path) -> None:
    (one,), bad = read(tmp_path, {"id": "9", "platform": "x", "gone": "Not Found Error"})
    assert (one.id, one.platform, one.text, one.mark) == ("9", "twitter", "", "deleted")
    assert bad == []


def test_ids_tell_the_time_where_they_hold_it() -> None:
    assert time_of_post("twitter", "1050118621198921728") == datetime(2018, 10, 10, 20, 19, 24, tzinfo=UTC)
    for platform, post in (
        ("mastodon", "1050118621198921728"),
        ("twitter", "20"),
        ("twitter", "x"),
        ("twitter", "9" * 30),
    ):
        assert time_of_post(platform, post) == UNKNOWN


def test_a_damaged_line_is_noted_and_the_rest_is_read(tmp_path: Path) -> None:
    path = write_parents(
        tmp_path / "any name.txt",
        {"id": "1", "author": "tom", "text": "a"},
        {"id": "2", "text": "nobody's"},
        {"id": None, "author": "tom", "text": "no id"},
        [1],
        {"id": "3", "author": "tom", "text": "b", "created_at": "yesterday"},
    )
    path.write_text(path.read_text() + '{"id": "4", "auth', encoding="utf-8")
    messages, bad = read_all(path, [ParentsReader()])
    assert [message.id for message in messages] == ["1"]
    assert [record.position for record in bad] == ["record 2", "record 3", "record 4", "record 5", "record 6"]


@pytest.mark.parametrize(
    "line",
    [
        '{"id": "1", "author": "tom", "body": "a", "created_utc": 1, "subreddit": "x"}',
        '{"id": "1", "author": "tom", "text": "a", "likes": 3}',
        '{"id": "1", "text": "a"}',
        '[{"id": "1", "author": "tom", "text": "a"}]',
        "{",
        "",
    ],
)
def test_other_files_are_not_claimed(tmp_path: Path, line: str) -> None:
    (tmp_path / "parents.jsonl").write_text(line, encoding="utf-8")
    with pytest.raises(UserError):
        read_all(tmp_path / "parents.jsonl", [ParentsReader()])


def test_it_is_installed_and_no_other_reader_claims_the_file(tmp_path: Path) -> None:
    path = write_parents(tmp_path / "parents.jsonl", {"id": "1", "author": "tom", "text": "a"})
    assert "parents" in {reader.name for reader in installed_readers()}
    assert len(read_all(path)[0]) == 1


json_values = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=4)


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["id", "author", "text", "created_at", "reply_to", "gone", "platform"]), json_values
        )
    )
)
def test_every_line_is_a_message_or_a_bad_record(tmp_path_factory: pytest.TempPathFactory, records: list[Any]) -> None:
    first = {"id": "1", "author": "tom", "text": "a"}
    messages, bad = read(tmp_path_factory.mktemp("parents"), first, *records)
    assert len(messages) + len(bad) == 1 + len(records)
