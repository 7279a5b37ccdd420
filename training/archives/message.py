"""One message as every export reader yields it. Knows no export format and judges nothing."""

from datetime import datetime
from typing import Literal

import msgspec

Kind = Literal["dm", "group", "post", "reply", "quote"]

# What the export itself says a record is. Cleaning decides what to do with it; a reader never drops silently.
Mark = Literal["", "forward", "retweet", "service", "bot", "media", "sticker", "reaction", "superseded", "deleted"]


class Message(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One sent message (a bubble).

    Attributes:
        id: unique within (platform, chat).
        platform: where it was written: `telegram`, `twitter`, ... (lower case, one word).
        chat: stable id of the conversation within the platform.
        kind: what sort of text it is; `post`, `reply` and `quote` are public.
        sender: stable account id of the writer within the platform.
        sender_name: the writer's display name, for choosing the owner; never reaches the model.
        sent_at: time in UTC (aware).
        text: plain text, entities resolved; may be empty for media.
        is_owner: whether the owner wrote it; None when the export does not say whose it is.
        reply_to: id of the message answered, in the same chat.
        chat_name: display name of the conversation, for reports on this machine.
        mark: what the export says about the record besides its text.
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
    chat_name: str = ""
    mark: Mark = ""
    origin: str = ""


def writable(message: Message) -> Message:
    """The message without halves of characters, which exports cut names into and no file can hold."""
    names = (message.id, message.chat, message.sender, message.sender_name, message.reply_to or "", message.chat_name)
    try:
        "".join((*names, message.text, message.origin)).encode()
    except UnicodeEncodeError:
        fields = msgspec.structs.asdict(message)
        whole = {
            key: value.encode("utf-8", "replace").decode() for key, value in fields.items() if isinstance(value, str)
        }
        return msgspec.structs.replace(message, **whole)
    return message
