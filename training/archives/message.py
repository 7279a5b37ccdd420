"""The message that every archive reader yields."""

from datetime import datetime
from enum import StrEnum
from typing import Literal

import msgspec

Kind = Literal["dm", "group", "post", "reply", "quote"]


EXPORTER_NAMES = frozenset(("Me", "我", "회원님"))
"""What exports of Signal, iMessage, WeChat and KakaoTalk write in place of the name of whoever exported them."""


class Mark(StrEnum):
    """What an export says a record is, if it is not simply a text. Cleaning decides what to do with it."""

    NONE = ""
    FORWARD = "forward"
    RETWEET = "retweet"
    SERVICE = "service"
    BOT = "bot"
    MEDIA = "media"
    STICKER = "sticker"
    REACTION = "reaction"
    SUPERSEDED = "superseded"
    DELETED = "deleted"


class Message(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One sent message (a bubble).

    Attributes:
        id: unique within (platform, chat).
        platform: where it was written: `telegram`, `twitter`, ... (lower case, one word).
        chat: stable id of the conversation within the platform.
        kind: `dm` and `group` are conversations; `post`, `reply` and `quote` are public.
        sender: stable account id of the writer within the platform.
        sender_name: the writer's display name, for choosing the owner; never reaches the model.
        sent_at: time in UTC (aware).
        text: plain text with entities resolved; may be empty for media.
        is_owner: whether the owner wrote it; None when the export does not say.
        reply_to: id of the message it replies to, in the same chat.
        thread: id of the message that begins the thread it belongs to, where a thread is a conversation beside that of
            the chat; the first message need not say so itself. Threads that are chats of their own are not meant.
        chat_name: display name of the conversation, for reports on this machine.
        mark: what the export says about the record besides its text.
        is_one_sided: whether the export lacks what other people wrote in the conversation, by its nature.
        origin: `file:position`, for error messages.
    """

    id: str
    platform: str
    chat: str
    kind: Kind
    sender: str
    sender_name: str
    sent_at: datetime
    text: str
    is_owner: bool | None = None
    reply_to: str | None = None
    thread: str | None = None
    chat_name: str = ""
    mark: Mark = Mark.NONE
    is_one_sided: bool = False
    origin: str = ""


def without_surrogates(message: Message) -> Message:
    """The message with lone surrogates replaced: exports that cut text within a character contain them, and they
    cannot be written to a file.
    """
    names = (message.id, message.chat, message.sender, message.sender_name, message.reply_to or "", message.chat_name)
    try:
        "".join((*names, message.thread or "", message.text, message.origin)).encode()
    except UnicodeEncodeError:
        fields = msgspec.structs.asdict(message)
        replaced = {
            key: value.encode("utf-8", "replace").decode()
            for key, value in fields.items()
            if isinstance(value, str) and not isinstance(value, Mark)
        }
        return msgspec.structs.replace(message, **replaced)
    return message
