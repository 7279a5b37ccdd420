"""One made-up conversation as the exports of many services write it. Nobody ever had it."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from tests.training.exports import write_folder, write_json

BERLIN = ZoneInfo("Europe/Berlin")
START = datetime(2023, 3, 5, 13, 5, 17, tzinfo=UTC)


class Line(NamedTuple):
    """One message: who wrote it, what, and how many seconds after START."""

    writer: str
    text: str
    at: float


TALK = [
    Line(writer, text, place * 61.0 + 0.417)
    for place, (writer, text) in enumerate(
        (
            ("ann", "did you water the plants"),
            ("tom", "yes this morning, all of them"),
            ("ann", "thanks you are the best"),
            ("tom", "anything special for the ficus"),
            ("ann", "the ficus sends its love"),
            ("ann", "ok"),
            ("tom", "ok"),
            ("tom", "ciao, see you on the boat"),
        )
    )
]
FIRST, SECOND = TALK[:6], TALK[2:]
"""Two overlapping parts: four messages are in both."""


def at(line: Line) -> datetime:
    """When a message was sent."""
    return START + timedelta(seconds=line.at)


def whatsapp(
    folder: Path, lines: Sequence[Line], title: str = "Tom Berg", *, phone: str = "android", **names: str
) -> Path:
    """A chat of WhatsApp's; `phone` is `android` (minutes) or `iphone` (seconds); `zone` is that of the phone."""
    zone = ZoneInfo(names.pop("zone", "Europe/Berlin"))
    names = {"ann": "Ann Reed", "tom": title, **names}
    stamp = "%d.%m.%y, %H:%M - " if phone == "android" else "[%d.%m.%y, %H:%M:%S] "
    text = "".join(f"{at(line).astimezone(zone):{stamp}}{names[line.writer]}: {line.text}\n" for line in lines)
    name = f"WhatsApp Chat with {title}.txt" if phone == "android" else f"WhatsApp Chat - {title}/_chat.txt"
    return write_folder(folder, {name: text})


def line_phone(folder: Path, lines: Sequence[Line], tom: str = "Tom") -> Path:
    """LINE's export of a phone."""
    head = f"[LINE] Chat history with {tom}\nSaved on: 3/6/2023, 10:00\n\nSun, 3/5/2023\n"
    names = {"ann": "Ann", "tom": tom}
    body = "".join(f"{at(line).astimezone(BERLIN):%H:%M}\t{names[line.writer]}\t{line.text}\n" for line in lines)
    return write_folder(folder, {f"[LINE] Chat with {tom}.txt": head + body})


def line_desktop(folder: Path, lines: Sequence[Line], tom: str = "Tom") -> Path:
    """LINE's export of the desktop app."""
    names = {"ann": "Ann", "tom": tom}
    body = "".join(f"{at(line).astimezone(BERLIN):%H:%M} {names[line.writer]} {line.text}\n" for line in lines)
    return write_folder(folder, {f"[LINE]{tom}.txt": f"2023.03.05 Sunday\n{body}"})


def kakaotalk_phone(folder: Path, lines: Sequence[Line], tom: str = "Tom") -> Path:
    """KakaoTalk's export of a phone."""
    names = {"ann": "회원님", "tom": tom}
    head = f"{tom} 님과 카카오톡 대화\n저장한 날짜 : 2023-03-06 10:00:00\n\n"
    body = "".join(f"{_korean(at(line).astimezone(BERLIN))}, {names[line.writer]} : {line.text}\n" for line in lines)
    return write_folder(folder, {"KakaoTalkChats.txt": head + "2023년 3월 5일 오후 2:00\n" + body})


def kakaotalk_pc(folder: Path, lines: Sequence[Line], tom: str = "Tom") -> Path:
    """KakaoTalk's export of a PC."""
    names = {"ann": "Ann", "tom": tom}
    head = f"{tom} 님과 카카오톡 대화\n저장한 날짜 : 2023-03-06 10:00:00\n\n"
    body = "".join(
        f"[{names[line.writer]}] [{_korean(at(line).astimezone(BERLIN)).partition('일 ')[2]}] {line.text}\n"
        for line in lines
    )
    return write_folder(
        folder, {"KakaoTalk.txt": head + "--------------- 2023년 3월 5일 일요일 ---------------\n" + body}
    )


def _korean(time: datetime) -> str:
    hour = time.hour % 12 or 12
    return f"{time.year}년 {time.month}월 {time.day}일 {'오전' if time.hour < 12 else '오후'} {hour}:{time.minute:02}"


def signal_export(folder: Path, lines: Sequence[Line], tom: str = "Tom") -> Path:
    """A chat of signal-export's."""
    names = {"ann": "Me", "tom": tom}
    records = [
        json.dumps(
            {
                "date": f"{at(line).astimezone(BERLIN):%Y-%m-%dT%H:%M:%S}",
                "sender": names[line.writer],
                "body": line.text,
                "quote": "",
                "sticker": "",
                "reactions": [],
                "attachments": [],
            }
        )
        for line in lines
    ]
    return write_folder(folder / tom, {"data.json": "\n".join(records) + "\n"})


def signal_desktop(folder: Path, lines: Sequence[Line], tom: str = "Tommy") -> Path:
    """Signal's own plain-text export."""
    frames: list[Any] = [
        {"version": 1, "backupTimeMs": "1700000000000"},
        {"account": {"profileKey": "x", "givenName": "Ann"}},
        {"recipient": {"id": "1", "self": {}}},
        {"recipient": {"id": "2", "contact": {"aci": "9f3c2a10-1111-4222-8333-944445555666", "profileGivenName": tom}}},
        {"chat": {"id": "7", "recipientId": "2"}},
    ]
    for line in lines:
        sent = str(round(at(line).timestamp() * 1000))
        author, way = ("1", "outgoing") if line.writer == "ann" else ("2", "incoming")
        words = {"standardMessage": {"text": {"body": line.text}}}
        frames.append({"chatItem": {"chatId": "7", "authorId": author, "dateSent": sent, way: {}, **words}})
    return write_folder(folder, {"main.jsonl": "".join(json.dumps(frame) + "\n" for frame in frames)})


def telegram(folder: Path, lines: Sequence[Line], *, owner: int = 1001, first: int = 1, **chat: Any) -> Path:
    """A private chat in an account's export; `owner` is 1001 (Ann) or 2002 (Tom)."""
    numbers, names = {"ann": 1001, "tom": 2002}, {1001: "Ann Reed", 2002: "Tom Berg"}
    other = 3003 - owner
    messages = [
        {
            "id": first + TALK.index(line) if line in TALK else first + place,
            "type": "message",
            "date": f"{at(line).astimezone(BERLIN):%Y-%m-%dT%H:%M:%S}",
            "date_unixtime": str(int(at(line).timestamp())),
            "from": names[numbers[line.writer]],
            "from_id": f"user{numbers[line.writer]}",
            "text": line.text,
            "text_entities": [],
        }
        for place, line in enumerate(lines)
    ]
    one = {"name": names[other], "type": "personal_chat", "id": other, **chat, "messages": messages}
    account = {
        "personal_information": {"user_id": owner, "first_name": names[owner]},
        "chats": {"about": "x", "list": [one]},
    }
    return write_json(folder / "result.json", account)


DISCORD_CHANNEL = "410000000000000009"


def _snowflake(line: Line) -> str:
    return str(((round(at(line).timestamp() * 1000) - 1_420_070_400_000) << 22) + 7)


def discord_json(folder: Path, lines: Sequence[Line], name: str = "Tom") -> Path:
    """A private channel of DiscordChatExporter's, as JSON."""
    people = {"ann": ("310000000000000001", "annr", "Ann"), "tom": ("310000000000000002", "tomb", name)}
    messages = [
        {
            "id": _snowflake(line),
            "type": "Default",
            "timestamp": at(line).isoformat(timespec="milliseconds"),
            "content": line.text,
            "author": dict(zip(("id", "name", "nickname"), people[line.writer], strict=True), isBot=False),
            "attachments": [],
        }
        for line in lines
    ]
    channel = {"id": DISCORD_CHANNEL, "type": "DirectTextChat", "name": name}
    content = {"guild": {"id": "0", "name": "Direct Messages"}, "channel": channel, "messages": messages}
    return write_json(folder / f"Direct Messages - Private - {name} [{DISCORD_CHANNEL}].json", content)


def discord_csv(
    folder: Path, lines: Sequence[Line], name: str = f"Direct Messages - Private - Tom [{DISCORD_CHANNEL}]"
) -> Path:
    """The same as CSV, with times of the computer."""
    people = {"ann": ("310000000000000001", "annr"), "tom": ("310000000000000002", "tomb")}
    rows = [
        f'"{people[line.writer][0]}","{people[line.writer][1]}","{at(line).astimezone(BERLIN):%d.%m.%Y %H:%M}",'
        f'"{line.text}","",""'
        for line in lines
    ]
    return write_folder(
        folder, {f"{name}.csv": "\n".join(["AuthorID,Author,Date,Content,Attachments,Reactions", *rows])}
    )


def discord_package(folder: Path, lines: Sequence[Line]) -> Path:
    """Discord's own package: only the owner's messages."""
    own = [
        {
            "ID": int(_snowflake(line)),
            "Timestamp": f"{at(line):%Y-%m-%d %H:%M:%S}",
            "Contents": line.text,
            "Attachments": "",
        }
        for line in reversed(lines)
        if line.writer == "ann"
    ]
    files = {
        "account/user.json": {
            "id": "310000000000000001",
            "username": "annr",
            "global_name": "Ann",
            "relationships": [],
        },
        "messages/index.json": {DISCORD_CHANNEL: "Direct Message with tomb#0"},
        f"messages/c{DISCORD_CHANNEL}/channel.json": {"id": DISCORD_CHANNEL, "type": "DM"},
        f"messages/c{DISCORD_CHANNEL}/messages.json": own,
    }
    return write_folder(folder, {name: json.dumps(content) for name, content in files.items()})


def meta(
    folder: Path, lines: Sequence[Line], *, path: str, title: str = "Tom Berg", files: int = 1, **names: str
) -> Path:
    """A conversation of Instagram's or Messenger's, newest first, in one file or several."""
    people = {"ann": "Ann Reed", "tom": title, **names}
    records = [
        {
            "sender_name": people[line.writer],
            "timestamp_ms": round(at(line).timestamp() * 1000),
            "content": line.text,
            "is_geoblocked_for_viewer": False,
        }
        for line in reversed(lines)
    ]
    size = -(-len(records) // files)
    for number in range(files):
        part = records[number * size : (number + 1) * size]
        head = {"participants": [{"name": people["tom"]}, {"name": people["ann"]}], "messages": part}
        tail = {"title": people["tom"], "thread_path": f"inbox/{path}"}
        write_json(folder / "inbox" / path / f"message_{number + 1}.json", head | tail)
    return folder


def slack(folder: Path, lines: Sequence[Line], channel: str = "garden", *, channel_id: str = "C0GARDEN") -> Path:
    """A workspace with one channel."""
    users = [{"id": f"U0000{name.upper()}", "name": name, "team_id": "T1"} for name in ("ann", "tom", "lia")]
    records = [
        {
            "type": "message",
            "user": f"U0000{line.writer.upper()}",
            "text": line.text,
            "ts": f"{at(line).timestamp():.6f}",
        }
        for line in lines
    ]
    channels = [{"id": channel_id, "name": channel, "members": [user["id"] for user in users]}]
    files = {"users.json": users, "channels.json": channels, f"{channel}/2023-03-05.json": records}
    return write_folder(folder, {name: json.dumps(content) for name, content in files.items()})


def pywxdump(folder: Path, lines: Sequence[Line], room: str = "wxid_tom77") -> Path:
    """WeChat as PyWxDump writes it: times to the minute, the server's ids."""
    rows = ["id,MsgSvrID,type_name,is_sender,talker,room_name,msg,src,CreateTime"]
    for number, line in enumerate(lines, 1):
        own = line.writer == "ann"
        local = at(line).astimezone(BERLIN)
        stamp = f"{local.year}/{local.month}/{local.day} {local:%H:%M}"
        server_id = 7_000_000_000_000_000_000 + TALK.index(line)
        talker = "wxid_ann1" if own else room
        rows.append(f'{number},{server_id},文本,{int(own)},{talker},{room},"{line.text}",,{stamp}')
    return write_folder(folder, {f"{room}.csv": "\n".join(rows)})


def chatlog(folder: Path, lines: Sequence[Line], talker: str = "wxid_tom77") -> Path:
    """WeChat as chatlog writes it: other ids, seconds, and names."""
    records = [
        {
            "seq": round(at(line).timestamp()) * 1000,
            "time": at(line).astimezone(BERLIN).isoformat(timespec="seconds"),
            "talker": talker,
            "talkerName": "Tom",
            "isChatRoom": False,
            "sender": "wxid_ann1" if line.writer == "ann" else talker,
            "senderName": "Ann" if line.writer == "ann" else "Tom",
            "isSelf": line.writer == "ann",
            "type": 1,
            "subType": 0,
            "content": line.text,
        }
        for line in lines
    ]
    return write_json(folder / "chatlog.json", records)


def imessage(folder: Path, lines: Sequence[Line], title: str = "+15550100", tom: str = "+15550100") -> Path:
    """A chat of imessage-exporter's."""
    names = {"ann": "Me", "tom": tom}
    body = "".join(
        f"{at(line).astimezone(BERLIN):%b %d, %Y %I:%M:%S %p}\n{names[line.writer]}\n{line.text}\n\n" for line in lines
    )
    return write_folder(folder, {f"{title}.txt": body})


def matrix(folder: Path, lines: Sequence[Line], room: str = "Garden", *, with_room_id: bool = True) -> Path:
    """A room of Element's."""
    events = [
        {
            "type": "m.room.message",
            "sender": f"@{line.writer}:example.org",
            "event_id": f"${TALK.index(line):043}",
            "origin_server_ts": round(at(line).timestamp() * 1000),
            "content": {"msgtype": "m.text", "body": line.text},
            **({"room_id": "!abcdef:example.org"} if with_room_id else {}),
        }
        for line in lines
    ]
    return write_json(
        folder / "export.json", {"room_name": room, "exported_by": "@ann:example.org", "messages": events}
    )


def hangouts(folder: Path, lines: Sequence[Line]) -> Path:
    """One conversation of Hangouts."""
    ids = {"ann": "100000000000000000001", "tom": "100000000000000000002"}
    people = [{"id": {"gaia_id": ids[name]}, "fallback_name": name.title()} for name in ids]
    events = [
        {
            "sender_id": {"gaia_id": ids[line.writer]},
            "timestamp": str(round(at(line).timestamp() * 1e6)),
            "event_id": f"event-{TALK.index(line)}",
            "chat_message": {"message_content": {"segment": [{"type": "TEXT", "text": line.text}]}},
        }
        for line in lines
    ]
    about = {
        "type": "STICKY_ONE_TO_ONE",
        "participant_data": people,
        "self_conversation_state": {"self_read_state": {"participant_id": {"gaia_id": ids["ann"]}}},
    }
    conversation = {"conversation": {"conversation_id": {"id": "UgxTom"}, "conversation": about}, "events": events}
    return write_json(folder / "Hangouts.json", {"conversations": [conversation]})


def google_chat(folder: Path, lines: Sequence[Line]) -> Path:
    """One conversation of Google Chat."""
    people = {"ann": {"name": "Ann", "email": "ann@example.org"}, "tom": {"name": "Tom", "email": "tom@example.org"}}
    messages = [
        {
            "creator": {**people[line.writer], "user_type": "Human"},
            "created_date": f"{at(line):%A, %B %-d, %Y at %-I:%M:%S %p} UTC",
            "text": line.text,
            "topic_id": f"topic{TALK.index(line)}",
            "message_id": f"AAAATOM/topic{TALK.index(line)}/topic{TALK.index(line)}",
        }
        for line in lines
    ]
    root = folder / "Google Chat"
    write_json(root / "Groups/DM AAAATOM/messages.json", {"messages": messages})
    write_json(root / "Groups/DM AAAATOM/group_info.json", {"members": list(people.values())})
    write_json(root / "Users/User 1/user_info.json", {"user": people["ann"]})
    return folder


def qq_text(folder: Path, lines: Sequence[Line], tom: str = "Tom") -> Path:
    """QQ's own export of one friend."""
    names = {"ann": "Ann(10001111)", "tom": f"{tom}(10002222)"}
    rule = "=" * 64
    head = (
        f"消息记录（此消息记录为文本格式，不支持重新导入）\n\n{rule}\n消息分组:朋友\n{rule}\n消息对象:{tom}\n{rule}\n\n"
    )
    body = "".join(
        f"{at(line).astimezone(BERLIN):%Y-%m-%d %H:%M:%S} {names[line.writer]}\n{line.text}\n\n" for line in lines
    )
    return write_folder(folder, {f"{tom}.txt": head + body})


def qq_json(folder: Path, lines: Sequence[Line]) -> Path:
    """The same by qq-chat-exporter."""
    numbers = {"ann": "10001111", "tom": "10002222"}
    messages = [
        {
            "id": f"75{TALK.index(line):017}",
            "seq": str(TALK.index(line)),
            "timestamp": round(at(line).timestamp() * 1000),
            "sender": {"uid": f"u_{line.writer}", "uin": numbers[line.writer], "name": line.writer.title()},
            "type": "type_1",
            "content": {"text": line.text, "elements": [{"type": "text", "data": {"text": line.text}}]},
            "recalled": False,
            "system": False,
        }
        for line in lines
    ]
    about = {"name": "Tommy", "type": "private", "selfUid": "u_ann", "selfUin": "10001111"}
    return write_json(folder / "friend.json", {"metadata": {}, "chatInfo": about, "messages": messages})


def table(folder: Path, lines: Sequence[Line], name: str = "tom", tom: str = "Tom", zone: str = "Z") -> Path:
    """A CSV file of somebody's script."""
    names = {"ann": "Ann", "tom": tom}
    rows = [f'{names[line.writer]},"{line.text}",{at(line):%Y-%m-%dT%H:%M:%S}{zone}' for line in lines]
    return write_folder(folder, {f"{name}.csv": "\n".join(["username,text,timestamp", *rows])})


def irc(folder: Path, lines: Sequence[Line], name: str, *, seconds: bool = True) -> Path:
    """A log of weechat's, or with minutes only of irssi's."""
    if seconds:
        body = "".join(
            f"{at(line).astimezone(BERLIN):%Y-%m-%d %H:%M:%S}\t{line.writer}\t{line.text}\n" for line in lines
        )
    else:
        body = "--- Log opened Sun Mar 05 14:00:00 2023\n" + "".join(
            f"{at(line).astimezone(BERLIN):%H:%M} <{line.writer}> {line.text}\n" for line in lines
        )
    return write_folder(folder, {name: body})
