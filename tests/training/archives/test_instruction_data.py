"""Instruction data as an archive."""

import csv
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.archives.test_mastodon import created, outbox
from tests.training.archives.test_slack import workspace
from tests.training.exports import ZONE, read_all, telegram_account, telegram_chat, telegram_message, write_folder
from training.archives.discovery import discover, installed_readers
from training.archives.instruction_data import InstructionDataReader
from training.archives.source_tree import SourceTree, open_folder

READER = InstructionDataReader()
ALPACA = {"instruction": "Add", "input": "1 and 2", "output": "3"}
SHAREGPT = {
    "id": "a",
    "conversations": [
        {"from": "system", "value": "Be kind."},
        {"from": "human", "value": "hi"},
        {"from": "gpt", "value": "hello"},
        {"from": "human", "value": "bye"},
        {"from": "gpt", "value": "see you"},
    ],
}
OPENAI = {
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "你好"}]},
        {"role": "assistant", "content": "在的"},
    ]
}


def sniffs(tmp_path: Path, content: bytes) -> bool:
    (tmp_path / "file").write_bytes(content)
    return READER.sniff(SourceTree(open_folder(tmp_path), "file", "file", ZONE))


def table(*rows: list[str]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


@pytest.mark.parametrize("form", ["array", "lines"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
def test_every_kind_in_every_form_and_encoding(tmp_path: Path, form: str, encoding: str) -> None:
    records = [ALPACA, SHAREGPT, OPENAI]
    texts = [json.dumps(record, ensure_ascii=False) for record in records]
    text = json.dumps(records, ensure_ascii=False, indent=1) if form == "array" else "\n".join(texts)
    (tmp_path / "data").write_bytes(text.encode(encoding))
    messages, bad = read_all(tmp_path / "data", [READER])
    assert bad == []
    assert [(message.sender, message.text, message.is_owner, message.mark) for message in messages] == [
        ("user", "Add\n\n1 and 2", False, ""),
        ("assistant", "3", True, ""),
        ("system", "Be kind.", False, "service"),
        ("user", "hi", False, ""),
        ("assistant", "hello", True, ""),
        ("user", "bye", False, ""),
        ("assistant", "see you", True, ""),
        ("user", "你好", False, ""),
        ("assistant", "在的", True, ""),
    ]
    assert len({message.chat for message in messages}) == 3
    assert {message.kind for message in messages} == {"dm"}
    assert [message.sent_at for message in messages[2:7]] == sorted({message.sent_at for message in messages[2:7]})


def test_a_table(tmp_path: Path) -> None:
    rows = table(
        ["Question", "Answer", "topic"], ["tea?", "yes,\nplease", "x"], ["", "alone", "x"], ["milk?", "no", ""]
    )
    (tmp_path / "data.csv").write_text(rows, encoding="gb18030")
    messages, bad = read_all(tmp_path / "data.csv", [READER])
    assert [message.text for message in messages] == ["tea?", "yes,\nplease", "milk?", "no"]
    assert [record.reason for record in bad] == ["no question has an answer"]


def test_the_same_dialogue_is_the_same_chat_wherever_it_stands(tmp_path: Path) -> None:
    (tmp_path / "a").write_text(json.dumps([ALPACA, SHAREGPT, ALPACA]))
    messages, _ = read_all(tmp_path / "a", [READER])
    chats = [message.chat for message in messages]
    assert chats[0] == chats[-1] != chats[2]


def test_unusable_and_damaged_records_are_counted(tmp_path: Path) -> None:
    tool = {"messages": [{"role": "user", "content": "weather?"}, {"role": "tool", "content": "{}"}]}
    lines = [json.dumps(ALPACA), json.dumps(tool), '{"instruction": ', "[]", json.dumps(OPENAI)]
    (tmp_path / "data").write_text("\n".join(lines))
    messages, bad = read_all(tmp_path / "data", [READER])
    assert len(messages) == 4
    assert [record.position for record in bad] == ["record 2", "record 3", "record 4"]
    assert "tool calls are not supported" in bad[0].reason

    (tmp_path / "data").write_text(f"[{json.dumps(ALPACA)}, {json.dumps(OPENAI)[:-9]}")
    messages, bad = read_all(tmp_path / "data", [READER])
    assert len(messages) == 2
    assert len(bad) == 1


FOREIGN: dict[str, Any] = {
    "telegram": telegram_chat([telegram_message(1, 1001, "hi", **{"from": "user"})]),
    "account": telegram_account(telegram_chat([telegram_message(1, 1001, "hi")])),
    "outbox": outbox(created(1, "<p>x</p>")),
    "google": {"messages": [{"creator": {"name": "a"}, "created_date": "x", "text": "hi"}]},
    "matrix": {"room_name": "a", "messages": [{"type": "m.room.message", "content": {"body": "x"}, "sender": "@a:b"}]},
    "meta": {"participants": [{"name": "a"}], "messages": [{"sender_name": "a", "content": "x", "timestamp_ms": 1}]},
    "chatgpt": [{"title": "x", "mapping": {"a": {"message": {"author": {"role": "user"}}}}}],
    "conversations": {"conversations": [{"conversation": {}, "events": [{"sender_id": {}}]}]},
    "empty": [],
    "numbers": [1, 2],
    "texts": [{"text": "x"}],
    "answers": [{"question": "x"}],
}


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("indent", [None, 1])
def test_the_json_of_others_is_not_claimed(tmp_path: Path, name: str, indent: int | None) -> None:
    assert not sniffs(tmp_path, json.dumps(FOREIGN[name], indent=indent).encode())
    for content in workspace({"text": "x"}).values():
        assert not sniffs(tmp_path, content.encode())


@pytest.mark.parametrize(
    "header",
    [
        "Date,User,Message",
        "ID,Timestamp,Contents,Attachments",
        "AuthorID,Author,Date,Content,Attachments,Reactions",
        "username,text,timestamp",
        "id,permalink,thread_id,date,ip,from,to,subject,body",
        "question",
        "",
    ],
)
def test_the_tables_of_others_are_not_claimed(tmp_path: Path, header: str) -> None:
    assert not sniffs(tmp_path, header.encode() + b"\n1,2,3,4\n")


@pytest.mark.parametrize("record", [ALPACA, SHAREGPT, OPENAI])
def test_no_other_reader_claims_it(tmp_path: Path, record: Any) -> None:
    write_folder(tmp_path / "a", {"one.json": json.dumps([record]), "two.jsonl": json.dumps(record)})
    write_folder(tmp_path / "a", {"three.csv": "instruction,output\nhi,hello\n"})
    readers = [*(reader for reader in installed_readers() if reader.name != READER.name), READER]
    discovery = discover(["a"], tmp_path, ZONE, readers)
    discovery.close()
    assert [source.reader.name for source in discovery.sources] == [READER.name] * 3


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", b'[{"instruction": "a", "output": "b"},', b"prompt,answer\n"]))
def test_any_bytes_never_raise(data: bytes, start: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "file").write_bytes(start + data)
        tree = SourceTree(open_folder(Path(folder)), "file", "file", ZONE)
        READER.sniff(tree)
        for message in READER.read(tree):
            assert message.text
