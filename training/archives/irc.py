"""Reads IRC logs of WeeChat, irssi and the bouncer ZNC, one file for every channel or query.

Follows nick changes within a file, so that one person is one sender there; across files every first nick is a sender
of its own. The logs do not say who the owner is. Times are local unless the log has a zone.
"""

import re
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from operator import itemgetter

import msgspec

from doppel.i18n import tr
from training.archives.formats.archive_records import RECORD_ERRORS
from training.archives.formats.chat_text import MessageIds, title_of
from training.archives.formats.local_times import Direction, in_file_order, local_time
from training.archives.formats.text_lines import first_lines, multiline_records
from training.archives.formats.timestamps import MONTHS, month_number
from training.archives.message import Kind, Mark, Message
from training.archives.source_tree import SourceTree

_NICK = r"[A-Za-z\[\]\\`_^{|}][A-Za-z0-9\[\]\\`_^{|}\-]*"
_MODES = "~&@%+!"

_WEECHAT = re.compile(
    r"(?P<stamp>\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?)\t(?P<prefix>[^\t]*)\t(?P<text>.*)$"
)
_IRSSI = re.compile(r"(?P<clock>\d\d:\d\d(?::\d\d)?)\s(?P<rest>.+)$")
_ZNC = re.compile(r"\[(?P<clock>\d\d:\d\d(?::\d\d)?)\] (?P<rest>.+)$")
_NEW_DAY = re.compile(
    rf"--- (?P<what>Log opened|Log closed|Day changed) \w+ (?P<month>{'|'.join(m.title() for m in MONTHS)})\w*"
    r" {1,2}(?P<day>\d{1,2})(?: \d\d:\d\d:\d\d)? (?P<year>\d{4})$"
)
_OTHER_DAY = re.compile(r"--- (?:Log opened|Log closed|Day changed) ")
_MESSAGE = re.compile(rf"<[ {re.escape(_MODES)}]?(?P<nick>[^\s<>]+)>(?: (?P<text>.*))?$")
_ACTION = re.compile(r"\s?\* (?P<nick>[^\s*]+)(?: (?P<text>.*))?$")
_NOTICE = re.compile(r"-(?P<nick>[^\s():-][^\s():]*)(?::[^\s()]+|\([^\s()]*\))?- (?P<text>.*)$")
_RENAMED = re.compile(r"(?:-!- |\*\*\* )?(?P<old>[^\s]+) is now known as (?P<new>[^\s]+)$")
_LEFT = re.compile(r"(?:-!- |\*\*\* )?(?:(?:Joins|Parts|Quits): )?(?P<nick>[^\s]+) [(\[][^\s]*[)\]](?: .*)?$")
_ADDRESSED = re.compile(rf"(?P<nick>{_NICK})[:,] \S")
_FORMATTING = re.compile(r"\x03(?:\d{1,2}(?:,\d{1,2})?)?|\x04[0-9A-Fa-f]{6}|[\x02\x0f\x11\x16\x1d\x1e\x1f]")

_CHANNEL = re.compile(r"(?:^|[./_])(?P<name>[#&][^\s/]+?)(?:[._-]?\d{4}-?\d\d-?\d\d)?(?:\.(?:log|txt|weechatlog))*$")
_LOG_DATE = re.compile(r"(?<!\d)(?P<year>(?:19|20)\d\d)-?(?P<month>\d\d)-?(?P<day>\d\d)(?!\d)")
_WEECHAT_FILE = re.compile(r"irc\.(?P<network>[^./]+)\.(?P<name>[^/]+?)(?:\.\d{4}-\d\d-\d\d)?\.weechatlog$")
_REPLY_WINDOW = timedelta(minutes=5)
"""Time within which a message that begins with a nick replies to that person's message just before."""


class _Head(msgspec.Struct, frozen=True):
    """One line of a log.

    Attributes:
        day: a date line; all other fields are empty then.
        stamp: date and time, in forms that have both.
        clock: the time alone, in other forms.
        nick: the writer; empty for notices.
        text: what was written.
        mark: what sort of line it is.
        is_known: whether the line has a known form.
    """

    day: re.Match[str] | None = None
    stamp: str = ""
    clock: str = ""
    nick: str = ""
    text: str = ""
    mark: Mark = Mark.NONE
    is_known: bool = True


class _LastMessage(msgspec.Struct, frozen=True):
    """The last message of a log."""

    id: str
    sender: str
    sent_at: datetime


class IRCReader:
    """Reads the log of one channel or query."""

    name = "irc"
    accepts = "IRC logs from WeeChat, irssi or ZNC"

    def sniff(self, tree: SourceTree) -> bool:
        """Whether the first lines have one of the three forms. ZNC has the date in the file's name only."""
        if not tree.is_file:
            return False
        lines = [line.strip("\ufeff\r") for line in first_lines(tree, tree.files()[0])[:3]]
        if not lines:
            return False
        if _WEECHAT.match(lines[0]) or _NEW_DAY.match(lines[0]):
            return True
        first = _ZNC.match(lines[0])
        return bool(first and _line(first["rest"]).is_known and _named_day(tree.label))

    def read(self, tree: SourceTree) -> Iterator[Message]:
        """Every line; lines of the server and the client as service messages."""
        file = tree.files()[0]
        chat, is_channel = _chat(tree.label)
        people, is_newest_first = _survey(tree, file)
        kind: Kind = "group" if is_channel or len(people) > 2 else "dm"
        nicks, ids = _Nicks(), MessageIds()
        last: _LastMessage | None = None
        lines = in_file_order(_lines(tree, file), itemgetter(1), tree.zone, is_newest_first=is_newest_first)
        for (number, _, head), written_at, sent_at in lines:
            if not head.nick:
                nicks.learn(head.text)
            sender = nicks.person(head.nick) if head.nick else chat
            message_id = ids.next_id(written_at, head.nick, head.text)
            reply_to = None
            if head.nick and not head.mark:
                reply_to = _reply_target(head.text, sender, sent_at, last, nicks)
                last = _LastMessage(message_id, sender, sent_at)
            yield Message(
                id=message_id,
                platform="irc",
                chat=chat,
                kind=kind,
                sender=sender,
                sender_name=head.nick or chat,
                sent_at=sent_at,
                text=head.text,
                reply_to=reply_to,
                chat_name=chat,
                mark=head.mark,
                origin=f"{file}:{number}",
            )


class _Nicks:
    """Follows nick changes: a person is identified by their first nick in the file, until that nick leaves."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}

    def person(self, nick: str) -> str:
        """The first nick of the person who has this nick now."""
        return self._first.get(nick.lower(), nick.lower())

    def learn(self, notice: str) -> None:
        """Updates the nicks from a notice that somebody changed their nick, joined or left."""
        if match := _RENAMED.match(notice):
            old, new = match["old"].lower(), match["new"].lower()
            first = self._first.pop(old, old)
            if first == new:
                self._first.pop(new, None)
            else:
                self._first[new] = first
        elif match := _LEFT.match(notice):
            self._first.pop(match["nick"].lower(), None)


def _survey(tree: SourceTree, file: str) -> tuple[set[str], bool]:
    """Everybody who writes in the log, and whether the newest line comes first."""
    nicks, people, direction = _Nicks(), set[str](), Direction()
    for _, sent_at, head in _lines(tree.for_survey(), file):
        direction.add(sent_at.date())
        if head.nick:
            people.add(nicks.person(head.nick))
        else:
            nicks.learn(head.text)
    return people, direction.is_newest_first


def _lines(tree: SourceTree, file: str) -> Iterator[tuple[int, datetime, _Head]]:
    """Yields number, time and content of every line; a time without a zone is local."""
    named = _named_day(tree.label)
    day: date | None = None
    parse_head: Callable[[str], _Head | None] = _parse_head
    for number, head, other_lines in multiline_records(tree, file, parse_head):
        try:
            if named and day is None and not head.day:
                day = date(int(named["year"]), int(named["month"]), int(named["day"]))
            if head.day:
                named = day = None  # if the new date is unreadable, the old one is wrong too
                day = date(int(head.day["year"]), month_number(head.day["month"]), int(head.day["day"]))
            elif not head.is_known:
                named = day = None
                raise ValueError(tr("date in an unsupported language"))
            else:
                yield number, _time(head, day), head
        except RECORD_ERRORS as error:
            tree.report_bad(file, tr("line {number}", number=number), error)
        for offset, line in enumerate(other_lines, 1):
            if line.strip():
                tree.report_bad(file, tr("line {number}", number=number + offset), tr("not a log line"))


def _named_day(label: str) -> re.Match[str] | None:
    """The date in the file's own name; the folders above it may have other dates."""
    return _LOG_DATE.search(label.replace("\\", "/").rpartition("/")[2])


def _time(head: _Head, day: date | None) -> datetime:
    """The time of a line. Raises ValueError for an impossible time, or if no date is known."""
    if head.stamp:
        return local_time(head.stamp.replace(",", "."))
    if day is None:
        raise ValueError(tr("no date before it"))
    return local_time(f"{day.isoformat()}T{head.clock}")


def _parse_head(line: str) -> _Head | None:
    line = line.removeprefix("\ufeff")
    if match := _WEECHAT.match(line):
        return msgspec.structs.replace(_weechat(match["prefix"], match["text"]), stamp=match["stamp"])
    if match := _NEW_DAY.match(line):
        return _Head(day=match)
    if _OTHER_DAY.match(line):
        return _Head(is_known=False)
    if match := _ZNC.match(line) or _IRSSI.match(line):
        return msgspec.structs.replace(_line(match["rest"]), clock=match["clock"], is_known=True)
    return None


def _weechat(prefix: str, text: str) -> _Head:
    """A line of WeeChat: its prefix is a nick, or an arrow or dash for notices."""
    prefix = prefix.strip()
    text = _plain(text)
    if prefix == "*":
        nick, _, action = text.partition(" ")
        return _Head(nick=nick.lstrip(_MODES), text=f"/me {action}".strip())
    # Arrows and dashes mark notices; any other word is a nick, as networks allow letters of any script.
    if any(map(str.isspace, prefix)) or not any(map(str.isalnum, prefix.lstrip(_MODES) or prefix)):
        return _Head(text=text, mark=Mark.SERVICE)
    return _Head(nick=prefix.lstrip(_MODES), text=text)


def _line(rest: str) -> _Head:
    """The part after the time in a line of irssi or ZNC; `is_known` is False if it has none of their forms."""
    if match := _MESSAGE.match(rest):
        return _Head(nick=match["nick"].lstrip(_MODES), text=_plain(match["text"] or ""))
    if match := _ACTION.match(rest):
        return _Head(nick=match["nick"], text=f"/me {_plain(match['text'] or '')}".strip())
    if rest.startswith(("-!-", "***")):
        return _Head(text=_plain(rest), mark=Mark.SERVICE)
    if match := _NOTICE.match(rest):
        return _Head(nick=match["nick"], text=_plain(match["text"]), mark=Mark.BOT)
    return _Head(text=_plain(rest), mark=Mark.SERVICE, is_known=False)


def _plain(text: str) -> str:
    """The text without colour and formatting codes."""
    return _FORMATTING.sub("", text).strip()


def _reply_target(text: str, sender: str, sent_at: datetime, last: _LastMessage | None, nicks: _Nicks) -> str | None:
    """Id of the message just before, if the text begins with its writer's nick. Anything else would be a guess."""
    match = _ADDRESSED.match(text)
    if match is None or last is None or last.sender == sender:
        return None
    is_just_before = timedelta(0) <= sent_at - last.sent_at <= _REPLY_WINDOW
    return last.id if is_just_before and nicks.person(match["nick"]) == last.sender else None


def _chat(label: str) -> tuple[str, bool]:
    """The channel or nick of the log, from its file or folder name, and whether it is certainly a channel."""
    label = label.replace("\\", "/")
    if match := _WEECHAT_FILE.search(label):
        return f"{match['network']}/{match['name']}", match["name"].startswith(("#", "&"))
    parts = [part for part in label.split("/") if part]
    for part in reversed(parts[-2:]):
        if match := _CHANNEL.search(part):
            return match["name"], True
    title = _LOG_DATE.sub("", title_of(label)).strip("._- ")
    if title:
        return title, False
    return parts[-2] if len(parts) > 1 else "irc", False
