"""Converts a Telegram `Update` to `Incoming`.

Edits, bots, channels, people who write as a channel, and media without a caption are ignored: the persona could not
answer them. A sticker is read as its emoji. A command to the bot (`/ask@bot`) is read as a mention.
"""

import re
from collections.abc import Iterator, Sequence

from telegram import (
    Message,
    MessageEntity,
    MessageOrigin,
    MessageOriginChannel,
    MessageOriginChat,
    MessageOriginUser,
    Update,
    User,
)
from telegram.constants import ChatType

from bot.platforms import UNNAMED, Answered, Incoming
from bot.platforms.mentions import is_named, remove_spans

_COMMAND = re.compile(r"/\w{1,64}@(?P<bot>\w{3,64})(?!\w)", re.ASCII)
"""A command to a certain bot, at the beginning of a text."""


def to_incoming(update: Update, me: User, names: Sequence[str]) -> Incoming | None:
    """The message in an update, or None if it is ignored.

    Args:
        update: as received from Telegram.
        me: the bot's own account.
        names: names the persona answers to in groups; the account's first name if empty.
    """
    message = update.message
    if message is None or message.from_user is None or message.from_user.is_bot or message.sender_chat is not None:
        return None
    private = message.chat.type == ChatType.PRIVATE
    if not private and message.chat.type not in (ChatType.GROUP, ChatType.SUPERGROUP):
        return None
    is_start = _is_start(message)
    text, mentioned = _without_mentions(message, me)
    addresses = private or (
        not _is_for_another_bot(message, me)
        and (mentioned or _replies_to(message, me) or is_named(text, names or (me.first_name,)))
    )
    if (is_start and not private) or not (text or is_start):
        return None
    chat = str(message.chat.id)
    return Incoming(
        platform="telegram",
        # Update ids count per bot: those of another token must not look like duplicates.
        event_id=f"{me.id}:{update.update_id}",
        chat=f"{chat}/{message.message_thread_id}" if message.is_topic_message else chat,
        kind="dm" if private else "group",
        sender=str(message.from_user.id),
        sender_name=message.from_user.full_name,
        text="" if is_start else text,
        sent_at=message.date,
        message_id=str(message.message_id),
        mentions_bot=addresses,
        # A group is allowed by its own id: allowing a person must not allow every group they are in.
        allow_ids=(str(message.from_user.id),) if private else (chat,),
        answers=_answered(message, me),
    )


def utf16_length(text: str) -> int:
    """Length in UTF-16 code units, which Telegram uses for limits and offsets."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _is_start(message: Message) -> bool:
    """Whether this is `/start`, sent by the Start button that opens a chat; it is not part of the conversation."""
    command, _, _ = (message.text or "").partition(" ")
    return command.partition("@")[0] == "/start"


def _without_mentions(message: Message, me: User) -> tuple[str, bool]:
    """The text without mentions of the bot, and whether there were any."""
    text = _text(message)
    spans = sorted({*_mentions(text, message.entities or message.caption_entities, me), *_leading_command(text, me)})
    # A bare mention is read as the persona's name.
    return remove_spans(text, spans) or (me.first_name if spans else ""), bool(spans)


def _text(message: Message) -> str:
    return message.text or message.caption or (message.sticker and message.sticker.emoji) or ""


def _leading_command(text: str, me: User) -> Iterator[tuple[int, int]]:
    """The span of a command to this bot at the beginning of a text."""
    command = _COMMAND.match(text)
    if command is not None and _is_username(command["bot"], me):
        yield command.span()


def _is_for_another_bot(message: Message, me: User) -> bool:
    command = _COMMAND.match(_text(message))
    return command is not None and not _is_username(command["bot"], me)


def _is_username(name: str, me: User) -> bool:
    return me.username is not None and name.casefold() == me.username.casefold()


def _mentions(text: str, entities: Sequence[MessageEntity], me: User) -> Iterator[tuple[int, int]]:
    for entity in entities:
        start = _code_points(text, entity.offset)
        end = _code_points(text, entity.offset + entity.length)
        by_username = (
            entity.type in (MessageEntity.MENTION, MessageEntity.BOT_COMMAND)
            # Of a command: what comes after its word.
            and _is_username(text[start:end].partition("@")[2], me)
        )
        by_id = entity.type == MessageEntity.TEXT_MENTION and entity.user is not None and entity.user.id == me.id
        if by_username or by_id:
            yield start, end


def _code_points(text: str, utf16_units: int) -> int:
    """How many code points the first `utf16_units` UTF-16 code units of a text are."""
    return len(text.encode("utf-16-le", "surrogatepass")[: 2 * utf16_units].decode("utf-16-le", "surrogatepass"))


def _replies_to(message: Message, me: User) -> bool:
    quoted = message.reply_to_message
    # In a topic every message formally replies to the notice that created the topic.
    return (
        quoted is not None
        and quoted.from_user is not None
        and quoted.from_user.id == me.id
        and quoted.forum_topic_created is None
    )


def _answered(message: Message, me: User) -> Answered | None:
    """What a message answers; None if it answers nothing, or something without words."""
    if message.reply_to_message is not None:
        answered = message.reply_to_message
        text = "" if _is_start(answered) else _quote(message, me) or _without_mentions(answered, me)[0]
        found = Answered(sender=_writer(answered, me), text=text, message_id=str(answered.message_id))
    elif message.external_reply is not None:
        # Telegram shows no text of a message in another chat but the quote.
        sticker = message.external_reply.sticker
        text = _quote(message, me) or (sticker and sticker.emoji) or ""
        found = Answered(sender=_origin(message.external_reply.origin, me), text=text)
    else:
        return None
    return found if found.text else None


def _quote(message: Message, me: User) -> str:
    """The part that was quoted, if one was. Telegram marks no mentions in it."""
    if message.quote is None:
        return ""
    text = message.quote.text
    mention = re.compile(rf"(?<!\w)@{me.username}(?!\w)", re.IGNORECASE | re.ASCII)
    spans = [match.span() for match in mention.finditer(text)]
    return remove_spans(text, spans) or (me.first_name if spans else "")


def _writer(message: Message, me: User) -> str | None:
    """Who wrote a message: a person, or the chat in whose name it was written; None: the persona."""
    if message.forward_origin is not None:
        return _origin(message.forward_origin, me)
    if message.sender_chat is not None:
        return str(message.sender_chat.id)
    if message.from_user is None:
        return UNNAMED
    return None if message.from_user.id == me.id else str(message.from_user.id)


def _origin(origin: MessageOrigin, me: User) -> str | None:
    """Who wrote a message that comes from another chat, as `_writer`; people may hide who they are."""
    if isinstance(origin, MessageOriginUser):
        return None if origin.sender_user.id == me.id else str(origin.sender_user.id)
    if isinstance(origin, MessageOriginChat):
        return str(origin.sender_chat.id)
    if isinstance(origin, MessageOriginChannel):
        return str(origin.chat.id)
    return UNNAMED
