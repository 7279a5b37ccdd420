"""Reads QQ's text and `.mht` exports from the PC client, with one chat or all, and text copied from a chat window.

Two passes: the first finds who writes in which chat and the format of dates, the second yields messages. Times are
local, without a zone. Only the colours of an `.mht` show which messages are the owner's.
"""

import re
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, time
from itertools import groupby
from operator import attrgetter

import msgspec

from doppel.i18n import tr
from training.archives.formats.archive_records import RECORD_ERRORS
from training.archives.formats.chat_text import MessageIds, title_of
from training.archives.formats.local_times import (
    MONTH_FIRST,
    DatePlaces,
    DateSurvey,
    dates_do_not_fit,
    in_file_order,
    local_date,
)
from training.archives.formats.text_lines import decode_head, multiline_records
from training.archives.message import Kind, Mark, Message
from training.archives.qq import headings
from training.archives.qq.headings import DateLine, Form, Heading, Line, Rule, Title
from training.archives.qq.mht import is_mht, mht_records
from training.archives.source_tree import SourceTree

_SNIFFED = 8192
_FORM_SAMPLE = 1 << 18
_SYSTEM_ACCOUNTS = frozenset(("10000", "1000000"))
_GROUP_LIST_NAME = re.compile(r"群|讨论组|多人聊天")
_PLACEHOLDER = re.compile(
    r"\[(?P<what>图片|闪照|语音|语音消息|视频|短视频|视频通话|语音通话|文件|离线文件|动画表情|表情|礼物|音乐|位置|名片|红包"
    r"|QQ红包|转账|分享|窗口抖动|戳一戳|聊天记录|合并转发)\]"
)
_UPGRADE_NOTICE = re.compile(r"(?:我发了一个.{1,24}[，,])?请使用(?:新版|最新版)?(?:手机)?QQ.{0,20}$")
_SYSTEM = re.compile(
    r"(?:.{1,60}撤回了(?:一条消息|成员.{1,60}的一条消息|一条成员消息).{0,8}|.{1,60} recalled a message(?: Re-edit)?"
    r"|你和.{1,60}有\d+个共同好友，点击添加好友。|.{1,60}加入(?:了)?本群。|.{1,60}邀请.{1,60}加入了本群。)\s*$"
)
_RECALLED = re.compile(r"撤回了|recalled a message")


class _Chat(msgspec.Struct):
    """What the first pass found about one chat of the file.

    Attributes:
        group: the contact list it is in.
        peer: the person or group it is with.
        names: number of messages by account.
        own: messages of an account in the owner's colour, minus those in another.
        is_coloured: whether any message has a known colour.
        aliases: display names by account.
        with_account: number of headings with an account number or address.
    """

    group: str = ""
    peer: str = ""
    names: Counter[str] = msgspec.field(default_factory=Counter)
    own: Counter[str] = msgspec.field(default_factory=Counter)
    is_coloured: bool = False
    aliases: dict[str, str] = msgspec.field(default_factory=dict)
    with_account: int = 0

    @property
    def has_accounts(self) -> bool:
        return self.with_account * 10 >= sum(self.names.values()) * 9

    @property
    def kind(self) -> Kind:
        """Contact lists have custom names, but only private chats are written without account numbers."""
        if _GROUP_LIST_NAME.search(self.group):
            return "group"
        return "dm" if len(self.names) <= 2 or (self.peer and not self.with_account) else "group"

    def owner(self, account: str) -> bool | None:
        """Whether an account is the owner's, by the colour of most of its messages, or as not the chat's peer."""
        if self.is_coloured and self.own[account]:
            return self.own[account] > 0
        if self.kind != "dm" or self.is_coloured:
            return None
        partner = next(
            (account for account in self.names if self.peer and self.peer in (account, self.aliases.get(account))), None
        )
        if partner is None:
            return None
        return account != partner if len(self.names) == 2 else (False if account == partner else None)


class _Survey(msgspec.Struct):
    """What the first pass found about the whole file."""

    form: Form | None
    chats: list[_Chat]
    is_spaced: bool = True
    dates: DateSurvey = msgspec.field(default_factory=lambda: DateSurvey(1999))
    places: DatePlaces = MONTH_FIRST


class QQReader:
    """Reads one file, with one chat or many."""

    name = "qq"
    accepts = "QQ chat history exported from the PC client (txt or mht) or copied from a chat window"

    def sniff(self, tree: SourceTree) -> bool:
        """Whether the file begins with QQ's message headings, or was saved by its message manager."""
        if not tree.is_file:
            return False
        text = decode_head(tree.head(tree.files()[0], _SNIFFED))
        return is_mht(text) or headings.detect_form(_lines(text)) is not None

    def read(self, tree: SourceTree) -> Iterator[Message]:
        """Every message and notice."""
        file = tree.files()[0]
        survey = _survey(tree, file)
        if misfits := survey.dates.misfits(survey.places):
            tree.report_bad(file, tr("dates"), dates_do_not_fit(misfits))
            return
        converter = _Converter(survey, title_of(tree.label))
        for place, records in groupby(_timed_records(tree, file, survey), key=attrgetter("place")):
            in_order = in_file_order(
                records,
                attrgetter("sent_at"),
                tree.zone,
                is_newest_first=survey.dates.is_newest_first(survey.places),
            )
            for record, written_at, sent_at in in_order:
                for part in _parts(record.head, record.lines):
                    yield converter.message(place, record, written_at, sent_at, part)


class _Record(msgspec.Struct, frozen=True):
    """A message: the number of its chat in the file, its local time, and where and what it is."""

    place: int
    sent_at: datetime
    head: Heading
    lines: list[str]
    origin: str


def _timed_records(tree: SourceTree, file: str, survey: _Survey) -> Iterator[_Record]:
    """The second pass: every message with its time."""
    place, day = 0, None
    for number, head, lines in _records(tree, file, survey):
        if isinstance(head, Title):
            place, day = place + (head.what == "peer"), None
        if isinstance(head, DateLine):
            day = head
        if not isinstance(head, Heading):
            if any(map(str.strip, lines)):
                tree.report_bad(file, tr("line {number}", number=number), tr("text before the first message"))
            continue
        try:
            sent_at = _time(head, head.day or day, survey.places)
        except RECORD_ERRORS as error:
            tree.report_bad(file, tr("line {number}", number=number), error)
            continue
        yield _Record(place, sent_at, head, lines, f"{file}:{number}")


class _Converter:
    """Turns the records of a file into messages."""

    def __init__(self, survey: _Survey, file_name: str) -> None:
        self._chats = survey.chats
        self._file_name = file_name
        self._ids = MessageIds()

    def message(
        self, place: int, record: _Record, written_at: datetime, sent_at: datetime, part: tuple[Mark, str]
    ) -> Message:
        """One message; `part` is its mark and text."""
        head = record.head
        chat = self._chats[min(place, len(self._chats) - 1)]
        mark, text = part
        speakers = " & ".join(sorted(chat.names))[:200]
        return Message(
            id=self._ids.next_id(written_at, head.account, text or mark),
            platform="qq",
            chat=chat.peer or speakers or self._file_name,
            kind=chat.kind,
            sender=head.account,
            sender_name=head.name,
            sent_at=sent_at,
            text=text,
            is_owner=False if head.account in _SYSTEM_ACCOUNTS else chat.owner(head.account),
            chat_name=chat.peer or self._file_name,
            mark=mark,
            origin=record.origin,
        )


def _parts(head: Heading, lines: list[str]) -> list[tuple[Mark, str]]:
    """Splits the lines below a heading into the message, and the notices below it in a copied chat window."""
    lines = "\n".join(lines).strip().split("\n")
    if head.account in _SYSTEM_ACCOUNTS:
        return [(Mark.SERVICE, "\n".join(lines))]
    notices: list[str] = []
    while lines and (not lines[-1].strip() or _SYSTEM.match(lines[-1])):
        line = lines.pop().strip()
        notices += [line] if line else []
    text = "\n".join(lines).strip()
    parts: list[tuple[Mark, str]] = []
    if text or not notices or not _RECALLED.search(notices[-1]):
        parts.append(_split_mark(text))
    elif notices:
        parts.append((Mark.DELETED, ""))
    return parts + [(Mark.SERVICE, notice) for notice in reversed(notices)]


def _split_mark(text: str) -> tuple[Mark, str]:
    """Splits placeholders of pictures and the like from the text."""
    placeholders = {match["what"] for match in _PLACEHOLDER.finditer(text)}
    if not placeholders:
        return Mark.NONE, text
    text = _PLACEHOLDER.sub("", text).strip()
    text = "" if _UPGRADE_NOTICE.match(text) else text
    if placeholders & {"聊天记录", "合并转发"}:
        return Mark.FORWARD, text
    if placeholders <= {"表情", "动画表情"}:
        return (Mark.NONE, text) if text else (Mark.STICKER, "")
    return Mark.MEDIA, text


def _survey(tree: SourceTree, file: str) -> _Survey:
    """The first pass."""
    text = decode_head(tree.head(file, _FORM_SAMPLE))
    form = None if is_mht(text) else headings.detect_form(_lines(text[:_SNIFFED])) or "export"
    survey = _Survey(form, [_Chat()], is_spaced=form is not None and headings.is_spaced(_lines(text), form))
    group = ""
    for _, head, _ in _records(tree.for_survey(), file, survey, is_first_pass=True):
        chat = survey.chats[-1]
        if isinstance(head, Title):
            if head.what == "group":
                group = head.text
            else:
                survey.chats.append(_Chat(group=group, peer=head.text))
        elif isinstance(head, DateLine):
            survey.dates.add(head.parts)
        elif isinstance(head, Heading):
            if head.day is not None:
                survey.dates.add(head.day.parts)
            if head.account in _SYSTEM_ACCOUNTS:
                chat.with_account += 1
                continue
            chat.names[head.account] += 1
            chat.aliases[head.account] = head.name
            chat.with_account += head.has_account
            if head.is_own is not None:
                chat.is_coloured = True
                chat.own[head.account] += 1 if head.is_own else -1
    survey.places = survey.dates.places(MONTH_FIRST)
    return survey


def _records(
    tree: SourceTree, file: str, survey: _Survey, *, is_first_pass: bool = False
) -> Iterator[tuple[int, Line, list[str]]]:
    if survey.form is None:
        return mht_records(tree, file)
    return multiline_records(tree, file, _LineParser(survey, is_first_pass=is_first_pass))


class _LineParser:
    """Recognizes the lines that are not text. Not every line that looks like a heading is one.

    In files where messages end in an empty line, a heading must follow one. In files where headings have account
    numbers, all must have one.
    """

    def __init__(self, survey: _Survey, *, is_first_pass: bool = False) -> None:
        self._survey = survey
        self._is_first_pass = is_first_pass
        self._place = 0
        self._is_after_blank = True
        self._is_after_rule = True

    def __call__(self, line: str) -> Line | None:
        """The parsed line; None for text."""
        is_after_blank, self._is_after_blank = self._is_after_blank, not line.strip()
        is_after_rule, self._is_after_rule = self._is_after_rule, self._is_after_rule and not line.strip()
        head = self._head(line.removeprefix("\ufeff"), is_after_blank=is_after_blank, is_after_rule=is_after_rule)
        if head is not None and not isinstance(head, Heading):
            self._is_after_blank = True
            self._is_after_rule = True
        return head

    def _head(self, line: str, *, is_after_blank: bool, is_after_rule: bool) -> Line | None:
        form = self._survey.form or "export"
        if headings.is_rule(line) or (is_after_rule and headings.is_preamble(line)):
            return Rule()
        if is_after_rule and (title := headings.title_line(line)):
            self._place += title.what == "peer"
            return title
        if form != "export" and (day := headings.date_line(line, alone=is_after_blank)):
            return day
        head = headings.parse_heading(line, form)
        if head is None and form == "copy" and is_after_blank:
            head = headings.parse_heading(line, "phone")
        return head if head is not None and self._is_heading(head, is_after_blank=is_after_blank) else None

    def _is_heading(self, head: Heading, *, is_after_blank: bool) -> bool:
        if self._survey.is_spaced and not is_after_blank:
            return False
        if self._is_first_pass or head.has_account:
            return True
        return not self._survey.chats[min(self._place, len(self._survey.chats) - 1)].has_accounts


def _lines(text: str) -> list[str]:
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _time(head: Heading, day: DateLine | None, places: DatePlaces) -> datetime:
    """The local time of a message. Raises ValueError for an impossible date, or if none is known."""
    if day is None:
        raise ValueError(tr("no date before it"))
    return datetime.combine(local_date(day.parts, places), time(*head.clock))
