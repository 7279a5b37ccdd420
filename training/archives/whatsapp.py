"""WhatsApp's chat export: `_chat.txt` of an iPhone, `WhatsApp Chat with ….txt` of an Android phone.

Two passes over the file: the first learns who speaks and whether the day or the month comes first, the second
yields messages. Does not know which of the speakers is the owner, only whom a private chat is with.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import msgspec

from doppel.i18n import tr
from doppel.message import Kind, Mark, Message
from training.archives.text_lines import decode_head, text_lines
from training.archives.tree import Tree

_DATE = r"(?P<a>\d{1,4})(?P<sep>[/.\-年])\s?(?P<b>\d{1,2})[/.\-月]\s?(?P<c>\d{1,4})[.日]?"
_HALF = r"上午|下午|凌晨|早上|中午|晚上|午前|午後|오전|오후"
_TIME = (
    rf"(?:klo\s)?(?P<before>{_HALF})?\s?(?P<hour>\d{{1,2}})[:.](?P<minute>\d\d)(?:[:.](?P<second>\d\d))?"
    r"(?:\s?(?P<after>[aApP]\.?\s?[mM]\.?))?"
)
_STAMP = rf"{_DATE},?\s+{_TIME}"
_HEADS = {
    "ios": re.compile(rf"[\u200e\u200f]*\[{_STAMP}\]\s"),
    "android": re.compile(rf"[\u200e\u200f]*{_STAMP}\s[-\u2013]\s"),
}
_SENDER = re.compile(r"(?P<name>[^:\n]{1,80}?):(?: |$)")
_AFTERNOON = re.compile(r"[pP]\.?\s?[mM]|下午|晚上|午後|오후")
_TITLES = (
    re.compile(r"WhatsApp Chat (?:with|-) (?P<name>.+?)(?:\.txt|\.zip)?$", re.IGNORECASE),
    re.compile(r"(?:与|與)(?P<name>.+?)的 ?WhatsApp ?(?:聊天|對話).*$"),
    re.compile(r"WhatsApp(?:-Chat mit| 聊天 -|聊天 -| - | Chat - )\s?(?P<name>.+?)(?:\.txt|\.zip)?$"),
)

_MEDIA = re.compile(
    r"^<[^<>\n]*(?:omitted|weggelassen|ausgeschlossen|omis|omitido|omesso|略去|忽略|省略|생략|attached|anexo|adjunto|附件|附檔)"
    r"[^<>\n]*>"
    r"|^(?:image|video|audio|sticker|gif|document|contact card|bild|imagen|imagem|图像|圖片|影片|视频|音频|貼圖|贴图)"
    r"\s?(?:omitted|weggelassen|omitida?|omis|已?忽略|已?略去)\.?$"
    r"|\.(?:jpe?g|png|webp|mp4|opus|m4a|pdf|vcf|gif|docx?) \([^()\n]+\)$",
    re.IGNORECASE,
)
_DELETED = re.compile(
    r"^(?:this message was deleted|you deleted this message|diese nachricht wurde gelöscht|"
    r"du hast diese nachricht gelöscht|se eliminó este mensaje|eliminaste este mensaje|ce message a été supprimé|"
    r"此消息已删除|此消息已被删除|您已删除这条消息|此訊息已刪除|已刪除此訊息|你已刪除此訊息)\.?$",
    re.IGNORECASE,
)
_EDITED = re.compile(
    r"\s*[\u200e\u200f]*<(?:this message was edited|diese nachricht wurde bearbeitet|此消息已编辑)>$", re.I
)
_ENCRYPTED = re.compile(r"end-to-end|ende-zu-ende|端到端|端對端|extremo a extremo|bout en bout", re.IGNORECASE)
_CLEAN = dict.fromkeys(map(ord, "\u200e\u200f\u202a\u202c\ufeff"))
_BLANKS = {0x202F: " ", 0xA0: " "}
_SNIFFED = 4096
_LONGEST = 1 << 20
"""Characters of one message; what goes on beyond is no message that WhatsApp would have sent."""


class _Survey(msgspec.Struct):
    """What the first pass learned.

    Attributes:
        form: `ios` or `android`.
        order: places of year, month and day among the three numbers of a date.
        names: messages by sender.
    """

    form: str
    order: tuple[int, int, int]
    names: Counter[str]


class WhatsAppReader:
    """Reads one chat. Its times are local, without a zone; the owner's zone is taken."""

    name = "whatsapp"
    accepts = "WhatsApp chat export (the zip, or its _chat.txt)"

    def sniff(self, tree: Tree) -> bool:
        """Whether one of the first lines begins like a message of either form, and none like another log."""
        if not tree.is_file:
            return False
        lines = decode_head(tree.head(tree.files()[0], _SNIFFED)).translate(_BLANKS).splitlines()
        return bool(lines) and _form(lines[0]) is not None

    def read(self, tree: Tree) -> Iterator[Message]:
        """Every message and system line of the chat."""
        file = tree.files()[0]
        survey = _survey(tree, file)
        title = _title(tree.label)
        kind: Kind = "dm" if len(survey.names) <= 2 else "group"
        partner = title if kind == "dm" and title in survey.names else None
        chat = " & ".join(sorted(survey.names)) if kind == "dm" else title or " & ".join(sorted(survey.names))[:200]
        repeats: Counter[tuple[datetime, str]] = Counter()
        moment: datetime | None = None
        for number, match, text in _records(tree, file, survey.form):
            try:
                sent_at = _time(match, survey.order, tree.zone).astimezone(UTC)
            except (ValueError, OverflowError) as error:
                tree.bad(file, tr("line {number}", number=number), error)
                continue
            if sent_at != moment:  # only messages of one moment can be taken for each other
                moment = sent_at
                repeats.clear()
            sender, body = _split(text)
            mark, body = _mark(sender, body)
            author = sender or title or chat
            digest = hashlib.sha256(f"{sender}\0{body}".encode("utf-8", "replace")).hexdigest()[:16]
            repeats[sent_at, digest] += 1
            yield Message(
                id=f"{int(sent_at.timestamp())}-{digest}-{repeats[sent_at, digest]}",
                platform="whatsapp",
                chat=chat,
                kind=kind,
                sender=author,
                sender_name=author,
                sent_at=sent_at,
                text=body,
                is_owner=False if author == partner else None,
                chat_name=title or chat,
                mark=mark,
                origin=f"{file}:{number}",
            )


def _form(line: str) -> str | None:
    """Which of the two forms a line begins a message in."""
    return next((form for form, head in _HEADS.items() if head.match(line)), None)


def _records(tree: Tree, file: str, form: str) -> Iterator[tuple[int, re.Match[str], str]]:
    """(line number, stamp, text) of every message; lines that begin no message go on with the one before.

    A line may begin with a date that somebody typed: only a whole stamp of the file's own form begins a message.
    """
    head = _HEADS[form]
    begun: tuple[int, re.Match[str], list[str]] | None = None
    size = 0
    with tree.open(file) as stream:
        for number, raw in text_lines(stream, tree.head(file, _SNIFFED)):
            line = raw.translate(_BLANKS)
            match = head.match(line)
            if match is not None:
                if begun is not None:
                    yield begun[0], begun[1], "\n".join(begun[2])
                begun, size = (number, match, [line[match.end() :]]), 0
            elif begun is None:
                if line.strip():
                    tree.bad(file, tr("line {number}", number=number), tr("text before the first message"))
            elif size > _LONGEST:
                tree.bad(file, tr("line {number}", number=number), tr("a message longer than any"))
            else:
                begun[2].append(raw)
                size += len(raw)
    if begun is not None:
        yield begun[0], begun[1], "\n".join(begun[2])


def _survey(tree: Tree, file: str) -> _Survey:
    """Reads the file once for its speakers and for the order of day and month."""
    head = decode_head(tree.head(file, _SNIFFED)).translate(_BLANKS)
    form = _form(head.splitlines()[0]) or "android"
    names: Counter[str] = Counter()
    largest = [0, 0, 0]
    backward = dict.fromkeys(_ORDERS, 0)
    last: dict[tuple[int, int, int], tuple[int, ...]] = {}
    has_halves = False
    for _, match, text in _records(tree.unheard(), file, form):
        numbers = tuple(int(match[name]) for name in "abc")
        largest = [max(pair) for pair in zip(largest, numbers, strict=True)]
        has_halves = has_halves or bool(match["after"])
        for order in _ORDERS:
            date = tuple(numbers[place] for place in order)
            backward[order] += date < last.get(order, date)
            last[order] = date
        sender, _ = _split(text)
        if sender and not (_ENCRYPTED.search(text) or (form == "ios" and text[len(sender) + 2 :].startswith("\u200e"))):
            names[sender] += 1
    return _Survey(form, _order(largest, backward, is_american=has_halves and "/" in head[:40]), names)


_DAY_FIRST, _MONTH_FIRST, _YEAR_FIRST = (2, 1, 0), (2, 0, 1), (0, 1, 2)
_ORDERS = (_DAY_FIRST, _MONTH_FIRST, _YEAR_FIRST)


def _order(largest: list[int], backward: dict[tuple[int, int, int], int], *, is_american: bool) -> tuple[int, int, int]:
    """Places of (year, month, day): what the numbers allow, then what runs forward in time, then the custom."""
    if largest[0] > 31:
        return _YEAR_FIRST
    if largest[0] > 12 and largest[1] <= 12:
        return _DAY_FIRST
    if largest[1] > 12 >= largest[0]:
        return _MONTH_FIRST
    if backward[_DAY_FIRST] != backward[_MONTH_FIRST]:
        return min(_DAY_FIRST, _MONTH_FIRST, key=backward.__getitem__)
    return _MONTH_FIRST if is_american else _DAY_FIRST


def _time(match: re.Match[str], order: tuple[int, int, int], zone: ZoneInfo) -> datetime:
    """The stamp as a time. Raises ValueError for a day that no calendar has."""
    numbers = [int(match[name]) for name in "abc"]
    year, month, day = (numbers[place] for place in order)
    hour, minute, second = (int(match[name] or 0) for name in ("hour", "minute", "second"))
    half = match["after"] or match["before"]
    if half and hour <= 12:
        is_late = bool(_AFTERNOON.search(half)) or (half == "中午" and hour != 11)
        hour = hour % 12 + 12 * is_late
    return datetime(year if year > 99 else 2000 + year, month, day, hour, minute, second, tzinfo=zone)


def _split(text: str) -> tuple[str, str]:
    """Sender and body; a system line has no sender."""
    match = _SENDER.match(text.lstrip("\u200e\u200f"))
    if match is None:
        return "", text
    stripped = text.lstrip("\u200e\u200f")
    return match["name"].translate(_CLEAN).removeprefix("~").strip(), stripped[match.end() :]


def _mark(sender: str, body: str) -> tuple[Mark, str]:
    """What the app wrote itself is no text of anybody's; and the body without the app's additions."""
    by_app = body.startswith("\u200e")
    text = _EDITED.sub("", body).translate(_CLEAN).strip()
    if not sender or (by_app and _ENCRYPTED.search(text)):
        return "service", text
    if _DELETED.match(text):
        return "deleted", text
    if by_app or _MEDIA.search(text.partition("\n")[0]):
        caption = text.partition("\n")[2] if _MEDIA.search(text.partition("\n")[0]) else ""
        return "media", caption
    return "", text


def _title(label: str) -> str:
    """Whom or what the chat is with, if the file or its folder says so."""
    for part in reversed(label.split("/")):
        for pattern in _TITLES:
            if match := pattern.search(part):
                return match["name"].strip()
    return ""
