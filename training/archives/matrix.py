"""Matrix: a room exported by Element as JSON.

Two passes: the first collects what edits replace, the second yields messages. Judges nothing.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from doppel.message import Mark, Message
from training.archives.json_stream import JsonStream
from training.archives.reading import array_records, as_object, json_stream, messages_of
from training.archives.tree import Tree

_HEAD = re.compile(rb'^\s*\{\s*"room_name"\s*:')
_ACCOUNT = re.compile(r"@[^\s():]+:[^\s()]+")
_FALLBACK = re.compile(r"\A(?:>[^\n]*\n)+\n?")
_MEDIA = frozenset(("m.image", "m.video", "m.audio", "m.file", "m.location"))
_REACTION = "m.reaction"
_OTHER: dict[str, Mark] = {"m.sticker": "sticker", _REACTION: "reaction"}


class MatrixReader:
    """Reads one room."""

    name = "matrix"
    accepts = "Matrix room exported by Element (JSON)"

    def sniff(self, tree: Tree) -> bool:
        """Whether the file begins as Element writes it."""
        return tree.is_file and bool(_HEAD.match(tree.head(tree.files()[0]).removeprefix(b"\xef\xbb\xbf")))

    def read(self, tree: Tree) -> Iterator[Message]:
        """Every event of the room; an edited message has its last text."""
        file = tree.files()[0]
        edits = _edits(tree, file)
        room: dict[str, str] = {}
        with json_stream(tree, file) as stream:
            for key in stream.members():
                if key == "messages" and stream.peek() == "[":
                    yield from _messages(tree, file, stream, room, edits)
                elif key in ("room_name", "exported_by"):
                    room[key] = str(stream.value())
                else:
                    stream.skip()


def _edits(tree: Tree, file: str) -> dict[str, str]:
    """The last text of every edited event."""
    edits: dict[str, str] = {}
    tree = tree.unheard()  # what is damaged is told by the second pass
    with json_stream(tree, file) as stream:
        for key in stream.members():
            if key == "messages" and stream.peek() == "[":
                for _, event in array_records(tree, file, stream):
                    content = as_object(as_object(event).get("content"))
                    if (edited := _edited(content)) and (body := as_object(content.get("m.new_content")).get("body")):
                        edits[edited] = str(body)
            else:
                stream.skip()
    return edits


def _messages(
    tree: Tree, file: str, stream: JsonStream, room: dict[str, str], edits: dict[str, str]
) -> Iterator[Message]:
    title = room.get("room_name", "")
    owner = _ACCOUNT.search(room.get("exported_by", ""))

    def convert(event: Mapping[str, Any], origin: str) -> Message:
        content = as_object(event.get("content"))
        answered = as_object(as_object(content.get("m.relates_to")).get("m.in_reply_to")).get("event_id")
        body = edits.get(str(event["event_id"])) or str(content.get("body") or "")
        if event.get("type") == _REACTION:
            relation = as_object(content.get("m.relates_to"))
            answered, body = relation.get("event_id"), str(relation.get("key") or "")
        sender = str(event["sender"])
        return Message(
            id=str(event["event_id"]),
            platform="matrix",
            chat=str(event.get("room_id") or title),
            kind="group",
            sender=sender,
            sender_name=sender.removeprefix("@").partition(":")[0],
            sent_at=datetime.fromtimestamp(int(event["origin_server_ts"]) / 1000, UTC),
            text=_FALLBACK.sub("", body) if answered else body,
            is_owner=None if owner is None else sender == owner[0],
            reply_to=None if answered is None else str(answered),
            chat_name=title,
            mark=_mark(event, content),
            origin=origin,
        )

    yield from messages_of(tree, file, array_records(tree, file, stream), convert)


def _edited(content: Mapping[str, Any]) -> str | None:
    relation = as_object(content.get("m.relates_to"))
    return str(relation.get("event_id")) if relation.get("rel_type") == "m.replace" else None


def _mark(event: Mapping[str, Any], content: Mapping[str, Any]) -> Mark:
    if as_object(event.get("unsigned")).get("redacted_because"):
        return "deleted"
    if mark := _OTHER.get(str(event.get("type"))):
        return mark
    if event.get("type") != "m.room.message":
        return "service"
    if _edited(content):
        return "superseded"
    if content.get("msgtype") == "m.notice":
        return "bot"
    return "media" if content.get("msgtype") in _MEDIA else ""
