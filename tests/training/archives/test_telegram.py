"""Telegram Desktop's result.json."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.training.exports import (
    SECOND,
    read_all,
    telegram_account,
    telegram_chat,
    telegram_message,
    write_folder,
    write_json,
    write_zip,
)
from training.archives.message import Message

OTHER, ME = 2002, 1001


def read(tmp_path: Path, content: Any) -> list[Message]:
    messages, bad = read_all(write_json(tmp_path / "result.json", content))
    assert bad == []
    return messages


def read_message(tmp_path: Path, record: dict[str, Any], **chat: Any) -> Message:
    (message,) = read(tmp_path, telegram_chat([record], **chat))
    return message


def test_a_single_chat(tmp_path: Path) -> None:
    messages = read(tmp_path, telegram_chat([telegram_message(1, OTHER, "hi"), telegram_message(2, ME, "你好")]))
    assert [message.text for message in messages] == ["hi", "你好"]
    assert [message.sender for message in messages] == ["2002", "1001"]  # as in the bot API: plain numbers
    assert messages[0].sender_name == "Tom Berg"
    assert {message.chat for message in messages} == {"user2002"}
    assert messages[0].platform == "telegram"
    assert messages[0].kind == "dm"
    assert messages[0].chat_name == "Tom"
    # The id of a private chat is the other one's: they are known not to be the owner, the rest is asked for.
    assert [message.is_owner for message in messages] == [False, None]


def test_a_whole_account_says_whose_it_is(tmp_path: Path) -> None:
    group = telegram_chat(
        [telegram_message(1, 3003, "ah"), telegram_message(2, ME, "oh")], id=5, type="private_group", name="Chess"
    )
    left = telegram_chat([telegram_message(1, ME, "bye")], id=6, type="public_supergroup", name="Old")
    messages = read(tmp_path, telegram_account(telegram_chat([telegram_message(1, ME, "hi")]), group, left=[left]))
    assert [(message.chat, message.kind, message.is_owner) for message in messages] == [
        ("user2002", "dm", True),
        ("chat5", "group", False),
        ("chat5", "group", True),
        ("channel6", "group", True),
    ]


def test_date_is_the_exporters_so_unixtime_counts(tmp_path: Path) -> None:
    message = read_message(tmp_path, telegram_message(1, ME, "hi", at=5))
    assert message.sent_at == datetime.fromtimestamp(SECOND + 5, UTC)


def test_old_exports_have_local_time_only(tmp_path: Path) -> None:
    record = telegram_message(1, ME, "hi")
    del record["date_unixtime"]
    record["date"] = "2017-07-14T04:40:00"
    assert read_message(tmp_path, record).sent_at == datetime(
        2017, 7, 14, 2, 40, tzinfo=UTC
    )  # read in the owner's zone


def test_text_lists_become_text(tmp_path: Path) -> None:
    parts = ["see ", {"type": "link", "text": "example.org"}, " and ", {"type": "bold", "text": "this"}]
    assert read_message(tmp_path, telegram_message(1, ME, parts)).text == "see example.org and this"


def test_text_entities_may_be_absent_or_alone(tmp_path: Path) -> None:
    record = telegram_message(1, ME, "plain")
    del record["text_entities"]
    assert read_message(tmp_path, record).text == "plain"
    record = telegram_message(1, ME, None, text_entities=[{"type": "plain", "text": "only here"}])
    assert read_message(tmp_path, record).text == "only here"


def test_control_characters_come_as_invalid_escapes(tmp_path: Path) -> None:
    content = json.dumps(telegram_chat([telegram_message(1, ME, "bell MARK slash \\x41")]))
    path = tmp_path / "result.json"
    path.write_text(content.replace("MARK", "\\x07"), encoding="utf-8")
    messages, bad = read_all(path)
    assert bad == []
    assert messages[0].text == "bell \x07 slash \\x41"


@pytest.mark.parametrize(
    ("more", "mark"),
    [
        ({"forwarded_from": "Somebody"}, "forward"),
        ({"forwarded_from": None}, "forward"),  # the account is gone
        ({"saved_from": "Channel"}, "forward"),
        ({"via_bot": "@gif"}, "bot"),
        ({"photo": "(File not included. Change data exporting settings to download.)"}, "media"),
        ({"file": "voice.ogg", "media_type": "voice_message"}, "media"),
        ({"media_type": "sticker", "sticker_emoji": "😀"}, "media"),
        ({"media_type": "sticker"}, "sticker"),
        ({"poll": {"question": "?"}}, "media"),
        ({"edited": "2017-07-14T04:41:00"}, ""),
        ({}, ""),
    ],
)
def test_what_a_record_says_about_itself(tmp_path: Path, more: dict[str, Any], mark: str) -> None:
    assert read_message(tmp_path, telegram_message(1, ME, "text", **more)).mark == mark


def test_service_and_unsupported_records_are_messages_too(tmp_path: Path) -> None:
    service = telegram_message(2, ME, "", type="service", actor="Mara", actor_id="user1001", action="phone_call")
    messages = read(tmp_path, telegram_chat([telegram_message(1, ME, "a"), service, {"id": 3, "type": "unsupported"}]))
    assert [message.mark for message in messages] == ["", "service", "service"]
    assert messages[2].sent_at == messages[1].sent_at  # it has no time of its own


def test_replies_are_linked_unless_they_answer_another_chat(tmp_path: Path) -> None:
    assert read_message(tmp_path, telegram_message(9, ME, "yes", reply_to_message_id=4)).reply_to == "4"
    elsewhere = telegram_message(9, ME, "yes", reply_to_message_id=4, reply_to_peer_id="channel7")
    assert read_message(tmp_path, elsewhere).reply_to is None


def test_topics_are_chats_of_their_own(tmp_path: Path) -> None:
    topic = telegram_message(10, ME, "", type="service", action="topic_created", title="Food")
    messages = read(
        tmp_path,
        telegram_chat(
            [
                topic,
                telegram_message(11, ME, "in the topic", reply_to_message_id=10),
                telegram_message(12, OTHER, "an answer there", reply_to_message_id=11),
                telegram_message(13, OTHER, "in general"),
                telegram_message(14, ME, "still the topic", reply_to_message_id=12),
            ],
            id=5,
            type="public_supergroup",
        ),
    )
    assert [message.chat for message in messages] == ["channel5/10"] * 3 + ["channel5", "channel5/10"]
    assert [message.reply_to for message in messages] == [None, None, "11", None, "12"]


def test_chats_with_bots_and_with_oneself(tmp_path: Path) -> None:
    assert read_message(tmp_path, telegram_message(1, ME, "/start"), type="bot_chat").mark == "bot"
    note = read_message(tmp_path, telegram_message(1, ME, "milk"), type="saved_messages", id=ME, name=None)
    assert note.is_owner is True
    assert note.chat_name == "saved messages"


def test_a_channel_may_be_the_owners(tmp_path: Path) -> None:
    post = telegram_message(1, ME, "news", from_id="channel5", **{"from": "My channel"})
    channel = telegram_chat([post], id=5, type="public_channel", name="My channel")
    (message,) = read(tmp_path, telegram_account(channel))
    assert (message.kind, message.sender, message.is_owner) == ("post", "channel5", None)


def test_deleted_accounts_and_old_ids(tmp_path: Path) -> None:
    gone = telegram_message(1, OTHER, "hi", **{"from": None})
    assert (read_message(tmp_path, gone).sender, read_message(tmp_path, gone).sender_name) == ("2002", "")
    assert read_message(tmp_path, telegram_message(1, ME, "hi", from_id=4_297_000_000)).sender == "4297000000"


def test_bad_records_are_counted_and_named(tmp_path: Path) -> None:
    records = [
        telegram_message(1, ME, "a"),
        {"type": "message", "text": "no id", "date_unixtime": "1500000000"},
        "nonsense",
        telegram_message(3, ME, "b", date_unixtime="yesterday"),
        telegram_message(4, ME, "c"),
    ]
    messages, bad = read_all(write_json(tmp_path / "result.json", telegram_chat(records)))
    assert [message.id for message in messages] == ["1", "4"]
    assert [(record.file, record.position) for record in bad] == [
        (str(tmp_path / "result.json"), f"Tom, message {number}") for number in (2, 3, 4)
    ]
    assert bad[0].reason == "missing 'id'"
    assert "yesterday" in bad[2].reason


def test_a_cut_off_file_keeps_what_came_before(tmp_path: Path) -> None:
    text = json.dumps(telegram_chat([telegram_message(1, ME, "a"), telegram_message(2, ME, "b")]))
    path = tmp_path / "result.json"
    path.write_text(text[:-60], encoding="utf-8")
    messages, bad = read_all(path)
    assert [message.id for message in messages] == ["1"]
    assert [record.reason for record in bad] == ["ends unexpectedly"]


def test_found_in_folders_and_zips_under_any_name(tmp_path: Path) -> None:
    content = json.dumps(telegram_chat([telegram_message(1, ME, "hi")]))
    files = {"ChatExport/my chat.json": content, "ChatExport/photos/1.jpg": "x", "ChatExport/files/note.txt": "x"}
    for path in (write_folder(tmp_path / "a", files), write_zip(tmp_path / "b.zip", files, "deep/er/")):
        messages, bad = read_all(path)
        assert [message.text for message in messages] == ["hi"]
        assert bad == []


def test_a_sticker_says_its_emoji(tmp_path: Path) -> None:
    sticker = {"file": "(File not included.)", "media_type": "sticker", "sticker_emoji": "😀"}
    assert (read_message(tmp_path, telegram_message(1, ME, "", **sticker)).text) == "😀"


def test_reactions_follow_what_they_are_put_to(tmp_path: Path) -> None:
    recent = [
        {"from": name, "from_id": f"user{user}", "date": "2017-07-15T04:40:00"}
        for name, user in (("Tom", 2002), ("Mara", ME))
    ]
    reactions = [
        {"type": "emoji", "count": 1, "emoji": "❤", "recent": recent[1:]},
        {"type": "emoji", "count": 2, "emoji": "👍", "recent": recent},
        {"type": "custom_emoji", "count": 1, "document_id": "x.webp", "recent": recent},
        {"type": "emoji", "count": 99, "emoji": "🔥"},
    ]
    first = telegram_message(1, 2002, "look", reactions=reactions)
    messages = read(tmp_path, telegram_account(telegram_chat([first, telegram_message(2, ME, "b")])))
    assert [(m.sender, m.text, m.mark, m.reply_to, m.is_owner) for m in messages] == [
        ("2002", "look", "", None, False),
        ("1001", "❤", "reaction", "1", True),
        ("1001", "b", "", None, True),
    ]
    assert messages[1].sent_at == messages[0].sent_at
    damaged = telegram_chat([telegram_message(1, 2002, "look", reactions=7)])
    messages, bad = read_all(write_json(tmp_path / "result.json", damaged))
    assert ([m.text for m in messages], len(bad)) == (["look"], 1)
    forwarded = telegram_message(1, 2002, "look", reactions=reactions, forwarded_from="Ana")
    assert [m.mark for m in read(tmp_path, telegram_account(telegram_chat([forwarded])))] == ["forward"]


OLD = 1 << 32
"""What older versions add to the id of a person."""


def old_message(number: int, sender: int, text: str) -> dict[str, Any]:
    """As Telegram Desktop wrote it until 2021: local time only, and an account as one number."""
    return {
        "id": number,
        "type": "message",
        "date": f"2020-03-04T12:{number:02}:00",
        "from": "Ann" if sender == ME else "Tom",
        "from_id": OLD + sender,
        "text": text,
    }


@pytest.mark.parametrize("peer", [OTHER, OLD + OTHER])
@pytest.mark.parametrize("owner", [ME, OLD + ME])
def test_accounts_of_older_versions(tmp_path: Path, peer: int, owner: int) -> None:
    chat = telegram_chat([old_message(1, ME, "hi"), old_message(2, OTHER, "yes")], id=peer)
    account = telegram_account(chat)
    account["personal_information"]["user_id"] = owner
    messages = read(tmp_path, account)
    assert [(message.sender, message.is_owner) for message in messages] == [("1001", True), ("2002", False)]
    assert {message.chat for message in messages} == {"user2002"}


def test_an_older_group(tmp_path: Path) -> None:
    notice = {"id": 1, "type": "service", "date": "2020-03-04T11:00:00", "actor": "Tom", "actor_id": OLD + OTHER}
    records = [{**notice, "text": ""}, old_message(2, ME, "hi"), {**old_message(3, ME, "x"), "from_id": 2 * OLD + 5}]
    messages = read(tmp_path, telegram_chat(records, id=5, type="private_group"))
    assert [message.sender for message in messages] == ["2002", "1001", "channel5"]
    assert {message.chat for message in messages} == {"chat5"}


def test_newer_ids_beyond_the_old_limit_stay_as_they_are(tmp_path: Path) -> None:
    large = OLD + OTHER
    messages = read(tmp_path, telegram_chat([telegram_message(1, large, "hi"), telegram_message(2, ME, "a")], id=large))
    assert [(message.sender, message.chat) for message in messages] == [
        (str(large), f"user{large}"),
        (str(ME), f"user{large}"),
    ]


@pytest.mark.parametrize("records", [[telegram_message(1, OTHER, "hi"), telegram_message(2, ME, "a")]])
def test_the_owner_without_a_profile(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    group = telegram_chat([telegram_message(1, ME, "oh"), telegram_message(2, 3003, "ah")], id=5, type="private_group")
    account = telegram_account(group, telegram_chat(records))
    del account["personal_information"]
    assert [message.is_owner for message in read(tmp_path, account)] == [True, False, False, True]


def test_saved_messages_show_the_owner(tmp_path: Path) -> None:
    group = telegram_chat([telegram_message(1, ME, "oh"), telegram_message(2, 3003, "ah")], id=5, type="private_group")
    saved = telegram_chat([telegram_message(1, ME, "milk")], id=ME, type="saved_messages")
    account = telegram_account(group, saved)
    del account["personal_information"]
    messages = read(tmp_path, account)
    assert [message.is_owner for message in messages] == [True, False, True]
    assert [message.is_one_sided for message in messages] == [False, False, True]


def test_contacts_before_the_chats(tmp_path: Path) -> None:
    account = telegram_account(telegram_chat([telegram_message(1, ME, "hi")]))
    contacts = [{"first_name": f"Contact {number}", "date": "2020-01-01T00:00:00"} for number in range(2000)]
    account = {"about": "x", "contacts": {"about": "y" * 9000, "list": contacts}, **account}
    del account["personal_information"]
    assert [message.is_owner for message in read(tmp_path, account)] == [True]


def test_keys_in_another_order(tmp_path: Path) -> None:
    chat = telegram_chat([telegram_message(number, ME, "hi " * 50) for number in range(1, 100)])
    chat = {"messages": chat["messages"], **{key: value for key, value in chat.items() if key != "messages"}}
    assert {(message.chat, message.kind) for message in read(tmp_path, chat)} == {("user2002", "dm")}
    account = telegram_account(telegram_chat([], id=7), chat)
    account = {"chats": account["chats"], "personal_information": account["personal_information"]}
    messages = read(tmp_path, account)
    assert {(message.chat, message.is_owner) for message in messages} == {("user2002", True)}
