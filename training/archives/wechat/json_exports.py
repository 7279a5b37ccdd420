"""Reads WeChat JSON exports: chatlog's list of messages, and WeFlow's and echotrace's file of one chat.

All say which messages are the owner's. Avatars, which are large, are skipped.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from training.archives.formats.archive_records import array_records, as_id, as_object, messages_of, open_json
from training.archives.formats.chat_text import MessageIds, title_of
from training.archives.formats.json_stream import JsonStream
from training.archives.formats.timestamps import from_epoch, to_utc
from training.archives.message import Kind, Mark, Message
from training.archives.source_tree import SourceTree
from training.archives.wechat.csv_exports import (
    GROUP_SUFFIX,
    PLATFORM,
    VOICE_TYPE,
    mark_and_text,
    mark_of_type,
    mark_of_type_name,
)
from training.archives.wechat.message_text import QuoteResolver, is_voice, weflow_quote

_SNIFFED = 1 << 14
_LIST = re.compile(rb'^\s*(?:\[\s*\{|\{.{0,400}?"(?:messages|items|data)"\s*:\s*\[\s*\{)', re.DOTALL)
_LIST_KEYS = (b'"talker"', b'"isSelf"', b'"sender"', b'"type"', b'"time"')
_SESSION = re.compile(rb'^\s*\{.{0,2000}?"session"\s*:\s*\{', re.DOTALL)
_SESSION_KEYS = re.compile(rb'"wxid"\s*:')
_WEFLOW = re.compile(
    rb'^\s*\{\s*"weflow"\s*:|"session"\s*:\s*\{\s*"wxid"\s*:\s*"|"type"\s*:\s*"(?:'
    + "私聊|群聊".encode()
    + rb')"|"[^"]+@chatroom"'
)
_LIST_NAMES = ("messages", "items", "data")
_OFFICIAL_PREFIX = "gh_"
_ME = "我"
_MAX_QUOTABLE = 1 << 14
_UTC = ZoneInfo("UTC")


class WeChatJSONReader:
    """Reads one file."""

    name = "wechat-json"
    accepts = "WeChat chats as JSON (chatlog, WeFlow or echotrace)"

    def sniff(self, tree: SourceTree) -> bool:
        """Whether the file begins with chatlog's messages, or with a chat's session object."""
        if not tree.is_file:
            return False
        head = tree.head(tree.files()[0], _SNIFFED).removeprefix(b"\xef\xbb\xbf")
        return _is_list(head) or _is_session(head)

    def read(self, tree: SourceTree) -> Iterator[Message]:
        """Every record."""
        file = tree.files()[0]
        with open_json(tree, file) as stream:
            if stream.peek() == "[":
                yield from messages_of(tree, file, array_records(tree, file, stream), _ChatlogConverter())
            elif _is_session(tree.head(file, _SNIFFED).removeprefix(b"\xef\xbb\xbf")):
                yield from _session_messages(tree, file, stream)
            else:
                for key in stream.members():
                    if key in _LIST_NAMES and stream.peek() == "[":
                        yield from messages_of(tree, file, array_records(tree, file, stream), _ChatlogConverter())
                    else:
                        stream.skip()


def _is_list(head: bytes) -> bool:
    return bool(_LIST.match(head)) and all(key in head for key in _LIST_KEYS)


def _is_session(head: bytes) -> bool:
    return bool(_SESSION.match(head) and _SESSION_KEYS.search(head) and _WEFLOW.search(head))


def _session_messages(tree: SourceTree, file: str, stream: JsonStream) -> Iterator[Message]:
    session: Mapping[str, Any] = {}
    senders: dict[str, Mapping[str, Any]] = {}
    for key in stream.members():
        if key == "session" and stream.peek() == "{":
            session = stream.value()
        elif key == "senders" and stream.peek() == "[":
            people = (as_object(person) for _, person in array_records(tree, file, stream))
            senders = {str(person.get("senderID")): person for person in people}
        elif key == "messages" and stream.peek() == "[":
            converter = _SessionConverter(session, senders, title_of(tree.label))
            yield from messages_of(tree, file, array_records(tree, file, stream, stop_at='"avatars"'), converter)
        else:
            stream.skip()


class _ChatlogConverter:
    """Turns chatlog's records into messages. Quotes refer to messages by sender and time."""

    def __init__(self) -> None:
        self._ids = MessageIds()
        self._seen: dict[tuple[str, str, int], str] = {}

    def __call__(self, record: Mapping[str, Any], origin: str) -> Message:
        chat = str(record["talker"])
        is_own = bool(record.get("isSelf"))
        name = str(record.get("senderName") or "")
        sender = str(record.get("sender") or "") or (_ME if is_own else name or chat)
        kind: Kind = "group" if record.get("isChatRoom") or chat.endswith(GROUP_SUFFIX) else "dm"
        sent_at = _time(record["time"])
        form = int(record.get("type") or 0)
        mark = mark_of_type(form, int(record.get("subType") or 0))
        mark, text = _mark_and_text(sender, mark, record.get("content"), is_voice_message=form == VOICE_TYPE)
        number = as_id(record.get("seq")) or self._ids.next_id(sent_at, sender, text or mark)
        reply_to = self._find_quoted(chat, as_object(as_object(record.get("contents")).get("refer")))
        if len(self._seen) >= _MAX_QUOTABLE:
            del self._seen[next(iter(self._seen))]
        self._seen[chat, sender, int(sent_at.timestamp())] = number
        return Message(
            id=number,
            platform=PLATFORM,
            chat=chat,
            kind=kind,
            sender=sender,
            sender_name=name or sender,
            sent_at=sent_at,
            text=text,
            is_owner=None if mark in (Mark.SERVICE, Mark.DELETED) and not is_own else is_own,
            reply_to=reply_to,
            chat_name=str(record.get("talkerName") or "") or chat,
            mark=mark,
            origin=origin,
        )

    def _find_quoted(self, chat: str, quoted: Mapping[str, Any]) -> str | None:
        if number := as_id(quoted.get("seq")):
            return number
        try:
            second = int(_time(quoted["time"]).timestamp())
        except (KeyError, TypeError, ValueError, OverflowError, OSError):
            return None
        return self._seen.get((chat, str(quoted.get("sender")), second))


class _Person(msgspec.Struct, frozen=True):
    """The writer of a message."""

    account: str
    name: str


class _SessionConverter:
    """Turns WeFlow's and echotrace's records into messages."""

    def __init__(self, session: Mapping[str, Any], senders: Mapping[str, Mapping[str, Any]], title: str) -> None:
        account = str(session.get("wxid") or "")
        names = (session.get(key) for key in ("displayName", "remark", "nickname"))
        self._name = next((str(name) for name in names if name), account or title)
        self._chat = account or self._name
        is_group = str(session.get("type")) == "群聊" or account.endswith(GROUP_SUFFIX)
        self._kind: Kind = "group" if is_group else "dm"
        self._senders = senders
        self._quotes = QuoteResolver(_UTC)
        self._ids = MessageIds()

    def __call__(self, record: Mapping[str, Any], origin: str) -> Message:
        own = record.get("isSend")
        is_owner = None if own is None else bool(int(own))
        person = self._person(record, is_own=is_owner)
        sent_at = _time(record["createTime"])
        form, content = str(record.get("type") or ""), record.get("content")
        mark, text = _mark_and_text(person.account, mark_of_type_name(form), content, is_voice_message=is_voice(form))
        quote = weflow_quote(record, content) if isinstance(content, str) else None
        caption = record.get("emojiCaption")
        if mark == Mark.STICKER and isinstance(caption, str) and (caption := caption.strip("[] \n")):
            mark, text = Mark.MEDIA, f"[{caption}]"  # in the form of WeChat's own emoticons
        number = as_id(record.get("platformMessageId"))
        message = Message(
            id=number or self._ids.next_id(sent_at, person.account, text or mark),
            platform=PLATFORM,
            chat=self._chat,
            kind=self._kind,
            sender=person.account,
            sender_name=person.name,
            sent_at=sent_at,
            text=text,
            is_owner=is_owner,
            reply_to=as_id(record.get("replyToMessageId")) or self._quotes.find(self._chat, quote),
            chat_name=self._name,
            mark=mark,
            origin=origin,
        )
        self._quotes.add(message)
        return message

    def _person(self, record: Mapping[str, Any], *, is_own: bool | None) -> _Person:
        """The writer. In a file with a list of people, a message has only a number."""
        listed = as_object(self._senders.get(str(record.get("senderID"))))
        account = str(record.get("senderUsername") or listed.get("wxid") or "")
        names = (
            *(record.get(key) for key in ("senderDisplayName", "senderRemark", "senderNickname")),
            *(listed.get(key) for key in ("groupNickname", "displayName", "nickname")),
        )
        name = next((str(name) for name in names if name and str(name).strip()), "")
        account = account or name or (_ME if is_own else self._chat)
        return _Person(account, name or account)


def _mark_and_text(sender: str, mark: Mark, content: object, *, is_voice_message: bool) -> tuple[Mark, str]:
    """Mark and text; messages of official accounts are from bots."""
    mark, text = mark_and_text(mark, content if isinstance(content, str) else "", is_voice_message=is_voice_message)
    return (Mark.BOT if sender.startswith(_OFFICIAL_PREFIX) and not mark else mark), text


def _time(value: object) -> datetime:
    """Seconds or milliseconds since 1970, or ISO 8601 with its zone. Raises ValueError or TypeError."""
    if isinstance(value, str) and not value.isdecimal():
        return to_utc(value, _UTC)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TypeError(value)
    return from_epoch(float(value))
