"""Discord's data package and DiscordChatExporter's files."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.exports import read_all, write_folder, write_json, write_zip
from training.archives.discord.chat_exporter import DiscordExporterReader
from training.archives.discord.data_package import DiscordReader

CHANNEL, DIRECT = "111111111111111111", "222222222222222222"
CSV = (
    "ID,Timestamp,Contents,Attachments\n"
    '3,2021-03-14 09:00:00.123000+00:00,"hi, there\nsecond line",\n'
    "2,2021-03-14 08:00:00+00:00,,https://cdn.example/x.png\n"
)


def package(folder: str = "messages") -> dict[str, str]:
    records = [{"ID": 9, "Timestamp": "2023-01-02 03:04:05", "Contents": "moin", "Attachments": ""}]
    return {
        f"{folder}/index.json": json.dumps({CHANNEL: "general in Home", DIRECT: "Direct Message with tom#0"}),
        f"{folder}/c{CHANNEL}/channel.json": json.dumps(
            {"id": CHANNEL, "type": 0, "guild": {"id": "1", "name": "Home"}}
        ),
        f"{folder}/c{CHANNEL}/messages.csv": CSV,
        f"{folder}/c{DIRECT}/channel.json": json.dumps({"id": DIRECT, "type": "DM"}),
        f"{folder}/c{DIRECT}/messages.json": json.dumps(records),
        "account/user.json": json.dumps({"id": "7", "username": "mara"}),
    }


@pytest.mark.parametrize("folder", ["messages", "Messages"])
@pytest.mark.parametrize("as_zip", [False, True])
def test_a_package_of_either_age(tmp_path: Path, folder: str, as_zip: bool) -> None:
    path = tmp_path / ("package.zip" if as_zip else "package")
    (write_zip if as_zip else write_folder)(path, package(folder))
    messages, bad = read_all(path, [DiscordReader()])
    assert bad == []
    assert [(message.id, message.chat, message.kind, message.text, message.mark) for message in messages] == [
        ("3", CHANNEL, "group", "hi, there\nsecond line", ""),
        ("2", CHANNEL, "group", "", "media"),
        ("9", DIRECT, "dm", "moin", ""),
    ]
    assert all(message.is_owner for message in messages)
    assert messages[0].sent_at == datetime(2021, 3, 14, 9, 0, 0, 123000, tzinfo=UTC)
    assert messages[2].sent_at == datetime(2023, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert messages[0].chat_name == "general in Home"


def test_a_damaged_record_of_a_package_is_counted(tmp_path: Path) -> None:
    files = package()
    files[f"messages/c{DIRECT}/messages.json"] = (
        '[{"ID": 1, "Timestamp": "yesterday"}, {"ID": 2, "Timestamp": "2023-01-02 03:04:05", "Contents": "ok"}]'
    )
    messages, bad = read_all(write_folder(tmp_path / "package", files), [DiscordReader()])
    assert [message.text for message in messages if message.chat == DIRECT] == ["ok"]
    assert [record.position for record in bad] == ["record 1"]


def message_record(number: int, text: str, **more: Any) -> dict[str, Any]:
    return {
        "id": str(number),
        "type": "Default",
        "timestamp": f"2021-03-14T09:00:{number:02}.5+01:00",
        "content": text,
        "author": {"id": "7", "name": "mara", "nickname": "Mara", "isBot": False},
        **more,
    }


def exported(*messages: Any, kind: str = "GuildTextChat") -> dict[str, Any]:
    return {
        "guild": {"id": "1", "name": "Home"},
        "channel": {"id": CHANNEL, "type": kind, "name": "general"},
        "dateRange": {"after": None, "before": None},
        "messages": list(messages),
        "messageCount": len(messages),
    }


def test_an_export_of_a_channel(tmp_path: Path) -> None:
    bot = {"id": "8", "name": "b", "isBot": True}
    path = write_json(
        tmp_path / "general.json",
        exported(
            message_record(1, "hello"),
            message_record(2, "yes", type="Reply", reference={"messageId": "1", "channelId": CHANNEL}),
            message_record(3, "elsewhere", reference={"messageId": "1", "channelId": "5"}),
            message_record(4, "", forwardedMessage={"content": "x"}),
            message_record(5, "beep", author=bot),
            message_record(6, "pinned", type="ChannelPinnedMessage"),
            message_record(7, "", stickers=[{"name": "wave"}]),
            message_record(8, "look", attachments=[{"url": "x"}]),
        ),
    )
    messages, bad = read_all(path, [DiscordExporterReader()])
    assert bad == []
    assert [message.mark for message in messages] == ["", "", "", "forward", "bot", "service", "media", "media"]
    assert [message.reply_to for message in messages][:3] == [None, "1", None]
    assert messages[0].sent_at == datetime(2021, 3, 14, 8, 0, 1, 500000, tzinfo=UTC)
    assert (messages[0].chat_name, messages[0].sender_name, messages[0].is_owner) == ("Home #general", "Mara", None)


def test_a_private_channel_is_a_conversation_of_two(tmp_path: Path) -> None:
    path = write_json(tmp_path / "x.json", exported(message_record(1, "hello"), kind="DirectTextChat"))
    messages, _ = read_all(path, [DiscordExporterReader()])
    assert [message.kind for message in messages] == ["dm"]


@given(st.integers(0, 600), st.binary(max_size=4))
def test_damage_anywhere_stops_no_build(tmp_path_factory: pytest.TempPathFactory, at: int, damage: bytes) -> None:
    whole = json.dumps(exported(*(message_record(number, f"text {number}") for number in range(1, 5)))).encode()
    start = whole.index(b'"messages"') + 14
    data = whole[: start + at] + damage + whole[start + at :]
    path = tmp_path_factory.mktemp("any") / "x.json"
    path.write_bytes(data)
    messages, bad = read_all(path, [DiscordExporterReader()])
    assert len(messages) == 4 or bad


def test_reactions_say_who_reacted(tmp_path: Path) -> None:
    tom, robot = {"id": "9", "name": "tom", "nickname": "Tom", "isBot": False}, {"id": "8", "name": "b", "isBot": True}
    reactions = [
        {"emoji": {"id": "", "name": "👍", "code": "thumbsup"}, "count": 2, "users": [robot, tom]},
        {"emoji": {"id": "", "name": "🔥"}, "count": 5},
    ]
    own = [{"emoji": {"id": "77", "name": "wave"}, "count": 1, "users": [tom]}]
    path = write_json(
        tmp_path / "c.json",
        exported(message_record(1, "hello", reactions=reactions), message_record(2, "again", reactions=own)),
    )
    messages, bad = read_all(path, [DiscordExporterReader()])
    assert bad == []
    assert [(message.sender, message.text, message.mark, message.reply_to) for message in messages] == [
        ("7", "hello", "", None),
        ("9", "👍", "reaction", "1"),
        ("7", "again", "", None),
        ("9", ":wave:", "reaction", "2"),
    ]
    assert (messages[1].sender_name, messages[1].is_owner) == ("Tom", None)


def test_times_commands_and_stickers_read_as_people_see_them(tmp_path: Path) -> None:
    wave, joy, nameless = {"name": "Happy Wave"}, {"name": "\U0001f602"}, {"name": ""}
    path = write_json(
        tmp_path / "general.json",
        exported(
            message_record(1, "from <t:1700000000:R> use </play:123456789012345678> <a:party:123456789012345678>"),
            message_record(2, "", stickers=[wave, joy]),
            message_record(3, "words", stickers=[wave]),
            message_record(4, "", stickers=[nameless]),
        ),
    )
    messages, bad = read_all(path, [DiscordExporterReader()])
    assert bad == []
    assert [(message.mark, message.text) for message in messages] == [
        ("", "from 2023-11-14 22:13 UTC use /play :party:"),
        ("media", ":Happy_Wave: \U0001f602"),
        ("media", "words"),
        ("sticker", ""),
    ]


def test_a_package_is_one_sided_and_needs_no_account(tmp_path: Path) -> None:
    files = {name: text for name, text in package().items() if "account" not in name.lower()}
    messages, bad = read_all(write_folder(tmp_path / "package", files), [DiscordReader()])
    assert bad == []
    assert messages
    assert {(message.is_owner, message.is_one_sided) for message in messages} == {(True, True)}
