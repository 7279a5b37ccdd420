"""qq-chat-exporter's JSON: one chat a file, or a folder with `manifest.json` and the messages in `chunks/`.

The export says whose it is. Streams message by message. Does not decide what is worth keeping.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from training.archives.formats.chat_logs import MessageIds, file_title
from training.archives.formats.json_stream import JsonStream
from training.archives.formats.records import array_records, as_object, json_lines, json_stream, messages_of, to_utc
from training.archives.message import Kind, Mark, Message
from training.archives.source_tree import Tree

_SNIFFED = 1 << 14
_MANIFEST, _CHUNKS = "manifest.json", "chunks/"
_HEAD = re.compile(rb'^\s*\{\s*"(?:metadata|chatInfo)"\s*:\s*\{')
_CHAT = re.compile(rb'"chatInfo"\s*:\s*\{')
_OF_QQ = re.compile(rb'"self(?:Uid|Uin|Name)"\s*:|"peerUi[dn]"\s*:|QQ ?Chat ?Exporter', re.IGNORECASE)
_FILE = re.compile(r"^(?:friend|group|private)_(?P<peer>\d{5,12}|u_[\w-]+)_")
_PRIVATE = frozenset(("private", "friend", "c2c", "1", "temp"))
_KINDS: dict[str, Mark] = {"system": "service", "type_5": "service", "forward": "forward", "multi_forward": "forward"}
_STICKER = frozenset(("market_face", "marketface", "mface", "sticker"))
_NAMELESS = frozenset(("", "表情", "商城表情", "动画表情", "超级表情"))
_SHARED = frozenset(("forward", "multi_forward", "multiforward"))
_NOTICE = frozenset(("system", "gray_tip", "graytip", "notification"))
_SILENT = frozenset(("text", "at", "face", "reply"))
_PLACEHOLDER = re.compile(
    r"\[(?:图片|视频|语音|文件|表情|动画表情|商城表情|卡片消息|JSON消息|位置|合并转发|转发消息|小程序|音乐|红包|转账)"
    r"(?:(?:消息)?[:：][^\]\n]*)?\]"
)
_ANSWER = re.compile(r"^\[回复[^\]\n]*\]\s*")
_ID_LENGTH = 15
_MILLISECONDS = 1e11


class QQExporterReader:
    """Reads one exported chat."""

    name = "qq-exporter"
    accepts = "QQ chats from qq-chat-exporter (JSON)"

    def sniff(self, tree: Tree) -> bool:
        """Whether the file begins with the exporter's description of a chat, or the folder has one and chunks."""
        if tree.is_file:
            return _is_export(tree.head(tree.files()[0], _SNIFFED))
        return _MANIFEST in tree.files() and bool(_chunks(tree)) and _is_export(tree.head(_MANIFEST, _SNIFFED))

    def read(self, tree: Tree) -> Iterator[Message]:
        """Every record."""
        chat: Mapping[str, Any] = {}
        file = tree.files()[0] if tree.is_file else _MANIFEST
        with json_stream(tree, file) as stream:
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
    return bool(_HEAD.match(head) and _CHAT.search(head) and _OF_QQ.search(head))


def _chunks(tree: Tree) -> list[str]:
    """The files with messages, in their order."""
    return [name for name in tree.files(_CHUNKS) if name.lower().endswith(".jsonl")]


def _messages(tree: Tree, file: str, stream: JsonStream, converter: "_Converter") -> Iterator[Message]:
    yield from messages_of(tree, file, array_records(tree, file, stream, fence='"exportOptions"'), converter)


class _Converter:
    """Turns records into messages."""

    def __init__(self, chat: Mapping[str, Any], tree: Tree) -> None:
        title = file_title(tree.label)
        named = _FILE.match(title)
        self._own = {_known(chat.get("selfUid")), _known(chat.get("selfUin"))} - {""}
        self._name = str(chat.get("name") or "")
        peers = (chat.get("peerUin"), chat.get("peerUid"), named and named["peer"], self._name)
        self._chat = next(filter(None, map(_known, peers)), title)
        self._kind: Kind = "dm" if str(chat.get("type")).lower() in _PRIVATE else "group"
        self._zone = tree.zone
        self._ids = MessageIds()

    def __call__(self, record: Mapping[str, Any], origin: str) -> Message:
        sender = as_object(record.get("sender"))
        accounts = [one for one in (_known(sender.get("uin")), _known(sender.get("uid"))) if one]
        name = next((str(sender[key]) for key in ("groupCard", "nickname", "name", "remark") if sender.get(key)), "")
        account = accounts[0] if accounts else name
        sent_at = _time(record, self._zone)
        mark, text, answered = _content(record)
        number = next((one for one in map(_known, (record.get("id"), record.get("messageId"))) if one), "")
        return Message(
            id=number or self._ids.of(sent_at, account, text or mark),
            platform="qq",
            chat=self._chat,
            kind=self._kind,
            sender=account or "?",
            sender_name=name or account or "?",
            sent_at=sent_at,
            text=text,
            is_owner=bool(self._own.intersection(accounts)) if self._own else None,
            reply_to=answered,
            chat_name=self._name or self._chat,
            mark=mark,
            origin=origin,
        )


def _known(value: object) -> str:
    """An account or id as text; QQ writes 0 where it knows none."""
    text = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
    return "" if text == "0" else text


def _time(record: Mapping[str, Any], zone: ZoneInfo) -> datetime:
    """The time, which older exports write as text. Raises what is `MALFORMED`."""
    value = record.get("timestamp") or record["time"]
    if isinstance(value, str) and not value.isdecimal():
        return to_utc(value, zone)
    number = float(value)
    return datetime.fromtimestamp(number / 1000 if number > _MILLISECONDS else number, UTC)


def _content(record: Mapping[str, Any]) -> tuple[Mark, str, str | None]:
    """What a record is, its text, and the id of the message that it answers."""
    content = record.get("content")
    whole = as_object(content)
    elements = [as_object(one) for one in whole.get("elements") or () if isinstance(as_object(one).get("type"), str)]
    kinds = {str(one["type"]).lower() for one in elements}
    answered = _answered(as_object(whole.get("reply")))
    for one in elements:
        if str(one["type"]).lower() == "reply":
            answered = _answered(as_object(one.get("data"))) or answered
    if elements:
        text = "".join(map(_shown, elements)).strip()
        has_more = bool(kinds - _SILENT)
        if not text and (names := "".join(map(_sticker, elements))):
            return _mark(record, kinds - _STICKER, has_words=True, has_more=True), names, answered
    else:
        written = content if isinstance(content, str) else str(whole.get("text") or "")
        text = _ANSWER.sub("", _PLACEHOLDER.sub("", written)).strip()
        has_more = bool(_PLACEHOLDER.search(written))
    return _mark(record, kinds, has_words=bool(text), has_more=has_more), text, answered


def _answered(reply: Mapping[str, Any]) -> str | None:
    """The id of a message answered; a short number is its place in the chat, not its id."""
    if number := _known(reply.get("referencedMessageId")):
        return number
    number = _known(reply.get("messageId"))
    return number if len(number) >= _ID_LENGTH else None


def _shown(element: Mapping[str, Any]) -> str:
    """What an element adds to the text."""
    data = as_object(element.get("data"))
    kind = str(element["type"]).lower()
    if kind in ("text", *_NOTICE):
        return str(data.get("text") or data.get("content") or "")
    if kind == "at":
        name = str(data.get("name") or data.get("text") or data.get("uin") or "")
        return name if name.startswith("@") or not name else f"@{name}"
    return str(data.get("name") or "") if kind == "face" else ""


def _sticker(element: Mapping[str, Any]) -> str:
    """What a sticker says, as QQ writes it: `[害羞]`."""
    data = as_object(element.get("data"))
    name = str(data.get("name") or data.get("summary") or "").strip("[] \n")
    return "" if str(element["type"]).lower() not in _STICKER or name in _NAMELESS else f"[{name}]"


def _mark(record: Mapping[str, Any], kinds: set[str], *, has_words: bool, has_more: bool) -> Mark:
    if record.get("recalled"):
        return "deleted"
    of_type = _KINDS.get(str(record.get("type") or record.get("messageType") or "").lower(), "")
    if record.get("system") or record.get("isSystemMessage") or kinds & _NOTICE:
        return "service"
    if of_type or kinds & _SHARED:
        return of_type or "forward"
    # What is written beside a sticker is the writer's own.
    if kinds and kinds <= _STICKER | _SILENT and kinds & _STICKER:
        return "" if has_words else "sticker"
    return "media" if has_more else ""
