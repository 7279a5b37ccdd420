"""Reads a Matrix room exported from Element as JSON.

Two passes: the first collects edits, names and writers, the second yields messages.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from doppel.transcript.stickers import is_emoji
from training.archives.formats.archive_records import array_records, as_object, messages_of, open_json
from training.archives.formats.json_outline import outline, sampled_objects
from training.archives.formats.json_stream import JsonStream
from training.archives.message import Kind, Mark, Message
from training.archives.source_tree import SourceTree

_HEAD = re.compile(rb'^\s*\{\s*"room_name"\s*:')
_ACCOUNT = re.compile(r"@[^\s():]+:[^\s()]+")
_REPLY_FALLBACK = re.compile(r"\A(?:>[^\n]*\n)+\n?")
_MEDIA = frozenset(("m.image", "m.video", "m.audio", "m.file", "m.location"))
_REACTION = "m.reaction"
_MESSAGE_TYPES = frozenset(("m.room.message", "m.sticker"))


class MatrixReader:
    """Reads one room."""

    name = "matrix"
    accepts = "Matrix room exported from Element (JSON)"

    def sniff(self, tree: SourceTree) -> bool:
        """Whether the file begins like Element's export."""
        if not tree.is_file:
            return False
        head = tree.head(tree.files()[0]).removeprefix(b"\xef\xbb\xbf").lstrip()
        if _HEAD.match(head):
            return True
        return head.startswith(b"{") and _is_room(as_object(outline(tree, tree.files()[0])))

    def read(self, tree: SourceTree) -> Iterator[Message]:
        """Every event of the room; an edited message has its last text."""
        file = tree.files()[0]
        survey = _survey(tree, file)
        room = survey.room
        with open_json(tree, file) as stream:
            for key in stream.members():
                if key == "messages" and stream.peek() == "[":
                    yield from _messages(tree, file, stream, room, survey)
                else:
                    stream.skip()


def _is_room(content: Mapping[str, Any]) -> bool:
    """Whether an outline is that of an export: by its keys, or by its events if these come first."""
    if "room_name" in content and isinstance(content.get("messages"), list):
        return True
    return any(
        {"type", "sender", "event_id", "origin_server_ts"} <= event.keys()
        for event in sampled_objects(content.get("messages"))
    )


class _Survey(msgspec.Struct):
    """What the first pass found: the room, the last text of every edited event, names, writers and members."""

    room: dict[str, str] = msgspec.field(default_factory=dict)
    edits: dict[str, str] = msgspec.field(default_factory=dict)
    names: dict[str, str] = msgspec.field(default_factory=dict)
    speakers: set[str] = msgspec.field(default_factory=set)
    members: set[str] = msgspec.field(default_factory=set)

    @property
    def kind(self) -> Kind:
        """The export does not say whether a room is private; one of at most two people is."""
        return "dm" if len(self.speakers | self.members) <= 2 else "group"


def _survey(tree: SourceTree, file: str) -> _Survey:
    """The first pass."""
    survey = _Survey()
    tree = tree.for_survey()
    with open_json(tree, file) as stream:
        for key in stream.members():
            if key == "messages" and stream.peek() == "[":
                for _, event in array_records(tree, file, stream):
                    _learn(as_object(event), survey)
            elif key in ("room_name", "exported_by"):
                survey.room[key] = str(stream.value())
            else:
                stream.skip()
    return survey


def _learn(event: Mapping[str, Any], survey: _Survey) -> None:
    content, sender = as_object(event.get("content")), str(event.get("sender"))
    if (edited := _edited(content)) and (body := as_object(content.get("m.new_content")).get("body")):
        survey.edits[edited] = str(body)
    if event.get("type") == "m.room.member":
        account = str(event.get("state_key") or sender)
        if content.get("membership") in ("join", "invite"):
            survey.members.add(account)
        if isinstance(name := content.get("displayname"), str) and name.strip():
            survey.names[account] = name.strip()
    elif str(event.get("type")) in _MESSAGE_TYPES and content.get("msgtype") != "m.notice":
        survey.speakers.add(sender)


def _messages(
    tree: SourceTree, file: str, stream: JsonStream, room: dict[str, str], survey: _Survey
) -> Iterator[Message]:
    title = room.get("room_name", "")
    owner = _ACCOUNT.search(room.get("exported_by", ""))

    def convert(event: Mapping[str, Any], origin: str) -> Message:
        content = as_object(event.get("content"))
        relation = as_object(content.get("m.relates_to"))
        replied_to = as_object(relation.get("m.in_reply_to")).get("event_id")
        thread = relation.get("event_id") if relation.get("rel_type") == "m.thread" else None
        body = survey.edits.get(str(event["event_id"])) or _body(event, content)
        if event.get("type") == _REACTION:
            replied_to, body = relation.get("event_id"), str(relation.get("key") or "")
        sender = str(event["sender"])
        return Message(
            id=str(event["event_id"]),
            platform="matrix",
            chat=str(event.get("room_id") or title),
            kind=survey.kind,
            sender=sender,
            sender_name=survey.names.get(sender) or sender.removeprefix("@").partition(":")[0],
            sent_at=datetime.fromtimestamp(int(event["origin_server_ts"]) / 1000, UTC),
            text=_REPLY_FALLBACK.sub("", body) if replied_to else body,
            is_owner=None if owner is None else sender == owner[0],
            reply_to=None if replied_to is None else str(replied_to),
            thread=None if thread is None else str(thread),
            chat_name=title,
            mark=_mark(event, content),
            origin=origin,
        )

    yield from messages_of(tree, file, array_records(tree, file, stream), convert)


def _body(event: Mapping[str, Any], content: Mapping[str, Any]) -> str:
    """The text of an event: for a file its caption, for a sticker its emoji."""
    body = str(content.get("body") or "")
    if event.get("type") == "m.sticker":
        return body if is_emoji(body) else ""
    if content.get("msgtype") in _MEDIA:
        name = content.get("filename")
        return body if isinstance(name, str) and name != body else ""
    return f"/me {body}" if content.get("msgtype") == "m.emote" else body


def _edited(content: Mapping[str, Any]) -> str | None:
    relation = as_object(content.get("m.relates_to"))
    return str(relation.get("event_id")) if relation.get("rel_type") == "m.replace" else None


def _mark(event: Mapping[str, Any], content: Mapping[str, Any]) -> Mark:
    event_type, message_type = str(event.get("type")), content.get("msgtype")
    mark: Mark = Mark.MEDIA if message_type in _MEDIA else Mark.NONE
    if as_object(event.get("unsigned")).get("redacted_because"):
        mark = Mark.DELETED
    elif event_type == "m.sticker":
        mark = Mark.MEDIA if is_emoji(content.get("body")) else Mark.STICKER
    elif event_type == _REACTION:
        mark = Mark.REACTION
    elif event_type != "m.room.message" or message_type == "m.bad.encrypted":
        mark = Mark.SERVICE
    elif _edited(content):
        mark = Mark.SUPERSEDED
    elif message_type == "m.notice":
        mark = Mark.BOT
    return mark
