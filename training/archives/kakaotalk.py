"""Reads KakaoTalk's chat export: the text file of a PC or phone, and the CSV file of a Mac.

Two passes: the first collects the names, the second yields messages. A message that is only a word such as 사진
("photo") counts as a picture, although somebody may have typed it.
"""

import re
from collections.abc import Callable, Iterator
from datetime import date, datetime, time

import msgspec

from doppel.i18n import tr
from training.archives.formats.chat_text import TextChat, TextRecord
from training.archives.formats.csv_files import csv_columns, csv_rows
from training.archives.formats.local_times import Direction, gregorian_year
from training.archives.formats.sender_names import NameSurvey, SenderNames
from training.archives.formats.text_lines import MAX_RECORD_LENGTH, decode_head, text_lines
from training.archives.formats.time_columns import TimeColumn
from training.archives.formats.timestamps import AM_PM_EAST_ASIA, hour_24, month_number
from training.archives.message import Kind, Mark, Message
from training.archives.source_tree import SourceTree

_TITLES = (
    re.compile(r"(?P<name>.+?)(?: (?P<count>\d+))?\s?님과(?:의)? 카카오톡 대화"),
    re.compile(r"(?P<name>.+?) (?P<count>\d+) 카카오톡 대화"),
    re.compile(r"KakaoTalk Chats? with (?P<name>.+?)(?: (?P<count>\d+))?", re.IGNORECASE),
    re.compile(r"(?P<name>.+?)(?: (?P<count>\d+))? with KakaoTalk Chats?", re.IGNORECASE),
    re.compile(r"(?P<name>.+?)(?: (?P<count>\d+))?\s(?:Kakao)?Talk Chats?", re.IGNORECASE),
)
_SAVED = re.compile(r"(?:저장한 날짜|Date Saved|Saved Date|Saved on)\s*:.*", re.IGNORECASE)
_FILE_NAME = re.compile(r"KakaoTalk_Chat_(?P<name>.+?)_\d{4}-\d\d-\d\d-\d\d-\d\d-\d\d\.csv$", re.IGNORECASE)
_COLUMNS = ("date", "user", "message")
_FIRST_ROW = re.compile(r'[^\n]*\n"*(?:\d{4}-\d\d-\d\d|\d{1,4}[./-]\d{1,2}[./-]\d{1,4}) \d{1,2}:\d\d')
"""A table with the time in its first row: as the app writes it, or a spreadsheet that saved it again."""

_DATE = (
    r"(?:(?P<year>\d{4})(?:년|[.\-/])\s?(?P<month>\d{1,2})(?:월|[.\-/])\s?(?P<day>\d{1,2})[일.]?"
    r"|(?P<name1>[A-Z][a-z]{2,8})\.? (?P<day1>\d{1,2}), (?P<year1>\d{4})"
    r"|(?P<day2>\d{1,2}) (?P<name2>[A-Z][a-z]{2,8})\.?,? (?P<year2>\d{4}))"
)
_CLOCK = (
    rf"(?:(?P<before>{AM_PM_EAST_ASIA})\s?)?(?P<hour>\d{{1,2}}):(?P<minute>\d\d)(?::(?P<second>\d\d))?"
    rf"(?:\s?(?P<after>{AM_PM_EAST_ASIA}))?"
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
_INVITED = re.compile(
    r".{1,200}님(?:이|을) (?:.{1,1000}님(?:을|과) )?(?:초대했습니다|초대하였습니다|내보냈습니다)\.?"
    r"|.{1,200} invited .{1,1000}\."
)
"""Nobody is invited to, or removed from, a private chat."""
_ME = "회원님"
_SEPARATOR = " : "
"""Between a name and a message in the export of a phone."""
_SNIFFED = 4096
_HEADER_LINES = 5


class _Entry(msgspec.Struct, frozen=True):
    """One record; the sender of a notice is empty."""

    number: int
    sent_at: datetime
    sender: str
    text: str


class KakaoTalkReader:
    """Reads one chat. Times are local, without a zone, and are read in the owner's zone."""

    name = "kakaotalk"
    accepts = "KakaoTalk chat export (text or CSV)"

    def sniff(self, tree: SourceTree) -> bool:
        """Whether the file begins like the CSV file, or with a title, date or message of either text form."""
        if not tree.is_file:
            return False
        head = _head(tree)
        if _is_table(tree):
            return True
        lines = [line.strip() for line in head.splitlines() if line.strip()][:_HEADER_LINES]
        titles = any(_title_of(line)[0] for line in lines[:2])
        saved = any(map(_SAVED.fullmatch, lines[:2]))
        days = any(map(_DAY.fullmatch, lines))
        messages = [match for match in map(_MOBILE.fullmatch, lines) if match and " : " in (match["rest"] or "")]
        bracketed = any(map(_PC.fullmatch, lines))
        return (titles and saved) or (days and (bracketed or titles)) or bool(messages)

    def read(self, tree: SourceTree) -> Iterator[Message]:
        """Every message and notice of the chat."""
        file = tree.files()[0]
        title, kind = _title(tree)
        direction = Direction()
        senders, names, is_group = _survey(tree.for_survey(), file, direction, title)
        kind = "group" if is_group else kind
        chat = TextChat("kakaotalk", title, names, kind, owner=_ME)
        records = map(_text_record, _entries(tree, file, senders))
        yield from chat.messages(tree, file, records, is_newest_first=direction.is_newest_first)


def _survey(tree: SourceTree, file: str, direction: Direction, title: str) -> tuple[SenderNames, set[str], bool]:
    """The first pass: what stands before the messages in the export of a phone, everybody who writes, and whether a
    notice shows that it is a group.
    """
    survey, names, is_group = NameSurvey(_SEPARATOR, (_ME, title), tree.me), set[str](), False
    for entry in _entries(tree, file, None):
        direction.add(entry.sent_at.date())
        if entry.sender:
            names.add(entry.sender)
        else:
            survey.add(entry.text.partition("\n")[0])
            is_notice = _SEPARATOR not in entry.text and _INVITED.fullmatch(entry.text) is not None
            is_group = is_group or is_notice
    senders = SenderNames(survey.names(), _SEPARATOR)
    return senders, names or {name.strip() for name in senders.names}, is_group


def _entries(tree: SourceTree, file: str, senders: SenderNames | None) -> Iterator[_Entry]:
    """Every record; while `senders` are unknown, the name before a message of a phone's is part of its text."""
    return _table_entries(tree, file) if _is_table(tree) else _text_entries(tree, file, senders)


def _is_table(tree: SourceTree) -> bool:
    return tuple(csv_columns(tree, tree.files()[0])) == _COLUMNS and _FIRST_ROW.match(_head(tree)) is not None


def _head(tree: SourceTree) -> str:
    return decode_head(tree.head(tree.files()[0], _SNIFFED)).translate(_BLANKS)


def _title_of(line: str) -> tuple[str, int]:
    """The name in a title line and, for a group, the number of members; an empty name for any other line."""
    for pattern in _TITLES:
        if match := pattern.fullmatch(line.strip().removesuffix(".txt")):
            return match["name"].strip(), int(match["count"] or 0)
    return "", 0


def _title(tree: SourceTree) -> tuple[str, Kind | None]:
    """The other person or the group, from the first lines or the file's name."""
    for line in [line for line in _head(tree).splitlines() if line.strip()][:2]:
        name, count = _title_of(line)
        if name:
            return name, "group" if count > 2 else None
    named = _FILE_NAME.search(tree.label.rpartition("/")[2])
    return (named["name"] if named else ""), None


def _day(match: re.Match[str]) -> date:
    """The date of a match of `_DATE`. Raises ValueError."""
    if match["year"]:
        return date(gregorian_year(int(match["year"])), int(match["month"]), int(match["day"]))
    month = month_number(match["name1"] or match["name2"])
    return date(gregorian_year(int(match["year1"] or match["year2"])), month, int(match["day1"] or match["day2"]))


def _datetime(day: date, match: re.Match[str]) -> datetime:
    """The time of a match of `_CLOCK` on a date. Raises ValueError."""
    hour = hour_24(int(match["hour"]), match["before"] or match["after"])
    return datetime.combine(day, time(hour, int(match["minute"]), int(match["second"] or 0)))


def _table_entries(tree: SourceTree, file: str) -> Iterator[_Entry]:
    times = TimeColumn(
        tree.zone, lambda: (row.get("date", "") for _, row in csv_rows(tree.for_survey(), file)), tree.note
    )
    for number, row in csv_rows(tree, file):
        try:
            sent_at = times.read(row["date"])
            user, text = row["user"], row["message"]
        except (KeyError, ValueError) as error:
            tree.report_bad(file, tr("line {number}", number=number), error)
            continue
        if row.get(""):
            text = f"{text},{row['']}"
        yield _Entry(number, sent_at, "" if _SYSTEM.fullmatch(text) else user.strip(), text)


class _TextParser:
    """Parses a text line by line. Keeps its form, once the first record has shown it, the date, and the open record."""

    def __init__(self, tree: SourceTree, file: str, senders: SenderNames | None) -> None:
        self.tree = tree
        self.file = file
        self.senders = senders
        self.parse_head: Callable[[int, str], _Entry | None] | None = None
        self.day: date | None = None
        self.entry: _Entry | None = None
        self.lines: list[str] = []
        self.size = 0

    def feed(self, number: int, raw: str) -> _Entry | None:
        """Parses a line; returns the record that it completes, if any."""
        line = raw.translate(_BLANKS)
        try:
            entry = self._day_line(line) or (self.parse_head or self._first)(number, line)
        except ValueError as error:
            self.tree.report_bad(self.file, tr("line {number}", number=number), error)
            return self.end()
        if entry is None:
            self._continue(number, raw)
            return None
        completed = self.end()
        if isinstance(entry, _Entry):
            self.entry, self.lines, self.size = entry, [entry.text], 0
        return completed

    def end(self) -> _Entry | None:
        """Closes the open record and returns it."""
        entry, lines = self.entry, self.lines
        self.entry, self.lines = None, []
        return entry and msgspec.structs.replace(entry, text="\n".join(lines).rstrip("\n"))

    def _first(self, number: int, line: str) -> _Entry | None:
        """The first record decides the form; lines in the other form are quotes."""
        for parse_head in (self._pc, self._mobile):
            if (entry := parse_head(number, line)) is not None:
                self.parse_head = parse_head
                return entry
        return None

    def _day_line(self, line: str) -> bool:
        """Whether the line is only a date, or a time without a message."""
        if self.parse_head != self._mobile and (match := _DAY.fullmatch(line)):
            self.day = _day(match)
            return True
        if self.parse_head == self._pc:
            return False
        is_after_blank = not (self.lines and self.lines[-1].strip())
        stamp = _MOBILE.fullmatch(line)
        return bool((is_after_blank and _WEEKDAY.fullmatch(line)) or (stamp and stamp["rest"] is None))

    def _pc(self, number: int, line: str) -> _Entry | None:
        match = _PC.fullmatch(line)
        if match is not None:
            if self.day is None:
                raise ValueError(tr("time without a date"))
            return _Entry(number, _datetime(self.day, match), match["sender"].strip(), match["text"] or "")
        if self.day is not None and _SYSTEM.fullmatch(line):
            sent_at = self.entry.sent_at if self.entry else datetime.combine(self.day, datetime.min.time())
            return _Entry(number, sent_at, "", line)
        return None

    def _mobile(self, number: int, line: str) -> _Entry | None:
        match = _MOBILE.fullmatch(line)
        if match is None or match["rest"] is None:
            return None
        sent_at = _datetime(_day(match), match)
        # The name ends with the separator, after which a message may be empty.
        text = f"{match['rest']} " if match["rest"].endswith(_SEPARATOR.rstrip()) else match["rest"]
        parts = None if self.senders is None else self.senders.split(text)
        if parts is None:
            return _Entry(number, sent_at, "", text if self.senders is None else match["rest"])
        return _Entry(number, sent_at, parts[0].strip(), parts[1])

    def _continue(self, number: int, raw: str) -> None:
        position = tr("line {number}", number=number)
        if self.entry is None:
            is_header = number <= _HEADER_LINES and (_title_of(raw.translate(_BLANKS))[0] or _SAVED.fullmatch(raw))
            if raw.strip() and not is_header:
                self.tree.report_bad(self.file, position, tr("text before the first message"))
        elif self.size > MAX_RECORD_LENGTH:
            self.tree.report_bad(self.file, position, tr("message too long"))
        else:
            self.lines.append(raw)
            self.size += len(raw) + 1


def _text_entries(tree: SourceTree, file: str, senders: SenderNames | None) -> Iterator[_Entry]:
    text = _TextParser(tree, file, senders)
    with tree.open(file) as stream:
        for number, line in text_lines(stream, tree.head(file, _SNIFFED)):
            if (entry := text.feed(number, line)) is not None:
                yield entry
    if (entry := text.end()) is not None:
        yield entry


def _text_record(entry: _Entry) -> TextRecord:
    mark, text = _mark(entry.sender, entry.text)
    return TextRecord(entry.number, entry.sent_at, entry.sender, text, mark)


def _mark(sender: str, text: str) -> tuple[Mark, str]:
    text = text.strip()
    if not sender or _CALL.fullmatch(text):
        return Mark.SERVICE, text
    if _DELETED.fullmatch(text):
        return Mark.DELETED, text
    if _STICKER.fullmatch(text):
        return Mark.STICKER, ""
    if _MEDIA.fullmatch(text):
        return Mark.MEDIA, ""
    if _WITH_STICKER.match(text):
        return Mark.MEDIA, _WITH_STICKER.sub("", text, count=1)
    return Mark.NONE, text
