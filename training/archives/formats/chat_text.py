"""What chats exported as text have in common: the halves of the day, who speaks, and what identifies a message.

Such files have neither ids nor accounts, so both are made of what is there. Knows no format.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime

import msgspec

from doppel.i18n import tr
from training.archives.formats.chat_logs import MessageIds
from training.archives.message import Kind, Mark, Message
from training.archives.source_tree import Tree

# Before noon and after it, as phones write it in their owner's language; letters may be followed by dots.
_EARLY = (
    *(r"a\.?\s?m\.?", "上午", "凌晨", "早上", "清晨", "午夜", "半夜", "午前", "오전", "새벽", r"π\.?\s?μ\.?"),
    *("ص", "पूर्वाह्न", "पूर्व", "পূর্বাহ্ণ", "ÖÖ", "SA", "PG", "paradite", r"de\.", "дп", r"пр\.\s?об\.", r"ق\.\s?ظ\.?"),
    *('לפנה[״"]צ', r"vm\.", "முற்பகல்", "ก่อนเที่ยง", r"f\.?m\.?", "dop", r"dop\."),
)
_LATE = (
    *(r"p\.?\s?m\.?", "下午", "中午", "傍晚", "晚上", "正午", "午後", "오후", "정오", r"μ\.?\s?μ\.?"),
    *("م", "अपराह्न", "अपर", "অপরাহ্ণ", "ÖS", "CH", "PTG", "pasdite", r"du\.", "пп", r"сл\.\s?об\.", r"ب\.\s?ظ\.?"),
    *('אחה[״"]צ', r"nm\.", "பிற்பகல்", "หลังเที่ยง", r"e\.?m\.?", "odp", r"odp\."),
)
HALF = "|".join(sorted((*_EARLY, *_LATE), key=len, reverse=True))
"""Pattern of a half of the day in any language; it wants `re.IGNORECASE`."""
HALF_EAST = r"[ap]\.?\s?m\.?|上午|凌晨|早上|清晨|中午|下午|傍晚|晚上|午前|午後|오전|오후"
"""The same for apps of East Asia; without the short words of other languages, which are names there."""

_IS_LATE = re.compile("|".join(_LATE), re.IGNORECASE)
_LONGEST_ID = 200


def hour_of(hour: int, half: str | None) -> int:
    """The hour from 0 to 23; a half beside an hour above 12 says nothing new."""
    if not half or hour > 12:
        return hour
    if half == "中午" and hour == 11:  # noon begins a little early
        return hour
    return hour % 12 + (12 if _IS_LATE.fullmatch(half) else 0)


class Said(msgspec.Struct, frozen=True):
    """One record of a chat: the line that it begins in, and what it says. Without a sender it is the app's own."""

    number: int
    sent_at: datetime
    sender: str
    text: str
    mark: Mark


class Conversation:
    """One exported chat: whose it is as far as the file says, and the ids that it lacks.

    Args:
        platform: where it was written.
        title: with whom or in which group; may be empty.
        names: everybody who speaks in it.
        kind: dm or group where the export says; otherwise two speakers make a private chat.
        owner: the name that stands for the owner in the file, if the export has such a name.
    """

    def __init__(
        self, platform: str, title: str, names: Collection[str], kind: Kind | None = None, owner: str = ""
    ) -> None:
        self.platform = platform
        self.kind: Kind = kind or ("dm" if len(names) <= 2 else "group")
        speakers = " & ".join(sorted(names))[:_LONGEST_ID]
        # The one whom a private chat is with is no title that lasts: another phone names the other one.
        self.chat = (speakers or title) if self.kind == "dm" else (title or speakers)
        self.title = title or self.chat
        self._partner = title if self.kind == "dm" and title in names and len(names) <= 2 else None
        self._owner = owner if owner in names else None
        self._ids = MessageIds()

    def messages(self, tree: Tree, file: str, records: Iterable[Said]) -> Iterator[Message]:
        """The records of a file as messages; one of a time that UTC does not have is noted."""
        for one in records:
            try:
                message = self.message(one.sent_at, one.sender, one.text, one.mark, f"{file}:{one.number}")
            except OverflowError as error:  # year 1, east of Greenwich
                tree.bad(file, tr("line {number}", number=one.number), error)
                continue
            yield message

    def message(self, sent_at: datetime, sender: str, text: str, mark: Mark, origin: str) -> Message:
        """A record as a message; one without a sender is the app's own."""
        sent_at = sent_at.astimezone(UTC)
        author = sender or self.title
        return Message(
            id=self._ids.of(sent_at, sender, text),
            platform=self.platform,
            chat=self.chat,
            kind=self.kind,
            sender=author,
            sender_name=author,
            sent_at=sent_at,
            text=text,
            is_owner=self._is_owner(author),
            chat_name=self.title,
            mark=mark,
            origin=origin,
        )

    def _is_owner(self, author: str) -> bool | None:
        if self._owner is not None:
            return author == self._owner
        return False if author == self._partner else None
