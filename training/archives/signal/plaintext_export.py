"""Reads Signal's own plain-text export: main.jsonl, with one frame of the app's backup format a line.

People and chats come before the items that refer to them, so one pass is enough. Messages are identified by sender
and time, as quotes refer to them.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from doppel.i18n import tr
from training.archives.formats.archive_records import RECORD_ERRORS, as_object, json_lines, messages_of
from training.archives.formats.reactions import reactions_to
from training.archives.message import Kind, Mark, Message
from training.archives.source_tree import SourceTree

_HEAD = re.compile(
    rb'\s*\{(?:[^\n]{0,400}"backupTimeMs"\s*:|\s*"account"\s*:\s*\{[^\n]{0,400}"(?:profileKey|givenName)"\s*:)'
)
_OWNER = "Me"
_MENTION = "\ufffc"
_MEDIA = ("contactMessage", "viewOnceMessage", "giftBadge", "paymentNotification", "poll")


class _Person(msgspec.Struct, frozen=True):
    """A person or group: the account, the name, and the kind of a chat with them."""

    account: str
    name: str
    kind: Kind = "dm"
    is_owner: bool = False
    is_bot: bool = False


class SignalPlaintextReader:
    """Reads one main.jsonl."""

    name = "signal-desktop"
    accepts = "Signal's own plain-text export (its folder or main.jsonl)"

    def sniff(self, tree: SourceTree) -> bool:
        """Whether the file begins like a plain-text backup."""
        return tree.is_file and bool(_HEAD.match(tree.head(tree.files()[0]).removeprefix(b"\xef\xbb\xbf")))

    def read(self, tree: SourceTree) -> Iterator[Message]:
        """Every item of every chat."""
        file = tree.files()[0]
        backup = _Backup(tree, file)
        yield from messages_of(tree, file, backup.items(), backup.message, backup.reactions)


class _Backup:
    """The people and chats of the frames read so far."""

    def __init__(self, tree: SourceTree, file: str) -> None:
        self._tree = tree
        self._file = file
        self._owner = _OWNER
        self._people: dict[str, _Person] = {}
        self._names_by_account: dict[str, str] = {}
        self._chats: dict[str, _Person] = {}

    def items(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Yields the items of chats; learns people and chats from the other frames."""
        for number, frame in json_lines(self._tree, self._file):
            record = as_object(frame)
            if "chatItem" in record:
                yield number, record["chatItem"]
                continue
            try:
                self._learn(record)
            except RECORD_ERRORS as error:
                self._tree.report_bad(self._file, tr("record {number}", number=number), error)

    def _learn(self, frame: Mapping[str, Any]) -> None:
        if "account" in frame:
            self._owner = _name(frame["account"], "givenName", "familyName") or _OWNER
        elif "recipient" in frame:
            recipient = frame["recipient"]
            self._people[str(recipient["id"])] = self._person(recipient)
        elif "chat" in frame:
            chat = frame["chat"]
            self._chats[str(chat["id"])] = self._people[str(chat["recipientId"])]

    def _person(self, recipient: Mapping[str, Any]) -> _Person:
        number = f"recipient {recipient['id']}"
        if "self" in recipient:
            return self._owner_person()
        if "group" in recipient:
            group = recipient["group"]
            title = str(as_object(as_object(group.get("snapshot")).get("title")).get("title") or "")
            key = str(group.get("masterKey") or title or number)
            return _Person(f"group {hashlib.sha256(key.encode()).hexdigest()[:16]}", title or number, "group")
        if "contact" in recipient:
            contact = recipient["contact"]
            account = next(
                (str(contact[key]) for key in ("aci", "e164", "pni", "username") if contact.get(key)), number
            )
            names = (
                _name(as_object(contact.get("nickname")), "given", "family"),
                _name(contact, "systemGivenName", "systemFamilyName"),
                _name(contact, "profileGivenName", "profileFamilyName"),
                *(str(contact.get(key) or "") for key in ("username", "e164")),
            )
            name = next(filter(None, names), number)
            self._names_by_account[account] = name
            return _Person(account, name)
        return _Person(number, "Signal" if "releaseNotes" in recipient else number, is_bot="releaseNotes" in recipient)

    def _owner_person(self) -> _Person:
        return _Person(_OWNER, self._owner, is_owner=True)

    def message(self, item: Mapping[str, Any], origin: str) -> Message:
        """An item of a chat; an edited one has its last text and its first time."""
        chat = self._chats[str(item["chatId"])]
        author = self._people[str(item["authorId"])]
        revisions = item.get("revisions") or [item]
        sent = str(as_object(revisions[0]).get("dateSent") or item["dateSent"])
        mark, text = self._content(item)
        is_own = author.is_owner or "outgoing" in item
        sender = self._owner_person() if is_own else author
        return Message(
            id=f"{sent}-{sender.account}",
            platform="signal",
            chat=chat.account,
            kind=chat.kind,
            sender=sender.account,
            sender_name=sender.name,
            sent_at=datetime.fromtimestamp(int(sent) / 1000, UTC),
            text=text,
            is_owner=is_own,
            reply_to=self._reply_target(as_object(as_object(item.get("standardMessage")).get("quote"))),
            chat_name=chat.name,
            mark=Mark.BOT if chat.is_bot and not mark else mark,
            origin=origin,
        )

    def reactions(self, item: Mapping[str, Any], message: Message) -> Iterator[Message]:
        """The reactions to an item."""
        content = next((as_object(value) for key, value in item.items() if key.endswith(("Message", "poll"))), {})
        people = [
            (self._people[str(reaction["authorId"])], str(reaction["emoji"]))
            for reaction in content.get("reactions") or ()
        ]
        accounts = {person.account for person, _ in people if person.is_owner}
        reactions = [(person.account, person.name, emoji) for person, emoji in people]
        yield from reactions_to(message, reactions, lambda account: account in accounts)

    def _content(self, item: Mapping[str, Any]) -> tuple[Mark, str]:
        if "standardMessage" in item:
            content = item["standardMessage"]
            return Mark.MEDIA if content.get("attachments") else Mark.NONE, self._text(as_object(content.get("text")))
        if "stickerMessage" in item:  # its emoji counts as its text
            emoji = as_object(item["stickerMessage"].get("sticker")).get("emoji")
            return (Mark.MEDIA, str(emoji)) if emoji else (Mark.STICKER, "")
        if "directStoryReplyMessage" in item:
            reply = item["directStoryReplyMessage"]
            words = as_object(as_object(reply.get("textReply")).get("text"))
            return Mark.NONE, str(reply.get("emoji") or "") or self._text(words)
        if "remoteDeletedMessage" in item:
            return Mark.DELETED, ""
        return (Mark.MEDIA if any(key in item for key in _MEDIA) else Mark.SERVICE), ""

    def _text(self, text: Mapping[str, Any]) -> str:
        """The text with the names of mentioned people. Positions count UTF-16 code units."""
        body = str(text.get("body") or "")
        if _MENTION not in body:
            return body
        utf16 = body.encode("utf-16-le", "surrogatepass")
        for mention in sorted(text.get("bodyRanges") or (), key=lambda mention: -int(mention.get("start") or 0)):
            if "mentionAci" in mention:
                start = 2 * int(mention.get("start") or 0)
                name = f"@{self._names_by_account.get(str(mention['mentionAci']), 'unknown')}"
                utf16 = utf16[:start] + name.encode("utf-16-le") + utf16[start + 2 * int(mention.get("length") or 1) :]
        return utf16.decode("utf-16-le", "replace")

    def _reply_target(self, quote: Mapping[str, Any]) -> str | None:
        if not quote.get("targetSentTimestamp"):
            return None
        author = self._people.get(str(quote.get("authorId")))
        return f"{quote['targetSentTimestamp']}-{author.account}" if author else None


def _name(record: Mapping[str, Any], *keys: str) -> str:
    return " ".join(str(record[key]) for key in keys if record.get(key)).strip()
