"""Matrix: a room exported by Element as JSON.

Two passes: the first collects edits, names and who speaks, the second yields messages. Judges nothing.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from training.archives.formats.json_stream import JsonStream
from training.archives.formats.reactions import is_emoji
from training.archives.formats.records import array_records, as_object, json_stream, messages_of
from training.archives.message import Kind, Mark, Message
from training.archives.source_tree import Tree

_HEAD = re.compile(rb'^\s*\{\s*"room_name"\s*:')
_ACCOUNT = re.compile(r"@[^\s():]+:[^\s()]+")
_FALLBACK = re.compile(r"\A(?:>[^\n]*\n)+\n?")
_MEDIA = frozenset(("m.image", "m.video", "m.audio", "m.file", "m.location"))
_REACTION = "m.reaction"
_SAID = frozenset(("m.room.message", "m.sticker"))


class MatrixReader:
    """Reads one room."""

    name = "matrix"
    accepts = "Matrix room exported from Element (JSON)"

    def sniff(self, tree: Tree) -> bool:
        """Whether the file begins as Element writes it."""
        return tree.is_file and bool(_HEAD.match(tree.head(tree.files()[0]).removeprefix(b"\xef\xbb\xbf")))

    def read(self, tree: Tree) -> Iterator[Message]:
        """Every event of the room; an edited message has its last text."""
        file = tree.files()[0]
        survey = _survey(tree, file)
        room: dict[str, str] = {}
        with json_stream(tree, file) as stream:
            for key in stream.members():
                if key == "messages" and stream.peek() == "[":
                    yield from _messages(tree, file, stream, room, survey)
                elif key in ("room_name", "exported_by"):
                    room[key] = str(stream.value())
                else:
                    stream.skip()


class _Survey(msgspec.Struct):
    """What the first pass learned: the last text of every edited event, names of accounts, and who speaks."""

    edits: dict[str, str] = msgspec.field(default_factory=dict)
    names: dict[str, str] = msgspec.field(default_factory=dict)
    speakers: set[str] = msgspec.field(default_factory=set)
    members: set[str] = msgspec.field(default_factory=set)

    @property
    def kind(self) -> Kind:
        """A room says nowhere that it is private; one in which two people are or speak is."""
        return "dm" if len(self.speakers | self.members) <= 2 else "group"


def _survey(tree: Tree, file: str) -> _Survey:
    """Reads the file once."""
    survey = _Survey()
    tree = tree.unheard()  # what is damaged is told by the second pass
    with json_stream(tree, file) as stream:
        for key in stream.members():
            if key == "messages" and stream.peek() == "[":
                for _, event in array_records(tree, file, stream):
                    _learn(as_object(event), survey)
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
    elif str(event.get("type")) in _SAID and content.get("msgtype") != "m.notice":
        survey.speakers.add(sender)


def _messages(tree: Tree, file: str, stream: JsonStream, room: dict[str, str], survey: _Survey) -> Iterator[Message]:
    title = room.get("room_name", "")
    owner = _ACCOUNT.search(room.get("exported_by", ""))

    def convert(event: Mapping[str, Any], origin: str) -> Message:
        content = as_object(event.get("content"))
        answered = as_object(as_object(content.get("m.relates_to")).get("m.in_reply_to")).get("event_id")
        body = survey.edits.get(str(event["event_id"])) or _body(event, content)
        if event.get("type") == _REACTION:
            relation = as_object(content.get("m.relates_to"))
            answered, body = relation.get("event_id"), str(relation.get("key") or "")
        sender = str(event["sender"])
        return Message(
            id=str(event["event_id"]),
            platform="matrix",
            chat=str(event.get("room_id") or title),
            kind=survey.kind,
            sender=sender,
            sender_name=survey.names.get(sender) or sender.removeprefix("@").partition(":")[0],
            sent_at=datetime.fromtimestamp(int(event["origin_server_ts"]) / 1000, UTC),
            text=_FALLBACK.sub("", body) if answered else body,
            is_owner=None if owner is None else sender == owner[0],
            reply_to=None if answered is None else str(answered),
            chat_name=title,
            mark=_mark(event, content),
            origin=origin,
        )

    yield from messages_of(tree, file, array_records(tree, file, stream), convert)


def _body(event: Mapping[str, Any], content: Mapping[str, Any]) -> str:
    """What somebody wrote. Of a file that is its caption, of a sticker the emoji that it stands for."""
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
    kind, what = str(event.get("type")), content.get("msgtype")
    mark: Mark = "media" if what in _MEDIA else ""
    if as_object(event.get("unsigned")).get("redacted_because"):
        mark = "deleted"
    elif kind == "m.sticker":
        mark = "media" if is_emoji(content.get("body")) else "sticker"
    elif kind == _REACTION:
        mark = "reaction"
    elif kind != "m.room.message" or what == "m.bad.encrypted":
        mark = "service"
    elif _edited(content):
        mark = "superseded"
    elif what == "m.notice":
        mark = "bot"
    return mark
