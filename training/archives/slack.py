"""Slack's workspace export: `users.json`, `channels.json`, and a folder a channel with a file a day.

Whose export it is it does not say. Streams message by message. Does not decide what is worth keeping.
"""

import html
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from doppel.message import Kind, Mark, Message
from training.archives.reactions import reactions_to
from training.archives.reading import json_array, messages_of, whole_json
from training.archives.tree import Tree

_USERS = "users.json"
_LISTS: dict[str, Kind] = {"channels.json": "group", "groups.json": "group", "mpims.json": "group", "dms.json": "dm"}
_USER = re.compile(rb'^(?:\xef\xbb\xbf)?\s*\[\s*(?:\]|\{[^{}]*"(?:team_id|profile|name|deleted)"\s*:)', re.DOTALL)
_DAY = re.compile(r"\d{4}-\d\d-\d\d\.json$")
_REFERENCE = re.compile(r"<([@#!]?)([^<>|\n]+)(?:\|([^<>\n]*))?>")
_SAID = frozenset(("", "thread_broadcast", "me_message", "file_share", "file_comment"))


class SlackReader:
    """Reads a workspace."""

    name = "slack"
    accepts = "Slack workspace export (zip or folder)"

    def sniff(self, tree: Tree) -> bool:
        """Whether this folder has Slack's list of users and one of its lists of conversations."""
        if tree.is_file:
            return False
        files = tree.files()
        return _USERS in files and any(name in files for name in _LISTS) and bool(_USER.match(tree.head(_USERS)))

    def read(self, tree: Tree) -> Iterator[Message]:
        """Every record of every conversation, day by day."""
        users = {str(one.get("id")): one for one in _objects(tree, _USERS)}
        names = {account: _name(user) for account, user in users.items()}
        kinds = _kinds(tree)
        for folder in tree.folders():
            chat = folder.removesuffix("/")
            kind: Kind = kinds.get(chat, "group")
            for file in tree.files(folder):
                if _DAY.search(file):
                    converter = _Converter(chat, kind, names, users)
                    yield from messages_of(tree, file, json_array(tree, file), converter, converter.reactions)


class _Converter:
    """Turns the records of one conversation into messages."""

    def __init__(self, chat: str, kind: Kind, names: dict[str, str], users: dict[str, Any]) -> None:
        self._chat = chat
        self._kind = kind
        self._names = names
        self._users = users

    def __call__(self, record: Mapping[str, Any], origin: str) -> Message:
        sent = str(record["ts"])
        sender = str(record.get("user") or record.get("bot_id") or record.get("username") or "")
        thread = record.get("thread_ts")
        return Message(
            id=sent,
            platform="slack",
            chat=self._chat,
            kind=self._kind,
            sender=sender,
            sender_name=self._names.get(sender) or str(record.get("username") or sender),
            sent_at=datetime.fromtimestamp(float(sent), UTC),
            text=_REFERENCE.sub(self._readable, html.unescape(str(record.get("text") or ""))),
            reply_to=None if thread is None or str(thread) == sent else str(thread),
            chat_name=self._chat,
            mark=self._mark(record, sender),
            origin=origin,
        )

    def reactions(self, record: Mapping[str, Any], message: Message) -> Iterator[Message]:
        """What people put to a message."""
        found = [
            (str(user), self._names.get(str(user), str(user)), _emoji(str(one.get("name") or "")))
            for one in record.get("reactions") or ()
            for user in one.get("users") or ()
        ]
        yield from reactions_to(message, found)

    def _mark(self, record: Mapping[str, Any], sender: str) -> Mark:
        subtype = str(record.get("subtype") or "")
        if subtype == "bot_message" or record.get("bot_id") or self._users.get(sender, {}).get("is_bot"):
            return "bot"
        if subtype == "tombstone":
            return "deleted"
        if record.get("type", "message") != "message" or subtype not in _SAID:
            return "service"
        return "media" if record.get("files") or record.get("file") else ""

    def _readable(self, match: re.Match[str]) -> str:
        """What `<@U1>`, `<#C1|general>`, `<!here>` and `<https://…|text>` show."""
        sign, target, label = match.groups()
        if sign == "@":
            return "@" + (self._names.get(target) or label or target)
        if sign in ("#", "!"):
            return ("#" if sign == "#" else "@") + (label or target).lstrip("@")
        return target if not label or label in target else f"{label} {target}"


def _emoji(name: str) -> str:
    """The emoji that Slack calls so, without its skin tone; an emoji of the workspace's own stays a name."""
    from rich.emoji import Emoji

    plain = name.partition("::")[0]
    return Emoji.replace(f":{plain}:") if plain else ""


def _objects(tree: Tree, file: str) -> list[Mapping[str, Any]]:
    content = whole_json(tree, file)
    return [one for one in content if isinstance(one, dict)] if isinstance(content, list) else []


def _name(user: Mapping[str, Any]) -> str:
    profile = user.get("profile") if isinstance(user.get("profile"), dict) else {}
    assert isinstance(profile, dict)
    return str(profile.get("display_name") or user.get("real_name") or profile.get("real_name") or user.get("name"))


def _kinds(tree: Tree) -> dict[str, Kind]:
    """Kind of every conversation, by the folder it may lie in: its name or its id."""
    kinds: dict[str, Kind] = {}
    for file, kind in _LISTS.items():
        for one in _objects(tree, file) if file in tree.files() else ():
            kinds |= {str(one[key]): kind for key in ("id", "name") if key in one}
    return kinds
