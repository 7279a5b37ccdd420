"""Telegram Desktop's `result.json`: one chat, or a whole account with many.

Streams chat by chat and keeps one message at a time (and, in groups with topics, which message belongs to
which topic). Does not decide what is worth keeping.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from doppel.i18n import tr
from doppel.message import Kind, Mark, Message
from training.archives.json_stream import DamagedJSON, JsonStream, MendedEscapes
from training.archives.reactions import Reaction, reactions_to
from training.archives.reading import MALFORMED
from training.archives.tree import Tree

_TYPES: dict[str, tuple[str, Kind]] = {
    "personal_chat": ("user", "dm"),
    "bot_chat": ("user", "dm"),
    "saved_messages": ("user", "dm"),
    "private_group": ("chat", "group"),
    "private_supergroup": ("channel", "group"),
    "public_supergroup": ("channel", "group"),
    "private_channel": ("channel", "post"),
    "public_channel": ("channel", "post"),
    "replies": ("user", "group"),
    "verify_codes": ("user", "group"),
}
_ONE_CHAT = re.compile(rb'"type"\s*:\s*"(?:' + "|".join(_TYPES).encode() + rb')"')
_MESSAGES = re.compile(rb'"messages"\s*:\s*\[')
_ACCOUNT = re.compile(rb'"(?:personal_information|chats|left_chats)"\s*:\s*\{')

_MEDIA = frozenset(
    (
        *("photo", "file", "media_type", "sticker_emoji", "contact_information", "location_information"),
        *("place_name", "poll", "game_title", "invoice_information", "todo_list", "giveaway_information"),
    )
)
_FORWARDED = frozenset(("forwarded_from", "forwarded_from_id", "saved_from"))


class TelegramReader:
    """Reads one `result.json`. The account's own id is in it when the whole account was exported."""

    name = "telegram"
    accepts = "Telegram Desktop export in the format JSON (result.json)"

    def sniff(self, tree: Tree) -> bool:
        """Whether the file begins like either form of the export."""
        if not tree.is_file:
            return False
        head = tree.head(tree.files()[0]).removeprefix(b"\xef\xbb\xbf").lstrip()
        one_chat = _ONE_CHAT.search(head) and _MESSAGES.search(head)
        return head.startswith(b"{") and bool(one_chat or _ACCOUNT.search(head))

    def read(self, tree: Tree) -> Iterator[Message]:
        """Every record of every chat, service records included."""
        name = tree.files()[0]
        with tree.open(name) as file:
            stream = JsonStream(MendedEscapes(file))
            try:
                yield from _Export(tree, name, stream).read({})
            except DamagedJSON as damage:
                if not stream.lost:
                    tree.bad(name, tr("end"), str(damage))


class _Export:
    """The state of reading one file: whose account it is."""

    def __init__(self, tree: Tree, file: str, stream: JsonStream) -> None:
        self.tree = tree
        self.file = file
        self.stream = stream
        self.own_id: str | None = None

    def read(self, header: dict[str, Any]) -> Iterator[Message]:
        """An object that is a chat or an account, told apart by its keys."""
        stream = self.stream
        for key in stream.members():
            if key in ("name", "type", "id"):
                header[key] = stream.value()
            elif key == "messages" and stream.peek() == "[":
                yield from _Chat(self, header).read()
            elif key in ("chats", "left_chats") and stream.peek() == "{":
                yield from self._chats()
            elif key == "personal_information":
                personal = stream.value()
                own_id = personal.get("user_id") if isinstance(personal, dict) else None
                self.own_id = str(own_id) if own_id else None
            else:
                stream.skip()

    def _chats(self) -> Iterator[Message]:
        for key in self.stream.members():
            if key == "list" and self.stream.peek() == "[":
                for _ in self.stream.elements():
                    yield from self.read({})
            else:
                self.stream.skip()


class _Chat:
    """One chat: turns its records into messages."""

    def __init__(self, export: _Export, header: dict[str, Any]) -> None:
        self.export = export
        self.type = str(header.get("type") or "")
        family, self.kind = _TYPES.get(self.type, ("chat", "group"))
        self.peer = str(header.get("id", ""))
        self.id = f"{family}{self.peer}"
        self.name = str(header.get("name") or self.type.replace("_", " "))
        self.last_time = datetime.fromtimestamp(0, UTC)
        self.topics: dict[str, str] = {}

    def read(self) -> Iterator[Message]:
        """The messages of the chat; a record that makes no sense goes to the tree's bad records."""
        tree, file = self.export.tree, self.export.file

        def bad(number: int, reason: str | Exception) -> None:
            tree.bad(file, tr("{chat}, message {number}", chat=self.name, number=number), reason)

        for number, record in self.export.stream.records(bad, fence='"messages"'):
            try:
                message = self._message(record, f"{file}:{number}")
            except MALFORMED as error:
                bad(number, error)
                continue
            yield message
            try:
                reactions = list(reactions_to(message, _reactions(record), self._is_owner))
            except MALFORMED as error:
                bad(number, error)
            else:
                yield from reactions

    def _message(self, record: dict[str, Any], origin: str) -> Message:
        message_id = str(record["id"])
        self.last_time = sent_at = self._time(record)
        sender, sender_name = _sender(record)
        reply_to = record.get("reply_to_message_id")
        if reply_to is not None:
            # An id in another chat would be taken for one in this chat.
            reply_to = None if "reply_to_peer_id" in record else str(reply_to)
        chat = self.id
        if record.get("action") == "topic_created":
            self.topics[message_id] = message_id
        if self.topics and (topic := self.topics.get(message_id if reply_to is None else reply_to)):
            self.topics[message_id] = topic
            chat = f"{chat}/{topic}"
            reply_to = None if reply_to == topic else reply_to
        return Message(
            id=message_id,
            platform="telegram",
            chat=chat,
            kind=self.kind,
            sender=sender,
            sender_name=sender_name,
            sent_at=sent_at,
            text=_text(record) or _sticker(record),
            is_owner=self._is_owner(sender),
            reply_to=reply_to,
            chat_name=self.name,
            mark=self._mark(record),
            origin=origin,
        )

    def _time(self, record: dict[str, Any]) -> datetime:
        if (seconds := record.get("date_unixtime")) is not None:
            return datetime.fromtimestamp(int(seconds), UTC)
        if record.get("type") == "unsupported":  # has an id and nothing else
            return self.last_time
        # Exports before 2022 have the exporter's local time only.
        local = datetime.fromisoformat(record["date"])
        return (local if local.tzinfo else local.replace(tzinfo=self.export.tree.zone)).astimezone(UTC)

    def _is_owner(self, sender: str) -> bool | None:
        """Known in a whole account; in a private chat at least the other one is known: the chat has their id."""
        if sender == self.export.own_id or (self.type == "saved_messages" and sender == self.peer):
            return True
        if sender.startswith("channel"):  # may be a channel of the owner's
            return None
        if self.export.own_id is not None or (self.kind == "dm" and sender == self.peer):
            return False
        return None

    def _mark(self, record: dict[str, Any]) -> Mark:
        if record.get("type") != "message":
            return "service"
        if self.type in ("bot_chat", "verify_codes") or "via_bot" in record:
            return "bot"
        if not _FORWARDED.isdisjoint(record):
            return "forward"
        if not _MEDIA.isdisjoint(record):
            # A sticker that stands for an emoji says that, as a picture's caption says what it says.
            return "sticker" if record.get("media_type") == "sticker" and not _sticker(record) else "media"
        return ""


def _sender(record: dict[str, Any]) -> tuple[str, str]:
    """Account id and display name; users are plain numbers, as in the bot API. A deleted account has no name."""
    account = record.get("from_id", record.get("actor_id"))
    name = record.get("from") or record.get("actor") or ""
    account = str(account) if account is not None else str(name)
    return account.removeprefix("user"), str(name)


def _reactions(record: dict[str, Any]) -> Iterator[Reaction]:
    """Who reacted; in large groups the export names the last few only."""
    for reaction in record.get("reactions") or ():
        if reaction.get("type", "emoji") == "emoji":
            for one in reaction.get("recent") or ():
                account, name = _sender(one)
                yield account, name, str(reaction.get("emoji") or "")


def _sticker(record: dict[str, Any]) -> str:
    return str(record.get("sticker_emoji") or "") if record.get("media_type") == "sticker" else ""


def _text(record: dict[str, Any]) -> str:
    text = record.get("text")
    if isinstance(text, str):
        return text
    parts = text if isinstance(text, list) else record.get("text_entities", ())
    return "".join(part if isinstance(part, str) else str(part["text"]) for part in parts)
