"""Reads iMessage chats from imessage-exporter's text files: date, sender, body and an empty line for every message.

A reply occurs twice in the export: indented below the message it replies to, and at its own time. The first pass
learns from the indented ones what each replies to; the second yields every message once.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime, time
from zoneinfo import ZoneInfo

import msgspec

from doppel.i18n import tr
from doppel.transcript.stickers import is_emoji
from training.archives.formats.archive_records import RECORD_ERRORS
from training.archives.formats.chat_text import MessageIds, title_of
from training.archives.formats.local_times import Direction, as_written, gregorian_year, in_file_order
from training.archives.formats.reactions import Reaction, reactions_to
from training.archives.formats.text_lines import first_lines, multiline_records
from training.archives.formats.timestamps import MONTHS, hour_24, month_number
from training.archives.message import Kind, Mark, Message
from training.archives.source_tree import SourceTree

_STAMP = (
    rf"(?P<month>{'|'.join(month.title() for month in MONTHS)}) (?P<day>\d{{1,2}}), (?P<year>\d{{4}})"
    r" {1,2}(?P<hour>\d{1,2}):(?P<minute>\d\d):(?P<second>\d\d)\s(?P<half>[AP]M)"
)
_HEAD = re.compile(rf"(?P<indent> *){_STAMP}(?: \(Read by .*\))?$")
_NOTICE = re.compile(rf"(?P<indent> *){_STAMP} (?P<text>\S.*)$")
_REPLY_NOTE = "This message responded to an earlier message."
_DELETED = "This message was deleted from the conversation!"
_OWNER = "Me"

_TAPBACKS = ("Tapbacks:", "Reactions:")
_TAPBACK = re.compile(r"(?P<what>.+?) by (?P<who>.+)|.*[Ss]ticker from .+")
_TAPBACK_EMOJI = {
    "Loved": "\u2764\ufe0f",
    "Liked": "👍",
    "Disliked": "👎",
    "Laughed": "😂",
    "Emphasized": "\u203c\ufe0f",
    "Questioned": "❓",
}
"""The emoji that the phone shows for the six named tapbacks."""
_GROUP_NOTICE = re.compile(
    r"(?:added|removed) .+ (?:to|from) the conversation|left the conversation|(?:changed|removed) the group photo"
)
_EDITED = re.compile(r"Edited .{1,60} later: ?")
_UNSENT = re.compile(r".{1,60} unsent this message part.*!$|.{1,60} unsent a message!$")
_EXPRESSIVE = re.compile(
    r"Sent with (?:Confetti|Echo|Fireworks|Balloons|Heart|Lasers|Shooting Start?|Sparkles|Spotlight|Slam|Loud|Gentle"
    r"|Invisible Ink)$"
)
_ATTACHMENT = re.compile(
    r"(?:~?/|[A-Za-z]:\\|attachments/)\S.*\.\w{2,5}$|(?:~/Library|/Users|/var)/.+/Attachments/.+"
    r"|Attachment missing!$|Digital Touch Message: .*|Unable to format app message: .*"
)
_LINK = re.compile(r"(?:https?://|www\.)\S+$")
_SITE_TITLE = re.compile(r"\S \s?[|·–—•-] \S|(?:…|\.\.\.)$")
_SHORT_WORD_LENGTH = 2  # "of", "to" and the like are not capitalized in titles
_MIN_SUMMARY_LENGTH = 60
_APP = re.compile(
    r"(?:GamePigeon|Fitness|Photos|Spotify|YouTube|Maps|Polls|Memoji|Music|Reminders|Notes|Pages|Numbers|Keynote|Freeform"
    r"|(?:com|net|org|io)\.[\w.-]+) message:(?:\n.*)?|Apple (?:Cash|Pay) transaction: .*"
    r"|.{0,40}Check In.{0,40}\n(?:Expected at|Was expected at|Checked in at) .*",
    re.DOTALL,
)
_STICKER = re.compile(r"(?:\w+ )?Sticker from .+: .+")
_TRANSCRIPT = "Transcription: "
_SERVICE = re.compile(r"SharePlay Message\nEnded|(?:Started|Stopped) sharing location!|Shared location!")


class _Head(msgspec.Struct, frozen=True):
    """The date line of a message, or a notice: a line that the app wrote itself."""

    match: re.Match[str]
    is_indented: bool = False
    notice: str = ""


class _Record(msgspec.Struct, frozen=True):
    """One message or notice; the text is without what the exporter adds."""

    number: int
    sent_at: datetime
    sender: str
    text: str
    mark: Mark
    is_indented: bool = False
    is_reply: bool = False
    reactions: list[Reaction] = []

    def key(self) -> bytes:
        """The same for a reply at its own time and below what it replies to, where lines are indented."""
        words = "\0".join((self.sender, *self.text.split()))
        return hashlib.sha256(f"{self.sent_at}\0{words}".encode("utf-8", "replace")).digest()[:12]


class _Survey(msgspec.Struct):
    """What the first pass found.

    Attributes:
        direction: of the times.
        senders: messages of each sender.
        replied_to: id of the message that each indented reply replies to, by its key.
        replies: keys of the replies at their own time.
        is_group: whether a notice speaks of a group.
    """

    direction: Direction = msgspec.field(default_factory=Direction)
    senders: Counter[str] = msgspec.field(default_factory=Counter)
    replied_to: dict[bytes, str] = msgspec.field(default_factory=dict)
    replies: set[bytes] = msgspec.field(default_factory=set)
    is_group: bool = False


class IMessageReader:
    """Reads one chat."""

    name = "imessage"
    accepts = "iMessage chats from imessage-exporter (txt)"

    def sniff(self, tree: SourceTree) -> bool:
        """Whether the file begins with a date in the exporter's form."""
        if not tree.is_file:
            return False
        lines = first_lines(tree, tree.files()[0])[:2]
        first = lines[0].removeprefix("\ufeff") if lines else ""
        return bool(_NOTICE.match(first) or (_HEAD.match(first) and len(lines) > 1 and not _HEAD.match(lines[1])))

    def read(self, tree: SourceTree) -> Iterator[Message]:
        """Every message and notice; replies once."""
        file = tree.files()[0]
        survey = _survey(tree, file)
        others = survey.senders.keys() - {_OWNER}
        kind: Kind = "dm" if len(others) <= 1 and not survey.is_group else "group"
        chat = title_of(tree.label)
        ids, indented_ids = MessageIds(), MessageIds()
        in_order = in_file_order(
            _with_replies(_records(tree, file)),
            lambda group: group[0].sent_at,
            tree.zone,
            is_newest_first=survey.direction.is_newest_first,
        )
        timed = (item for group in in_order for item in _times_of(*group, tree.zone))
        for record, written_at, sent_at in timed:
            key = record.key() if record.is_indented or record.is_reply else b""
            if record.is_indented and key in survey.replies:
                continue  # occurs again at its own time
            author = record.sender or chat
            number = (indented_ids if record.is_indented else ids).next_id(written_at, record.sender, record.text)
            message = Message(
                id=f"{number}-answer" if record.is_indented else number,
                platform="imessage",
                chat=chat,
                kind=kind,
                sender=author,
                sender_name=author,
                sent_at=sent_at,
                text=record.text,
                is_owner=record.sender == _OWNER if record.sender and _OWNER in survey.senders else None,
                reply_to=survey.replied_to.get(key),
                chat_name=chat,
                mark=record.mark,
                origin=f"{file}:{record.number}",
            )
            yield message
            yield from reactions_to(message, record.reactions, lambda account: account == _OWNER)


def _with_replies(records: Iterable[_Record]) -> Iterator[list[_Record]]:
    """Every message with the replies that are indented below it, which have later times of their own."""
    group: list[_Record] = []
    for record in records:
        if group and not record.is_indented:
            yield group
            group = []
        group.append(record)
    if group:
        yield group


def _times_of(
    group: list[_Record], written_at: datetime, sent_at: datetime, zone: ZoneInfo
) -> Iterator[tuple[_Record, datetime, datetime]]:
    """The records of a group with their times as written and in order."""
    first, *replies = group
    yield first, written_at, sent_at
    for reply in replies:
        moment = as_written(reply.sent_at, zone)
        yield reply, moment, moment


def _survey(tree: SourceTree, file: str) -> _Survey:
    """The first pass. An indented reply belongs to the last message that is not indented."""
    survey = _Survey()
    ids = MessageIds()
    parent = ""
    for record in _records(tree.for_survey(), file):
        survey.senders.update([record.sender] if record.sender else [])
        survey.is_group = survey.is_group or (not record.sender and _GROUP_NOTICE.search(record.text) is not None)
        if record.is_indented:
            survey.replied_to.setdefault(record.key(), parent)
            continue
        survey.direction.add(record.sent_at)
        parent = ids.next_id(as_written(record.sent_at, tree.zone), record.sender, record.text)
        if record.is_reply:
            survey.replies.add(record.key())
    return survey


def _records(tree: SourceTree, file: str) -> Iterator[_Record]:
    """The messages and notices of the file, in its order."""
    parse_head: Callable[[str], _Head | None] = _HeadParser()
    for number, head, lines in multiline_records(tree, file, parse_head):
        try:
            sent_at = _time(head.match)
            if head.notice:
                yield _Record(number, sent_at, "", "\n".join([head.notice, *lines]).strip(), Mark.SERVICE)
                continue
            if not lines or not lines[0].strip():
                raise ValueError(tr("no sender below the date"))
        except RECORD_ERRORS as error:
            tree.report_bad(file, tr("line {number}", number=number), error)
            continue
        body = [line.strip() for line in lines[1:]] if head.is_indented else lines[1:]
        is_reply = _REPLY_NOTE in body
        words, reactions = _without_tapbacks([line for line in body if line != _REPLY_NOTE])
        mark, text = _parse_body(words)
        yield _Record(number, sent_at, lines[0].strip(), text, mark, head.is_indented, is_reply, reactions)


class _HeadParser:
    """Recognizes heads. A date with words is a notice only below an empty line; elsewhere it is an edit."""

    def __init__(self) -> None:
        self._is_after_blank = True

    def __call__(self, line: str) -> _Head | None:
        line = line.removeprefix("\ufeff")
        is_after_blank, self._is_after_blank = self._is_after_blank, not line.strip()
        if match := _HEAD.match(line):
            return _Head(match, is_indented=bool(match["indent"]))
        match = _NOTICE.match(line) if is_after_blank else None
        return _Head(match, notice=match["text"]) if match else None


def _time(match: re.Match[str]) -> datetime:
    """The local time of a date line. Raises ValueError for an impossible date."""
    day = date(gregorian_year(int(match["year"])), month_number(match["month"]), int(match["day"]))
    clock = time(hour_24(int(match["hour"]), match["half"]), int(match["minute"]), int(match["second"]))
    return datetime.combine(day, clock)


def _parse_body(lines: list[str]) -> tuple[Mark, str]:
    """The mark and the text of a message."""
    kept, has_file, has_sticker, is_unsent, is_deleted = list[str](), False, False, False, False
    for line in _last_edits(lines):
        if line == _DELETED and not kept:
            is_deleted = True
        elif _EXPRESSIVE.match(line) and kept:
            continue
        elif _STICKER.match(line):
            has_sticker = True
        elif _ATTACHMENT.match(line):
            has_file = True
        elif _UNSENT.match(line):
            is_unsent = True
        else:  # the transcript of a voice message or the caption of a picture
            kept.append(line.removeprefix(_TRANSCRIPT) if has_file else line)
    text = "\n".join(kept).replace("\ufffc", "").strip()
    if is_deleted or (is_unsent and not text):
        return Mark.DELETED, text
    if _SERVICE.fullmatch(text):
        return Mark.SERVICE, text
    if _APP.fullmatch(text):
        return Mark.MEDIA, ""
    if has_file:
        return Mark.MEDIA, text
    first, _, below = text.partition("\n")
    if _LINK.match(first) and _is_preview(below.split("\n")):
        return Mark.NONE, first
    return (Mark.STICKER if has_sticker and not text else Mark.NONE), text


def _is_preview(lines: list[str]) -> bool:
    """Whether the lines below a link are the title and summary of its page, which the exporter adds.

    A message may also begin with a link; only the look of a title distinguishes the two.
    """
    words = [word for word in lines[0].split() if len(word) > _SHORT_WORD_LENGTH]
    is_title = len(words) > 1 and sum(word[0].isupper() for word in words) > len(words) / 2
    has_summary = len(lines) > 1 and len(lines[1]) >= _MIN_SUMMARY_LENGTH and not lines[0].endswith((".", "!", "?"))
    return bool(_SITE_TITLE.search(lines[0])) or is_title or has_summary


def _without_tapbacks(lines: list[str]) -> tuple[list[str], list[Reaction]]:
    """The lines without the lists of reactions, which end at an empty line; and the reactions."""
    kept: list[str] = []
    reactions: list[Reaction] = []
    is_listing = False
    for number, line in enumerate(lines):
        next_line = lines[number + 1] if number + 1 < len(lines) else ""
        if line in _TAPBACKS and _TAPBACK.match(next_line):
            is_listing = True
        elif is_listing and (match := _TAPBACK.match(line)):
            emoji = _TAPBACK_EMOJI.get(match["what"] or "", match["what"] or "")
            if is_emoji(emoji):  # a sticker is a file
                reactions.append((match["who"], match["who"], emoji))
        else:
            is_listing = False
            kept.append(line)
    return kept, reactions


def _last_edits(lines: list[str]) -> list[str]:
    """Only the last version of an edited text, without the times of the edits."""
    kept: list[str] = []
    edit_start: int | None = None  # index in `kept` at which the edited text begins
    for line in lines:
        match = _NOTICE.match(line)
        if match:
            edit_start = len(kept)
            kept.append(match["text"])
        elif edit_start is not None and (edit := _EDITED.match(line)):
            del kept[edit_start:]
            kept.append(line[edit.end() :])
        else:
            kept.append(line)
    return kept
