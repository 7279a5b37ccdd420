"""A room exported by Element."""

from pathlib import Path
from typing import Any

from tests.training.exports import read_all, write_json
from training.archives.matrix import MatrixReader


def event(number: int, body: str, sender: str = "@mara:example.org", **more: Any) -> dict[str, Any]:
    content = {"msgtype": "m.text", "body": body, **more.pop("content", {})}
    return {
        "type": "m.room.message",
        "sender": sender,
        "content": content,
        "origin_server_ts": 1_600_000_000_000 + number * 1000,
        "event_id": f"${number}",
        "room_id": "!r:example.org",
        **more,
    }


def room(*events: Any) -> dict[str, Any]:
    return {
        "room_name": "Kitchen",
        "room_creator": "Tom",
        "topic": "",
        "export_date": "1/2/2021",
        "exported_by": "Mara (@mara:example.org)",
        "messages": list(events),
    }


def test_a_room(tmp_path: Path) -> None:
    reply = {"m.relates_to": {"m.in_reply_to": {"event_id": "$1"}}}
    edit = {"m.relates_to": {"rel_type": "m.replace", "event_id": "$1"}, "m.new_content": {"body": "hello all"}}
    path = write_json(
        tmp_path / "export.json",
        room(
            event(1, "hello"),
            event(2, "> <@mara:example.org> hello\n\nhi", "@tom:example.org", content=reply),
            event(3, "* hello all", content=edit),
            event(4, "", unsigned={"redacted_because": {"type": "m.room.redaction"}}),
            event(5, "x.png", content={"msgtype": "m.image"}),
            event(6, "beep", content={"msgtype": "m.notice"}),
            event(7, "", type="m.room.member"),
        ),
    )
    messages, bad = read_all(path, [MatrixReader()])
    assert bad == []
    assert [message.text for message in messages][:2] == ["hello all", "hi"]
    assert [message.mark for message in messages] == ["", "", "superseded", "deleted", "media", "bot", "service"]
    assert messages[1].reply_to == "$1"
    assert [message.is_owner for message in messages][:2] == [True, False]
    assert {message.chat_name for message in messages} == {"Kitchen"}


def test_damage_is_counted_once(tmp_path: Path) -> None:
    path = write_json(tmp_path / "export.json", room(event(1, "hello"), {"type": {"m.room.message": 1}}))
    messages, bad = read_all(path, [MatrixReader()])
    assert [message.text for message in messages] == ["hello"]
    assert [record.position for record in bad] == ["record 2"]


def test_a_reaction_is_its_emoji_in_answer_to_an_event(tmp_path: Path) -> None:
    relation = {"m.relates_to": {"rel_type": "m.annotation", "event_id": "$1", "key": "👍"}}
    reaction = event(2, "", type="m.reaction", content=relation)
    messages, _ = read_all(write_json(tmp_path / "e.json", room(event(1, "hi"), reaction)), [MatrixReader()])
    assert [(message.text, message.mark, message.reply_to) for message in messages] == [
        ("hi", "", None),
        ("👍", "reaction", "$1"),
    ]


def test_files_stickers_actions_and_what_could_not_be_read(tmp_path: Path) -> None:
    path = write_json(
        tmp_path / "e.json",
        room(
            event(1, "IMG_1.jpg", content={"msgtype": "m.image"}),
            event(2, "look, a cat", content={"msgtype": "m.image", "filename": "IMG_2.jpg"}),
            event(3, "waves", content={"msgtype": "m.emote"}),
            event(4, "😀", type="m.sticker"),
            event(5, "a bear", type="m.sticker"),
            event(6, "** Unable to decrypt **", content={"msgtype": "m.bad.encrypted"}),
        ),
    )
    messages, bad = read_all(path, [MatrixReader()])
    assert bad == []
    assert [(message.mark, message.text) for message in messages] == [
        ("media", ""),
        ("media", "look, a cat"),
        ("", "/me waves"),
        ("media", "😀"),
        ("sticker", ""),
        ("service", "** Unable to decrypt **"),
    ]


def test_names_and_whether_two_people_talk_stand_in_the_events(tmp_path: Path) -> None:
    tom, kim = "@tom:example.org", "@kim:example.org"
    joined = event(
        0, "", tom, type="m.room.member", content={"membership": "join", "displayname": "Tom B"}, state_key=tom
    )
    private, _ = read_all(
        write_json(tmp_path / "a.json", room(joined, event(1, "hi"), event(2, "yo", tom))), [MatrixReader()]
    )
    assert {message.kind for message in private} == {"dm"}
    assert [message.sender_name for message in private] == ["Tom B", "mara", "Tom B"]
    group, _ = read_all(
        write_json(tmp_path / "b.json", room(event(1, "hi"), event(2, "yo", tom), event(3, "hey", kim))),
        [MatrixReader()],
    )
    assert {message.kind for message in group} == {"group"}
