"""Separates the text of a WeChat message from what exporters add to it: quotes and transcripts of voice messages.

Every exporter has its own form for them.
"""

import re
from collections.abc import Mapping
from zoneinfo import ZoneInfo

import msgspec

from training.archives.message import Message

_MAX_QUOTABLE = 1 << 14
"""Number of earlier texts that a quote can refer to."""
_MAX_SAME_TEXT = 8
"""Messages with the same text among which the quoted one is chosen."""

# PyWxDump: a line `[引用](time)name:words`; MemoTrace: `引用：name: words`; WeFlow: `[引用 name：words]`.
_QUOTE_AT_END = re.compile(
    r"\s*\n\s*(?:\[引用\]\((?P<time>[^()\n]*)\)(?P<dumped>.*)|引用[：:](?P<traced>.*)|「引用(?P<marked>.*?)」?)\Z"
    r"|\s*\[引用 (?P<beside>.*)\]\s*\Z",
    re.DOTALL,
)
# chatlog: lines with `>` before the text, the first of them `name(account) 10-04 11:00:00`.
_QUOTE_AT_START = re.compile(
    r"\A> (?:\[引用\]\n"
    r"|(?P<name>.*?)(?:\([^()\n]*\))? (?P<time>(?:\d{4}-)?\d\d-\d\d \d\d:\d\d(?::\d\d)?)\n(?P<words>(?:>.*(?:\n|\Z))*))"
)
_VOICE_TYPES = frozenset(("语音", "语音消息", "voice", "voice message", "audio"))
_VOICE_NOTE = re.compile(
    r"\s*(?:语音时长[：:]\s*[\d.]+\s*秒?|\[(?:微信)?语音(?:消息|转文字)?\]|(?:翻译结果|转文字)[：:])"
)
_NO_TRANSCRIPT = re.compile(
    r"\s*(?:<|\[语音|https?://|\S+\.(?:wav|mp3|silk|amr|m4a|aud|ogg|aac)\s*\Z|语音\s*\Z|\(http)"
)


class Quote(msgspec.Struct, frozen=True):
    """What a message quotes: the words, their writer and the time, as the export writes them. Any may be empty."""

    words: str
    name: str = ""
    time: str = ""


class QuoteResolver:
    """Finds the message that a quote refers to: the last one with its text, if possible of its time or writer.

    Args:
        zone: time zone of the times in quotes.
    """

    def __init__(self, zone: ZoneInfo) -> None:
        self._zone = zone
        self._by_text: dict[tuple[str, str], list[Message]] = {}

    def add(self, message: Message) -> None:
        """Adds a message that may be quoted later."""
        words = _one_line(message.text)
        if not words:
            return
        key = (message.chat, words)
        same_text = self._by_text.pop(key, [])
        self._by_text[key] = [*same_text, message][-_MAX_SAME_TEXT:]
        if len(self._by_text) > _MAX_QUOTABLE:
            del self._by_text[next(iter(self._by_text))]

    def find(self, chat: str, quote: Quote | None) -> str | None:
        """The id of the quoted message; None if there is none with that text."""
        same_text = self._by_text.get((chat, _one_line(quote.words)), []) if quote is not None else []
        if quote is None or not same_text:
            return None
        at_time = [message for message in same_text if quote.time and self._is_at(message, quote.time)]
        by_name = [
            message for message in same_text if quote.name and quote.name in (message.sender_name, message.sender)
        ]
        return (at_time or by_name or same_text)[-1].id

    def _is_at(self, message: Message, written: str) -> bool:
        """Whether a message was sent in the minute of a written time, with or without a year."""
        sent = f"{message.sent_at.astimezone(self._zone):%Y-%m-%d %H:%M}"
        return written.replace("/", "-").startswith((sent, sent[5:]))


def split_quote(text: str) -> tuple[str, Quote | None]:
    """Splits a text into the writer's own words and the quote."""
    if "引用" in text and (match := _QUOTE_AT_END.search(text)):
        quoted = next((part for part in match.group("dumped", "traced", "marked", "beside") if part is not None), "")
        return text[: match.start()], _parse_quote(quoted, match["time"] or "")
    if text.startswith("> ") and (match := _QUOTE_AT_START.match(text)):
        words = "\n".join(line.removeprefix(">").removeprefix(" ") for line in (match["words"] or "").splitlines())
        return text[match.end() :], Quote(words, match["name"] or "", match["time"] or "")
    return text, None


def transcript(text: str) -> str:
    """The transcript of a voice message; empty if the export has only its length or file."""
    while note := _VOICE_NOTE.match(text):
        text = text[note.end() :]
    return "" if _NO_TRANSCRIPT.match(text) else text.strip()


def is_voice(kind: str) -> bool:
    """Whether a type name is that of voice messages."""
    return kind.strip().lower() in _VOICE_TYPES


def weflow_quote(record: Mapping[str, object], text: str) -> Quote | None:
    """The quote of a WeFlow record, which has it in fields of its own or in the text."""
    words, name = record.get("quotedContent"), record.get("quotedSender")
    if isinstance(words, str) and words:
        return Quote(words, name if isinstance(name, str) else "")
    return split_quote(text)[1]


def _parse_quote(text: str, time: str) -> Quote:
    name, colon, words = text.partition(
        "：" if "：" in text and (":" not in text or text.index("：") < text.index(":")) else ":"
    )
    return Quote(words, name.strip(), time) if colon else Quote(text, "", time)


def _one_line(text: str) -> str:
    return " ".join(text.split())
