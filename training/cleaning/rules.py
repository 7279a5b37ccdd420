"""Rules that drop single messages which are not a person's own words."""

import re
from enum import StrEnum

from doppel.transcript import normalize
from training.archives.message import Mark, Message


class DropReason(StrEnum):
    """Why a message is not in the data set. The values are stored in report.json."""

    EMPTY = "empty"
    MEDIA = "media"
    SERVICE = "service"
    FORWARD = "forward"
    RETWEET = "retweet"
    BOT = "bot"
    SUPERSEDED = "superseded"
    DELETED = "deleted"
    REACTION = "reaction"
    LINK_ONLY = "link-only"
    EXCLUDED = "excluded"
    # From here on, the reason lies in other messages or in the session.
    DUPLICATE = "duplicate"
    FORGOTTEN = "forgotten"
    NEAR_DUPLICATE = "near-duplicate"
    REPEAT = "repeat"
    CONTACT_CAP = "contact cap"
    NO_OWN_MESSAGE = "no turn of yours"
    IN_TEST = "also in test"


_BY_MARK: dict[Mark, DropReason] = {
    Mark.SERVICE: DropReason.SERVICE,
    Mark.FORWARD: DropReason.FORWARD,
    Mark.RETWEET: DropReason.RETWEET,
    Mark.BOT: DropReason.BOT,
    Mark.SUPERSEDED: DropReason.SUPERSEDED,
    Mark.DELETED: DropReason.DELETED,
    Mark.STICKER: DropReason.MEDIA,
}
_LINK = re.compile(r"(?:https?://|www\.)\S+")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")


def clean_text(text: str) -> str:
    """The text in the transcript's normal form, without control characters."""
    if text.isprintable():  # half of all texts: nothing to normalize
        return text.strip() if text.isascii() else normalize(text)
    return normalize(_CONTROL.sub("", text))


def drop_reason(message: Message, text: str) -> DropReason | None:
    """Why the message is dropped, or None. `text` is its cleaned text; a picture with a caption is kept."""
    if (reason := _BY_MARK.get(message.mark)) is not None:
        return reason
    if not text:
        return DropReason.MEDIA if message.mark == Mark.MEDIA else DropReason.EMPTY
    if message.mark == Mark.REACTION and message.is_owner is False:
        return DropReason.REACTION  # the owner's reactions are looked at later, in their session
    if ("://" in text or "www." in text) and not any(map(str.isalnum, _LINK.sub("", text))):
        return DropReason.LINK_ONLY
    return None
