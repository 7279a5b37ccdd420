"""Parses the lines of QQ's text exports: from the PC client, and copied from chat windows on PC and phone.

A line is the parse_heading of a message, a date, a title_line, a rule, or text.
"""

import html
import re
from itertools import pairwise
from typing import Literal

import msgspec

from training.archives.formats.timestamps import hour_24

Form = Literal["export", "copy", "phone"]
"""Where a heading has the time: before the name; behind it with a date; behind it without one."""

_DAY = r"(?P<a>\d{1,4})[-/.年](?P<b>\d{1,2})[-/.月](?P<c>\d{1,4})日?(?: ?(?:星期|周|週)[一二三四五六日天])?"
_CLOCK = (
    r"(?:(?P<before>上午|下午|凌晨|早上|中午|晚上) ?)?(?P<hour>\d{1,2}):(?P<minute>\d\d):(?P<second>\d\d)"
    r"(?:[ \u202f\u00a0]?(?P<after>[AaPp]\.?[Mm]\.?))?"
)
_ACCOUNT = r"(?:\((?P<uin>\d{5,12})\)|<(?P<mail>[^<>\s]+@[^<>\s]+)>)"
_HEADINGS: dict[Form, re.Pattern[str]] = {
    "export": re.compile(rf"{_DAY} {{1,2}}{_CLOCK} (?P<name>[^\t]*?){_ACCOUNT}?\s*$"),
    "copy": re.compile(rf"(?P<name>[^\t]*?){_ACCOUNT}?[ \u00a0]{{1,4}}{_DAY} {{1,2}}{_CLOCK}\s*$"),
    "phone": re.compile(rf"(?P<name>[^\t]*?){_ACCOUNT}?[ \u00a0]{{1,4}}{_CLOCK}\s*$"),
}
_DATE_LINES = (
    re.compile(rf"\s*[—─-]+\s*[—─-]+\s+{_DAY}\s+[—─-]+\s*[—─-]+\s*$"),
    re.compile(rf"\s?{_DAY}\s*$"),
    re.compile(rf"日期[:：] ?{_DAY}\s*$"),
)
_TITLE = re.compile(r"消息(?P<what>分组|对象)[:：](?P<text>.*)$")
_PREAMBLE = re.compile(r"\s*消息记录(?:（|\(|\s*$)")
_RULE = re.compile(r"={40,}\s*$")
_RANK = re.compile(r"【[^【】]{1,12}】(?=.)")
_NAME_AND_ACCOUNT = re.compile(rf"(?P<name>.*?){_ACCOUNT}?\s*$", re.DOTALL)
_TIME = re.compile(rf"{_CLOCK}$")
_MAX_HEADING_LENGTH = 200


class DateLine(msgspec.Struct, frozen=True):
    """The three numbers of a date, in the order in which they are written."""

    parts: tuple[int, int, int]


class Heading(msgspec.Struct, frozen=True):
    """A line that begins a message.

    Attributes:
        name: the writer's name, without a rank in the group.
        account: the account number or address if the line has one, else the name as written.
        clock: hour, minute, second.
        day: the date if the line has one.
        has_account: whether `account` is more than a name.
        is_own: whether its colour is that of the owner's messages; None in exports without colours.
    """

    name: str
    account: str
    clock: tuple[int, int, int]
    day: DateLine | None = None
    has_account: bool = False
    is_own: bool | None = None


class Title(msgspec.Struct, frozen=True):
    """A line with the contact list a chat is in (`group`) or the person or group it is with (`peer`)."""

    what: Literal["group", "peer"]
    text: str


class Rule(msgspec.Struct, frozen=True):
    """A separator or preamble."""


Line = Heading | DateLine | Title | Rule


def parse_heading(line: str, form: Form) -> Heading | None:
    """Parses a heading in this form; None if the line is not one."""
    if len(line) > _MAX_HEADING_LENGTH:
        return None
    match = _HEADINGS[form].match(line)
    if match is None:
        return None
    day = None if form == "phone" else _date_of(match)
    heading = _make_heading(match, _clock_of(match), day)
    return heading if heading.account else None


def coloured_heading(name: str, clock: str, *, is_own: bool | None) -> Heading | None:
    """Makes a heading of a name and a time of day."""
    time, named = _TIME.match(clock.strip()), _NAME_AND_ACCOUNT.match(name.strip())
    if time is None or named is None:
        return None
    return msgspec.structs.replace(_make_heading(named, _clock_of(time), None), is_own=is_own)


def date_line(line: str, *, alone: bool = True) -> DateLine | None:
    """Parses a line with the date of the messages below it; `alone` also accepts a bare date."""
    if len(line) > _MAX_HEADING_LENGTH:
        return None
    for pattern in _DATE_LINES if alone else (_DATE_LINES[0], _DATE_LINES[2]):
        if match := pattern.match(line):
            return _date_of(match)
    return None


def title_line(line: str) -> Title | None:
    """Parses a title; None if the line is not one."""
    match = _TITLE.match(line.strip())
    if match is None:
        return None
    return Title("group" if match["what"] == "分组" else "peer", html.unescape(match["text"]).strip())


def is_rule(line: str) -> bool:
    """Whether a line separates titles."""
    return _RULE.match(line) is not None


def is_preamble(line: str) -> bool:
    """Whether a line is the file's preamble."""
    return _PREAMBLE.match(line) is not None


def detect_form(lines: list[str]) -> Form | None:
    """The form of a text that begins with these lines; None if it is not from QQ.

    Headings without an account number could be something else, so two of them are required, with text between them.
    """
    if lines and len(lines) > 1:
        lines = lines[:-1]  # may be cut off
    first = next((line for line in lines if line.strip()), "")
    if any(title_line(line) for line in lines[:12]) and any(is_rule(line) or is_preamble(line) for line in lines[:12]):
        return "export"
    for form in ("export", "copy"):
        if parse_heading(first, form) and _has_headings(lines, form):
            return form
    if date_line(first) and _has_headings(lines, "phone", min_count=1):
        return "phone"
    return None


def is_spaced(lines: list[str], form: Form) -> bool:
    """Whether most headings in these lines follow an empty line; pasted ones may not."""
    heading_lines = [number for number, line in enumerate(lines) if parse_heading(line, form)]
    spaced = sum(number == 0 or not lines[number - 1].strip() or is_rule(lines[number - 1]) for number in heading_lines)
    return spaced * 2 > len(heading_lines)


def _has_headings(lines: list[str], form: Form, min_count: int = 2) -> bool:
    """Whether the lines contain headings with text between them, enough of them to be sure."""
    heading_lines = [number for number, line in enumerate(lines) if parse_heading(line, form)]
    if any(after == before + 1 for before, after in pairwise(heading_lines)):
        return False
    spaced = all(number == 0 or not lines[number - 1].strip() or form != "export" for number in heading_lines)
    with_account = any(
        heading is not None and heading.has_account
        for heading in (parse_heading(lines[at], form) for at in heading_lines)
    )
    return bool(heading_lines) and (with_account or (spaced and len(heading_lines) >= min_count))


def _date_of(match: re.Match[str]) -> DateLine:
    return DateLine((int(match["a"]), int(match["b"]), int(match["c"])))


def _clock_of(match: re.Match[str]) -> tuple[int, int, int]:
    half = match["before"] or match["after"] or ""
    return hour_24(int(match["hour"]), half), int(match["minute"]), int(match["second"])


def _make_heading(match: re.Match[str], clock: tuple[int, int, int], day: DateLine | None) -> Heading:
    name = match["name"].strip()
    bare = _RANK.sub("", name, count=1).strip() if name.startswith("【") else name
    account = match["uin"] or match["mail"]
    return Heading(bare or name, account or bare or name, clock, day, has_account=account is not None)
