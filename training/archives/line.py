"""Reads LINE's chat export: the text file of a phone (`[LINE] Chat history with …`) or of the desktop app.

Two passes: the first collects the names, the second yields messages. The desktop form has no separator between a name
and the text after it; names of several words are recognized by how often those words occur together.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from datetime import date, datetime, time
from functools import partial
from itertools import islice

import msgspec

from doppel.i18n import tr
from training.archives.formats.chat_text import TextChat, TextRecord
from training.archives.formats.group_notices import is_named_after
from training.archives.formats.local_times import ALL_PLACES, DatePlaces, DateSurvey, dates_do_not_fit, local_date
from training.archives.formats.spaced_names import SpacedNames
from training.archives.formats.text_lines import MAX_RECORD_LENGTH, decode_head, text_lines
from training.archives.formats.timestamps import AM_PM_EAST_ASIA, hour_24
from training.archives.message import Kind, Mark, Message
from training.archives.source_tree import SourceTree

_HEADER = re.compile(r"\[LINE\]\s?\S")
_TITLES: tuple[tuple[re.Pattern[str], Kind | None], ...] = (
    (re.compile(r"Chat history with (?P<name>.+)"), "dm"),
    (re.compile(r"Chat history in (?P<name>.+)"), "group"),
    (re.compile(r"(?P<name>.+?)とのトーク履歴"), "dm"),
    (re.compile(r"(?P<name>.+?)のトーク履歴"), "group"),
    (re.compile(r"[与與](?P<name>.+?)的(?:聊天记录|聊天記錄|聊天紀錄)"), "dm"),
    (re.compile(r"(?P<name>.+?)的(?:聊天记录|聊天記錄|聊天紀錄)"), "group"),
    (re.compile(r"(?P<name>.+?)(?:님과의|와의|과의) 대화"), None),
    (re.compile(r"ประวัติการสนทนากับ (?P<name>.+)"), None),
    (re.compile(r"(?P<name>.+)"), None),
)
_FILE_NAME = re.compile(r"^\[LINE\]\s?(?P<name>.+?)(?: \(\d+\))?\.txt$", re.IGNORECASE)

_YEAR_FIRST = re.compile(
    r"(?P<year>\d{4})[./年년-]\s?(?P<month>\d{1,2})[./月월-]\s?(?P<day>\d{1,2})[日일.]?\s?[(（]?[^\d\s()（）]{1,20}[)）]?"
)
_YEAR_LAST = re.compile(
    r"(?P<week>[^\d\s,]{1,20}),?\s(?P<a>\d{1,2})[/.](?P<b>\d{1,2})[/.](?P<year>\d{4})|"
    r"(?P<c>\d{1,2})[/.](?P<d>\d{1,2})[/.](?P<last>\d{4})\s?[(（]?(?P<weekday>[^\d\s()（）]{1,20})[)）]?"
)
_CLOCK = rf"(?P<before>{AM_PM_EAST_ASIA})?\s?(?P<hour>\d{{1,2}}):(?P<minute>\d\d)\s?(?P<after>{AM_PM_EAST_ASIA})?"
_TABBED = re.compile(rf"{_CLOCK}\t(?P<rest>.*)", re.IGNORECASE | re.DOTALL)
_SPACED = re.compile(rf"{_CLOCK} (?P<rest>.*)", re.IGNORECASE | re.DOTALL)

_DAY = re.compile(r".*", re.DOTALL)
_HEADER_LINES = 3
"""The title, the date of the export, and a blank line."""

_MEDIA = re.compile(
    r"\[(?:photos?|写真|照片|圖片|图片|相片|사진|รูป|ภาพ|videos?|動画|影片|视频|視訊|동영상|วิดีโอ|"
    r"voice message|ボイスメッセージ|語音訊息|语音信息|语音消息|음성메시지|files?|ファイル|檔案|文件|파일|"
    r"contact|連絡先|聯絡資訊|联系人|연락처|location|位置情報|位置訊息|位置信息|위치|albums?|アルバム|相簿|相册|앨범|"
    r"notes?|ノート|記事本|记事本|노트|gif|gift|プレゼント|禮物|music|poll|投票)\](?:\s.*)?",
    re.IGNORECASE | re.DOTALL,
)
_STICKER = re.compile(r"\[(?:stickers?|スタンプ|貼圖|贴图|表情贴图|스티커|stiker|สติกเกอร์)\]", re.IGNORECASE)
_BARE: dict[str, Mark] = {
    **dict.fromkeys(("Stickers", "貼圖", "贴图", "スタンプ", "스티커", "สติกเกอร์"), Mark.STICKER),
    **dict.fromkeys(("Photos", "圖片", "图片", "写真", "사진", "รูป"), Mark.MEDIA),
    **dict.fromkeys(("Videos", "影片", "视频", "動画", "동영상", "วิดีโอ"), Mark.MEDIA),
    **dict.fromkeys(("Files", "檔案", "文件", "ファイル", "파일"), Mark.MEDIA),
    **dict.fromkeys(("Voice messages", "語音訊息", "语音信息", "ボイスメッセージ", "음성메시지"), Mark.MEDIA),
}
"""Placeholders of the desktop app, without brackets. Somebody may also have typed the same words."""
_UNSENT = re.compile(
    r"unsent a message\.?$|メッセージの送信を取り消しました|已收回訊息|收回了訊息|已收回信息|撤回了一条消息|"
    r"메시지 전송을 취소했습니다|메시지를 삭제했습니다|ยกเลิกการส่งข้อความ"
)
_SYSTEM = re.compile(
    r"(?:joined the (?:group|chat)|left the (?:group|chat)|invited .+ to the (?:group|chat)|"
    r"added .+ to the group|changed the group(?:'s)? (?:name|photo).*|"
    r".*(?:が(?:グループに)?参加しました|が(?:グループを)?退会しました|をグループに招待しました|已加入群組|已退出群組|"
    r"加入聊天|退出了群組|离开了群组|加入了群组))[.。]?"
)
_GROUP_NOTICE = re.compile(
    r"[^\t\n]{1,200}(?:joined the group|left the group|invited [^\n]+ to the group|added [^\n]+ to the group|"
    r"changed the group(?:'s)? (?:name|photo)[^\n]*|がグループに参加しました|がグループを退会しました|"
    r"をグループに招待しました|"
    r"(?:已)?加入(?:了)?(?:群組|群组)|(?:已)?退出(?:了)?(?:群組|群组)|离开了群组|邀請[^\n]+加入(?:群組)?|邀请[^\n]+加入(?:群组)?|"
    r"님이 그룹에 참여했습니다|님을 그룹에 초대했습니다|님이 그룹을 나갔습니다)[.。]?"
)
_SNIFFED = 4096
_MAX_SURVEYED_RECORDS = 20_000


class _Entry(msgspec.Struct, frozen=True):
    """One record: its first line, its time, and all text after the time."""

    number: int
    day: date
    clock: time
    text: str


class LineReader:
    """Reads one chat. Times are local, without a zone, and are read in the owner's zone."""

    name = "line"
    accepts = "LINE chat export (text)"

    def sniff(self, tree: SourceTree) -> bool:
        """Whether a date line with a weekday comes first, below LINE's title or above a line with a time."""
        if not tree.is_file:
            return False
        lines = _head(tree)
        days = [place for place, line in enumerate(lines[:6]) if _day(line) is not None]
        if not days:
            return False
        next_line = lines[days[0] + 1 : days[0] + 2]
        return bool(_HEADER.match(lines[0])) or any(map(_clock_match, next_line))

    def read(self, tree: SourceTree) -> Iterator[Message]:
        """Every message and notice of the chat."""
        file = tree.files()[0]
        title, kind = _title(tree)
        pattern = _pattern(tree)
        names = (
            _tabbed_names
            if pattern is _TABBED
            else partial(_spaced_names, title="" if kind == "group" else title, me=tree.me)
        )
        dates = DateSurvey()
        is_group = False

        def texts() -> Iterator[str]:
            nonlocal is_group
            for entry in _entries(tree.for_survey(), file, pattern, dates=dates):
                is_group = is_group or _GROUP_NOTICE.fullmatch(entry.text) is not None
                yield entry.text

        speakers = names(texts())
        if is_group or len(speakers) > 2 or (len(speakers) == 2 and not is_named_after(title, speakers)):
            kind = "group"
        places = dates.places()
        if misfits := dates.misfits(places):
            tree.report_bad(file, tr("dates"), dates_do_not_fit(misfits))
            return
        chat = TextChat("line", title, speakers, kind)
        split = _split_tabbed if pattern is _TABBED else _SpacedSplitter(speakers).split
        entries, is_spaced = _entries(tree, file, pattern, places), pattern is _SPACED
        records = (_text_record(entry, split, is_spaced=is_spaced) for entry in entries)
        yield from chat.messages(tree, file, records, is_newest_first=dates.is_newest_first(places))


def _head(tree: SourceTree) -> list[str]:
    """The first lines that are not blank."""
    text = decode_head(tree.head(tree.files()[0], _SNIFFED))
    return [line for line in text.replace("\r\n", "\n").split("\n") if line.strip()] or [""]


def _title(tree: SourceTree) -> tuple[str, Kind | None]:
    """The other person or the group, from the first line or the file's name."""
    first = _head(tree)[0].strip()
    if _HEADER.match(first):
        text = first.removeprefix("[LINE]").strip()
    else:
        named = _FILE_NAME.match(tree.label.rpartition("/")[2])
        text = named["name"] if named else ""
    for pattern, kind in _TITLES:
        if match := pattern.fullmatch(text):
            return match["name"].strip().strip('"「」『』'), kind
    return "", None


def _clock_match(line: str) -> re.Match[str] | None:
    return _TABBED.fullmatch(line) or _SPACED.fullmatch(line)


def _pattern(tree: SourceTree) -> re.Pattern[str]:
    """The form of the file, by its first line with a time."""
    for line in _head(tree):
        if _TABBED.fullmatch(line):
            return _TABBED
        if _SPACED.fullmatch(line):
            return _SPACED
    return _TABBED


def _numbers(line: str) -> tuple[tuple[int, int, int], str] | None:
    """The numbers and the weekday of a date line; None for any other line."""
    text = line.strip()
    if match := _YEAR_FIRST.fullmatch(text):
        return (int(match["year"]), int(match["month"]), int(match["day"])), ""
    if match := _YEAR_LAST.fullmatch(text):
        first, second = int(match["a"] or match["c"]), int(match["b"] or match["d"])
        return (first, second, int(match["year"] or match["last"])), match["week"] or match["weekday"]
    return None


def _day(line: str, places: DatePlaces | None = None) -> date | None:
    """The date of a date line; None for any other line.

    Args:
        line: any line.
        places: the order of the numbers in this file; None for any that is possible.
    """
    dated = _numbers(line)
    for order in ALL_PLACES if places is None else (places,):
        with suppress(ValueError):
            return local_date(dated[0], order) if dated else None
    return None


def _survey_date(line: str, dates: DateSurvey | None) -> None:
    if dates is not None and (dated := _numbers(line)):
        dates.add(*dated)


def _lines(tree: SourceTree, file: str, pattern: re.Pattern[str]) -> Iterator[tuple[int, str, re.Match[str] | None]]:
    """Yields every line, with its match if it begins a record or is a date line.

    A date line counts only above a line with a time, because people write dates, too.
    """
    pending: tuple[int, str] | None = None
    with tree.open(file) as stream:
        for number, line in text_lines(stream, tree.head(file, _SNIFFED)):
            match = pattern.fullmatch(line)
            if match is not None and pattern is _SPACED and _clock(match) is None:
                match = None  # numbers within a message; before a tab it can only be a damaged time
            if pending is not None:
                yield *pending, (_DAY.fullmatch(pending[1]) if match else None)
            pending = (number, line) if match is None and _day(line) is not None else None
            if pending is None:
                yield number, line, match
    if pending is not None:
        yield *pending, None


def _entries(
    tree: SourceTree,
    file: str,
    pattern: re.Pattern[str],
    places: DatePlaces | None = None,
    dates: DateSurvey | None = None,
) -> Iterator[_Entry]:
    """Yields every record; reports lines that belong to none.

    Args:
        tree: the archive.
        file: its file.
        pattern: the form of its lines.
        places: the order of the numbers of a date; None if it is not known yet.
        dates: receives all dates.
    """
    day: date | None = None
    entry: _Entry | None = None
    lines: list[str] = []
    size = 0
    for number, line, match in _lines(tree, file, pattern):
        if match is None and entry is not None and size <= MAX_RECORD_LENGTH:
            lines.append(line)
            size += len(line) + 1
        elif match is None and entry is not None:
            tree.report_bad(file, tr("line {number}", number=number), tr("message too long"))
        elif match is None:
            if line.strip() and (day is not None or number > _HEADER_LINES):
                tree.report_bad(file, tr("line {number}", number=number), tr("text before the first message"))
        else:
            if entry is not None:
                yield msgspec.structs.replace(entry, text="\n".join(lines).rstrip("\n"))
                entry = None
            if match.re is _DAY:
                day = _day(line, places)
                _survey_date(line, dates)
            elif (clock := _clock(match)) is None:
                tree.report_bad(file, tr("line {number}", number=number), ValueError(line[:20]))
            elif day is None:
                tree.report_bad(file, tr("line {number}", number=number), tr("time without a date"))
            else:
                entry, lines, size = _Entry(number, day, clock, ""), [match["rest"]], 0
    if entry is not None:
        yield msgspec.structs.replace(entry, text="\n".join(lines).rstrip("\n"))


def _clock(match: re.Match[str]) -> time | None:
    hour, minute = hour_24(int(match["hour"]), match["before"] or match["after"]), int(match["minute"])
    return time(hour, minute) if hour < 24 and minute < 60 else None


def _split_tabbed(text: str) -> tuple[str, str]:
    """Sender and body; the sender of a notice is empty."""
    name, tab, body = text.partition("\t")
    return (name.strip(), body) if tab else ("", text)


def _tabbed_names(texts: Iterable[str]) -> set[str]:
    return {name for name, _ in map(_split_tabbed, texts) if name}


def _spaced_names(texts: Iterable[str], title: str, me: Collection[str]) -> set[str]:
    """The names in a desktop export; for the arguments see `SpacedNames`."""
    surveyed = islice(texts, _MAX_SURVEYED_RECORDS)
    return SpacedNames(text for text in surveyed if not _SYSTEM.fullmatch(text.partition(" ")[2])).names(title, me)


class _SpacedSplitter:
    """Splits the lines of a desktop export at the names of the first pass."""

    def __init__(self, names: Iterable[str]) -> None:
        self._by_word: dict[str, list[str]] = {}
        for name in sorted(names, key=len, reverse=True):
            self._by_word.setdefault(name.partition(" ")[0], []).append(name)

    def split(self, text: str) -> tuple[str, str]:
        """Sender and body; the sender of a notice is empty."""
        word, _, rest = text.partition(" ")
        for name in self._by_word.get(word.partition("\n")[0], ()):
            if text.startswith(f"{name} "):
                word, rest = name, text[len(name) + 1 :]
                break
        if not rest or _SYSTEM.fullmatch(rest) or _UNSENT.search(text):
            return "", text
        return word, rest


def _unquoted(body: str) -> str:
    """The text of a message of several lines, which is in quotation marks with its own ones doubled."""
    if "\n" in body and body.startswith('"') and body.endswith('"') and len(body) > 1:
        return body[1:-1].replace('""', '"')
    return body


def _text_record(entry: _Entry, split: Callable[[str], tuple[str, str]], *, is_spaced: bool) -> TextRecord:
    sender, body = split(entry.text)
    mark, text = _mark(sender, _unquoted(body))
    if is_spaced and sender and text in _BARE:
        mark, text = _BARE[text], ""
    return TextRecord(entry.number, datetime.combine(entry.day, entry.clock), sender, text, mark)


def _mark(sender: str, text: str) -> tuple[Mark, str]:
    text = text.strip()
    if not sender:
        return (Mark.DELETED if _UNSENT.search(text) else Mark.SERVICE), text
    if _UNSENT.fullmatch(text):
        return Mark.DELETED, text
    if text.startswith("☎"):
        return Mark.SERVICE, text
    if _STICKER.fullmatch(text):
        return Mark.STICKER, ""
    return (Mark.MEDIA, "") if _MEDIA.fullmatch(text) else (Mark.NONE, text)
