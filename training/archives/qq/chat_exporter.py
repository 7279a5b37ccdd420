"""Reads qq-chat-exporter's JSON: a file for each chat, or a folder with `manifest.json` and messages in `chunks/`.

The export says who the owner is.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from training.archives.formats.archive_records import (
    array_records,
    as_id,
    as_object,
    json_lines,
    messages_of,
    open_json,
)
from training.archives.formats.chat_text import MessageIds, title_of
from training.archives.formats.json_stream import JsonStream
from training.archives.formats.local_times import LocalClock, local_time
from training.archives.formats.timestamps import from_epoch
from training.archives.message import Kind, Mark, Message
from training.archives.source_tree import SourceTree

_SNIFFED = 1 << 14
_MANIFEST, _CHUNKS = "manifest.json", "chunks/"
_HEAD = re.compile(rb'^\s*\{\s*"(?:metadata|chatInfo)"\s*:\s*\{')
_CHAT = re.compile(rb'"chatInfo"\s*:\s*\{')
_QQ_KEYS = re.compile(rb'"self(?:Uid|Uin|Name)"\s*:|"peerUi[dn]"\s*:|QQ ?Chat ?Exporter', re.IGNORECASE)
_FILE = re.compile(r"^(?:friend|group|private)_(?P<peer>\d{5,12}|u_[\w-]+)_")
_PRIVATE_TYPES = frozenset(("private", "friend", "c2c", "1", "temp"))
_MARKS: dict[str, Mark] = {
    "system": Mark.SERVICE,
    "type_5": Mark.SERVICE,
    "forward": Mark.FORWARD,
    "multi_forward": Mark.FORWARD,
}
_STICKER_TYPES = frozenset(("market_face", "marketface", "mface", "sticker"))
_UNNAMED_STICKERS = frozenset(("", "表情", "商城表情", "动画表情", "超级表情"))
_FORWARDS = frozenset(("forward", "multi_forward", "multiforward"))
_NOTICE_TYPES = frozenset(("system", "gray_tip", "graytip", "notification"))
_TEXT_TYPES = frozenset(("text", "at", "face", "reply"))
_PLACEHOLDER = re.compile(
    r"\[(?:图片|视频|语音|文件|表情|动画表情|商城表情|卡片消息|JSON消息|位置|合并转发|转发消息|小程序|音乐|红包|转账)"
    r"(?:(?:消息)?[:：][^\]\n]*)?\]"
)
_REPLY_PREFIX = re.compile(r"^\[回复[^\]\n]*\]\s*")
_MIN_ID_LENGTH = 15


class QQExporterReader:
    """Reads one exported chat."""

    name = "qq-exporter"
    accepts = "QQ chats from qq-chat-exporter (JSON)"

    def sniff(self, tree: SourceTree) -> bool:
        """Whether the file begins like the exporter's, or the folder has its manifest and chunks."""
        if tree.is_file:
            return _is_export(tree.head(tree.files()[0], _SNIFFED))
        return _MANIFEST in tree.files() and bool(_chunks(tree)) and _is_export(tree.head(_MANIFEST, _SNIFFED))

    def read(self, tree: SourceTree) -> Iterator[Message]:
        """Every record."""
        chat: Mapping[str, Any] = {}
        file = tree.files()[0] if tree.is_file else _MANIFEST
        with open_json(tree, file) as stream:
            for key in stream.members():
                if key == "chatInfo" and stream.peek() == "{":
                    chat = stream.value()
                elif key == "messages" and stream.peek() == "[":
                    yield from _messages(tree, file, stream, _Converter(chat, tree))
                else:
                    stream.skip()
        if not tree.is_file:
            converter = _Converter(chat, tree)
            for chunk in _chunks(tree):
                yield from messages_of(tree, chunk, json_lines(tree, chunk), converter)


def _is_export(head: bytes) -> bool:
    head = head.removeprefix(b"\xef\xbb\xbf")
    return bool(_HEAD.match(head) and _CHAT.search(head) and _QQ_KEYS.search(head))


def _chunks(tree: SourceTree) -> list[str]:
    """The files with messages, in order."""
    return [name for name in tree.files(_CHUNKS) if name.lower().endswith(".jsonl")]


def _messages(tree: SourceTree, file: str, stream: JsonStream, converter: "_Converter") -> Iterator[Message]:
    yield from messages_of(tree, file, array_records(tree, file, stream, stop_at='"exportOptions"'), converter)


class _Converter:
    """Turns records into messages."""

    def __init__(self, chat: Mapping[str, Any], tree: SourceTree) -> None:
        title = title_of(tree.label)
        named = _FILE.match(title)
        self._own = {as_id(chat.get("selfUid")), as_id(chat.get("selfUin"))} - {""}
        self._name = str(chat.get("name") or "")
        peers = (chat.get("peerUin"), chat.get("peerUid"), named and named["peer"], self._name)
        self._chat = next(filter(None, map(as_id, peers)), title)
        self._kind: Kind = "dm" if str(chat.get("type")).lower() in _PRIVATE_TYPES else "group"
        self._clock = LocalClock(tree.zone)
        self._ids = MessageIds()

    def __call__(self, record: Mapping[str, Any], origin: str) -> Message:
        sender = as_object(record.get("sender"))
        accounts = [account for account in (as_id(sender.get("uin")), as_id(sender.get("uid"))) if account]
        name = next((str(sender[key]) for key in ("groupCard", "nickname", "name", "remark") if sender.get(key)), "")
        account = accounts[0] if accounts else name
        sent_at = _time(record, self._clock)
        mark, text, reply_to = _content(record)
        number = as_id(record.get("id")) or as_id(record.get("messageId"))
        return Message(
            id=number or self._ids.next_id(sent_at, account, text or mark),
            platform="qq",
            chat=self._chat,
            kind=self._kind,
            sender=account or "?",
            sender_name=name or account or "?",
            sent_at=sent_at,
            text=text,
            is_owner=bool(self._own.intersection(accounts)) if self._own else None,
            reply_to=reply_to,
            chat_name=self._name or self._chat,
            mark=mark,
            origin=origin,
        )


def _time(record: Mapping[str, Any], clock: LocalClock) -> datetime:
    """The time, which older exports write as text. Raises any of RECORD_ERRORS."""
    value = record.get("timestamp") or record["time"]
    if isinstance(value, str) and not value.isdecimal():
        return clock.read(local_time(value))[1]
    return from_epoch(float(value))


def _content(record: Mapping[str, Any]) -> tuple[Mark, str, str | None]:
    """The mark of a record, its text, and the id of the message it replies to."""
    content = record.get("content")
    whole = as_object(content)
    elements = [
        element for element in map(as_object, whole.get("elements") or ()) if isinstance(element.get("type"), str)
    ]
    kinds = {str(element["type"]).lower() for element in elements}
    reply_to = _reply_target(as_object(whole.get("reply")))
    for element in elements:
        if str(element["type"]).lower() == "reply":
            reply_to = _reply_target(as_object(element.get("data"))) or reply_to
    if elements:
        text = "".join(map(_element_text, elements)).strip()
        has_more = bool(kinds - _TEXT_TYPES)
        if not text and (names := "".join(map(_sticker_text, elements))):
            return _mark(record, kinds - _STICKER_TYPES, has_words=True, has_more=True), names, reply_to
    else:
        written = content if isinstance(content, str) else str(whole.get("text") or "")
        text = _REPLY_PREFIX.sub("", _PLACEHOLDER.sub("", written)).strip()
        has_more = bool(_PLACEHOLDER.search(written))
    return _mark(record, kinds, has_words=bool(text), has_more=has_more), text, reply_to


def _reply_target(reply: Mapping[str, Any]) -> str | None:
    """The id of a message reply_to; a short number is its place in the chat, not its id."""
    if number := as_id(reply.get("referencedMessageId")):
        return number
    number = as_id(reply.get("messageId"))
    return number if len(number) >= _MIN_ID_LENGTH else None


def _element_text(element: Mapping[str, Any]) -> str:
    """The text of an element."""
    data = as_object(element.get("data"))
    kind = str(element["type"]).lower()
    if kind in ("text", *_NOTICE_TYPES):
        return str(data.get("text") or data.get("content") or "")
    if kind == "at":
        name = str(data.get("name") or data.get("text") or data.get("uin") or "")
        return name if name.startswith("@") or not name else f"@{name}"
    return str(data.get("name") or "") if kind == "face" else ""


def _sticker_text(element: Mapping[str, Any]) -> str:
    """The name of a sticker in QQ's form: `[害羞]`."""
    data = as_object(element.get("data"))
    name = str(data.get("name") or data.get("summary") or "").strip("[] \n")
    return "" if str(element["type"]).lower() not in _STICKER_TYPES or name in _UNNAMED_STICKERS else f"[{name}]"


def _mark(record: Mapping[str, Any], kinds: set[str], *, has_words: bool, has_more: bool) -> Mark:
    if record.get("recalled"):
        return Mark.DELETED
    of_type = _MARKS.get(str(record.get("type") or record.get("messageType") or "").lower(), Mark.NONE)
    if record.get("system") or record.get("isSystemMessage") or kinds & _NOTICE_TYPES:
        return Mark.SERVICE
    if of_type or kinds & _FORWARDS:
        return of_type or Mark.FORWARD
    # Text beside a sticker is the writer's own.
    if kinds and kinds <= _STICKER_TYPES | _TEXT_TYPES and kinds & _STICKER_TYPES:
        return Mark.NONE if has_words else Mark.STICKER
    return Mark.MEDIA if has_more else Mark.NONE
