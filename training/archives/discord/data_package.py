"""Reads Discord's own data package: `messages/c<ID>/messages.json` or `.csv`, beside `messages/index.json`.

It has only the owner's messages, so that these are one-sided; other people's come from other exports of the channel.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from training.archives.formats.archive_records import as_object, json_array, load_json, messages_of
from training.archives.formats.chat_text import MessageIds
from training.archives.formats.csv_files import csv_columns, csv_rows, is_rounded
from training.archives.formats.text_lines import decode_head
from training.archives.formats.time_columns import TimeColumn
from training.archives.message import Kind, Mark, Message
from training.archives.source_tree import SourceTree

_CHANNEL = re.compile(r"(?:^|/)c?(\d{15,20})/$")
_COLUMNS = frozenset(("id", "timestamp", "contents"))
_ARRAY = re.compile(r'\ufeff?\s*\[\s*(?:\]|\{\s*"(?:ID|Timestamp|Contents|Attachments)"\s*:|$)', re.IGNORECASE)
_MARKUP = re.compile(
    r"<(?P<kind>@!?|@&|#)(?P<id>\d{15,20})>|<a?(?P<emoji>:\w+:)\d{15,20}>|<t:(?P<time>\d{1,11})(?::[tTdDfFR])?>"
    r"|<(?P<command>/[^:<>\n]{1,100}):\d{15,20}>"
)
_OWNER = "owner"
_ZONE = ZoneInfo("UTC")
_GROUP_TYPES = frozenset(
    ("GUILD_TEXT", "GUILD_VOICE", "GROUP_DM", "PUBLIC_THREAD", "PRIVATE_THREAD", "GUILD_ANNOUNCEMENT")
)
_SNIFFED_CHANNELS = 256
"""The first channels may be empty, or without a file."""

# A folder with other subfolders may contain other archives too, and is not read as one package.
_PACKAGE_FOLDERS = frozenset(
    ("account", "activities", "activity", "ads", "messages", "programs", "servers", "support_tickets", "store")
)


class _Account(msgspec.Struct, frozen=True):
    """The owner's account in `user.json`, and the names of people by id."""

    sender: str = _OWNER
    name: str = _OWNER
    names: dict[str, str] = {}


class DiscordReader:
    """Reads a data package, or only its folder of messages, under any name."""

    name = "discord"
    accepts = "Discord data package (zip or folder; only your own messages)"

    def sniff(self, tree: SourceTree) -> bool:
        """Whether this folder contains channel folders with messages, or is a package that does."""
        return not tree.is_file and (_has_channels(tree, "") or _package_messages(tree) is not None)

    def read(self, tree: SourceTree) -> Iterator[Message]:
        """Every message of every channel."""
        place = "" if _has_channels(tree, "") else _package_messages(tree) or ""
        account = _account(tree) if place else _Account()
        index = _file(tree, place, "index.json")
        titles = as_object(load_json(tree, index)) if index else {}
        for folder in tree.folders(place):
            match = _CHANNEL.search(folder)
            file = _messages_file(tree, folder) if match else None
            if match is None or file is None:
                continue
            about = _file(tree, folder, "channel.json")
            channel = as_object(load_json(tree, about)) if about else {}
            chat = match[1]
            title = str(titles.get(chat) or channel.get("name") or chat)
            records = json_array(tree, file) if file.lower().endswith(".json") else csv_rows(tree, file)
            times = TimeColumn(_ZONE, partial(_times, tree, file), tree.note)
            converter = _Converter(account, chat, title, _kind(channel, title), times)
            yield from messages_of(tree, file, records, converter)


class _Converter:
    """Turns the records of one channel into messages."""

    def __init__(self, account: _Account, chat: str, title: str, kind: Kind, times: TimeColumn) -> None:
        self._account = account
        self._chat = chat
        self._title = title
        self._kind = kind
        self._times = times
        self._ids = MessageIds()

    def __call__(self, record: Mapping[str, Any], origin: str) -> Message:
        fields = {key.lower(): value for key, value in record.items()}
        identity, sent_at = str(fields["id"]).strip(), self._times.parse(str(fields["timestamp"]))
        if is_rounded(identity):
            identity = self._ids.next_id(sent_at, "", str(fields.get("contents")))
        return Message(
            id=identity,
            platform="discord",
            chat=self._chat,
            kind=self._kind,
            sender=self._account.sender,
            sender_name=self._account.name,
            sent_at=sent_at,
            text=resolve_markup(str(fields.get("contents") or ""), self._account.names),
            is_owner=True,
            chat_name=self._title,
            mark=Mark.MEDIA if fields.get("attachments") else Mark.NONE,
            is_one_sided=True,
            origin=origin,
        )


def _times(tree: SourceTree, file: str) -> Iterator[str]:
    """The times of a CSV file; those of a JSON file need no comparison."""
    if not file.lower().endswith(".json"):
        yield from (row.get("timestamp", "") for _, row in csv_rows(tree.for_survey(), file))


def resolve_markup(text: str, names: Mapping[str, str]) -> str:
    """A message's text with custom emoji, mentions, times and commands as people see them.

    Args:
        text: the text in the export.
        names: names of people by id; unknown ones become `@unknown`.
    """
    if "<" not in text:
        return text

    def show(match: re.Match[str]) -> str:
        if match["emoji"]:
            return match["emoji"]
        if match["time"]:
            return f"{datetime.fromtimestamp(int(match['time']), UTC):%Y-%m-%d %H:%M} UTC"
        if match["command"]:
            return match["command"]
        return match["kind"][0] + names.get(match["id"], "unknown")

    return _MARKUP.sub(show, text)


def _has_channels(tree: SourceTree, place: str) -> bool:
    channels = [folder for folder in tree.folders(place) if _CHANNEL.search(folder)]
    return any(_messages_file(tree, folder) for folder in channels[:_SNIFFED_CHANNELS])


def _package_messages(tree: SourceTree) -> str | None:
    """The folder of messages in a folder that is exactly a package; else None."""
    folders = {folder.removesuffix("/").lower(): folder for folder in tree.folders()}
    messages = folders.get("messages")
    if messages is None or "account" not in folders or not folders.keys() <= _PACKAGE_FOLDERS:
        return None
    return messages if _has_channels(tree, messages) else None


def _file(tree: SourceTree, folder: str, name: str) -> str | None:
    """A file of a folder by name, ignoring case."""
    return next((file for file in tree.files(folder) if file.lower() == (folder + name).lower()), None)


def _messages_file(tree: SourceTree, folder: str) -> str | None:
    """The file with a channel's messages, recognized by its content."""
    for name in tree.files(folder):
        low = name.lower()
        if low.endswith(("messages.json", "messages.csv")):
            if low.endswith(".csv"):
                if _COLUMNS.issubset(csv_columns(tree, name)):
                    return name
            elif _ARRAY.match(decode_head(tree.head(name, 64))):
                return name
    return None


def _account(tree: SourceTree) -> _Account:
    """The account of the package's owner."""
    for folder in tree.folders():
        if folder.lower() == "account/" and (file := _file(tree, folder, "user.json")):
            user = as_object(load_json(tree, file))
            friends = user.get("relationships")
            people = [user, *(as_object(as_object(friend).get("user")) for friend in _as_list(friends))]
            names = {str(person.get("id")): str(name) for person in people if (name := _name(person))}
            if user.get("id"):
                return _Account(str(user["id"]), str(_name(user) or _OWNER), names)
    return _Account()


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _name(user: Mapping[str, Any]) -> Any:
    return user.get("display_name") or user.get("global_name") or user.get("username")


def _kind(channel: Mapping[str, Any], title: str) -> Kind:
    if channel.get("guild") or str(channel.get("type")) in _GROUP_TYPES:
        return "group"
    return "dm" if title.startswith("Direct Message with") or str(channel.get("type")) in ("1", "DM") else "group"
