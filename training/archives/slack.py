"""Reads Slack's workspace export: `users.json`, `channels.json`, and a folder for each channel with a file a day.

The export does not say who the owner is.
"""

import html
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from training.archives.formats.archive_records import json_array, load_json, messages_of
from training.archives.formats.emoji_names import emoji_named, replace_emoji_names
from training.archives.formats.json_outline import outline, sampled_objects
from training.archives.formats.reactions import reactions_to
from training.archives.message import Kind, Mark, Message
from training.archives.source_tree import SourceTree

_USERS = "users.json"
_CONVERSATION_LISTS: dict[str, Kind] = {
    "channels.json": "group",
    "groups.json": "group",
    "mpims.json": "group",
    "dms.json": "dm",
}
_USER = re.compile(rb'^(?:\xef\xbb\xbf)?\s*\[\s*(?:\]|\{[^{}]*"(?:team_id|profile|name|deleted)"\s*:)', re.DOTALL)
_DAY = re.compile(r"\d{4}-\d\d-\d\d\.json$")
_REFERENCE = re.compile(r"<([@#!]?)([^<>|\n]+)(?:\|([^<>\n]*))?>")
_DATE = "date^"
_MESSAGE_SUBTYPES = frozenset(("", "thread_broadcast", "reply_broadcast", "me_message", "file_share", "file_comment"))
_BOT = "USLACKBOT"
_LINE_BLOCKS = ("rich_text_section", "rich_text_preformatted", "rich_text_quote")
_MAX_DEPTH = 16


class SlackReader:
    """Reads a workspace."""

    name = "slack"
    accepts = "Slack workspace export (zip or folder)"

    def sniff(self, tree: SourceTree) -> bool:
        """Whether this folder has Slack's list of users and one of its lists of conversations."""
        if tree.is_file:
            return False
        files = tree.files()
        return (
            _USERS in files
            and any(name in files for name in _CONVERSATION_LISTS)
            and (bool(_USER.match(tree.head(_USERS))) or any(map(_is_user, sampled_objects(outline(tree, _USERS)))))
        )

    def read(self, tree: SourceTree) -> Iterator[Message]:
        """Every record of every conversation, day by day."""
        users = {str(user.get("id")): user for user in _objects(tree, _USERS)}
        names = {account: _name(user) for account, user in users.items()}
        conversations = _conversations(tree, names)
        for folder in tree.folders():
            chat = folder.removesuffix("/")
            about = conversations.get(chat, _Conversation("group", chat))
            for file in tree.files(folder):
                if _DAY.search(file):
                    converter = _Converter(chat, about, names, users)
                    yield from messages_of(tree, file, json_array(tree, file), converter, converter.reactions)


def _is_user(record: Mapping[str, Any]) -> bool:
    return "id" in record and not record.keys().isdisjoint(("team_id", "profile", "name", "deleted"))


class _Conversation(msgspec.Struct, frozen=True):
    """A conversation in the lists."""

    kind: Kind
    title: str
    is_with_oneself: bool = False


class _Converter:
    """Turns the records of one conversation into messages."""

    def __init__(self, chat: str, about: _Conversation, names: dict[str, str], users: dict[str, Any]) -> None:
        self._chat = chat
        self._about = about
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
            kind=self._about.kind,
            sender=sender,
            sender_name=self._names.get(sender) or _guest_name(record) or str(record.get("username") or sender),
            sent_at=datetime.fromtimestamp(float(sent), UTC),
            text=self._text(record),
            reply_to=None if thread is None or str(thread) == sent else str(thread),
            thread=None if thread is None else str(thread),
            chat_name=self._about.title,
            mark=self._mark(record, sender),
            is_one_sided=self._about.is_with_oneself,
            origin=origin,
        )

    def reactions(self, record: Mapping[str, Any], message: Message) -> Iterator[Message]:
        """The reactions to a message."""
        people = [
            (str(user), self._names.get(str(user), str(user)), emoji_named(str(reaction.get("name") or "")))
            for reaction in record.get("reactions") or ()
            for user in reaction.get("users") or ()
        ]
        yield from reactions_to(message, people)

    def _mark(self, record: Mapping[str, Any], sender: str) -> Mark:
        subtype = str(record.get("subtype") or "")
        if subtype == "tombstone":
            return Mark.DELETED
        if (
            subtype == "bot_message"
            or record.get("bot_id")
            or sender == _BOT
            or self._users.get(sender, {}).get("is_bot")
        ):
            return Mark.BOT
        if record.get("type", "message") != "message" or subtype not in _MESSAGE_SUBTYPES:
            return Mark.SERVICE
        return Mark.MEDIA if record.get("files") or record.get("file") else Mark.NONE

    def _text(self, record: Mapping[str, Any]) -> str:
        """The text as Slack shows it. What people typed is escaped; references are not."""
        text = str(record.get("text") or "")
        pieces, at = [], 0
        for match in _REFERENCE.finditer(text):
            pieces += [html.unescape(text[at : match.start()]), html.unescape(self._shown_reference(match))]
            at = match.end()
        shown = "".join([*pieces, html.unescape(text[at:])]) or _blocks_text(record.get("blocks"))
        shown = replace_emoji_names(shown).strip("\n")
        return f"/me {shown}" if record.get("subtype") == "me_message" else shown

    def _shown_reference(self, match: re.Match[str]) -> str:
        """How `<@U1>`, `<#C1|general>`, `<!here>`, `<!date^…|Jan 2>` and `<https://…|text>` are shown."""
        sign, target, label = match.groups()
        if sign == "@":
            return "@" + (self._names.get(target) or label or target)
        if sign == "!" and target.startswith(_DATE):
            return str(label or "")
        if sign in ("#", "!"):
            return ("#" if sign == "#" else "@") + (label or target).lstrip("@")
        if target.startswith(("mailto:", "tel:")):
            return label or target.partition(":")[2]
        return target if not label or label in target else f"{label} {target}"


def _guest_name(record: Mapping[str, Any]) -> str:
    """The name of somebody from another workspace, who is not in the list of users."""
    profile = record.get("user_profile")
    return _name({"profile": profile}) if isinstance(profile, dict) else ""


def _blocks_text(block: Any, depth: int = 0) -> str:
    """The text of rich text blocks, for records that have no other text."""
    if isinstance(block, list):
        return "".join(_blocks_text(part, depth) for part in block)
    if not isinstance(block, dict) or depth > _MAX_DEPTH:
        return ""
    kind = str(block.get("type") or "")
    if kind in ("text", "link"):
        return str(block.get("text") or block.get("url") or "")
    if kind == "emoji":
        return f":{block.get('name')}:"
    inner = _blocks_text(block.get("elements"), depth + 1)
    return f"{inner}\n" if kind in _LINE_BLOCKS else inner


def _objects(tree: SourceTree, file: str) -> list[Mapping[str, Any]]:
    content = load_json(tree, file)
    return [record for record in content if isinstance(record, dict)] if isinstance(content, list) else []


def _name(user: Mapping[str, Any]) -> str:
    profile = user.get("profile") if isinstance(user.get("profile"), dict) else {}
    assert isinstance(profile, dict)
    return str(
        profile.get("display_name") or user.get("real_name") or profile.get("real_name") or user.get("name") or ""
    )


def _conversations(tree: SourceTree, names: Mapping[str, str]) -> dict[str, _Conversation]:
    """All conversations by folder, which is their name or id. Private ones are titled by their members."""
    conversations: dict[str, _Conversation] = {}
    for file, kind in _CONVERSATION_LISTS.items():
        for record in _objects(tree, file) if file in tree.files() else ():
            members = record.get("members")
            people = [names.get(str(member), str(member)) for member in members] if isinstance(members, list) else []
            title = str(record.get("name") or ", ".join(people[:4]) or record.get("id"))
            is_with_oneself = kind == "dm" and isinstance(members, list) and len(set(map(str, members))) == 1
            about = _Conversation(kind, title, is_with_oneself)
            conversations |= {str(record[key]): about for key in ("id", "name") if key in record}
    return conversations
