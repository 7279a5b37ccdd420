"""IRC logs as text: of WeeChat, of irssi and of the bouncer ZNC, a file for every channel or query.

Follows nick changes within a file, so that one person is one sender there; across files a person has as many senders
as nicks. Does not know which of them is the owner. Times are local unless the log says a zone.
"""

import re
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta

import msgspec

from doppel.i18n import tr
from training.archives.formats.chat_logs import MONTHS, MessageIds, file_title, first_lines, log_records, month_number
from training.archives.formats.records import MALFORMED, to_utc
from training.archives.message import Kind, Mark, Message
from training.archives.source_tree import Tree

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
_SAID = re.compile(rf"<[ {re.escape(_MODES)}]?(?P<nick>[^\s<>]+)>(?: (?P<text>.*))?$")
_ACTION = re.compile(r"\s?\* (?P<nick>[^\s*]+)(?: (?P<text>.*))?$")
_NOTICE = re.compile(r"-(?P<nick>[^\s():-][^\s():]*)(?::[^\s()]+|\([^\s()]*\))?- (?P<text>.*)$")
_RENAMED = re.compile(r"(?:-!- |\*\*\* )?(?P<old>[^\s]+) is now known as (?P<new>[^\s]+)$")
_GONE = re.compile(r"(?:-!- |\*\*\* )?(?:(?:Joins|Parts|Quits): )?(?P<nick>[^\s]+) [(\[][^\s]*[)\]](?: .*)?$")
_ADDRESSED = re.compile(rf"(?P<nick>{_NICK})[:,] \S")
_FORMATTING = re.compile(r"\x03(?:\d{1,2}(?:,\d{1,2})?)?|\x04[0-9A-Fa-f]{6}|[\x02\x0f\x11\x16\x1d\x1e\x1f]")

_CHANNEL = re.compile(r"(?:^|[./_])(?P<name>[#&][^\s/]+?)(?:[._-]?\d{4}-?\d\d-?\d\d)?(?:\.(?:log|txt|weechatlog))*$")
_LOG_DATE = re.compile(r"(?<!\d)(?P<year>(?:19|20)\d\d)-?(?P<month>\d\d)-?(?P<day>\d\d)(?!\d)")
_WEECHAT_FILE = re.compile(r"irc\.(?P<network>[^./]+)\.(?P<name>[^/]+?)(?:\.\d{4}-\d\d-\d\d)?\.weechatlog$")
_SURE = timedelta(minutes=5)
"""How long what was just said may be answered by naming its writer, with nobody having spoken in between."""


class _Head(msgspec.Struct, frozen=True):
    """One line of the log: a stamp, who (empty: nobody), what; or a new day (no `rest`)."""

    day: re.Match[str] | None = None
    stamp: str = ""
    clock: str = ""
    nick: str = ""
    text: str = ""
    mark: Mark = ""
    is_known: bool = True


class _Last(msgspec.Struct, frozen=True):
    """What was said last, by whom and when."""

    id: str
    sender: str
    sent_at: datetime


class IRCReader:
    """Reads the log of one channel or query."""

    name = "irc"
    accepts = "IRC logs from WeeChat, irssi or ZNC"

    def sniff(self, tree: Tree) -> bool:
        """Whether the first lines are of one of the three forms. ZNC writes the day in the file's name only."""
        if not tree.is_file:
            return False
        lines = [line.strip("\ufeff\r") for line in first_lines(tree, tree.files()[0])[:3]]
        if not lines:
            return False
        if _WEECHAT.match(lines[0]) or _NEW_DAY.match(lines[0]):
            return True
        first = _ZNC.match(lines[0])
        return bool(first and _line(first["rest"]).is_known and _named_day(tree.label))

    def read(self, tree: Tree) -> Iterator[Message]:
        """Every line: what people said, and as service what the server and the client wrote."""
        file = tree.files()[0]
        chat, is_channel = _chat(tree.label)
        kind: Kind = "group" if is_channel or len(_people(tree, file)) > 2 else "dm"
        nicks, ids = _Nicks(), MessageIds()
        last: _Last | None = None
        for number, sent_at, head in _lines(tree, file):
            if not head.nick:
                nicks.hear(head.text)
            sender = nicks.person(head.nick) if head.nick else chat
            number_of_it = ids.of(sent_at, head.nick, head.text)
            reply_to = None
            if head.nick and not head.mark:
                reply_to = _answered(head.text, sender, sent_at, last, nicks)
                last = _Last(number_of_it, sender, sent_at)
            yield Message(
                id=number_of_it,
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
    """Who is who after nick changes: a person is the first of their nicks in the file, until that nick leaves."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}

    def person(self, nick: str) -> str:
        """The sender behind a nick."""
        return self._first.get(nick.lower(), nick.lower())

    def hear(self, notice: str) -> None:
        """Learns from a service line that somebody changed their nick, came or went."""
        if match := _RENAMED.match(notice):
            old, new = match["old"].lower(), match["new"].lower()
            first = self._first.pop(old, old)
            if first == new:
                self._first.pop(new, None)
            else:
                self._first[new] = first
        elif match := _GONE.match(notice):
            self._first.pop(match["nick"].lower(), None)


def _people(tree: Tree, file: str) -> set[str]:
    """Who speaks in the log."""
    nicks, people = _Nicks(), set[str]()
    for _, _, head in _lines(tree.unheard(), file):
        if head.nick:
            people.add(nicks.person(head.nick))
        else:
            nicks.hear(head.text)
    return people


def _lines(tree: Tree, file: str) -> Iterator[tuple[int, datetime, _Head]]:
    """Number, time and content of every line that has them."""
    named = _named_day(tree.label)
    day: date | None = None
    begin: Callable[[str], _Head | None] = _begin
    for number, head, further in log_records(tree, file, begin):
        try:
            if named and day is None and not head.day:
                day = date(int(named["year"]), int(named["month"]), int(named["day"]))
            if head.day:
                named = day = None  # were it unreadable, the day before would be wrong
                day = date(int(head.day["year"]), month_number(head.day["month"]), int(head.day["day"]))
            elif not head.is_known:
                named = day = None
                raise ValueError(tr("date in an unsupported language"))
            else:
                yield number, _time(head, day, tree), head
        except MALFORMED as error:
            tree.bad(file, tr("line {number}", number=number), error)
        for offset, line in enumerate(further, 1):
            if line.strip():
                tree.bad(file, tr("line {number}", number=number + offset), tr("not a log line"))


def _named_day(label: str) -> re.Match[str] | None:
    """The day in the file's own name; folders above it may be called after other days."""
    return _LOG_DATE.search(label.replace("\\", "/").rpartition("/")[2])


def _time(head: _Head, day: date | None, tree: Tree) -> datetime:
    """Raises ValueError for a time that no clock shows, and where no day is known."""
    if head.stamp:
        return to_utc(head.stamp.replace(",", "."), tree.zone)
    if day is None:
        raise ValueError(tr("no date before it"))
    return to_utc(f"{day.isoformat()}T{head.clock}", tree.zone)


def _begin(line: str) -> _Head | None:
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
    """A line of WeeChat: its prefix is a nick, or an arrow or dash for what nobody said."""
    prefix = prefix.strip()
    text = _plain(text)
    if prefix == "*":
        nick, _, action = text.partition(" ")
        return _Head(nick=nick.lstrip(_MODES), text=f"/me {action}".strip())
    if prefix in ("", "--", "-->", "<--", "=!=") or not re.match(rf"[{re.escape(_MODES)}]?{_NICK}$", prefix):
        return _Head(text=text, mark="service")
    return _Head(nick=prefix.lstrip(_MODES), text=text)


def _line(rest: str) -> _Head:
    """What follows the time in a line of irssi or ZNC; `is_known` says whether it looks like any of theirs."""
    if match := _SAID.match(rest):
        return _Head(nick=match["nick"].lstrip(_MODES), text=_plain(match["text"] or ""))
    if match := _ACTION.match(rest):
        return _Head(nick=match["nick"], text=f"/me {_plain(match['text'] or '')}".strip())
    if rest.startswith(("-!-", "***")):
        return _Head(text=_plain(rest), mark="service")
    if match := _NOTICE.match(rest):
        return _Head(nick=match["nick"], text=_plain(match["text"]), mark="bot")
    return _Head(text=_plain(rest), mark="service", is_known=False)


def _plain(text: str) -> str:
    """The text without the codes of colours and bold letters."""
    return _FORMATTING.sub("", text).strip()


def _answered(text: str, sender: str, sent_at: datetime, last: _Last | None, nicks: _Nicks) -> str | None:
    """The message just before, if its writer is named at the beginning. Anything else would be a guess."""
    match = _ADDRESSED.match(text)
    if match is None or last is None or last.sender == sender:
        return None
    is_just_before = timedelta(0) <= sent_at - last.sent_at <= _SURE
    return last.id if is_just_before and nicks.person(match["nick"]) == last.sender else None


def _chat(label: str) -> tuple[str, bool]:
    """The channel or nick that the log is of, as its file or folder is called, and whether it is surely a channel."""
    label = label.replace("\\", "/")
    if match := _WEECHAT_FILE.search(label):
        return f"{match['network']}/{match['name']}", match["name"].startswith(("#", "&"))
    parts = [part for part in label.split("/") if part]
    for part in reversed(parts[-2:]):
        if match := _CHANNEL.search(part):
            return match["name"], True
    title = _LOG_DATE.sub("", file_title(label)).strip("._- ")
    if title:
        return title, False
    return parts[-2] if len(parts) > 1 else "irc", False
