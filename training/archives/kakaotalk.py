"""KakaoTalk's chat export: the text file of a PC, that of a phone, and the table of a Mac.

Two passes: the first learns who speaks, the second yields messages. A lone word such as 사진 ("photo") stands for a
picture; whether somebody wrote just that word, the file does not say.
"""

import re
from collections.abc import Callable, Iterator
from datetime import date, datetime

import msgspec

from doppel.i18n import tr
from training.archives.formats.chat_logs import month_number
from training.archives.formats.chat_text import HALF_EAST, Conversation, Said, hour_of
from training.archives.formats.records import csv_rows
from training.archives.formats.text_lines import decode_head, text_lines
from training.archives.message import Kind, Mark, Message
from training.archives.source_tree import Tree

_TITLES = (
    re.compile(r"(?P<name>.+?)(?: (?P<count>\d+))?\s?님과(?:의)? 카카오톡 대화"),
    re.compile(r"(?P<name>.+?) (?P<count>\d+) 카카오톡 대화"),
    re.compile(r"KakaoTalk Chats? with (?P<name>.+?)(?: (?P<count>\d+))?", re.IGNORECASE),
    re.compile(r"(?P<name>.+?)(?: (?P<count>\d+))? with KakaoTalk Chats?", re.IGNORECASE),
    re.compile(r"(?P<name>.+?)(?: (?P<count>\d+))?\s(?:Kakao)?Talk Chats?", re.IGNORECASE),
)
_SAVED = re.compile(r"(?:저장한 날짜|Date Saved|Saved Date|Saved on)\s*:.*", re.IGNORECASE)
_FILE_NAME = re.compile(r"KakaoTalk_Chat_(?P<name>.+?)_\d{4}-\d\d-\d\d-\d\d-\d\d-\d\d\.csv$", re.IGNORECASE)
_TABLE = re.compile(r'"?Date"?,"?User"?,"?Message"?\r?\n"?\d{4}-\d\d-\d\d \d\d:\d\d', re.IGNORECASE)

_DATE = (
    r"(?:(?P<year>\d{4})(?:년|[.\-/])\s?(?P<month>\d{1,2})(?:월|[.\-/])\s?(?P<day>\d{1,2})[일.]?"
    r"|(?P<name1>[A-Z][a-z]{2,8})\.? (?P<day1>\d{1,2}), (?P<year1>\d{4})"
    r"|(?P<day2>\d{1,2}) (?P<name2>[A-Z][a-z]{2,8})\.?,? (?P<year2>\d{4}))"
)
_CLOCK = (
    rf"(?:(?P<before>{HALF_EAST})\s?)?(?P<hour>\d{{1,2}}):(?P<minute>\d\d)(?::(?P<second>\d\d))?"
    rf"(?:\s?(?P<after>{HALF_EAST}))?"
)
_DAY = re.compile(rf"-{{3,}}\s*(?:[A-Za-z]+, )?{_DATE}(?:,? [^\s\d-]+)?\s*-{{3,}}\s*")
_PC = re.compile(rf"\[(?P<sender>.+?)\] \[{_CLOCK}\](?: (?P<text>.*))?", re.IGNORECASE | re.DOTALL)
_MOBILE = re.compile(rf"{_DATE}(?:,| at)? (?i:{_CLOCK})(?:[,:] (?P<rest>.*))?\s*", re.DOTALL)
_WEEKDAY = re.compile(rf"(?:[A-Za-z]+, )?{_DATE} ?\S*요일\s*|[A-Z][a-z]+day, {_DATE.replace('P<', 'P<w')}\s*")
_BLANKS = {0x202F: " ", 0xA0: " ", 0xFEFF: None}

_MEDIA = re.compile(
    r"사진(?: \d+장)?|동영상|음성메시지|음성 메시지|파일: .+|지도: .*|연락처: .*|투표: .*|선물: .*|photos?|\d+ photos|"
    r"<[^<>\n]{1,20} 읽지 않음>|photo \d+|videos?|"
    r"voice (?:note|message)|file: .+|location: .*|contact: .*|poll: .*|[0-9a-f]{32,}\.\w{2,4}",
    re.IGNORECASE,
)
_STICKER = re.compile(r"이모티콘|스티커|emoticons?|stickers?", re.IGNORECASE)
_WITH_STICKER = re.compile(r"\((?:이모티콘|emoticons?)\)\s?", re.IGNORECASE)
_DELETED = re.compile(
    r"(?:삭제된 메시지입니다|메시지가 삭제되었습니다|this message (?:was|has been) deleted|deleted message)\.?",
    re.IGNORECASE,
)
_CALL = re.compile(
    r"(?:보이스톡|페이스톡|라이브톡|그룹콜)(?: (?:해요|취소|부재중|없음|거절|종료.*|응답.*|시작.*|\d+:\d\d.*))?|"
    r"(?:(?:missed|cancell?ed|declined) )?(?:voice|video|face) ?(?:call|talk)s?"
    r"(?: (?:ended|cancell?ed|missed|\d+:\d\d).*)?",
    re.IGNORECASE,
)
_SYSTEM = re.compile(
    r".{1,200}님이 (?:나갔습니다|들어왔습니다|.{1,1000}님(?:을|과) (?:초대했습니다|초대하였습니다|내보냈습니다))\.?|"
    r"채팅방 관리자가 (?:메시지를 가렸습니다|.{1,60})\.?|.{1,200}님을 (?:내보냈습니다|초대했습니다|초대하였습니다)\.?|"
    r".{1,200} (?:has )?(?:joined|left)(?: this| the)? (?:chat ?room|chat|group)\.?|"
    r".{1,200} invited .{1,1000}(?: to this chat ?room)?\."
)
_ME = "회원님"
_SNIFFED = 4096
_HEADER_LINES = 5
_LONGEST = 1 << 20
"""Characters of one message; KakaoTalk cuts messages long before."""


class _Entry(msgspec.Struct, frozen=True):
    """One record; without a sender it is the app's own."""

    number: int
    sent_at: datetime
    sender: str
    text: str


class KakaoTalkReader:
    """Reads one chat. Its times are local, without a zone; the owner's zone is taken."""

    name = "kakaotalk"
    accepts = "KakaoTalk chat export (text or CSV)"

    def sniff(self, tree: Tree) -> bool:
        """Whether the file begins like the table, or with a title, a day or a message of either text form."""
        if not tree.is_file:
            return False
        head = _head(tree)
        if _TABLE.match(head):
            return True
        lines = [line.strip() for line in head.splitlines() if line.strip()][:_HEADER_LINES]
        titles = any(_title_of(line)[0] for line in lines[:2])
        saved = any(map(_SAVED.fullmatch, lines[:2]))
        days = any(map(_DAY.fullmatch, lines))
        messages = [match for match in map(_MOBILE.fullmatch, lines) if match and " : " in (match["rest"] or "")]
        bracketed = any(map(_PC.fullmatch, lines))
        return (titles and saved) or (days and (bracketed or titles)) or bool(messages)

    def read(self, tree: Tree) -> Iterator[Message]:
        """Every message and system line of the chat."""
        file = tree.files()[0]
        entries = _table_entries if _TABLE.match(_head(tree)) else _text_entries
        title, kind = _title(tree)
        names = {entry.sender for entry in entries(tree.unheard(), file)} - {""}
        chat = Conversation("kakaotalk", title, names, kind, owner=_ME)
        yield from chat.messages(tree, file, map(_said, entries(tree, file)))


def _head(tree: Tree) -> str:
    return decode_head(tree.head(tree.files()[0], _SNIFFED)).translate(_BLANKS)


def _title_of(line: str) -> tuple[str, int]:
    """Name and, for a group, number of members in the title; an empty name where the line is none."""
    for pattern in _TITLES:
        if match := pattern.fullmatch(line.strip().removesuffix(".txt")):
            return match["name"].strip(), int(match["count"] or 0)
    return "", 0


def _title(tree: Tree) -> tuple[str, Kind | None]:
    """With whom or in which group, as the first lines or the name of the file has it."""
    for line in [line for line in _head(tree).splitlines() if line.strip()][:2]:
        name, count = _title_of(line)
        if name:
            return name, "group" if count > 2 else None
    named = _FILE_NAME.search(tree.label.rpartition("/")[2])
    return (named["name"] if named else ""), None


def _day(match: re.Match[str]) -> date:
    """The day of a match of `_DATE`. Raises ValueError."""
    if match["year"]:
        return date(int(match["year"]), int(match["month"]), int(match["day"]))
    month = month_number(match["name1"] or match["name2"])
    return date(int(match["year1"] or match["year2"]), month, int(match["day1"] or match["day2"]))


def _at(day: date, match: re.Match[str], tree: Tree) -> datetime:
    """The time of a match of `_CLOCK` on a day. Raises ValueError."""
    hour = hour_of(int(match["hour"]), match["before"] or match["after"])
    minute, second = int(match["minute"]), int(match["second"] or 0)
    return datetime(day.year, day.month, day.day, hour, minute, second, tzinfo=tree.zone)


def _table_entries(tree: Tree, file: str) -> Iterator[_Entry]:
    for number, row in csv_rows(tree, file):
        try:
            sent_at = datetime.fromisoformat(row["date"].strip())
            user, text = row["user"], row["message"]
        except (KeyError, ValueError) as error:
            tree.bad(file, tr("line {number}", number=number), error)
            continue
        if row.get(""):
            text = f"{text},{row['']}"
        sent_at = sent_at if sent_at.tzinfo else sent_at.replace(tzinfo=tree.zone)
        yield _Entry(number, sent_at, "" if _SYSTEM.fullmatch(text) else user.strip(), text)


class _Text:
    """The state of reading a text: its form, once a record has shown it, the day, and the record begun."""

    def __init__(self, tree: Tree, file: str) -> None:
        self.tree = tree
        self.file = file
        self.begin: Callable[[int, str], _Entry | None] | None = None
        self.day: date | None = None
        self.entry: _Entry | None = None
        self.lines: list[str] = []
        self.size = 0

    def take(self, number: int, raw: str) -> _Entry | None:
        """Takes a line; returns the record that it ends, if it does."""
        line = raw.translate(_BLANKS)
        try:
            begun = self._day_line(line) or (self.begin or self._first)(number, line)
        except ValueError as error:
            self.tree.bad(self.file, tr("line {number}", number=number), error)
            return self.end()
        if begun is None:
            self._go_on(number, raw)
            return None
        ended = self.end()
        if isinstance(begun, _Entry):
            self.entry, self.lines, self.size = begun, [begun.text], 0
        return ended

    def end(self) -> _Entry | None:
        """The record begun, which nothing follows."""
        entry, lines = self.entry, self.lines
        self.entry, self.lines = None, []
        return entry and msgspec.structs.replace(entry, text="\n".join(lines).rstrip("\n"))

    def _first(self, number: int, line: str) -> _Entry | None:
        """The first record decides the form, so that what looks like the other one is only quoted."""
        for begin in (self._pc, self._mobile):
            if (entry := begin(number, line)) is not None:
                self.begin = begin
                return entry
        return None

    def _day_line(self, line: str) -> bool:
        """Whether the line only says which day it is, or when somebody began to write."""
        if self.begin != self._mobile and (match := _DAY.fullmatch(line)):
            self.day = _day(match)
            return True
        if self.begin == self._pc:
            return False
        is_after_blank = not (self.lines and self.lines[-1].strip())
        stamp = _MOBILE.fullmatch(line)
        return bool((is_after_blank and _WEEKDAY.fullmatch(line)) or (stamp and stamp["rest"] is None))

    def _pc(self, number: int, line: str) -> _Entry | None:
        match = _PC.fullmatch(line)
        if match is not None:
            if self.day is None:
                raise ValueError(tr("time without a date"))
            return _Entry(number, _at(self.day, match, self.tree), match["sender"].strip(), match["text"] or "")
        if self.day is not None and _SYSTEM.fullmatch(line):
            sent_at = self.entry.sent_at if self.entry else datetime.combine(self.day, datetime.min.time())
            return _Entry(number, sent_at.replace(tzinfo=self.tree.zone), "", line)
        return None

    def _mobile(self, number: int, line: str) -> _Entry | None:
        match = _MOBILE.fullmatch(line)
        if match is None or match["rest"] is None:
            return None
        sent_at = _at(_day(match), match, self.tree)
        sender, colon, text = match["rest"].partition(" : ")
        if not colon and match["rest"].endswith(" :"):
            sender, colon = match["rest"].removesuffix(" :"), ":"
        if not colon:
            return _Entry(number, sent_at, "", match["rest"])
        return _Entry(number, sent_at, sender.strip(), text)

    def _go_on(self, number: int, raw: str) -> None:
        place = tr("line {number}", number=number)
        if self.entry is None:
            is_header = number <= _HEADER_LINES and (_title_of(raw.translate(_BLANKS))[0] or _SAVED.fullmatch(raw))
            if raw.strip() and not is_header:
                self.tree.bad(self.file, place, tr("text before the first message"))
        elif self.size > _LONGEST:
            self.tree.bad(self.file, place, tr("message too long"))
        else:
            self.lines.append(raw)
            self.size += len(raw) + 1


def _text_entries(tree: Tree, file: str) -> Iterator[_Entry]:
    text = _Text(tree, file)
    with tree.open(file) as stream:
        for number, line in text_lines(stream, tree.head(file, _SNIFFED)):
            if (entry := text.take(number, line)) is not None:
                yield entry
    if (entry := text.end()) is not None:
        yield entry


def _said(entry: _Entry) -> Said:
    mark, text = _mark(entry.sender, entry.text)
    return Said(entry.number, entry.sent_at, entry.sender, text, mark)


def _mark(sender: str, text: str) -> tuple[Mark, str]:
    text = text.strip()
    if not sender or _CALL.fullmatch(text):
        return "service", text
    if _DELETED.fullmatch(text):
        return "deleted", text
    if _STICKER.fullmatch(text):
        return "sticker", ""
    if _MEDIA.fullmatch(text):
        return "media", ""
    if _WITH_STICKER.match(text):
        return "media", _WITH_STICKER.sub("", text, count=1)
    return "", text
