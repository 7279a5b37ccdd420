"""Reads DiscordChatExporter's JSON and CSV files: one channel, or a part of one, each.

The files do not say who the owner is. CSV files have no ids, replies or bot flags, and their dates may be in any
country's format.
"""

import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any
from zoneinfo import ZoneInfo

from doppel.transcript.stickers import sticker_text
from training.archives.discord.data_package import resolve_markup
from training.archives.formats.account_names import AccountNames
from training.archives.formats.archive_records import array_records, as_object, messages_of, open_json
from training.archives.formats.csv_files import csv_columns, csv_rows, is_rounded
from training.archives.formats.json_outline import outline, sampled_objects
from training.archives.formats.json_stream import JsonStream
from training.archives.formats.reactions import Reaction, reactions_to
from training.archives.formats.time_columns import TimeColumn
from training.archives.formats.timestamps import to_utc
from training.archives.message import Kind, Mark, Message
from training.archives.source_tree import SourceTree

_JSON_HEAD = re.compile(rb'^\s*\{\s*"guild"\s*:\s*\{')
_CHANNEL = re.compile(rb'"channel"\s*:\s*\{')
_CSV_COLUMNS = frozenset(("author", "date", "content", "attachments"))
_MORE_CSV_COLUMNS = frozenset(("authorid", "reactions"))
"""Of which files of old versions have none."""

_ZONE = ZoneInfo("UTC")
_MESSAGE_TYPES = frozenset(("Default", "Reply", "0", "19"))
_PRIVATE_TYPES = frozenset(("DirectTextChat", "1"))
_DIRECT = "Direct Messages"
_DIRECT_GROUP = "Direct Messages - Group"

# The exporter names files `Guild - Category - channel [id] (after 2020-01-01) [part 2].csv`.
_FILE_NAME = re.compile(r"(?P<title>.*?)\s*\[(?P<id>\d{15,20})\]")
_FILE_NAME_SUFFIX = re.compile(r"\s*(?:\[part \d+\]|\((?:after|before|\d{4}-)[^()]*\))", re.IGNORECASE)
_DISCRIMINATOR = re.compile(r"#\d{4}$")
_NOTICE = re.compile(
    r"Pinned a message\.|Joined the server\.|Left the group\.|Started a thread\.|Changed the channel icon\."
    r"|Started a call(?: that lasted [\d.,]+ minutes)?\.|(?:Added|Removed) .{1,40} (?:to|from) the group\."
    r"|Changed the channel name[.:].*"
)


class DiscordExporterReader:
    """Reads one exported file; parts of a channel have the same ids and become one chat."""

    name = "discord-exporter"
    accepts = "DiscordChatExporter (JSON or CSV)"

    def sniff(self, tree: SourceTree) -> bool:
        """Whether the file begins with a guild and a channel, or with the exporter's CSV columns."""
        if not tree.is_file:
            return False
        head = tree.head(tree.files()[0])
        plain = head.removeprefix(b"\xef\xbb\xbf")
        if bool(_JSON_HEAD.match(plain) and _CHANNEL.search(plain)) or _is_csv(tree):
            return True
        return plain.lstrip()[:1] == b"{" and _is_channel(as_object(outline(tree, tree.files()[0])))

    def read(self, tree: SourceTree) -> Iterator[Message]:
        """Every record of the file."""
        name = tree.files()[0]
        if _is_csv(tree):
            yield from messages_of(tree, name, csv_rows(tree, name), _CSVConverter(tree, name))
            return
        guild: dict[str, Any] = {}
        channel: dict[str, Any] = {}
        with open_json(tree, name) as stream:
            for key in stream.members():
                if key == "messages" and stream.peek() == "[":
                    if not channel:
                        guild, channel = _survey_channel(tree.for_survey(), name)
                    yield from _messages(tree, name, stream, guild, channel)
                elif key in ("guild", "channel") and stream.peek() == "{":
                    value = stream.value()
                    guild, channel = (value, channel) if key == "guild" else (guild, value)
                else:
                    stream.skip()


def _is_channel(content: Mapping[str, Any]) -> bool:
    """Whether an outline is that of an export: by its channel, or by its messages if these come first."""
    records = sampled_objects(content.get("messages"))
    is_typical = any({"id", "timestamp", "content", "author"} <= record.keys() for record in records)
    if isinstance(content.get("channel"), dict) and isinstance(content.get("guild"), dict):
        return is_typical or "messages" in content
    return is_typical and any("isBot" in as_object(record.get("author")) for record in records)


def _survey_channel(tree: SourceTree, file: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The guild and channel of a file that has them behind its messages."""
    found: dict[str, dict[str, Any]] = {"guild": {}, "channel": {}}
    with open_json(tree, file) as stream:
        for key in stream.members():
            if key in found and stream.peek() == "{":
                found[key] = stream.value()
            else:
                stream.skip()
    return found["guild"], found["channel"]


def _messages(
    tree: SourceTree, file: str, stream: JsonStream, guild: dict[str, Any], channel: dict[str, Any]
) -> Iterator[Message]:
    title = str(channel.get("name") or "")
    chat = str(channel.get("id") or title)
    kind: Kind = "dm" if str(channel.get("type")) in _PRIVATE_TYPES else "group"
    chat_name = title if kind == "dm" or not guild.get("name") else f"{guild['name']} #{title}"

    names = AccountNames("discord", tree.me)

    def convert(record: dict[str, Any], origin: str) -> Message:
        return _message(record, chat, chat_name, kind, origin, names=names)

    records = array_records(tree, file, stream, stop_at='"messageCount"')
    yield from messages_of(tree, file, records, convert, lambda record, to: reactions_to(to, _reactions(record)))


def _reactions(record: Mapping[str, Any]) -> Iterator[Reaction]:
    """The reactions, if the export has them; a custom emoji is written as in a text."""
    for reaction in record.get("reactions") or ():
        emoji = as_object(reaction.get("emoji"))
        name = str(emoji.get("name") or "")
        for user in reaction.get("users") or ():
            if not user.get("isBot"):
                yield str(user["id"]), _display_name(user), f":{name}:" if emoji.get("id") and name else name


def _message(
    record: dict[str, Any], chat: str, chat_name: str, kind: Kind, origin: str, *, names: AccountNames
) -> Message:
    author = record["author"]
    reference = record.get("reference") or {}
    # A reference to another channel is a forward or crosspost; its id is not one of this channel.
    replied_to = reference.get("messageId") if str(reference.get("channelId") or chat) == chat else None
    people = [as_object(person) for person in record.get("mentions") or ()]
    text = resolve_markup(
        str(record.get("content") or ""), {str(person.get("id")): _display_name(person) for person in people}
    )
    sticker = "" if text else _sticker(record)
    return Message(
        id=str(record["id"]),
        platform="discord",
        chat=chat,
        kind=kind,
        sender=str(author["id"]),
        sender_name=names.choose(*_names(author)) or str(author["id"]),
        sent_at=to_utc(record["timestamp"], _ZONE),
        text=text or sticker,
        reply_to=None if replied_to is None else str(replied_to),
        chat_name=chat_name or chat,
        mark=_mark(record, author, text or sticker),
        origin=origin,
    )


def _display_name(person: Mapping[str, Any]) -> str:
    return next(filter(None, _names(person)), str(person.get("id")))


def _names(person: Mapping[str, Any]) -> tuple[str, str, str]:
    """The display name, the name, and the name with the number of older accounts."""
    name = str(person.get("name") or "")
    numbered = f"{name}#{person.get('discriminator')}"
    return str(person.get("nickname") or ""), name, numbered if name else ""


def _sticker(record: Mapping[str, Any]) -> str:
    return sticker_text(str(as_object(sticker).get("name") or "") for sticker in record.get("stickers") or ())


def _mark(record: dict[str, Any], author: dict[str, Any], text: str) -> Mark:
    if author.get("isBot"):
        return Mark.BOT
    if str(record.get("type", "Default")) not in _MESSAGE_TYPES:
        return Mark.SERVICE
    if record.get("forwardedMessage"):
        return Mark.FORWARD
    # The name of a sticker counts as its text, like the caption of a picture.
    if record.get("stickers"):
        return Mark.MEDIA if text else Mark.STICKER
    return Mark.MEDIA if record.get("attachments") else Mark.NONE


def _is_csv(tree: SourceTree) -> bool:
    columns = frozenset(csv_columns(tree, tree.files()[0]))
    return columns >= _CSV_COLUMNS and columns - _CSV_COLUMNS <= _MORE_CSV_COLUMNS


class _CSVConverter:
    """Turns the rows of a CSV file into messages, after a first pass over its dates and authors."""

    def __init__(self, tree: SourceTree, file: str) -> None:
        stem = _FILE_NAME_SUFFIX.sub("", PurePosixPath(file).stem)
        named = _FILE_NAME.search(stem)
        self._title = named["title"] if named else stem
        self._chat = named["id"] if named else stem
        authors = _survey(tree.for_survey(), file)
        is_direct = self._title.startswith(_DIRECT) and not self._title.startswith(_DIRECT_GROUP)
        self._kind: Kind = "dm" if is_direct and authors <= 2 else "group"
        self._times = TimeColumn(
            tree.zone, lambda: (row.get("date", "") for _, row in csv_rows(tree.for_survey(), file)), tree.note
        )
        self._last_time: datetime | None = None
        self._repeats: Counter[int] = Counter()

    def __call__(self, row: Mapping[str, str], origin: str) -> Message:
        sender, text = _account(row), resolve_markup(row["content"], {})
        sent_at = self._times.parse(row["date"])
        if sent_at != self._last_time:
            self._last_time, self._repeats = sent_at, Counter()
        # Rows have no id, and parts of an export may share a minute, so the id includes the text.
        digest = zlib.crc32(f"{sender}\n{text}\n{row.get('attachments', '')}".encode("utf-8", "replace"))
        self._repeats[digest] += 1
        mark: Mark = Mark.MEDIA if row.get("attachments") else Mark.NONE
        return Message(
            id=f"{sent_at.isoformat()}/{digest:08x}/{self._repeats[digest]}",
            platform="discord",
            chat=self._chat,
            kind=self._kind,
            sender=sender,
            sender_name=(row["author"] if "authorid" in row else _DISCRIMINATOR.sub("", row["author"])) or sender,
            sent_at=sent_at,
            text=text,
            chat_name=self._title or self._chat,
            mark=Mark.SERVICE if _NOTICE.fullmatch(text) else mark,
            origin=origin,
        )


def _account(row: Mapping[str, str]) -> str:
    """The id of the writer, or the name with its number, `Mara#1234`, if there is no id or a rounded one."""
    account = row.get("authorid", "").strip()
    return row["author"] if not account or is_rounded(account) else account


def _survey(tree: SourceTree, file: str) -> int:
    """The number of writers, at most 3."""
    authors: set[str] = set()
    for _, row in csv_rows(tree, file):
        authors.add(row.get("authorid", "") or row.get("author", ""))
        if len(authors) == 3:
            break
    return len(authors)
