"""Reads WeChat CSV exports: of PyWxDump and WeClone, of MemoTrace (all chats or one), and of chatlog.

Two passes: the first finds who writes in which chat, the second yields messages. MemoTrace's file of one chat and
chatlog's files do not say who the owner is. Replies are only recognizable by the quote in their text.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, time
from itertools import groupby
from operator import attrgetter

import msgspec

from doppel.i18n import tr
from training.archives.formats.archive_records import RECORD_ERRORS, messages_of
from training.archives.formats.chat_text import MessageIds, title_of
from training.archives.formats.csv_files import csv_columns, csv_rows
from training.archives.formats.local_times import (
    YEAR_FIRST,
    DatePlaces,
    DateSurvey,
    as_written,
    dates_do_not_fit,
    in_file_order,
    local_date,
    local_time,
)
from training.archives.formats.timestamps import from_epoch, hour_24
from training.archives.message import Kind, Mark, Message
from training.archives.source_tree import SourceTree
from training.archives.wechat.message_text import Quote, QuoteResolver, is_voice, split_quote, transcript

PLATFORM = "wechat"
GROUP_SUFFIX = "@chatroom"
"""Suffix of a group's account."""

_ME = "我"
_TEXT_TYPES = frozenset(
    (
        *("文本", "文本消息", "text", "文字", "粘贴的文本", "接龙", "接龙消息"),
        *("引用回复", "引用消息", "引用", "reply with quote", "带有引用的文本", "带有引用的文本消息"),
    )
)
_TYPE_MARKS: tuple[tuple[Mark, re.Pattern[str]], ...] = (
    (Mark.STICKER, re.compile(r"表情|sticker|emoji|gif")),
    (Mark.DELETED, re.compile(r"撤回|recall")),
    (
        Mark.SERVICE,
        re.compile(r"系统|system|拍一拍|pat pat|好友|add friend|加群|invite|群公告|announcement|通话|call|打招呼"),
    ),
    (Mark.FORWARD, re.compile(r"聊天记录|转发|forward")),
)
_MARKS_BY_TYPE: dict[int, Mark] = {
    1: Mark.NONE,
    47: Mark.STICKER,
    50: Mark.SERVICE,
    52: Mark.SERVICE,
    10000: Mark.SERVICE,
    10002: Mark.SERVICE,
}
_MARKS_BY_SUBTYPE: dict[int, Mark] = {
    8: Mark.STICKER,
    19: Mark.FORWARD,
    40: Mark.FORWARD,
    53: Mark.NONE,
    57: Mark.NONE,
    62: Mark.SERVICE,
    87: Mark.SERVICE,
}
_SHARE_TYPE = 49
VOICE_TYPE = 34
"""WeChat's type number of voice messages."""
_RECALLED = re.compile(r"撤回了?(?:一条消息|成员)|recalled a message")
# Placeholders that exports write as text; a title or an amount may follow.
_PLACEHOLDER = re.compile(
    r"\[(?P<what>链接|小程序|聊天记录|转账|转账收款|红包|红包卡片|文件|视频号|音乐|名片|位置|语音|语音通话|视频通话|通话|图片|视频"
    r"|表情包|动画表情|表情消息|表情|群公告|其他消息|消息|引用消息|系统消息|拍一拍|语音消息 - 转文字失败)\]"
)
_PLACEHOLDER_MARKS: dict[str, Mark] = {
    "聊天记录": Mark.FORWARD,
    **dict.fromkeys(("语音通话", "视频通话", "通话", "群公告", "系统消息", "拍一拍"), Mark.SERVICE),
    **dict.fromkeys(("表情包", "动画表情", "表情消息"), Mark.STICKER),
}
_RECALLED_ALONE = re.compile(
    r"(?:你|\"[^\"\n]{1,40}\"|“[^”\n]{1,40}”|「[^」\n]{1,40}」) ?撤回了一条消息(?: ?重新编辑)?"
)
_TIME = re.compile(
    r"(\d{1,4})[-/年.](\d{1,2})[-/月.](\d{1,4})日?[ T]+(\d{1,2}):(\d\d)(?::(\d\d))?(?:\.\d+)?(?: ?([AP]M))?",
    re.IGNORECASE,
)
"""Spreadsheets save such a time again in the order of their owner's country."""
_FIRST_YEAR = 2011
_PAGE_SUFFIX = re.compile(r"(?:_\d+_\d+|\s*\(\d+\))$")
_SERVER_ID = re.compile(r"\d{10,20}")


class _Row(msgspec.Struct, frozen=True):
    """A row of any of the files.

    Attributes:
        chat: account or name of the chat; empty if the whole file is one chat.
        is_owner: whether the owner wrote it; None if the file does not say.
        quote: the message it replies to.
        peers: names of the other person, if this is a private chat.
    """

    id: str
    chat: str
    sender: str
    time: str
    mark: Mark
    text: str
    is_owner: bool | None
    quote: Quote | None = None
    sender_name: str = ""
    chat_name: str = ""
    peers: frozenset[str] = frozenset()


class WeChatCSVReader:
    """Reads one CSV file."""

    name = "wechat"
    accepts = "WeChat chats as CSV (PyWxDump, WeClone, MemoTrace or chatlog)"

    def sniff(self, tree: SourceTree) -> bool:
        """Whether the columns are those of one of the exporters."""
        return tree.is_file and _row_parser(tree, tree.files()[0]) is not None

    def read(self, tree: SourceTree) -> Iterator[Message]:
        """Every row."""
        file = tree.files()[0]
        parse_row = _row_parser(tree, file)
        if parse_row is not None:
            converter = _Converter(tree, file, parse_row)
            if misfits := converter.dates.misfits(converter.places):
                tree.report_bad(file, tr("dates"), dates_do_not_fit(misfits))
                return
            messages = messages_of(tree, file, csv_rows(tree, file), converter)
            for _, chat in groupby(messages, key=attrgetter("chat")):
                in_order = in_file_order(
                    chat, attrgetter("sent_at"), tree.zone, is_newest_first=converter.is_newest_first
                )
                for message, _, sent_at in in_order:
                    yield msgspec.structs.replace(message, sent_at=sent_at)


class _Chat(msgspec.Struct):
    """What the first pass found about a chat: up to three writers, and up to three who are not the owner."""

    people: set[str] = msgspec.field(default_factory=set)
    others: set[str] = msgspec.field(default_factory=set)
    is_group: bool = False


class _Converter:
    """Turns rows into messages."""

    def __init__(self, tree: SourceTree, file: str, parse_row: Callable[[Mapping[str, str]], _Row]) -> None:
        self._parse_row = parse_row
        self._zone = tree.zone
        self._title = _PAGE_SUFFIX.sub("", title_of(tree.label))
        self._ids = MessageIds()
        self._quotes = QuoteResolver(tree.zone)
        self._chats: dict[str, _Chat] = {}
        self.dates = DateSurvey(_FIRST_YEAR)
        for _, record in csv_rows(tree.for_survey(), file):
            try:
                self._learn(parse_row(record))
            except RECORD_ERRORS:
                continue
        self.places = self.dates.places(YEAR_FIRST)
        self.is_newest_first = self.dates.is_newest_first(self.places)

    def __call__(self, record: Mapping[str, str], origin: str) -> Message:
        """A row as a message, with the time as it is written, which may be local."""
        row = self._parse_row(record)
        chat = self._chats[row.chat]
        stamp = parse_time(row.time, self.places)
        sent_at = as_written(stamp, self._zone)
        kind = _kind(row.chat, chat)
        alone = next(iter(chat.others)) if kind == "dm" and len(chat.others) == 1 else ""
        name = row.chat or alone or self._title
        message = Message(
            id=row.id or self._ids.next_id(sent_at, row.sender, row.text or row.mark),
            platform=PLATFORM,
            chat=name,
            kind=kind,
            sender=row.sender,
            sender_name=row.sender_name or row.sender,
            sent_at=sent_at,
            text=row.text,
            is_owner=self._is_owner(row, chat, kind),
            reply_to=self._quotes.find(name, row.quote),
            chat_name=row.chat_name or row.chat or self._title,
            mark=row.mark,
            origin=origin,
        )
        self._quotes.add(message)
        return msgspec.structs.replace(message, sent_at=stamp)

    def _learn(self, row: _Row) -> None:
        if match := _TIME.fullmatch(row.time.strip()):
            self.dates.add((int(match[1]), int(match[2]), int(match[3])))
        chat = self._chats.setdefault(row.chat, _Chat())
        if row.mark in (Mark.SERVICE, Mark.DELETED) or not row.sender:
            return
        if len(chat.people) < 3:
            chat.people.add(row.sender)
        if row.is_owner is not True and len(chat.others) < 3:
            chat.others.add(row.sender)
        if row.peers and row.is_owner is not True and row.sender not in row.peers:
            chat.is_group = True

    def _is_owner(self, row: _Row, chat: _Chat, kind: Kind) -> bool | None:
        """Whether the owner wrote a row. A file named after one of two writers is the other one's."""
        if row.is_owner is not None or kind != "dm" or row.mark == Mark.SERVICE:
            return row.is_owner
        if self._title not in chat.people:
            return None
        return row.sender != self._title


def _kind(name: str, chat: _Chat) -> Kind:
    if name.endswith(GROUP_SUFFIX) or chat.is_group:
        return "group"
    return "dm" if len(chat.people) <= 2 else "group"


def mark_of_type_name(kind: str) -> Mark:
    """The mark of a message by the name of its type, in Chinese or English. Unknown types are media."""
    kind = kind.strip().lower()
    if kind in _TEXT_TYPES:
        return Mark.NONE
    return next((mark for mark, pattern in _TYPE_MARKS if pattern.search(kind)), Mark.MEDIA)


def mark_of_type(type_number: int, subtype: int) -> Mark:
    """The mark of a message by WeChat's type number and, for shared content, its subtype."""
    return (
        _MARKS_BY_SUBTYPE.get(subtype, Mark.MEDIA)
        if type_number == _SHARE_TYPE
        else _MARKS_BY_TYPE.get(type_number, Mark.MEDIA)
    )


def mark_and_text(mark: Mark, text: str, *, is_voice_message: bool = False) -> tuple[Mark, str]:
    """Mark and text of a message, without placeholders and quotes. The transcript of a voice message is its text."""
    text = text.strip()
    if is_voice_message or mark in (Mark.MEDIA, Mark.STICKER, Mark.FORWARD):
        return (Mark.MEDIA, transcript(text)) if is_voice_message else (mark, "")
    if mark == Mark.SERVICE and _RECALLED.search(text):
        return Mark.DELETED, text
    if mark:
        return mark, text
    if _RECALLED_ALONE.fullmatch(text):
        return Mark.DELETED, text
    placeholder = _PLACEHOLDER.match(text)
    # WeChat's emoticons look the same within a text; `[表情]` alone is one of unknown name.
    if placeholder is None or (placeholder["what"] == "表情" and placeholder.end() < len(text)):
        return Mark.NONE, split_quote(text)[0].strip()
    mark = _PLACEHOLDER_MARKS.get(placeholder["what"], Mark.MEDIA)
    return mark, text if mark == Mark.SERVICE else ""


def parse_time(text: str, places: DatePlaces) -> datetime:
    """Seconds or milliseconds since 1970, a date with its numbers in this order, or ISO 8601. Raises ValueError.

    A time without a zone is local.
    """
    text = text.strip()
    if text.isdecimal():
        return from_epoch(int(text))
    if match := _TIME.fullmatch(text):
        day = local_date((int(match[1]), int(match[2]), int(match[3])), places)
        clock = time(hour_24(int(match[4]), match[7]), int(match[5]), int(match[6] or 0))
        return datetime.combine(day, clock)
    return local_time(text)


def _pywxdump_row(row: Mapping[str, str]) -> _Row:
    """Parses a row of PyWxDump or WeClone."""
    mark = mark_of_type_name(row["type_name"])
    if row.get("is_forward", "").strip().lower() in ("1", "true"):
        mark = Mark.FORWARD
    written = row["msg"] if "msg" in row else _unpack_json(row["content"])
    mark, text = mark_and_text(mark, written, is_voice_message=mark != Mark.FORWARD and is_voice(row["type_name"]))
    server_id, sender = row["msgsvrid"].strip(), row["talker"].strip()
    return _Row(
        id=server_id if _SERVER_ID.fullmatch(server_id) else "",
        chat=row.get("room_name", "").strip(),
        sender=sender or "?",
        time=row["createtime"],
        mark=mark,
        text=text,
        is_owner=_flag(row["is_sender"]),
        quote=split_quote(written)[1],
    )


def _unpack_json(text: str) -> str:
    """The text of a message, which older files of PyWxDump have in a JSON object."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return str(value.get("msg") or "") if isinstance(value, dict) else text


def _memotrace_row(row: Mapping[str, str]) -> _Row:
    """Parses a row of MemoTrace's file of all chats. Older ones have an id between the time and the names."""
    names = [row.get(key, "") for key in ("remark", "nickname", "sender", "")]
    server_id = names.pop(0) if _SERVER_ID.fullmatch(names[0]) and (names[3] or not names[2]) else ""
    remark, nickname, sender = (name.strip() for name in names[:3])
    kind = int(row["type"])
    mark, text = mark_and_text(
        mark_of_type(kind, int(row["subtype"] or 0)), row["strcontent"], is_voice_message=kind == VOICE_TYPE
    )
    is_owner = _flag(row["issender"])
    peers = [name for name in dict.fromkeys((remark, nickname)) if name]
    return _Row(
        id=server_id,
        # The number of a chat is valid in one of the app's databases only.
        chat=" / ".join(peers) or row["talkerid"],
        sender=_ME if is_owner else sender or nickname or remark or row["talkerid"],
        time=row["createtime"] or row["strtime"],
        mark=mark,
        text=text,
        is_owner=is_owner,
        quote=split_quote(row["strcontent"])[1],
        chat_name=next(iter(peers), ""),
        peers=frozenset(peers),
    )


def _memotrace_chat_row(row: Mapping[str, str]) -> _Row:
    """Parses a row of MemoTrace's file of one chat."""
    mark, text = mark_and_text(mark_of_type_name(row["类型"]), row["内容"], is_voice_message=is_voice(row["类型"]))
    server_id = row["消息id"].strip()
    return _Row(
        id=server_id if _SERVER_ID.fullmatch(server_id) else "",
        chat="",
        # The file is named after the remark, which may also be the sender's name.
        sender=row["发送人"].strip() or "?",
        time=row["时间"],
        mark=mark,
        text=text,
        is_owner=None,
        quote=split_quote(row["内容"])[1],
    )


def _chatlog_row(row: Mapping[str, str]) -> _Row:
    """Parses a row of chatlog, which has no types: `![图片](…)` and the like are placeholders."""
    content = row["content"].strip()
    is_media = re.fullmatch(r"!?\[[^\]\n]{1,20}(?:\|[^\]]*)?\](?:\([^)]*\))?", content) is not None
    mark, text = mark_and_text(Mark.MEDIA if is_media else Mark.NONE, content)
    name = row["sendername"].strip()
    return _Row(
        id="",
        chat=row["talker"].strip(),
        sender=row["sender"].strip() or name or "?",
        time=row["time"],
        mark=Mark.SERVICE if row["sender"].strip() == "系统消息" else mark,
        text=text,
        is_owner=True if name == _ME else None,
        quote=split_quote(content)[1],
        sender_name=name,
        chat_name=row["talkername"].strip(),
    )


def _flag(text: str) -> bool:
    return text.strip().lower() in ("1", "1.0", "true")


_ROW_PARSERS: tuple[tuple[frozenset[str], Callable[[Mapping[str, str]], _Row]], ...] = (
    (frozenset(("msgsvrid", "type_name", "is_sender", "talker", "createtime")), _pywxdump_row),
    (frozenset(("localid", "talkerid", "type", "subtype", "issender", "createtime", "strcontent")), _memotrace_row),
    (frozenset(("消息id", "类型", "发送人", "时间", "内容")), _memotrace_chat_row),
    (frozenset(("time", "sendername", "sender", "talkername", "talker", "content")), _chatlog_row),
)


def _row_parser(tree: SourceTree, file: str) -> Callable[[Mapping[str, str]], _Row] | None:
    """The parser for the rows of a file; None if it is from none of the exporters."""
    names = set(csv_columns(tree, file))
    return next((parse_row for columns, parse_row in _ROW_PARSERS if columns <= names), None)
