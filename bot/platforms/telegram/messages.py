"""What a Telegram message means: `Update` to `Incoming`. Knows neither connection nor allow-list.

Left out, as nothing a persona could answer: edits, bots, channels and those who write as a channel, and media
without a caption. A sticker is read as its emoji.
"""

from collections.abc import Iterator, Sequence

from telegram import Message, MessageEntity, Update, User
from telegram.constants import ChatType

from bot.platforms import Incoming
from bot.platforms.mentions import cut_out, is_named


def translate(update: Update, me: User, names: Sequence[str]) -> Incoming | None:
    """The message in an update, or None where there is nothing to answer.

    Args:
        update: as Telegram sent it.
        me: the bot's own account.
        names: what the persona is called in groups; the account's first name when empty.
    """
    message = update.message
    if message is None or message.from_user is None or message.from_user.is_bot or message.sender_chat is not None:
        return None
    private = message.chat.type == ChatType.PRIVATE
    if not private and message.chat.type not in (ChatType.GROUP, ChatType.SUPERGROUP):
        return None
    opened = _is_start(message)
    text, mentioned = _without_mentions(message, me)
    if (opened and not private) or not (text or opened):
        return None
    chat = str(message.chat.id)
    return Incoming(
        platform="telegram",
        # Update ids are counted per bot: another token must not look like messages already seen.
        event_id=f"{me.id}:{update.update_id}",
        chat=f"{chat}/{message.message_thread_id}" if message.is_topic_message else chat,
        kind="dm" if private else "group",
        sender=str(message.from_user.id),
        sender_name=message.from_user.full_name,
        text="" if opened else text,
        sent_at=message.date,
        message_id=str(message.message_id),
        mentions_bot=private or mentioned or _answers(message, me) or is_named(text, names or (me.first_name,)),
        # A group is allowed by its own id: that somebody may talk to the persona in private does not open every
        # group they are in.
        allow_ids=(str(message.from_user.id),) if private else (chat,),
    )


def utf16_length(text: str) -> int:
    """Length in UTF-16 units, in which Telegram counts limits and positions."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _is_start(message: Message) -> bool:
    """Whether this is the Start button (`/start`), which opens a chat and is not meant to be read."""
    command, _, _ = (message.text or "").partition(" ")
    return command.partition("@")[0] == "/start"


def _without_mentions(message: Message, me: User) -> tuple[str, bool]:
    """The text without mentions of the persona, and whether there were any."""
    text = message.text or message.caption or (message.sticker and message.sticker.emoji) or ""
    spans = list(_mentions(text, message.entities or message.caption_entities, me))
    # A mention and nothing else is a call by name, and is read as one.
    return cut_out(text, spans) or (me.first_name if spans else ""), bool(spans)


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


def _code_points(text: str, units: int) -> int:
    """How many code points the first so many UTF-16 units of a text are."""
    return len(text.encode("utf-16-le", "surrogatepass")[: 2 * units].decode("utf-16-le", "surrogatepass"))


def _answers(message: Message, me: User) -> bool:
    quoted = message.reply_to_message
    # In a topic every message formally answers the notice that opened the topic.
    return (
        quoted is not None
        and quoted.from_user is not None
        and quoted.from_user.id == me.id
        and quoted.forum_topic_created is None
    )
