"""Reads Telegram Desktop's `result.json`: one chat, or a whole account.

Holds one message in memory at a time and, for groups with topics, the topic of every message.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import UNSET

from doppel.i18n import tr
from training.archives.formats.archive_records import RECORD_ERRORS, as_object
from training.archives.formats.json_outline import outline, sampled_objects
from training.archives.formats.json_stream import DamagedJSON, JsonStream, RepairedEscapes
from training.archives.formats.local_times import LocalClock
from training.archives.formats.reactions import Reaction, reactions_to
from training.archives.formats.text_lines import utf8
from training.archives.message import Kind, Mark, Message
from training.archives.source_tree import SourceTree
from training.archives.telegram_accounts import Survey, has_old_accounts, plain_account, plain_peer, survey_export

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
_CHAT_TYPE = re.compile(rb'"type"\s*:\s*"(?:' + "|".join(_TYPES).encode() + rb')"')
_MESSAGES = re.compile(rb'"messages"\s*:\s*\[')
_ACCOUNT = re.compile(rb'"(?:personal_information|chats|left_chats)"\s*:\s*\{')

# Enum members are looked up slowly in Python 3.11, and this is done for every message.
_NO_MARK, _BOT, _FORWARD = Mark.NONE, Mark.BOT, Mark.FORWARD
_MEDIA, _SERVICE, _STICKER = Mark.MEDIA, Mark.SERVICE, Mark.STICKER


class _Record(msgspec.Struct, gc=False):
    """The fields of a record that are used; missing ones are `UNSET`."""

    text: str | list[Any]
    id: Any = UNSET
    type: Any = UNSET
    date: Any = UNSET
    date_unixtime: Any = UNSET
    from_: Any = msgspec.field(default=UNSET, name="from")
    from_id: Any = UNSET
    actor: Any = UNSET
    actor_id: Any = UNSET
    action: Any = UNSET
    reply_to_message_id: Any = UNSET
    reply_to_peer_id: Any = UNSET
    reactions: Any = UNSET
    via_bot: Any = UNSET
    forwarded_from: Any = UNSET
    forwarded_from_id: Any = UNSET
    saved_from: Any = UNSET
    photo: Any = UNSET
    file: Any = UNSET
    media_type: Any = UNSET
    sticker_emoji: Any = UNSET
    contact_information: Any = UNSET
    location_information: Any = UNSET
    place_name: Any = UNSET
    poll: Any = UNSET
    game_title: Any = UNSET
    invoice_information: Any = UNSET
    todo_list: Any = UNSET
    giveaway_information: Any = UNSET


_RECORD_TYPES = frozenset(("message", "service", "unsupported"))
_RECORD_KEYS = frozenset(("from_id", "actor_id", "date_unixtime", "text_entities"))

_FIELDS = tuple(zip(_Record.__struct_fields__, _Record.__struct_encode_fields__, strict=True))


class TelegramReader:
    """Reads one `result.json`. It has the owner's id when the whole account was exported."""

    name = "telegram"
    accepts = "Telegram Desktop export, JSON format (result.json)"

    def sniff(self, tree: SourceTree) -> bool:
        """Whether the file begins like either form of the export."""
        if not tree.is_file:
            return False
        head = tree.head(tree.files()[0]).removeprefix(b"\xef\xbb\xbf").lstrip()
        if not head.startswith(b"{"):
            return False
        one_chat = _CHAT_TYPE.search(head) and _MESSAGES.search(head)
        return bool(one_chat or _ACCOUNT.search(head)) or _is_export(as_object(outline(tree, tree.files()[0])))

    def read(self, tree: SourceTree) -> Iterator[Message]:
        """Every record of every chat, service records included."""
        name = tree.files()[0]
        with tree.open(name) as file:
            stream = JsonStream(RepairedEscapes(utf8(file)))
            try:
                yield from _Export(tree, name, stream).read({})
            except DamagedJSON as damage:
                if not stream.gave_up:
                    tree.report_bad(name, tr("end of file"), str(damage))


def _is_export(content: Mapping[str, Any]) -> bool:
    """Whether an outline is that of an account or of a chat."""
    if any(isinstance(as_object(content.get(key)).get("list"), list) for key in ("chats", "left_chats")):
        return True
    records = sampled_objects(content.get("messages"))
    if content.get("type") in _TYPES:
        return isinstance(content.get("messages"), list)
    return any(
        record.get("type") in _RECORD_TYPES and {"id", "date"} <= record.keys() and record.keys() & _RECORD_KEYS
        for record in records
    )


class _Export:
    """One file, and what was read of it: whose it is, and how it writes accounts."""

    def __init__(self, tree: SourceTree, file: str, stream: JsonStream) -> None:
        self.tree = tree
        self.file = file
        self.stream = stream
        self.own_id: str | None = None
        self.has_old_accounts = False
        self.survey: Survey | None = None
        self.chats_begun = 0

    def read(self, header: dict[str, Any]) -> Iterator[Message]:
        """Reads an object that is a chat or an account, which its keys tell."""
        stream = self.stream
        for key in stream.members():
            if key in ("name", "type", "id"):
                header[key] = stream.value()
            elif key == "messages" and stream.peek() == "[":
                if not header.keys() >= {"type", "id"}:
                    header = self._header() or header
                self.chats_begun += 1
                yield from _Chat(self, header).read()
            elif key in ("chats", "left_chats") and stream.peek() == "{":
                if self.own_id is None:
                    self.own_id = survey_export(self.tree, self.file, stop_at_owner=True).own_id
                yield from self._chats()
            elif key == "personal_information":
                own_id = as_object(stream.value()).get("user_id")
                self.own_id = str(own_id) if own_id else self.own_id
            else:
                stream.skip()

    def _header(self) -> dict[str, Any] | None:
        """What the file says about the chat whose messages come next, if it says so only behind them."""
        if self.survey is None:
            self.survey = survey_export(self.tree, self.file)
        headers = self.survey.headers
        return headers[self.chats_begun] if self.chats_begun < len(headers) else None

    def _chats(self) -> Iterator[Message]:
        for key in self.stream.members():
            if key == "list" and self.stream.peek() == "[":
                for _ in self.stream.elements():
                    yield from self.read({})
            else:
                self.stream.skip()


class _Chat:
    """Turns the records of one chat into messages."""

    def __init__(self, export: _Export, header: dict[str, Any]) -> None:
        self.export = export
        self.type = str(header.get("type") or "")
        family, self.kind = _TYPES.get(self.type, ("chat", "group"))
        self.family = family
        self.peer = str(header.get("id", ""))
        self.id = f"{family}{self.peer}"
        self.own_id = export.own_id
        self.is_version_known = False
        self.name = str(header.get("name") or self.type.replace("_", " "))
        self.last_time = datetime.fromtimestamp(0, UTC)
        self.clock = LocalClock(export.tree.zone)
        self.topics: dict[str, str] = {}
        self.writers: dict[tuple[str, str], tuple[str, str, bool | None]] = {}

    def read(self) -> Iterator[Message]:
        """Yields the messages of the chat; reports malformed records."""
        tree, file = self.export.tree, self.export.file

        def report_bad(number: int, reason: str | Exception) -> None:
            tree.report_bad(file, tr("{chat}, message {number}", chat=self.name, number=number), reason)

        for number, value in self.export.stream.records(report_bad, stop_at='"messages"', shape=_Record):
            try:
                record = value if type(value) is _Record else _as_record(value)
                if not self.is_version_known:
                    self._adopt_version(record)
                message = self._message(record, f"{file}:{number}")
            except RECORD_ERRORS as error:
                report_bad(number, error)
                continue
            yield message
            if record.reactions is UNSET:
                continue
            try:
                reactions = list(reactions_to(message, _reactions(record), self._is_owner))
            except RECORD_ERRORS as error:
                report_bad(number, error)
            else:
                yield from reactions

    def _adopt_version(self, first: _Record) -> None:
        """Writes the ids of the chat and of the owner as newer exports do, if this one is older."""
        self.is_version_known = True
        account = first.actor_id if first.from_id is UNSET else first.from_id
        if has_old_accounts(account, first.date_unixtime):
            self.export.has_old_accounts = True
        if self.export.has_old_accounts:
            self.peer = plain_peer(self.peer)
            self.id = f"{self.family}{self.peer}"
            self.own_id = plain_peer(self.own_id) if self.own_id else None

    def _message(self, record: _Record, origin: str) -> Message:
        if record.id is UNSET:
            raise KeyError("id")
        message_id = str(record.id)
        self.last_time = sent_at = self._time(record)
        sender, sender_name, is_owner = self._writer(record)
        reply_to = record.reply_to_message_id
        if reply_to is UNSET or reply_to is None:
            reply_to = None
        else:
            # An id in another chat may be the id of another message in this one.
            reply_to = None if record.reply_to_peer_id is not UNSET else str(reply_to)
        chat = self.id
        if record.action == "topic_created":
            self.topics[message_id] = message_id
        if self.topics and (topic := self.topics.get(message_id if reply_to is None else reply_to)):
            self.topics[message_id] = topic
            chat = f"{chat}/{topic}"
            reply_to = None if reply_to == topic else reply_to
        text = record.text if type(record.text) is str else _join_text(record.text)
        return Message(
            id=message_id,
            platform="telegram",
            chat=chat,
            kind=self.kind,
            sender=sender,
            sender_name=sender_name,
            sent_at=sent_at,
            text=text or _sticker_emoji(record),
            is_owner=is_owner,
            reply_to=reply_to,
            chat_name=self.name,
            mark=self._mark(record),
            is_one_sided=self.type == "saved_messages",
            origin=origin,
        )

    def _writer(self, record: _Record) -> tuple[str, str, bool | None]:
        """Account, name, and whether it is the owner. Cached, so that all messages of a writer share the strings."""
        account, name = record.from_id, record.from_
        if type(account) is not str or type(name) is not str:
            actor_id = record.actor_id
            if has_old_accounts(account, record.date_unixtime):
                account = plain_account(account)
            elif has_old_accounts(actor_id, record.date_unixtime):
                actor_id = plain_account(actor_id)
            sender, sender_name = _sender(account, name, actor_id, record.actor)
            return sender, sender_name, self._is_owner(sender)
        if (writer := self.writers.get((account, name))) is None:
            sender, sender_name = _sender(account, name, record.actor_id, record.actor)
            writer = self.writers[account, name] = (sender, sender_name, self._is_owner(sender))
        return writer

    def _time(self, record: _Record) -> datetime:
        if record.date_unixtime is not UNSET and record.date_unixtime is not None:
            return datetime.fromtimestamp(int(record.date_unixtime), UTC)
        if record.type == "unsupported":  # has only an id
            return self.last_time
        if record.date is UNSET:
            raise KeyError("date")
        # Exports before 2022 have only the local time.
        return self.clock.read(datetime.fromisoformat(record.date))[1]

    def _is_owner(self, sender: str) -> bool | None:
        """Known in the export of a whole account; in a private chat, the other person is known by the chat's id."""
        if sender == self.own_id or (self.type == "saved_messages" and sender == self.peer):
            return True
        if sender.startswith("channel"):  # may be the owner's channel
            return None
        if self.own_id is not None or (self.kind == "dm" and sender == self.peer):
            return False
        return None

    def _mark(self, record: _Record) -> Mark:
        if record.type != "message":
            return _SERVICE
        if self.type in ("bot_chat", "verify_codes") or record.via_bot is not UNSET:
            return _BOT
        if (
            record.forwarded_from is not UNSET
            or record.forwarded_from_id is not UNSET
            or record.saved_from is not UNSET
        ):
            return _FORWARD
        if _has_media(record):
            # The emoji of a sticker counts as its text, like the caption of a picture.
            return _STICKER if record.media_type == "sticker" and not _sticker_emoji(record) else _MEDIA
        return _NO_MARK


def _as_record(value: Any) -> _Record:
    """Makes a record of a value that does not fit the struct. Raises TypeError if it is not an object."""
    value["id"]
    fields = {field: value[name] for field, name in _FIELDS if name in value}
    if not isinstance(value.get("text"), str | list):
        fields["text"] = value.get("text_entities", ())
    return _Record(**fields)


def _sender(account: Any, name: Any, actor_id: Any, actor: Any) -> tuple[str, str]:
    """Account id and display name. Users are plain numbers, as in the Bot API. A deleted account has no name."""
    if account is UNSET:
        account = None if actor_id is UNSET else actor_id
    name = name or actor or ""
    account = str(account) if account is not None else str(name)
    return account.removeprefix("user"), str(name)


def _has_media(record: _Record) -> bool:
    return not (
        record.photo is UNSET
        and record.file is UNSET
        and record.media_type is UNSET
        and record.sticker_emoji is UNSET
        and record.contact_information is UNSET
        and record.location_information is UNSET
        and record.place_name is UNSET
        and record.poll is UNSET
        and record.game_title is UNSET
        and record.invoice_information is UNSET
        and record.todo_list is UNSET
        and record.giveaway_information is UNSET
    )


def _reactions(record: _Record) -> Iterator[Reaction]:
    """The reactions; in large groups the export names only the latest people."""
    for reaction in record.reactions or ():
        if reaction.get("type", "emoji") == "emoji":
            for person in reaction.get("recent") or ():
                account, name = _sender(
                    person.get("from_id", UNSET), person.get("from"), person.get("actor_id"), person.get("actor")
                )
                yield account, name, str(reaction.get("emoji") or "")


def _sticker_emoji(record: _Record) -> str:
    return str(record.sticker_emoji or "") if record.media_type == "sticker" else ""


def _join_text(parts: Iterable[Any]) -> str:
    return "".join(part if isinstance(part, str) else str(part["text"]) for part in parts)
