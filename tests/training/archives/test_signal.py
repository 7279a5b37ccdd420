"""Signal chats from signal-export, in both of its files."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.exports import ZONE, read_all
from training.archives.message import Message
from training.archives.signal.signal_export import SignalReader
from training.archives.source_tree import BadRecord, SourceTree, open_folder

MARKDOWN = (
    "[2021-03-13 21:05:10] Tom: hello  \n\n"
    "[2021-03-13 21:06:00] Me: \n\n> hello\n> you\n\nfirst: line\nsecond line  \n(- Tom: \U0001f44d -)\n\n"
    "[2021-03-13 21:07:00] Tom: look  ![a b.jpg](./media/a%20b.jpg)  \n\n"
    "[2021-03-13 21:08:00] Tom:   \n(( \U0001f600 ))\n\n"
    "[2021-03-13 21:09:00] Me: (This message was deleted)\n\n"
    "[2021-03-13 21:10:00] Tom: Incoming voice call (accepted, 1m 2s)  \n\n"
    "[2021-03-13 21:11:00] No-Sender:   \n\n"
)
TEXTS = [
    ("Tom", "", "hello"),
    ("Me", "", "first: line\nsecond line"),
    ("Tom", "reaction", "\U0001f44d"),
    ("Tom", "media", "look"),
    ("Tom", "", "\U0001f600"),
    ("Me", "deleted", "(This message was deleted)"),
    ("Tom", "service", "Incoming voice call (accepted, 1m 2s)"),
    ("No-Sender", "service", ""),
]


def record(minute: int, sender: str, body: str, **more: Any) -> str:
    written = {
        "date": f"2021-03-13T21:{minute:02}:00.123000",
        "sender": sender,
        "body": body + "  ",
        "quote": "",
        "sticker": None,
        "reactions": [],
        "attachments": [],
        **more,
    }
    return json.dumps(written, ensure_ascii=False) + "\n"


JSON_LINES = (
    record(5, "Tom", "hello")
    + record(6, "Me", "first: line\nsecond line", quote="\n\n> hello\n\n", reactions=[["Tom", "\U0001f44d"]])
    + record(7, "Tom", "look", attachments=[{"name": "a.jpg", "path": "media/a.jpg"}])
    + record(8, "Tom", "", sticker={"id": "1", "packId": "2", "packKey": "3", "emoji": "\U0001f600", "extension": None})
    + record(9, "Me", "(This message was deleted)", deleted=True)
    + record(10, "Tom", "Incoming voice call (accepted, 1m 2s)", call=True)
    + record(11, "No-Sender", "")
)


def read(path: Path) -> tuple[list[Message], list[BadRecord]]:
    return read_all(path, [SignalReader()])


def written(folder: Path, chat: str = "Tom", **files: str) -> Path:
    """An export of one chat; `md` and `json` are its files."""
    place = folder / "export" / chat
    (place / "media").mkdir(parents=True, exist_ok=True)
    (place / "media" / "a.jpg").write_bytes(b"\xff")
    for ending, text in files.items():
        (place / {"md": "chat.md", "json": "data.json"}[ending]).write_text(text, encoding="utf-8")
    return folder / "export"


def senders_marks_and_texts(messages: list[Message]) -> list[tuple[str, str, str]]:
    return [(message.sender, message.mark, message.text) for message in messages]


def test_markdown(tmp_path: Path) -> None:
    messages, bad = read(written(tmp_path, md=MARKDOWN))
    assert bad == []
    assert senders_marks_and_texts(messages) == TEXTS
    assert messages[0].sent_at == datetime(2021, 3, 13, 20, 5, 10, tzinfo=UTC)
    assert [message.is_owner for message in messages] == [False, True, False, False, False, True, False, False]
    assert {(message.kind, message.chat, message.platform) for message in messages} == {("dm", "Tom", "signal")}


def test_json(tmp_path: Path) -> None:
    messages, bad = read(written(tmp_path, json=JSON_LINES))
    assert bad == []
    assert senders_marks_and_texts(messages) == TEXTS
    assert messages[0].sent_at == datetime(2021, 3, 13, 20, 5, 0, 123000, tzinfo=UTC)


def test_both_files_hold_the_same_messages_and_are_read_once(tmp_path: Path) -> None:
    text = MARKDOWN.replace("21:05:10", "21:05:00")
    messages, _ = read(written(tmp_path, md=text, json=JSON_LINES))
    assert senders_marks_and_texts(messages) == TEXTS
    assert {message.origin.partition(":")[0] for message in messages} == {"data.json"}
    from_text, _ = read(written(tmp_path / "other", md=text))
    assert [message.id for message in from_text] == [message.id for message in messages]


def test_what_was_merged_from_an_older_export_stands_in_the_text_only(tmp_path: Path) -> None:
    older = "[2019-05-29 15:04:00] Tom: long ago  \n\n"
    messages, _ = read(written(tmp_path, md=older + MARKDOWN, json=JSON_LINES))
    assert [message.text for message in messages][:2] == ["long ago", "hello"]


def test_the_stamps_of_older_exports_and_times_with_a_zone(tmp_path: Path) -> None:
    messages, bad = read(written(tmp_path, md="[2021-03-13, 21:05] Me: hello  \n\n"))
    assert bad == []
    assert [(message.text, message.sent_at) for message in messages] == [
        ("hello", datetime(2021, 3, 13, 20, 5, tzinfo=UTC))
    ]
    zoned = record(5, "Me", "hi", date="2021-03-13T21:05:00+08:00")
    messages, _ = read(written(tmp_path / "zoned", json=zoned))
    assert [message.sent_at for message in messages] == [datetime(2021, 3, 13, 13, 5, tzinfo=UTC)]


def test_several_chats_and_a_group(tmp_path: Path) -> None:
    written(tmp_path, "Hike", json=record(1, "Tom", "a") + record(2, "Kim", "b") + record(3, "Me", "c"))
    messages, _ = read(written(tmp_path, "Tom", json=record(1, "Tom", "a")))
    assert {(message.chat, message.kind) for message in messages} == {("Hike", "group"), ("Tom", "dm")}


def test_a_single_file_is_enough(tmp_path: Path) -> None:
    folder = written(tmp_path, md=MARKDOWN)
    messages, _ = read(folder / "Tom" / "chat.md")
    assert senders_marks_and_texts(messages) == TEXTS
    assert {message.chat for message in messages} == {"Tom"}


def test_broken_records_are_noted(tmp_path: Path) -> None:
    damaged = record(1, "Tom", "a") + '{"date": "2021-\n' + '{"date": "gestern", "sender": "Tom", "body": ""}\n7\n'
    messages, bad = read(written(tmp_path, json=damaged + record(2, "Tom", "b")))
    assert [message.text for message in messages] == ["a", "b"]
    assert [record.position for record in bad] == ["record 2", "record 3", "record 4"]
    messages, bad = read(written(tmp_path / "md", md=MARKDOWN + "[2021-02-31 10:00:00] Me: x  \n\n"))
    assert (len(messages), [record.position for record in bad]) == (8, ["line 23"])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello\n",
        "[2021-03-13 21:05:10] Mara: hello\n[2021-03-13 21:06:10] Tom: hi\n",
        "[2021-03-13 21:05:10] Mara: hello\n",
        "[21:05:10] <Tom> hi\n",
        '{"date": "2021-03-13", "text": "x"}\n',
        "[]",
    ],
)
def test_other_files_are_left_to_others(tmp_path: Path, text: str) -> None:
    path = tmp_path / "chat.txt"
    path.write_text(text, encoding="utf-8")
    assert not SignalReader().sniff(SourceTree(open_folder(path), path.name, path.name, ZONE))
    assert not SignalReader().sniff(SourceTree(open_folder(tmp_path), "", "folder", ZONE))


@given(st.binary(max_size=300))
def test_no_bytes_stop_it(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    for text in (MARKDOWN, JSON_LINES):
        path = tmp_path_factory.mktemp("any") / "chat"
        path.write_bytes(text.encode("utf-8-sig") + data)
        if SignalReader().sniff(SourceTree(open_folder(path), path.name, path.name, ZONE)):
            messages, _ = read(path)
            assert len(messages) >= 7


def test_an_answer_is_linked_to_the_last_message_of_the_words_that_it_quotes(tmp_path: Path) -> None:
    text = "".join(f"[2021-03-13 21:0{n}:10] Tom: tea?  \n\n" for n in range(2)) + MARKDOWN.replace("> you", "> x")
    messages, _ = read(written(tmp_path / "md", md=text))
    assert [message.reply_to for message in messages if not message.mark] == [None] * 5
    text += "[2021-03-13 21:20:00] Me: \n\n> tea?\n\nyes  \n\n"
    messages, _ = read(written(tmp_path / "md2", md=text))
    assert messages[-1].reply_to == messages[1].id
    quoting = record(2, "Me", "yes", quote="\n\n> two\n> lines\n\n") + record(3, "Me", "no", quote="\n\n> else\n\n")
    messages, _ = read(written(tmp_path / "json", json=record(1, "Tom", "two\nlines") + quoting))
    assert [message.reply_to for message in messages] == [None, messages[0].id, None]


def test_stickers_of_older_exports_are_the_emoji_alone(tmp_path: Path) -> None:
    messages, _ = read(
        written(tmp_path, json=record(1, "Tom", "", sticker="\U0001f600") + record(2, "Me", "", sticker=""))
    )
    assert [message.text for message in messages] == ["\U0001f600", ""]


def test_a_sticker_that_stands_for_no_emoji_and_the_owners_reaction(tmp_path: Path) -> None:
    text = "[2021-03-13 21:05:10] Tom: hello  \n(- Kim: \u2764\ufe0f, Me: \U0001f602 -)\n\n"
    text += "[2021-03-13 21:06:00] Me:   \n(( wave ))\n\n"
    messages, bad = read(written(tmp_path, md=text))
    assert bad == []
    assert [
        (*message, is_owner)
        for message, is_owner in zip(senders_marks_and_texts(messages), [m.is_owner for m in messages], strict=True)
    ] == [
        ("Tom", "", "hello", False),
        ("Kim", "reaction", "\u2764\ufe0f", False),
        ("Me", "reaction", "\U0001f602", True),
        ("Me", "sticker", "", True),
    ]
    assert {message.reply_to for message in messages[1:3]} == {messages[0].id}
