"""What WeChat's exporters write into the text of a message beside its words: what it quotes, and what a voice said.

Every exporter has a form of its own for that. Knows neither tables nor files.
"""

import re
from collections.abc import Mapping
from zoneinfo import ZoneInfo

import msgspec

from training.archives.message import Message

_REMEMBERED = 1 << 14
"""Messages back to which what an answer quotes is looked for."""
_ALIKE = 8
"""Messages of the same words among which the quoted one is chosen."""

# PyWxDump: a line `[引用](time)name:words`; MemoTrace: `引用：name: words`; WeFlow: `[引用 name：words]` right behind.
_BENEATH = re.compile(
    r"\s*\n\s*(?:\[引用\]\((?P<time>[^()\n]*)\)(?P<dumped>.*)|引用[：:](?P<traced>.*)|「引用(?P<marked>.*?)」?)\Z"
    r"|\s*\[引用 (?P<beside>.*)\]\s*\Z",
    re.DOTALL,
)
# chatlog: lines above with a `>`, the first of them `name(account) 10-04 11:00:00`.
_ABOVE = re.compile(
    r"\A> (?:\[引用\]\n"
    r"|(?P<name>.*?)(?:\([^()\n]*\))? (?P<time>(?:\d{4}-)?\d\d-\d\d \d\d:\d\d(?::\d\d)?)\n(?P<words>(?:>.*(?:\n|\Z))*))"
)
_VOICES = frozenset(("语音", "语音消息", "voice", "voice message", "audio"))
_VOICE_NOTE = re.compile(
    r"\s*(?:语音时长[：:]\s*[\d.]+\s*秒?|\[(?:微信)?语音(?:消息|转文字)?\]|(?:翻译结果|转文字)[：:])"
)
_NO_WORDS = re.compile(r"\s*(?:<|\[语音|https?://|\S+\.(?:wav|mp3|silk|amr|m4a|aud|ogg|aac)\s*\Z|语音\s*\Z|\(http)")


class Quote(msgspec.Struct, frozen=True):
    """What a message quotes, as the export writes it: the words, who wrote them and when. Any of it may be empty."""

    words: str
    name: str = ""
    time: str = ""


class Quotes:
    """Which message is meant by a quote: the last one of these words, by the one named, at the time given.

    Args:
        zone: where the times in the export are from.
    """

    def __init__(self, zone: ZoneInfo) -> None:
        self._zone = zone
        self._said: dict[tuple[str, str], list[Message]] = {}

    def remember(self, message: Message) -> None:
        """A message that may be quoted later."""
        words = _plain(message.text)
        if not words:
            return
        key = (message.chat, words)
        alike = self._said.pop(key, [])
        self._said[key] = [*alike, message][-_ALIKE:]
        if len(self._said) > _REMEMBERED:
            del self._said[next(iter(self._said))]

    def answered(self, chat: str, quote: Quote | None) -> str | None:
        """The id of the message that is quoted, or None where none of these words is known."""
        alike = self._said.get((chat, _plain(quote.words)), []) if quote is not None else []
        if quote is None or not alike:
            return None
        at = [one for one in alike if quote.time and self._is_at(one, quote.time)]
        by = [one for one in alike if quote.name and quote.name in (one.sender_name, one.sender)]
        return (at or by or alike)[-1].id

    def _is_at(self, message: Message, written: str) -> bool:
        """Whether a message was sent in the minute written, with or without a year."""
        sent = f"{message.sent_at.astimezone(self._zone):%Y-%m-%d %H:%M}"
        return written.replace("/", "-").startswith((sent, sent[5:]))


def unquoted(text: str) -> tuple[str, Quote | None]:
    """The writer's own words, and what they quote."""
    if "引用" in text and (match := _BENEATH.search(text)):
        said = next((part for part in match.group("dumped", "traced", "marked", "beside") if part is not None), "")
        return text[: match.start()], _quote(said, match["time"] or "")
    if text.startswith("> ") and (match := _ABOVE.match(text)):
        words = "\n".join(line.removeprefix(">").removeprefix(" ") for line in (match["words"] or "").splitlines())
        return text[match.end() :], Quote(words, match["name"] or "", match["time"] or "")
    return text, None


def transcript(text: str) -> str:
    """The words of a voice message, where the export holds them; empty where it has a length, a file or nothing."""
    while note := _VOICE_NOTE.match(text):
        text = text[note.end() :]
    return "" if _NO_WORDS.match(text) else text.strip()


def is_voice(kind: str) -> bool:
    """Whether messages of this type were spoken, by its name."""
    return kind.strip().lower() in _VOICES


def told_from(record: Mapping[str, object], text: str) -> Quote | None:
    """What a record of WeFlow's quotes: it may say so in fields of its own, else in the text."""
    words, name = record.get("quotedContent"), record.get("quotedSender")
    if isinstance(words, str) and words:
        return Quote(words, name if isinstance(name, str) else "")
    return unquoted(text)[1]


def _quote(said: str, time: str) -> Quote:
    name, colon, words = said.partition(
        "：" if "：" in said and (":" not in said or said.index("：") < said.index(":")) else ":"
    )
    return Quote(words, name.strip(), time) if colon else Quote(said, "", time)


def _plain(text: str) -> str:
    return " ".join(text.split())
