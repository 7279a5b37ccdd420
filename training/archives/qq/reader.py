"""QQ: what the PC client exports as text or as `.mht`, one chat or all of them, and copies out of a chat window.

Two passes: the first learns who speaks in which chat and how the file writes days, the second yields messages.
Times are local, without a zone. Whose export it is, only the colours of an `.mht` tell.
"""

import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec

from doppel.i18n import tr
from training.archives.formats.chat_logs import MessageIds, file_title, log_records
from training.archives.formats.records import MALFORMED
from training.archives.formats.text_lines import decode_head
from training.archives.message import Kind, Mark, Message
from training.archives.qq import lines as qq_lines
from training.archives.qq.lines import Day, Form, Head, Heading, Rule, Title
from training.archives.qq.mht import is_mht, mht_records
from training.archives.source_tree import Tree

_SNIFFED = 8192
_SURVEYED = 1 << 18
_SYSTEM_ACCOUNTS = frozenset(("10000", "1000000"))
_GROUP_LIST = re.compile(r"群|讨论组|多人聊天")
_PLACEHOLDER = re.compile(
    r"\[(?P<what>图片|闪照|语音|语音消息|视频|短视频|视频通话|语音通话|文件|离线文件|动画表情|表情|礼物|音乐|位置|名片|红包"
    r"|QQ红包|转账|分享|窗口抖动|戳一戳|聊天记录|合并转发)\]"
)
_APP_WORDS = re.compile(r"(?:我发了一个.{1,24}[，,])?请使用(?:新版|最新版)?(?:手机)?QQ.{0,20}$")
_SYSTEM = re.compile(
    r"(?:.{1,60}撤回了(?:一条消息|成员.{1,60}的一条消息|一条成员消息).{0,8}|.{1,60} recalled a message(?: Re-edit)?"
    r"|你和.{1,60}有\d+个共同好友，点击添加好友。|.{1,60}加入(?:了)?本群。|.{1,60}邀请.{1,60}加入了本群。)\s*$"
)
_RECALLED = re.compile(r"撤回了|recalled a message")


class _Section(msgspec.Struct):
    """What the first pass learned of one chat in the file.

    Attributes:
        names: messages by account.
        own: how many messages of an account are painted as the owner's, less those that are not.
        with_account: headings with a number or an address.
    """

    group: str = ""
    peer: str = ""
    names: Counter[str] = msgspec.field(default_factory=Counter)
    own: Counter[str] = msgspec.field(default_factory=Counter)
    painted: bool = False
    aliases: dict[str, str] = msgspec.field(default_factory=dict)
    with_account: int = 0

    @property
    def has_accounts(self) -> bool:
        return self.with_account * 10 >= sum(self.names.values()) * 9

    @property
    def kind(self) -> Kind:
        """Lists of friends have names of their own, but only chats of two are written without numbers."""
        if _GROUP_LIST.search(self.group):
            return "group"
        return "dm" if len(self.names) <= 2 or (self.peer and not self.with_account) else "group"

    def owner(self, account: str) -> bool | None:
        """Whether an account is the owner's. The colour of a single message may be wrong, that of most is not."""
        if self.painted and self.own[account]:
            return self.own[account] > 0
        if self.kind != "dm" or self.painted:
            return None
        partner = next((one for one in self.names if self.peer and self.peer in (one, self.aliases.get(one))), None)
        if partner is None:
            return None
        return account != partner if len(self.names) == 2 else (False if account == partner else None)


class _Survey(msgspec.Struct):
    """What the first pass learned of the whole file."""

    form: Form | None
    sections: list[_Section]
    is_spaced: bool = True
    is_day_first: bool = False


class QQReader:
    """Reads one file, with one chat or many."""

    name = "qq"
    accepts = "QQ chat history exported from the PC client (txt or mht) or copied from a chat window"

    def sniff(self, tree: Tree) -> bool:
        """Whether the file begins with headings of messages as QQ writes them, or was saved by its manager."""
        if not tree.is_file:
            return False
        text = decode_head(tree.head(tree.files()[0], _SNIFFED))
        return is_mht(text) or qq_lines.form_of(_lines(text)) is not None

    def read(self, tree: Tree) -> Iterator[Message]:
        """Every message and every line that the app wrote itself."""
        file = tree.files()[0]
        survey = _survey(tree, file)
        chats = _Chats(survey, file_title(tree.label))
        place, day = 0, None
        for number, head, lines in _records(tree, file, survey):
            if isinstance(head, Title):
                place, day = place + (head.what == "peer"), None
            if isinstance(head, Day):
                day = head
            if not isinstance(head, Heading):
                if any(map(str.strip, lines)):
                    tree.bad(file, tr("line {number}", number=number), tr("text before the first message"))
                continue
            try:
                sent_at = _time(head, head.day or day, survey, tree)
            except MALFORMED as error:
                tree.bad(file, tr("line {number}", number=number), error)
                continue
            for part in _parts(head, lines):
                yield chats.message(place, head, sent_at, part, f"{file}:{number}")


class _Chats:
    """Makes messages of what stands in the chats of one file."""

    def __init__(self, survey: _Survey, file_name: str) -> None:
        self._sections = survey.sections
        self._file_name = file_name
        self._ids = MessageIds()

    def message(self, place: int, head: Heading, sent_at: datetime, part: tuple[Mark, str], origin: str) -> Message:
        """One message; `part` is what it is and its text."""
        section = self._sections[min(place, len(self._sections) - 1)]
        mark, text = part
        speakers = " & ".join(sorted(section.names))[:200]
        return Message(
            id=self._ids.of(sent_at, head.account, text or mark),
            platform="qq",
            chat=section.peer or speakers or self._file_name,
            kind=section.kind,
            sender=head.account,
            sender_name=head.name,
            sent_at=sent_at,
            text=text,
            is_owner=False if head.account in _SYSTEM_ACCOUNTS else section.owner(head.account),
            chat_name=section.peer or self._file_name,
            mark=mark,
            origin=origin,
        )


def _parts(head: Heading, lines: list[str]) -> list[tuple[Mark, str]]:
    """The message under a heading, and notices of the app's that a copied chat window has below it."""
    lines = "\n".join(lines).strip().split("\n")
    if head.account in _SYSTEM_ACCOUNTS:
        return [("service", "\n".join(lines))]
    notices: list[str] = []
    while lines and (not lines[-1].strip() or _SYSTEM.match(lines[-1])):
        line = lines.pop().strip()
        notices += [line] if line else []
    text = "\n".join(lines).strip()
    parts: list[tuple[Mark, str]] = []
    if text or not notices or not _RECALLED.search(notices[-1]):
        parts.append(_marked(text))
    elif notices:
        parts.append(("deleted", ""))
    return parts + [("service", notice) for notice in reversed(notices)]


def _marked(text: str) -> tuple[Mark, str]:
    """What stands for a picture or the like is no text; words beside it are."""
    found = {match["what"] for match in _PLACEHOLDER.finditer(text)}
    if not found:
        return "", text
    words = _PLACEHOLDER.sub("", text).strip()
    words = "" if _APP_WORDS.match(words) else words
    if found & {"聊天记录", "合并转发"}:
        return "forward", words
    if found <= {"表情", "动画表情"}:
        return ("", words) if words else ("sticker", "")
    return "media", words


def _survey(tree: Tree, file: str) -> _Survey:
    """Reads the file once."""
    text = decode_head(tree.head(file, _SURVEYED))
    form = None if is_mht(text) else qq_lines.form_of(_lines(text[:_SNIFFED])) or "export"
    survey = _Survey(form, [_Section()], is_spaced=form is not None and qq_lines.is_spaced(_lines(text), form))
    day_first = 0
    group = ""
    for _, head, _ in _records(tree.unheard(), file, survey, is_first_pass=True):
        section = survey.sections[-1]
        if isinstance(head, Title):
            if head.what == "group":
                group = head.text
            else:
                survey.sections.append(_Section(group=group, peer=head.text))
        elif isinstance(head, Heading):
            if head.day is not None:
                first, second = head.day.parts[:2]
                day_first += (12 < first <= 31) - (second > 12)
            if head.account in _SYSTEM_ACCOUNTS:
                section.with_account += 1
                continue
            section.names[head.account] += 1
            section.aliases[head.account] = head.name
            section.with_account += head.has_account
            if head.is_own is not None:
                section.painted = True
                section.own[head.account] += 1 if head.is_own else -1
    survey.is_day_first = day_first > 0
    return survey


def _records(
    tree: Tree, file: str, survey: _Survey, *, is_first_pass: bool = False
) -> Iterator[tuple[int, Head, list[str]]]:
    if survey.form is None:
        return mht_records(tree, file)
    return log_records(tree, file, _Begin(survey, is_first_pass=is_first_pass))


class _Begin:
    """Tells which lines begin something. Words may look like a heading, so not every line that does is one.

    Where messages end in an empty line, a heading follows one; where headings have numbers, all have.
    """

    def __init__(self, survey: _Survey, *, is_first_pass: bool = False) -> None:
        self._survey = survey
        self._is_first_pass = is_first_pass
        self._place = 0
        self._free = True
        self._ruled = True

    def __call__(self, line: str) -> Head | None:
        """The head that a line is, if it is one."""
        free, self._free = self._free, not line.strip()
        ruled, self._ruled = self._ruled, self._ruled and not line.strip()
        head = self._head(line.removeprefix("\ufeff"), is_free=free, is_ruled=ruled)
        if head is not None and not isinstance(head, Heading):
            self._free = True
            self._ruled = True
        return head

    def _head(self, line: str, *, is_free: bool, is_ruled: bool) -> Head | None:
        form = self._survey.form or "export"
        if qq_lines.is_rule(line) or (is_ruled and qq_lines.is_preamble(line)):
            return Rule()
        if is_ruled and (title := qq_lines.title(line)):
            self._place += title.what == "peer"
            return title
        if form != "export" and (day := qq_lines.divider(line, alone=is_free)):
            return day
        head = qq_lines.heading(line, form)
        if head is None and form == "copy" and is_free:
            head = qq_lines.heading(line, "phone")
        return head if head is not None and self._is_heading(head, is_free=is_free) else None

    def _is_heading(self, head: Heading, *, is_free: bool) -> bool:
        if self._survey.is_spaced and not is_free:
            return False
        if self._is_first_pass or head.has_account:
            return True
        return not self._survey.sections[min(self._place, len(self._survey.sections) - 1)].has_accounts


def _lines(text: str) -> list[str]:
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _time(head: Heading, day: Day | None, survey: _Survey, tree: Tree) -> datetime:
    """Raises ValueError for a day that no calendar has, or where none is known."""
    if day is None:
        raise ValueError(tr("no date before it"))
    a, b, c = day.parts
    year, month, date = (a, b, c) if a > 31 else (c, b, a) if survey.is_day_first else (c, a, b)
    local = datetime(year, month, date, *head.clock, tzinfo=tree.zone)
    return local.astimezone(UTC)
