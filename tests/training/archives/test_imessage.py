"""iMessage chats from imessage-exporter."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.exports import ZONE, read_all
from training.archives.imessage import IMessageReader
from training.archives.message import Message
from training.archives.source_tree import BadRecord, SourceTree, open_folder

CHAT = (
    "Mar 13, 2021  9:05:10 PM (Read by you after 1 hour, 49 seconds)\nTom\nhello\n\nsecond paragraph\n"
    "Tapbacks:\nLoved by Me\nSticker from Tom: attachments/1.heic\n\n"
    "    Mar 13, 2021  9:07:00 PM\n    Me\n    an answer\nof two lines\n\n\n"
    "Mar 13, 2021  9:06:00 PM\nMe\nhi\nSent with Confetti\n\n"
    "Mar 13, 2021  9:07:00 PM\nMe\nan answer\nof two lines\nThis message responded to an earlier message.\n\n"
    "Mar 13, 2021 10:08:00 PM\nTom\nlook at this\n/Users/tom/Library/Messages/Attachments/0a/IMG 1.heic\n\n"
    "Mar 13, 2021 10:09:00 PM You renamed the conversation to Hike\n\n"
    "Mar 13, 2021 10:10:00 PM\nTom\nMar 13, 2021 10:10:00 PM frist\nEdited 5 seconds later: furst\n"
    "Edited 9 seconds later: first\n\n"
    "Mar 13, 2021 10:11:00 PM\nTom\nThey unsent this message part 7 seconds after sending!\n\n"
    "Mar 14, 2021 12:00:30 AM\nMe\nSticker from Me: attachments/2.heic\n\n"
)


def read(path: Path) -> tuple[list[Message], list[BadRecord]]:
    return read_all(path, [IMessageReader()])


def written(folder: Path, text: str, name: str = "Tom.txt") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_chat(tmp_path: Path) -> None:
    messages, bad = read(written(tmp_path, CHAT))
    assert bad == []
    assert [(message.sender, message.mark, message.text) for message in messages] == [
        ("Tom", "", "hello\n\nsecond paragraph"),
        ("Me", "reaction", "\u2764\ufe0f"),
        ("Me", "", "hi"),
        ("Me", "", "an answer\nof two lines"),
        ("Tom", "media", "look at this"),
        ("Tom", "service", "You renamed the conversation to Hike"),
        ("Tom", "", "first"),
        ("Tom", "deleted", ""),
        ("Me", "sticker", ""),
    ]
    assert messages[0].sent_at == datetime(2021, 3, 13, 20, 5, 10, tzinfo=UTC)
    assert messages[-1].sent_at == datetime(2021, 3, 13, 23, 0, 30, tzinfo=UTC)
    assert [message.is_owner for message in messages] == [False, True, True, True, False, None, False, False, True]
    assert {(message.kind, message.chat, message.platform) for message in messages} == {("dm", "Tom", "imessage")}


@pytest.mark.parametrize(
    "words",
    ["look at this, isn't it lovely", "Look at this", "so cheap!!\nshall we?", "太好笑了\n你看", "www.b.example"],
)
def test_words_below_a_link_are_kept(tmp_path: Path, words: str) -> None:
    text = f"https://a.example/tea?x=1\n{words}"
    (message,), _ = read(written(tmp_path, f"Mar 13, 2021  9:05:10 PM\nMe\n{text}\n\n"))
    assert (message.mark, message.text) == ("", text)


def test_what_a_voice_message_said_is_its_text(tmp_path: Path) -> None:
    body = "attachments/12.caf\nTranscription: see you at nine\nat the pond"
    (message,), _ = read(written(tmp_path, f"Mar 13, 2021  9:05:10 PM\nMe\n{body}\n\n"))
    assert (message.mark, message.text) == ("media", "see you at nine\nat the pond")


def test_an_answer_names_what_it_answers_and_is_told_once(tmp_path: Path) -> None:
    messages, _ = read(written(tmp_path, CHAT))
    assert [message.text for message in messages if message.reply_to and not message.mark] == [
        "an answer\nof two lines"
    ]
    assert {message.reply_to for message in messages if message.reply_to} == {messages[0].id}


def test_an_answer_that_stands_only_beneath_its_message_is_kept(tmp_path: Path) -> None:
    text = CHAT.replace("This message responded to an earlier message.\n", "")
    messages, _ = read(written(tmp_path, text))
    answers = [message for message in messages if message.text == "an answer\nof two lines"]
    assert len({answer.id for answer in answers}) == 2
    assert [message.reply_to for message in answers] == [messages[0].id, None]


def test_tapbacks_are_the_signs_that_the_phone_shows(tmp_path: Path) -> None:
    listed = "Tapbacks:\nLaughed by Me\nEmphasized by Kim\n\U0001f973 by Mara by the Sea\nSticker from Me: a from Me\n"
    messages, bad = read(written(tmp_path, f"Mar 13, 2021  9:05:10 PM\nTom\nhello\n{listed}\n\n"))
    assert bad == []
    assert [(message.sender, message.mark, message.text, message.is_owner) for message in messages[1:]] == [
        ("Me", "reaction", "\U0001f602", True),
        ("Kim", "reaction", "\u203c\ufe0f", False),
        ("Mara by the Sea", "reaction", "\U0001f973", False),
    ]
    assert {message.reply_to for message in messages[1:]} == {messages[0].id}


def test_what_an_app_puts_beneath_a_link_or_in_place_of_words_is_nobodys(tmp_path: Path) -> None:
    bodies = (
        "https://a.example/tea\nHow to Brew Tea\nA guide\nin two lines",
        "https://a.example/tea\nHow to brew tea | All about tea",
        "https://a.example/tea\nHow to brew tea\nA guide to water, leaves and pots that says all that there is to say",
        "read https://a.example/tea\nit is good",
        "GamePigeon message:\nLet's play 8 ball!",
        "Apple Cash transaction: $5",
        "Check In: Has Arrived\nChecked in at Mar 13, 2021  9:05:10 PM",
        "My message:\nhello",
    )
    text = "".join(f"Mar 13, 2021  9:05:1{n} PM\nMe\n{body}\n\n" for n, body in enumerate(bodies))
    messages, bad = read(written(tmp_path, text))
    assert bad == []
    assert [(message.mark, message.text) for message in messages] == [
        ("", "https://a.example/tea"),
        ("", "https://a.example/tea"),
        ("", "https://a.example/tea"),
        ("", "read https://a.example/tea\nit is good"),
        ("media", ""),
        ("media", ""),
        ("media", ""),
        ("", "My message:\nhello"),
    ]


def test_a_group_and_an_export_without_me(tmp_path: Path) -> None:
    text = "".join(f"Mar 13, 2021  9:05:1{n} PM\n{name}\nhi\n\n" for n, name in enumerate(("Mara", "Tom", "Kim")))
    messages, _ = read(written(tmp_path, text, "Hike - 12.txt"))
    assert {(message.kind, message.chat, message.is_owner) for message in messages} == {("group", "Hike - 12", None)}


def test_a_list_that_somebody_wrote_is_no_tapback(tmp_path: Path) -> None:
    text = "Mar 13, 2021  9:05:10 PM\nMe\nReactions:\nnone\n\n"
    messages, _ = read(written(tmp_path, text))
    assert [message.text for message in messages] == ["Reactions:\nnone"]


def test_ids_stay_the_same_in_a_later_export(tmp_path: Path) -> None:
    twice = "Mar 14, 2021  1:00:00 AM\nMe\nok\n\n" * 2
    first, _ = read(written(tmp_path, CHAT + twice))
    again, _ = read(written(tmp_path, CHAT + twice + "Mar 14, 2021  1:00:01 AM\nMe\nmore\n\n"))
    assert len({message.id for message in again}) == len(again)
    assert [message.id for message in again][:-1] == [message.id for message in first]


def test_broken_records_are_noted(tmp_path: Path) -> None:
    text = "Feb 31, 2021  9:05:10 PM\nTom\nx\n\nMar 13, 2021  9:05:10 PM\n\nMar 13, 2021  9:05:11 PM\nTom\ny\n\n"
    messages, bad = read(written(tmp_path, text))
    assert [message.text for message in messages] == ["y"]
    assert [record.position for record in bad] == ["line 1", "line 5"]


@pytest.mark.parametrize(
    "text",
    ["", "hello\n", "Mar 13, 2021\nTom\nhi\n", "Mar 13, 2021 21:05, Tom : hi\n", "13/03/2021, 21:05 - Tom: hi\n"],
)
def test_other_files_are_left_to_others(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, text)
    assert not IMessageReader().sniff(SourceTree(open_folder(path), path.name, path.name, ZONE))


@given(st.binary(max_size=300))
def test_no_bytes_stop_it(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "chat.txt"
    path.write_bytes(CHAT.encode() + data)
    messages, _ = read(path)
    assert len(messages) >= 8
