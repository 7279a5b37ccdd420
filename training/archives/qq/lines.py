"""The lines of QQ's text logs: exports of the PC client, and copies out of chat windows of PC and phone.

Tells what a line is: the heading of a message, a day, a title, a rule or words. Does not know whose words they are.
"""

import html
import re
from itertools import pairwise
from typing import Literal

import msgspec

from training.archives.formats.chat_text import hour_of

Form = Literal["export", "copy", "phone"]
"""Where the time stands in a heading: before the name, behind it with a day, behind it without one."""

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
_DIVIDERS = (
    re.compile(rf"\s*[—─-]+\s*[—─-]+\s+{_DAY}\s+[—─-]+\s*[—─-]+\s*$"),
    re.compile(rf"\s?{_DAY}\s*$"),
    re.compile(rf"日期[:：] ?{_DAY}\s*$"),
)
_TITLE = re.compile(r"消息(?P<what>分组|对象)[:：](?P<text>.*)$")
_PREAMBLE = re.compile(r"\s*消息记录(?:（|\(|\s*$)")
_RULE = re.compile(r"={40,}\s*$")
_RANK = re.compile(r"【[^【】]{1,12}】(?=.)")
_NAMED = re.compile(rf"(?P<name>.*?){_ACCOUNT}?\s*$", re.DOTALL)
_TIME = re.compile(rf"{_CLOCK}$")
_LONGEST_HEADING = 200


class Day(msgspec.Struct, frozen=True):
    """The three numbers of a day, in the order in which they stand."""

    parts: tuple[int, int, int]


class Heading(msgspec.Struct, frozen=True):
    """A line that begins a message.

    Attributes:
        name: the writer's name, without a rank in the group.
        account: number or address, where the line has one, else the name as it stands.
        clock: hour, minute, second.
        day: the day, where the line has one.
        has_account: whether `account` is more than a name.
        is_own: whether the export paints it as the owner's; None when it has no colours.
    """

    name: str
    account: str
    clock: tuple[int, int, int]
    day: Day | None = None
    has_account: bool = False
    is_own: bool | None = None


class Title(msgspec.Struct, frozen=True):
    """A line that says which list a chat is in (`group`) or whom or what it is with (`peer`)."""

    what: Literal["group", "peer"]
    text: str


class Rule(msgspec.Struct, frozen=True):
    """A line of the file's own: no words of anybody."""


Head = Heading | Day | Title | Rule


def heading(line: str, form: Form) -> Heading | None:
    """The heading that the line is in this form, if it is one."""
    if len(line) > _LONGEST_HEADING:
        return None
    match = _HEADINGS[form].match(line)
    if match is None:
        return None
    day = None if form == "phone" else _day_of(match)
    found = _named(match, _clock_of(match), day)
    return found if found.account else None


def painted_heading(name: str, clock: str, *, is_own: bool | None) -> Heading | None:
    """The heading that a name and a time of day make."""
    time, named = _TIME.match(clock.strip()), _NAMED.match(name.strip())
    if time is None or named is None:
        return None
    return msgspec.structs.replace(_named(named, _clock_of(time), None), is_own=is_own)


def divider(line: str, *, alone: bool = True) -> Day | None:
    """The day that a line between messages names; `alone` also takes a bare date for one."""
    if len(line) > _LONGEST_HEADING:
        return None
    for pattern in _DIVIDERS if alone else (_DIVIDERS[0], _DIVIDERS[2]):
        if match := pattern.match(line):
            return _day_of(match)
    return None


def title(line: str) -> Title | None:
    """The title that a line is, if it is one."""
    match = _TITLE.match(line.strip())
    if match is None:
        return None
    return Title("group" if match["what"] == "分组" else "peer", html.unescape(match["text"]).strip())


def is_rule(line: str) -> bool:
    """Whether a line is one of those that set titles apart."""
    return _RULE.match(line) is not None


def is_preamble(line: str) -> bool:
    """Whether a line is what the file begins with."""
    return _PREAMBLE.match(line) is not None


def form_of(lines: list[str]) -> Form | None:
    """The form of the text that begins with these lines; None for a text that is no log of QQ's.

    Without a number behind a name, one such line is none: two are asked for, with words between them.
    """
    if lines and len(lines) > 1:
        lines = lines[:-1]  # cut by the end of what was read
    first = next((line for line in lines if line.strip()), "")
    if any(title(line) for line in lines[:12]) and any(is_rule(line) or is_preamble(line) for line in lines[:12]):
        return "export"
    for form in ("export", "copy"):
        if heading(first, form) and _alternates(lines, form):
            return form
    if divider(first) and _alternates(lines, "phone", asked=1):
        return "phone"
    return None


def is_spaced(lines: list[str], form: Form) -> bool:
    """Whether an empty line stands before the headings, as far as these lines go; what somebody pasted may lack it."""
    found = [number for number, line in enumerate(lines) if heading(line, form)]
    spaced = sum(number == 0 or not lines[number - 1].strip() or is_rule(lines[number - 1]) for number in found)
    return spaced * 2 > len(found)


def _alternates(lines: list[str], form: Form, asked: int = 2) -> bool:
    found = [number for number, line in enumerate(lines) if heading(line, form)]
    if any(after == before + 1 for before, after in pairwise(found)):
        return False
    spaced = all(number == 0 or not lines[number - 1].strip() or form != "export" for number in found)
    with_account = any(one is not None and one.has_account for one in (heading(lines[at], form) for at in found))
    return bool(found) and (with_account or (spaced and len(found) >= asked))


def _day_of(match: re.Match[str]) -> Day:
    return Day((int(match["a"]), int(match["b"]), int(match["c"])))


def _clock_of(match: re.Match[str]) -> tuple[int, int, int]:
    half = match["before"] or match["after"] or ""
    return hour_of(int(match["hour"]), half), int(match["minute"]), int(match["second"])


def _named(match: re.Match[str], clock: tuple[int, int, int], day: Day | None) -> Heading:
    name = match["name"].strip()
    bare = _RANK.sub("", name, count=1).strip() if name.startswith("【") else name
    account = match["uin"] or match["mail"]
    return Heading(bare or name, account or bare or name, clock, day, has_account=account is not None)
