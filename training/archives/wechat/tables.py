"""WeChat as tables: PyWxDump's and WeClone's CSV, MemoTrace's of all chats or of one, and chatlog's.

Two passes: the first learns who speaks in which chat, the second yields messages. MemoTrace's table of one chat and
chatlog's do not say whose they are; what answers what, no table says but in words.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import msgspec

from training.archives.formats.chat_logs import MessageIds, file_title
from training.archives.formats.records import MALFORMED, csv_rows, messages_of, to_utc
from training.archives.formats.text_lines import decode_head
from training.archives.message import Kind, Mark, Message
from training.archives.source_tree import Tree
from training.archives.wechat.message_text import Quote, Quotes, is_voice, transcript, unquoted

PLATFORM = "wechat"
ROOM = "@chatroom"
"""What the account of a group ends in."""

_ME = "我"
_TEXTS = frozenset(
    (
        *("文本", "文本消息", "text", "文字", "粘贴的文本", "接龙", "接龙消息"),
        *("引用回复", "引用消息", "引用", "reply with quote", "带有引用的文本", "带有引用的文本消息"),
    )
)
_KINDS: tuple[tuple[Mark, re.Pattern[str]], ...] = (
    ("sticker", re.compile(r"表情|sticker|emoji|gif")),
    ("deleted", re.compile(r"撤回|recall")),
    (
        "service",
        re.compile(r"系统|system|拍一拍|pat pat|好友|add friend|加群|invite|群公告|announcement|通话|call|打招呼"),
    ),
    ("forward", re.compile(r"聊天记录|转发|forward")),
)
_NUMBERS: dict[int, Mark] = {1: "", 47: "sticker", 50: "service", 52: "service", 10000: "service", 10002: "service"}
_SHARES: dict[int, Mark] = {8: "sticker", 19: "forward", 40: "forward", 53: "", 57: "", 62: "service", 87: "service"}
_SHARE = 49
VOICE = 34
"""The app's number of what was spoken."""
_RECALLED = re.compile(r"撤回了?(?:一条消息|成员)|recalled a message")
# What stands for something else, in exports that call it a text; a title or an amount may follow.
_PLACEHOLDER = re.compile(
    r"\[(?P<what>链接|小程序|聊天记录|转账|转账收款|红包|红包卡片|文件|视频号|音乐|名片|位置|语音|语音通话|视频通话|通话|图片|视频"
    r"|表情包|动画表情|表情消息|表情|群公告|其他消息|消息|引用消息|系统消息|拍一拍|语音消息 - 转文字失败)\]"
)
_NOT_SENT: dict[str, Mark] = {
    "聊天记录": "forward",
    **dict.fromkeys(("语音通话", "视频通话", "通话", "群公告", "系统消息", "拍一拍"), "service"),
    **dict.fromkeys(("表情包", "动画表情", "表情消息"), "sticker"),
}
_RECALLED_ALONE = re.compile(
    r"(?:你|\"[^\"\n]{1,40}\"|“[^”\n]{1,40}”|「[^」\n]{1,40}」) ?撤回了一条消息(?: ?重新编辑)?"
)
_TIME = re.compile(r"(\d{4})[-/年.](\d{1,2})[-/月.](\d{1,2})日?[ T]+(\d{1,2}):(\d\d)(?::(\d\d))?(?:\.\d+)?")
_MILLISECONDS = 1e11
_PAGE = re.compile(r"(?:_\d+_\d+|\s*\(\d+\))$")
_SERVER_ID = re.compile(r"\d{10,20}")


class _Row(msgspec.Struct, frozen=True):
    """A row of any of the tables.

    Attributes:
        chat: account or name of the chat; empty where the file as a whole is one.
        peers: what the other one is called, should it be a private chat.
        is_owner: whether the owner wrote it; None where the table does not say.
        quote: what it answers.
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


class WeChatReader:
    """Reads one table."""

    name = "wechat"
    accepts = "WeChat chats as CSV (PyWxDump, WeClone, MemoTrace or chatlog)"

    def sniff(self, tree: Tree) -> bool:
        """Whether the columns are those of one of the tables."""
        return tree.is_file and _form(tree, tree.files()[0]) is not None

    def read(self, tree: Tree) -> Iterator[Message]:
        """Every row."""
        file = tree.files()[0]
        form = _form(tree, file)
        if form is not None:
            yield from messages_of(tree, file, csv_rows(tree, file), _Converter(tree, file, form))


class _Chat(msgspec.Struct):
    """What the first pass learned of a chat: who speaks in it, three people at most, and whether it is a group."""

    people: set[str] = msgspec.field(default_factory=set)
    others: set[str] = msgspec.field(default_factory=set)
    is_group: bool = False


class _Converter:
    """Turns rows into messages."""

    def __init__(self, tree: Tree, file: str, form: Callable[[Mapping[str, str]], _Row]) -> None:
        self._form = form
        self._zone = tree.zone
        self._title = _PAGE.sub("", file_title(tree.label))
        self._ids = MessageIds()
        self._quotes = Quotes(tree.zone)
        self._chats: dict[str, _Chat] = {}
        for _, record in csv_rows(tree.unheard(), file):
            try:
                self._learn(form(record))
            except MALFORMED:
                continue

    def __call__(self, record: Mapping[str, str], origin: str) -> Message:
        row = self._form(record)
        chat = self._chats[row.chat]
        sent_at = time_of(row.time, self._zone)
        kind = _kind(row.chat, chat)
        alone = next(iter(chat.others)) if kind == "dm" and len(chat.others) == 1 else ""
        name = row.chat or alone or self._title
        message = Message(
            id=row.id or self._ids.of(sent_at, row.sender, row.text or row.mark),
            platform=PLATFORM,
            chat=name,
            kind=kind,
            sender=row.sender,
            sender_name=row.sender_name or row.sender,
            sent_at=sent_at,
            text=row.text,
            is_owner=self._is_owner(row, chat, kind),
            reply_to=self._quotes.answered(name, row.quote),
            chat_name=row.chat_name or row.chat or self._title,
            mark=row.mark,
            origin=origin,
        )
        self._quotes.remember(message)
        return message

    def _learn(self, row: _Row) -> None:
        chat = self._chats.setdefault(row.chat, _Chat())
        if row.mark in ("service", "deleted") or not row.sender:
            return
        if len(chat.people) < 3:
            chat.people.add(row.sender)
        if row.is_owner is not True and len(chat.others) < 3:
            chat.others.add(row.sender)
        if row.peers and row.is_owner is not True and row.sender not in row.peers:
            chat.is_group = True

    def _is_owner(self, row: _Row, chat: _Chat, kind: Kind) -> bool | None:
        """Where the table does not say, a file named after one of two speakers is the other one's."""
        if row.is_owner is not None or kind != "dm" or row.mark == "service":
            return row.is_owner
        if self._title not in chat.people:
            return None
        return row.sender != self._title


def _kind(name: str, chat: _Chat) -> Kind:
    if name.endswith(ROOM) or chat.is_group:
        return "group"
    return "dm" if len(chat.people) <= 2 else "group"


def mark_of(kind: str) -> Mark:
    """What a message is whose type has this name, in Chinese or English. A kind nobody knows is no text."""
    kind = kind.strip().lower()
    if kind in _TEXTS:
        return ""
    return next((mark for mark, pattern in _KINDS if pattern.search(kind)), "media")


def mark_of_number(kind: int, share: int) -> Mark:
    """What a message is by the app's own numbers of its type and, for what is shared, of its kind."""
    return _SHARES.get(share, "media") if kind == _SHARE else _NUMBERS.get(kind, "media")


def said(mark: Mark, text: str, *, spoken: bool = False) -> tuple[Mark, str]:
    """Mark and text of a message: what stands for a picture or a link is no text, and a quote is not the writer's.

    What somebody said in a voice message is its text, as a caption is a picture's.
    """
    text = text.strip()
    if spoken or mark in ("media", "sticker", "forward"):
        return ("media", transcript(text)) if spoken else (mark, "")
    if mark == "service" and _RECALLED.search(text):
        return "deleted", text
    if mark:
        return mark, text
    if _RECALLED_ALONE.fullmatch(text):
        return "deleted", text
    found = _PLACEHOLDER.match(text)
    # WeChat's own small pictures are written so within a text: `[表情]` alone stands for one of unknown name.
    if found is None or (found["what"] == "表情" and found.end() < len(text)):
        return "", unquoted(text)[0].strip()
    mark = _NOT_SENT.get(found["what"], "media")
    return mark, text if mark == "service" else ""


def time_of(text: str, zone: ZoneInfo) -> datetime:
    """Seconds or milliseconds since 1970, a date that begins with its year, or ISO 8601. Raises ValueError."""
    text = text.strip()
    if text.isdecimal():
        number = int(text)
        return datetime.fromtimestamp(number / 1000 if number > _MILLISECONDS else number, UTC)
    if match := _TIME.fullmatch(text):
        year, month, day, hour, minute, second = (int(part or 0) for part in match.groups())
        return datetime(year, month, day, hour, minute, second, tzinfo=zone).astimezone(UTC)
    return to_utc(text, zone)


def _dumped(row: Mapping[str, str]) -> _Row:
    """A row of PyWxDump's or WeClone's."""
    mark = mark_of(row["type_name"])
    if row.get("is_forward", "").strip().lower() in ("1", "true"):
        mark = "forward"
    written = row["msg"] if "msg" in row else _packed(row["content"])
    mark, text = said(mark, written, spoken=mark != "forward" and is_voice(row["type_name"]))
    server_id, sender = row["msgsvrid"].strip(), row["talker"].strip()
    return _Row(
        id=server_id if _SERVER_ID.fullmatch(server_id) else "",
        chat=row.get("room_name", "").strip(),
        sender=sender or "?",
        time=row["createtime"],
        mark=mark,
        text=text,
        is_owner=_flag(row["is_sender"]),
        quote=unquoted(written)[1],
    )


def _packed(text: str) -> str:
    """Older tables of PyWxDump's hold text and source of a message as JSON."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return str(value.get("msg") or "") if isinstance(value, dict) else text


def _traced(row: Mapping[str, str]) -> _Row:
    """A row of MemoTrace's table of all chats. Older ones have a number between the time and the names."""
    names = [row.get(key, "") for key in ("remark", "nickname", "sender", "")]
    server_id = names.pop(0) if _SERVER_ID.fullmatch(names[0]) and (names[3] or not names[2]) else ""
    remark, nickname, sender = (name.strip() for name in names[:3])
    kind = int(row["type"])
    mark, text = said(mark_of_number(kind, int(row["subtype"] or 0)), row["strcontent"], spoken=kind == VOICE)
    is_owner = _flag(row["issender"])
    peers = [name for name in dict.fromkeys((remark, nickname)) if name]
    return _Row(
        id=server_id,
        # The number of a chat holds for one of the app's databases only.
        chat=" / ".join(peers) or row["talkerid"],
        sender=_ME if is_owner else sender or nickname or remark or row["talkerid"],
        time=row["createtime"] or row["strtime"],
        mark=mark,
        text=text,
        is_owner=is_owner,
        quote=unquoted(row["strcontent"])[1],
        chat_name=next(iter(peers), ""),
        peers=frozenset(peers),
    )


def _session(row: Mapping[str, str]) -> _Row:
    """A row of MemoTrace's table of one chat."""
    mark, text = said(mark_of(row["类型"]), row["内容"], spoken=is_voice(row["类型"]))
    server_id = row["消息id"].strip()
    return _Row(
        id=server_id if _SERVER_ID.fullmatch(server_id) else "",
        chat="",
        # The file is named after the remark, by which a contact may also be shown.
        sender=row["发送人"].strip() or "?",
        time=row["时间"],
        mark=mark,
        text=text,
        is_owner=None,
        quote=unquoted(row["内容"])[1],
    )


def _listed(row: Mapping[str, str]) -> _Row:
    """A row of chatlog's table, which has no types: `![图片](…)` and the like stand for what is no text."""
    content = row["content"].strip()
    is_media = re.fullmatch(r"!?\[[^\]\n]{1,20}(?:\|[^\]]*)?\](?:\([^)]*\))?", content) is not None
    mark, text = said("media" if is_media else "", content)
    name = row["sendername"].strip()
    return _Row(
        id="",
        chat=row["talker"].strip(),
        sender=row["sender"].strip() or name or "?",
        time=row["time"],
        mark="service" if row["sender"].strip() == "系统消息" else mark,
        text=text,
        is_owner=True if name == _ME else None,
        quote=unquoted(content)[1],
        sender_name=name,
        chat_name=row["talkername"].strip(),
    )


def _flag(text: str) -> bool:
    return text.strip().lower() in ("1", "1.0", "true")


_FORMS: tuple[tuple[frozenset[str], Callable[[Mapping[str, str]], _Row]], ...] = (
    (frozenset(("msgsvrid", "type_name", "is_sender", "talker", "createtime")), _dumped),
    (frozenset(("localid", "talkerid", "type", "subtype", "issender", "createtime", "strcontent")), _traced),
    (frozenset(("消息id", "类型", "发送人", "时间", "内容")), _session),
    (frozenset(("time", "sendername", "sender", "talkername", "talker", "content")), _listed),
)


def _form(tree: Tree, file: str) -> Callable[[Mapping[str, str]], _Row] | None:
    """How the rows of a file are read; None when it is none of the tables."""
    first = decode_head(tree.head(file)).lstrip("\ufeff").replace("\r", "\n").partition("\n")[0]
    names = {name.strip().strip('"').strip().lower() for name in first.split(",")}
    return next((form for columns, form in _FORMS if columns <= names), None)
