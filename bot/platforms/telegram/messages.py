"""Converts a Telegram `Update` to `Incoming`.

Edits, bots, channels, people who write as a channel, and media without a caption are ignored: the persona could not
answer them. A sticker is read as its emoji.
"""

from collections.abc import Iterator, Sequence

from telegram import Message, MessageEntity, Update, User
from telegram.constants import ChatType

from bot.platforms import Incoming
from bot.platforms.mentions import is_named, remove_spans


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
        mentions_bot=private or mentioned or _replies_to(message, me) or is_named(text, names or (me.first_name,)),
        # A group is allowed by its own id: allowing a person must not allow every group they are in.
        allow_ids=(str(message.from_user.id),) if private else (chat,),
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
    text = message.text or message.caption or (message.sticker and message.sticker.emoji) or ""
    spans = list(_mentions(text, message.entities or message.caption_entities, me))
    # A bare mention is read as the persona's name.
    return remove_spans(text, spans) or (me.first_name if spans else ""), bool(spans)


def _mentions(text: str, entities: Sequence[MessageEntity], me: User) -> Iterator[tuple[int, int]]:
    for entity in entities:
        start = _code_points(text, entity.offset)
        end = _code_points(text, entity.offset + entity.length)
        by_username = (
            entity.type == MessageEntity.MENTION and text[start:end].casefold() == f"@{me.username}".casefold()
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
