"""Slack's workspace export."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.training.exports import read_all, write_folder, write_zip
from training.archives.slack import SlackReader

USERS = [
    {"id": "U1", "team_id": "T1", "name": "mara", "profile": {"display_name": "Mara"}},
    {"id": "U2", "team_id": "T1", "name": "tom", "real_name": "Tom Berg", "profile": {"display_name": ""}},
    {"id": "U3", "team_id": "T1", "name": "robot", "is_bot": True, "profile": {}},
]


def message_record(second: int, user: str, text: str, **more: Any) -> dict[str, Any]:
    return {"type": "message", "user": user, "text": text, "ts": f"{1_600_000_000 + second}.000200", **more}


def workspace(*records: Any) -> dict[str, str]:
    return {
        "users.json": json.dumps(USERS),
        "channels.json": json.dumps([{"id": "C1", "name": "general"}]),
        "dms.json": json.dumps([{"id": "D1", "members": ["U1", "U2"]}]),
        "general/2020-09-13.json": json.dumps(records),
        "D1/2020-09-13.json": json.dumps([message_record(50, "U2", "psst")]),
    }


def test_a_workspace(tmp_path: Path) -> None:
    files = workspace(
        message_record(1, "U1", "hi <@U2>, see <#C1|general> &amp; <https://a.example/x|this> <!here>"),
        message_record(2, "U2", "yes", thread_ts="1600000001.000200"),
        message_record(3, "U2", "joined", subtype="channel_join"),
        message_record(4, "U3", "beep"),
        message_record(5, "U1", "look", files=[{"id": "F1"}]),
        message_record(6, "U1", "", subtype="tombstone"),
    )
    messages, bad = read_all(write_zip(tmp_path / "export.zip", files), [SlackReader()])
    assert bad == []
    general = [message for message in messages if message.chat == "general"]
    assert general[0].text == "hi @Tom Berg, see #general & this https://a.example/x @here"
    assert [message.mark for message in general] == ["", "", "service", "bot", "media", "deleted"]
    assert [message.reply_to for message in general][:2] == [None, general[0].id]
    assert general[0].sent_at == datetime.fromtimestamp(1_600_000_001.0002, UTC)
    assert [(message.kind, message.text, message.sender_name) for message in messages if message.chat == "D1"] == [
        ("dm", "psst", "Tom Berg")
    ]


def test_guests_of_other_workspaces_and_addresses(tmp_path: Path) -> None:
    guest = {"display_name": "", "real_name": "Kim Lee"}
    files = workspace(
        message_record(
            1, "W9", "write to <mailto:kim@a.example|kim@a.example> or <tel:+4930123|+49 30 123>", user_profile=guest
        ),
        message_record(2, "W8", "<mailto:kim@a.example>"),
    )
    messages, bad = read_all(write_zip(tmp_path / "export.zip", files), [SlackReader()])
    assert bad == []
    assert [
        (message.sender, message.sender_name, message.text) for message in messages if message.chat == "general"
    ] == [
        ("W9", "Kim Lee", "write to kim@a.example or +49 30 123"),
        ("W8", "W8", "kim@a.example"),
    ]


def test_a_damaged_day_and_a_record_without_time_are_counted(tmp_path: Path) -> None:
    files = workspace({"type": "message", "user": "U1", "text": "when?"}, message_record(2, "U1", "ok"))
    files["general/2020-09-14.json"] = '[{"type": "message", "user": "U1", "text": "half'
    messages, bad = read_all(write_folder(tmp_path / "export", files), [SlackReader()])
    assert [message.text for message in messages if message.chat == "general"] == ["ok"]
    assert len(bad) == 2


def test_reactions_are_the_emoji_that_slack_names(tmp_path: Path) -> None:
    reactions = [
        {"name": "+1::skin-tone-2", "users": ["U2", "U1"], "count": 2},
        {"name": "our_own", "users": ["U3"], "count": 1},
    ]
    messages, bad = read_all(
        write_folder(tmp_path / "x", workspace(message_record(1, "U1", "hi", reactions=reactions))), [SlackReader()]
    )
    assert bad == []
    general = [message for message in messages if message.chat == "general"]
    assert [(message.sender_name, message.text, message.mark) for message in general] == [
        ("Mara", "hi", ""),
        ("Tom Berg", "👍", "reaction"),
        ("robot", ":our_own:", "reaction"),
    ]
    assert {message.reply_to for message in general[1:]} == {general[0].id}


def test_what_people_typed_is_no_reference_and_names_of_emoji_are_emoji(tmp_path: Path) -> None:
    block = {
        "type": "rich_text_section",
        "elements": [{"type": "text", "text": "only "}, {"type": "emoji", "name": "joy"}],
    }
    messages, bad = read_all(
        write_folder(
            tmp_path / "x",
            workspace(
                message_record(1, "U1", "if a &lt; b and c &gt; d, say &lt;@U2&gt; at 10:30:45"),
                message_record(
                    2,
                    "U1",
                    ":+1::skin-tone-3: :melting_face: :flag-de: :our_own: `:joy:` <https://a.example/?a=1&amp;b=2>",
                ),
                message_record(
                    3, "U2", "<!date^1609581600^{date}|Jan 2> <!subteam^S1|@crew>", subtype="reply_broadcast"
                ),
                message_record(4, "U2", "", blocks=[{"type": "rich_text", "elements": [block, block]}]),
                message_record(5, "USLACKBOT", "Reminder: tea"),
                message_record(6, "U1", "waves", subtype="me_message"),
            ),
        ),
        [SlackReader()],
    )
    assert bad == []
    assert [(message.mark, message.text) for message in messages if message.chat == "general"] == [
        ("", "if a < b and c > d, say <@U2> at 10:30:45"),
        ("", "👍 \U0001fae0 \U0001f1e9\U0001f1ea :our_own: `:joy:` https://a.example/?a=1&b=2"),
        ("", "Jan 2 @crew"),
        ("", "only 😂\nonly 😂"),
        ("bot", "Reminder: tea"),
        ("", "/me waves"),
    ]
    assert {message.chat_name for message in messages if message.chat == "D1"} == {"Mara, Tom Berg"}


def test_a_chat_with_oneself_is_one_sided(tmp_path: Path) -> None:
    files = workspace() | {
        "dms.json": json.dumps([{"id": "D1", "members": ["U1", "U2"]}, {"id": "D2", "members": ["U1", "U1"]}]),
        "D2/2020-09-13.json": json.dumps([message_record(60, "U1", "milk")]),
    }
    messages, _ = read_all(write_folder(tmp_path / "export", files), [SlackReader()])
    assert {message.chat: message.is_one_sided for message in messages} == {"D1": False, "D2": True}


def test_users_with_other_fields_first(tmp_path: Path) -> None:
    users = [{"id": "U0", "enterprise_user": {"id": "E"}, "updated": 0, "profile": {}}, *USERS]
    files = workspace(message_record(1, "U1", "hi")) | {"users.json": json.dumps(users)}
    assert len(read_all(write_folder(tmp_path / "export", files), [SlackReader()])[0]) == 2
