"""LINE's chat export: the text file of a phone (`[LINE] Chat history with …`) or of the desktop app.

Two passes: the first learns who speaks, the second yields messages. The desktop form sets no mark between a name
and the words after it; there a name of several words is told by how often they stand together.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import date, datetime, time
from itertools import islice
from zoneinfo import ZoneInfo

import msgspec

from doppel.i18n import tr
from training.archives.formats.chat_text import HALF_EAST, Conversation, Said, hour_of
from training.archives.formats.text_lines import decode_head, text_lines
from training.archives.message import Kind, Mark, Message
from training.archives.source_tree import Tree

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
_WEEK = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_CLOCK = rf"(?P<before>{HALF_EAST})?\s?(?P<hour>\d{{1,2}}):(?P<minute>\d\d)\s?(?P<after>{HALF_EAST})?"
_TABBED = re.compile(rf"{_CLOCK}\t(?P<rest>.*)", re.IGNORECASE | re.DOTALL)
_SPACED = re.compile(rf"{_CLOCK} (?P<rest>.*)", re.IGNORECASE | re.DOTALL)

_DAY = re.compile(r".*", re.DOTALL)
_HEADER_LINES = 3
"""The title, when it was saved, and a blank line."""

_MEDIA = re.compile(
    r"\[(?:photos?|写真|照片|圖片|图片|相片|사진|รูป|ภาพ|videos?|動画|影片|视频|視訊|동영상|วิดีโอ|"
    r"voice message|ボイスメッセージ|語音訊息|语音信息|语音消息|음성메시지|files?|ファイル|檔案|文件|파일|"
    r"contact|連絡先|聯絡資訊|联系人|연락처|location|位置情報|位置訊息|位置信息|위치|albums?|アルバム|相簿|相册|앨범|"
    r"notes?|ノート|記事本|记事本|노트|gif|gift|プレゼント|禮物|music|poll|投票)\](?:\s.*)?",
    re.IGNORECASE | re.DOTALL,
)
_STICKER = re.compile(r"\[(?:stickers?|スタンプ|貼圖|贴图|表情贴图|스티커|stiker|สติกเกอร์)\]", re.IGNORECASE)
_BARE: dict[str, Mark] = {
    **dict.fromkeys(("Stickers", "貼圖", "贴图", "スタンプ", "스티커", "สติกเกอร์"), "sticker"),
    **dict.fromkeys(("Photos", "圖片", "图片", "写真", "사진", "รูป"), "media"),
    **dict.fromkeys(("Videos", "影片", "视频", "動画", "동영상", "วิดีโอ"), "media"),
    **dict.fromkeys(("Files", "檔案", "文件", "ファイル", "파일"), "media"),
    **dict.fromkeys(("Voice messages", "語音訊息", "语音信息", "ボイスメッセージ", "음성메시지"), "media"),
}
"""What the desktop app writes in place of what is no text, without brackets. Whether somebody wrote it is not told."""
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
_SNIFFED = 4096
_LEARNED_LINES = 20_000
_LONGEST_NAME = 4
_TOGETHER = 0.9
_OFTEN = 5
_LONGEST = 1 << 20
"""Characters of one message; LINE sends no more than 10,000."""


class _Entry(msgspec.Struct, frozen=True):
    """One record: where it begins, when it was sent, and all that follows its time."""

    number: int
    day: date
    clock: time
    text: str


class LineReader:
    """Reads one chat. Its times are local, without a zone; the owner's zone is taken."""

    name = "line"
    accepts = "LINE chat export (text)"

    def sniff(self, tree: Tree) -> bool:
        """Whether a line with a day and its weekday comes first, below LINE's own title or above timed lines."""
        if not tree.is_file:
            return False
        lines = _head(tree)
        days = [place for place, line in enumerate(lines[:6]) if _day(line) is not None]
        if not days:
            return False
        following = lines[days[0] + 1 : days[0] + 2]
        return bool(_HEADER.match(lines[0])) or any(map(_clock_match, following))

    def read(self, tree: Tree) -> Iterator[Message]:
        """Every message and system line of the chat."""
        file = tree.files()[0]
        title, kind = _title(tree)
        pattern = _pattern(tree)
        names = _tabbed_names if pattern is _TABBED else _spaced_names
        speakers = names(entry.text for entry in _entries(tree.unheard(), file, pattern))
        if pattern is _SPACED and title and kind != "group":
            speakers.add(title)
        chat = Conversation("line", title, speakers, kind)
        split = _split_tabbed if pattern is _TABBED else _Spaced(speakers).split
        entries, is_spaced = _entries(tree, file, pattern), pattern is _SPACED
        records = (_said(entry, split, tree.zone, is_spaced=is_spaced) for entry in entries)
        yield from chat.messages(tree, file, records)


def _head(tree: Tree) -> list[str]:
    """The first lines that are not blank."""
    text = decode_head(tree.head(tree.files()[0], _SNIFFED))
    return [line for line in text.replace("\r\n", "\n").split("\n") if line.strip()] or [""]


def _title(tree: Tree) -> tuple[str, Kind | None]:
    """With whom or in which group, as the first line or the name of the file has it."""
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


def _pattern(tree: Tree) -> re.Pattern[str]:
    """The form of the file, as its first timed line has it."""
    for line in _head(tree):
        if _TABBED.fullmatch(line):
            return _TABBED
        if _SPACED.fullmatch(line):
            return _SPACED
    return _TABBED


def _day(line: str) -> date | None:
    """The day that a line of its own names, with a weekday; None for any other line."""
    text = line.strip()
    try:
        if match := _YEAR_FIRST.fullmatch(text):
            return date(int(match["year"]), int(match["month"]), int(match["day"]))
        if match := _YEAR_LAST.fullmatch(text):
            first, second = int(match["a"] or match["c"]), int(match["b"] or match["d"])
            year, week = int(match["year"] or match["last"]), (match["week"] or match["weekday"])[:3].lower()
            return _ordered(year, first, second, week)
    except ValueError:
        return None
    return None


def _ordered(year: int, first: int, second: int, week: str) -> date | None:
    """The day whose weekday is the one named; where that is in no language we know, the day stands first."""
    days = []
    for month, day in ((second, first), (first, second)):
        with suppress(ValueError):
            days.append(date(year, month, day))
    if week in _WEEK:
        days.sort(key=lambda one: one.weekday() != _WEEK.index(week))
    return days[0] if days else None


def _lines(tree: Tree, file: str, pattern: re.Pattern[str]) -> Iterator[tuple[int, str, re.Match[str] | None]]:
    """Every line that is no day, with its match if it begins a record; a day comes with the line below it.

    A line with a day counts only above a timed line, because people write days, too.
    """
    waiting: tuple[int, str] | None = None
    with tree.open(file) as stream:
        for number, line in text_lines(stream, tree.head(file, _SNIFFED)):
            match = pattern.fullmatch(line)
            if match is not None and pattern is _SPACED and _clock(match) is None:
                match = None  # somebody's numbers; between tabs it can only be a damaged time
            if waiting is not None:
                yield *waiting, (_DAY.fullmatch(waiting[1]) if match else None)
            waiting = (number, line) if match is None and _day(line) is not None else None
            if waiting is None:
                yield number, line, match
    if waiting is not None:
        yield *waiting, None


def _entries(tree: Tree, file: str, pattern: re.Pattern[str]) -> Iterator[_Entry]:
    """Every record; what belongs to none is noted."""
    day: date | None = None
    begun: _Entry | None = None
    lines: list[str] = []
    size = 0
    for number, line, match in _lines(tree, file, pattern):
        if match is None and begun is not None and size <= _LONGEST:
            lines.append(line)
            size += len(line) + 1
        elif match is None and begun is not None:
            tree.bad(file, tr("line {number}", number=number), tr("message too long"))
        elif match is None:
            if line.strip() and (day is not None or number > _HEADER_LINES):
                tree.bad(file, tr("line {number}", number=number), tr("text before the first message"))
        else:
            if begun is not None:
                yield msgspec.structs.replace(begun, text="\n".join(lines).rstrip("\n"))
                begun = None
            if match.re is _DAY:
                day = _day(line)
            elif (clock := _clock(match)) is None:
                tree.bad(file, tr("line {number}", number=number), ValueError(line[:20]))
            elif day is None:
                tree.bad(file, tr("line {number}", number=number), tr("time without a date"))
            else:
                begun, lines, size = _Entry(number, day, clock, ""), [match["rest"]], 0
    if begun is not None:
        yield msgspec.structs.replace(begun, text="\n".join(lines).rstrip("\n"))


def _clock(match: re.Match[str]) -> time | None:
    hour, minute = hour_of(int(match["hour"]), match["before"] or match["after"]), int(match["minute"])
    return time(hour, minute) if hour < 24 and minute < 60 else None


def _split_tabbed(text: str) -> tuple[str, str]:
    """Sender and body; a system line has an empty sender, or none."""
    name, tab, body = text.partition("\t")
    return (name.strip(), body) if tab else ("", text)


def _tabbed_names(texts: Iterable[str]) -> set[str]:
    return {name for name, _ in map(_split_tabbed, texts) if name}


def _spaced_names(texts: Iterable[str]) -> set[str]:
    """Who speaks in a desktop export: first words, and those after them that (nearly) always follow."""
    starts: Counter[str] = Counter()
    for text in islice(texts, _LEARNED_LINES):
        if _SYSTEM.fullmatch(text.partition(" ")[2]):
            continue
        words = text.partition("\n")[0].split(" ")
        for count in range(1, min(len(words), _LONGEST_NAME + 1)):
            starts[" ".join(words[:count])] += 1
    followers: dict[str, str] = {}
    for start, count in starts.items():
        shorter = start.rpartition(" ")[0]
        if shorter and count >= _OFTEN and count >= _TOGETHER * starts[shorter]:
            followers[shorter] = start
    names = set()
    for start in starts:
        if " " not in start and start:
            name = start
            while name in followers:
                name = followers[name]
            names.add(name)
    return names


class _Spaced:
    """Splits the lines of a desktop export by the names that were learned."""

    def __init__(self, names: Iterable[str]) -> None:
        self._by_word: dict[str, list[str]] = {}
        for name in sorted(names, key=len, reverse=True):
            self._by_word.setdefault(name.partition(" ")[0], []).append(name)

    def split(self, text: str) -> tuple[str, str]:
        """Sender and body; a system line has no sender."""
        word, _, rest = text.partition(" ")
        for name in self._by_word.get(word.partition("\n")[0], ()):
            if text.startswith(f"{name} "):
                word, rest = name, text[len(name) + 1 :]
                break
        if not rest or _SYSTEM.fullmatch(rest) or _UNSENT.search(text):
            return "", text
        return word, rest


def _unquoted(body: str) -> str:
    """Messages of several lines stand in quotation marks; their own are doubled."""
    if "\n" in body and body.startswith('"') and body.endswith('"') and len(body) > 1:
        return body[1:-1].replace('""', '"')
    return body


def _said(entry: _Entry, split: Callable[[str], tuple[str, str]], zone: ZoneInfo, *, is_spaced: bool) -> Said:
    sender, body = split(entry.text)
    mark, text = _mark(sender, _unquoted(body))
    if is_spaced and sender and text in _BARE:
        mark, text = _BARE[text], ""
    return Said(entry.number, datetime.combine(entry.day, entry.clock, zone), sender, text, mark)


def _mark(sender: str, text: str) -> tuple[Mark, str]:
    text = text.strip()
    if not sender:
        return ("deleted" if _UNSENT.search(text) else "service"), text
    if _UNSENT.fullmatch(text):
        return "deleted", text
    if text.startswith("☎"):
        return "service", text
    if _STICKER.fullmatch(text):
        return "sticker", ""
    return ("media", "") if _MEDIA.fullmatch(text) else ("", text)
