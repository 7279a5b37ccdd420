"""Signal's own export of chats as plain text: main.jsonl, one frame of the app's backup format a line.

People and chats are told before what refers to them, so one pass is enough. A message is known by who sent it when,
which is how quotes name what they answer. Judges nothing.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from doppel.i18n import tr
from training.archives.formats.reactions import reactions_to
from training.archives.formats.records import MALFORMED, as_object, json_lines, messages_of
from training.archives.message import Kind, Mark, Message
from training.archives.source_tree import Tree

_HEAD = re.compile(
    rb'\s*\{(?:[^\n]{0,400}"backupTimeMs"\s*:|\s*"account"\s*:\s*\{[^\n]{0,400}"(?:profileKey|givenName)"\s*:)'
)
_OWNER = "Me"
_MENTION = "\ufffc"
_MEDIA = ("contactMessage", "viewOnceMessage", "giftBadge", "paymentNotification", "poll")


class _Person(msgspec.Struct, frozen=True):
    """Somebody or a group: an account, a name, and what a chat with them is."""

    account: str
    name: str
    kind: Kind = "dm"
    is_owner: bool = False
    is_bot: bool = False


class SignalFramesReader:
    """Reads one main.jsonl."""

    name = "signal-desktop"
    accepts = "Signal's own plain-text export (its folder or main.jsonl)"

    def sniff(self, tree: Tree) -> bool:
        """Whether the file begins like a backup in plain text."""
        return tree.is_file and bool(_HEAD.match(tree.head(tree.files()[0]).removeprefix(b"\xef\xbb\xbf")))

    def read(self, tree: Tree) -> Iterator[Message]:
        """Every item of every chat."""
        file = tree.files()[0]
        backup = _Backup(tree, file)
        yield from messages_of(tree, file, backup.items(), backup.message, backup.reactions)


class _Backup:
    """Who and what the frames until now have told of."""

    def __init__(self, tree: Tree, file: str) -> None:
        self._tree = tree
        self._file = file
        self._owner = _OWNER
        self._people: dict[str, _Person] = {}
        self._mentioned: dict[str, str] = {}
        self._chats: dict[str, _Person] = {}

    def items(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """The items of chats; what other frames tell is learned on the way."""
        for number, frame in json_lines(self._tree, self._file):
            record = as_object(frame)
            if "chatItem" in record:
                yield number, record["chatItem"]
                continue
            try:
                self._learn(record)
            except MALFORMED as error:
                self._tree.bad(self._file, tr("record {number}", number=number), error)

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
            return self._me()
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
            self._mentioned[account] = name
            return _Person(account, name)
        return _Person(number, "Signal" if "releaseNotes" in recipient else number, is_bot="releaseNotes" in recipient)

    def _me(self) -> _Person:
        return _Person(_OWNER, self._owner, is_owner=True)

    def message(self, item: Mapping[str, Any], origin: str) -> Message:
        """An item of a chat. Of one that was edited the last text, at the time of the first."""
        chat = self._chats[str(item["chatId"])]
        author = self._people[str(item["authorId"])]
        revisions = item.get("revisions") or [item]
        sent = str(as_object(revisions[0]).get("dateSent") or item["dateSent"])
        mark, text = self._content(item)
        is_own = author.is_owner or "outgoing" in item
        sender = self._me() if is_own else author
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
            reply_to=self._answered(as_object(as_object(item.get("standardMessage")).get("quote"))),
            chat_name=chat.name,
            mark="bot" if chat.is_bot and not mark else mark,
            origin=origin,
        )

    def reactions(self, item: Mapping[str, Any], message: Message) -> Iterator[Message]:
        """What people put to an item, if it is one that they can."""
        content = next((as_object(value) for key, value in item.items() if key.endswith(("Message", "poll"))), {})
        people = [(self._people[str(one["authorId"])], str(one["emoji"])) for one in content.get("reactions") or ()]
        accounts = {person.account for person, _ in people if person.is_owner}
        found = [(person.account, person.name, emoji) for person, emoji in people]
        yield from reactions_to(message, found, lambda account: account in accounts)

    def _content(self, item: Mapping[str, Any]) -> tuple[Mark, str]:
        if "standardMessage" in item:
            said = item["standardMessage"]
            return "media" if said.get("attachments") else "", self._text(as_object(said.get("text")))
        if "stickerMessage" in item:  # a sticker that stands for an emoji says that
            emoji = as_object(item["stickerMessage"].get("sticker")).get("emoji")
            return ("media", str(emoji)) if emoji else ("sticker", "")
        if "directStoryReplyMessage" in item:
            reply = item["directStoryReplyMessage"]
            words = as_object(as_object(reply.get("textReply")).get("text"))
            return "", str(reply.get("emoji") or "") or self._text(words)
        if "remoteDeletedMessage" in item:
            return "deleted", ""
        return ("media" if any(key in item for key in _MEDIA) else "service"), ""

    def _text(self, text: Mapping[str, Any]) -> str:
        """The words, with names where somebody is mentioned: those places count the halves of UTF-16."""
        body = str(text.get("body") or "")
        if _MENTION not in body:
            return body
        halves = body.encode("utf-16-le", "surrogatepass")
        for one in sorted(text.get("bodyRanges") or (), key=lambda one: -int(one.get("start") or 0)):
            if "mentionAci" in one:
                start = 2 * int(one.get("start") or 0)
                name = f"@{self._mentioned.get(str(one['mentionAci']), 'unknown')}"
                halves = halves[:start] + name.encode("utf-16-le") + halves[start + 2 * int(one.get("length") or 1) :]
        return halves.decode("utf-16-le", "replace")

    def _answered(self, quote: Mapping[str, Any]) -> str | None:
        if not quote.get("targetSentTimestamp"):
            return None
        author = self._people.get(str(quote.get("authorId")))
        return f"{quote['targetSentTimestamp']}-{author.account}" if author else None


def _name(record: Mapping[str, Any], *keys: str) -> str:
    return " ".join(str(record[key]) for key in keys if record.get(key)).strip()
