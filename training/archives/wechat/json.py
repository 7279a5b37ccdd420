"""WeChat as JSON: chatlog's list of messages, and WeFlow's and echotrace's file of one chat.

Both say what the owner wrote. Streams message by message; pictures of people, which are huge, are passed over.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from training.archives.formats.chat_logs import MessageIds, file_title
from training.archives.formats.json_stream import JsonStream
from training.archives.formats.records import array_records, as_object, json_stream, messages_of, to_utc
from training.archives.message import Kind, Mark, Message
from training.archives.source_tree import Tree
from training.archives.wechat.message_text import Quotes, is_voice, told_from
from training.archives.wechat.tables import PLATFORM, ROOM, VOICE, mark_of, mark_of_number, said

_SNIFFED = 1 << 14
_LIST = re.compile(rb'^\s*(?:\[\s*\{|\{.{0,400}?"(?:messages|items|data)"\s*:\s*\[\s*\{)', re.DOTALL)
_LISTED = (b'"talker"', b'"isSelf"', b'"sender"', b'"type"', b'"time"')
_SESSION = re.compile(rb'^\s*\{.{0,2000}?"session"\s*:\s*\{', re.DOTALL)
_OF_SESSION = re.compile(rb'"wxid"\s*:')
_WEFLOW = re.compile(
    rb'^\s*\{\s*"weflow"\s*:|"session"\s*:\s*\{\s*"wxid"\s*:\s*"|"type"\s*:\s*"(?:'
    + "私聊|群聊".encode()
    + rb')"|"[^"]+@chatroom"'
)
_LISTS = ("messages", "items", "data")
_OFFICIAL = "gh_"
_ME = "我"
_REMEMBERED = 1 << 14
_MILLISECONDS = 1e11
_UTC = ZoneInfo("UTC")


class WeChatJSONReader:
    """Reads one file."""

    name = "wechat-json"
    accepts = "WeChat chats as JSON (chatlog, WeFlow or echotrace)"

    def sniff(self, tree: Tree) -> bool:
        """Whether the file begins with chatlog's messages, or with the description of a chat."""
        if not tree.is_file:
            return False
        head = tree.head(tree.files()[0], _SNIFFED).removeprefix(b"\xef\xbb\xbf")
        return _is_list(head) or _is_session(head)

    def read(self, tree: Tree) -> Iterator[Message]:
        """Every record."""
        file = tree.files()[0]
        with json_stream(tree, file) as stream:
            if stream.peek() == "[":
                yield from messages_of(tree, file, array_records(tree, file, stream), _Listed())
            elif _is_session(tree.head(file, _SNIFFED).removeprefix(b"\xef\xbb\xbf")):
                yield from _session_messages(tree, file, stream)
            else:
                for key in stream.members():
                    if key in _LISTS and stream.peek() == "[":
                        yield from messages_of(tree, file, array_records(tree, file, stream), _Listed())
                    else:
                        stream.skip()


def _is_list(head: bytes) -> bool:
    return bool(_LIST.match(head)) and all(key in head for key in _LISTED)


def _is_session(head: bytes) -> bool:
    return bool(_SESSION.match(head) and _OF_SESSION.search(head) and _WEFLOW.search(head))


def _session_messages(tree: Tree, file: str, stream: JsonStream) -> Iterator[Message]:
    session: Mapping[str, Any] = {}
    senders: dict[str, Mapping[str, Any]] = {}
    for key in stream.members():
        if key == "session" and stream.peek() == "{":
            session = stream.value()
        elif key == "senders" and stream.peek() == "[":
            people = (as_object(one) for _, one in array_records(tree, file, stream))
            senders = {str(one.get("senderID")): one for one in people}
        elif key == "messages" and stream.peek() == "[":
            converter = _OfSession(session, senders, file_title(tree.label))
            yield from messages_of(tree, file, array_records(tree, file, stream, fence='"avatars"'), converter)
        else:
            stream.skip()


class _Listed:
    """Turns chatlog's records into messages. What is quoted it names by sender and second."""

    def __init__(self) -> None:
        self._ids = MessageIds()
        self._seen: dict[tuple[str, str, int], str] = {}

    def __call__(self, record: Mapping[str, Any], origin: str) -> Message:
        chat = str(record["talker"])
        is_own = bool(record.get("isSelf"))
        name = str(record.get("senderName") or "")
        sender = str(record.get("sender") or "") or (_ME if is_own else name or chat)
        kind: Kind = "group" if record.get("isChatRoom") or chat.endswith(ROOM) else "dm"
        sent_at = _time(record["time"])
        form = int(record.get("type") or 0)
        mark = mark_of_number(form, int(record.get("subType") or 0))
        mark, text = _said(sender, mark, record.get("content"), spoken=form == VOICE)
        number = _known(record.get("seq")) or self._ids.of(sent_at, sender, text or mark)
        answered = self._answered(chat, as_object(as_object(record.get("contents")).get("refer")))
        if len(self._seen) >= _REMEMBERED:
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
            is_owner=None if mark in ("service", "deleted") and not is_own else is_own,
            reply_to=answered,
            chat_name=str(record.get("talkerName") or "") or chat,
            mark=mark,
            origin=origin,
        )

    def _answered(self, chat: str, quoted: Mapping[str, Any]) -> str | None:
        if number := _known(quoted.get("seq")):
            return number
        try:
            second = int(_time(quoted["time"]).timestamp())
        except (KeyError, TypeError, ValueError, OverflowError, OSError):
            return None
        return self._seen.get((chat, str(quoted.get("sender")), second))


class _Person(msgspec.Struct, frozen=True):
    """Who wrote a message."""

    account: str
    name: str


class _OfSession:
    """Turns WeFlow's and echotrace's records into messages."""

    def __init__(self, session: Mapping[str, Any], senders: Mapping[str, Mapping[str, Any]], title: str) -> None:
        account = str(session.get("wxid") or "")
        names = (session.get(key) for key in ("displayName", "remark", "nickname"))
        self._name = next((str(name) for name in names if name), account or title)
        self._chat = account or self._name
        is_group = str(session.get("type")) == "群聊" or account.endswith(ROOM)
        self._kind: Kind = "group" if is_group else "dm"
        self._senders = senders
        self._quotes = Quotes(_UTC)
        self._ids = MessageIds()

    def __call__(self, record: Mapping[str, Any], origin: str) -> Message:
        own = record.get("isSend")
        is_owner = None if own is None else bool(int(own))
        person = self._person(record, is_own=is_owner)
        sent_at = _time(record["createTime"])
        form, content = str(record.get("type") or ""), record.get("content")
        mark, text = _said(person.account, mark_of(form), content, spoken=is_voice(form))
        quote = told_from(record, content) if isinstance(content, str) else None
        caption = record.get("emojiCaption")
        if mark == "sticker" and isinstance(caption, str) and (caption := caption.strip("[] \n")):
            mark, text = "media", f"[{caption}]"  # as WeChat writes its own small pictures
        number = _known(record.get("platformMessageId"))
        message = Message(
            id=number or self._ids.of(sent_at, person.account, text or mark),
            platform=PLATFORM,
            chat=self._chat,
            kind=self._kind,
            sender=person.account,
            sender_name=person.name,
            sent_at=sent_at,
            text=text,
            is_owner=is_owner,
            reply_to=_known(record.get("replyToMessageId")) or self._quotes.answered(self._chat, quote),
            chat_name=self._name,
            mark=mark,
            origin=origin,
        )
        self._quotes.remember(message)
        return message

    def _person(self, record: Mapping[str, Any], *, is_own: bool | None) -> _Person:
        """The writer; in a file with a list of people a message has only a number."""
        listed = as_object(self._senders.get(str(record.get("senderID"))))
        account = str(record.get("senderUsername") or listed.get("wxid") or "")
        names = (
            *(record.get(key) for key in ("senderDisplayName", "senderRemark", "senderNickname")),
            *(listed.get(key) for key in ("groupNickname", "displayName", "nickname")),
        )
        name = next((str(name) for name in names if name and str(name).strip()), "")
        account = account or name or (_ME if is_own else self._chat)
        return _Person(account, name or account)


def _said(sender: str, mark: Mark, content: object, *, spoken: bool) -> tuple[Mark, str]:
    """Mark and text; what an official account sends nobody wrote to anybody."""
    mark, text = said(mark, content if isinstance(content, str) else "", spoken=spoken)
    return ("bot" if sender.startswith(_OFFICIAL) and not mark else mark), text


def _known(value: object) -> str:
    """An id as text; both write 0 where there is none."""
    text = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
    return "" if text == "0" else text


def _time(value: object) -> datetime:
    """Seconds or milliseconds since 1970, or ISO 8601 with its zone. Raises ValueError or TypeError."""
    if isinstance(value, str) and not value.isdecimal():
        return to_utc(value, _UTC)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TypeError(value)
    number = float(value)
    return datetime.fromtimestamp(number / 1000 if number > _MILLISECONDS else number, UTC)
