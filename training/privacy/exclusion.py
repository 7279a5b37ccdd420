"""Excludes messages by `exclude` in config.yaml: by person, chat, word or day."""

import re
from datetime import datetime, time
from zoneinfo import ZoneInfo

from doppel.config import ExcludeSettings
from training.archives.message import Message


class ExclusionFilter:
    """Decides which messages the owner does not want in the data set.

    Args:
        settings: `exclude` in config.yaml.
        zone: time zone of the days in it.
    """

    def __init__(self, settings: ExcludeSettings, zone: ZoneInfo) -> None:
        self._people = frozenset(name.casefold() for name in settings.people)
        self._chats = frozenset(name.casefold() for name in settings.chats)
        self._words = _any_word(settings.words)
        self._start = datetime.combine(settings.before, time(), zone) if settings.before else None
        self._end = datetime.combine(settings.after, time.max, zone) if settings.after else None
        self.is_empty = not (self._people or self._chats or self._words or self._start or self._end)

    def excludes(self, message: Message) -> bool:
        """Whether the message is left out."""
        return self.excludes_content(message) or self.excludes_writer(message) or self.excludes_chat(message)

    def excludes_content(self, message: Message) -> bool:
        """Whether the message is left out for its day or its words."""
        if self._start is not None and message.sent_at < self._start:
            return True
        if self._end is not None and message.sent_at > self._end:
            return True
        return self._words is not None and self._words.search(message.text) is not None

    def excludes_writer(self, message: Message) -> bool:
        """Whether everything of its writer is left out."""
        return bool(self._people) and not self._people.isdisjoint(
            (message.sender.casefold(), message.sender_name.casefold())
        )

    def excludes_chat(self, message: Message) -> bool:
        """Whether its whole chat is left out."""
        return bool(self._chats) and not self._chats.isdisjoint((message.chat.casefold(), message.chat_name.casefold()))


def _any_word(words: tuple[str, ...]) -> re.Pattern[str] | None:
    """Matches any of the words; only as a whole word in scripts that put spaces between words."""
    if not words:
        return None
    parts = []
    for word in words:
        left = r"(?<![^\W_])" if word[0].isascii() and word[0].isalnum() else ""
        right = r"(?![^\W_])" if word[-1].isascii() and word[-1].isalnum() else ""
        # A Chinese or Japanese character next to a Latin word is not part of it.
        cjk = "[\u3040-\u30ff\u4e00-\u9fff]"
        left = left and rf"(?:{left}|(?<={cjk}))"
        right = right and rf"(?:{right}|(?={cjk}))"
        parts.append(left + re.escape(word) + right)
    return re.compile("|".join(parts), re.IGNORECASE)
