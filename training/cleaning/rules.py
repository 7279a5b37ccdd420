"""Which single messages are no words of a person's own, and why. Knows nothing of sessions or formats."""

import re
from typing import Literal

from doppel.transcript import normalize
from training.archives.message import Mark, Message

Reason = Literal[
    "empty",
    "media",
    "service",
    "forward",
    "retweet",
    "bot",
    "superseded",
    "deleted",
    "reaction",
    "link-only",
    "excluded",
    "duplicate",
    "forgotten",
    "near-duplicate",
    "repeat",
    "contact cap",
    "no turn of yours",
    "also in test",
]
"""Why a message is not in the data set; those from `duplicate` on are about its session or other messages too."""

_BY_MARK: dict[Mark, Reason] = {
    Mark.SERVICE: "service",
    Mark.FORWARD: "forward",
    Mark.RETWEET: "retweet",
    Mark.BOT: "bot",
    Mark.SUPERSEDED: "superseded",
    Mark.DELETED: "deleted",
    Mark.STICKER: "media",
}
_LINK = re.compile(r"(?:https?://|www\.)\S+")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")


def clean_text(text: str) -> str:
    """The text as the transcript keeps it, without control characters."""
    if text.isprintable():
        return text.strip() if text.isascii() else normalize(text)  # half of all text; nothing to normalize
    return normalize(_CONTROL.sub("", text))


def drop_reason(message: Message, text: str) -> Reason | None:
    """Why the message is dropped, or None. `text` is its cleaned text. A caption keeps its picture's message."""
    if (reason := _BY_MARK.get(message.mark)) is not None:
        return reason
    if not text:
        return "media" if message.mark == Mark.MEDIA else "empty"
    if message.mark == Mark.REACTION and message.is_owner is False:
        return "reaction"  # of the owner's, those that answer something stay
    if ("://" in text or "www." in text) and not any(map(str.isalnum, _LINK.sub("", text))):
        return "link-only"
    return None
