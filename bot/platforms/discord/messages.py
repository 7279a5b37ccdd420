"""Converts a `discord.Message` to `Incoming`.

Bots, webhooks, system messages and messages without text are ignored: the persona could not answer them. Stickers are
read as words, as in an archive.
"""

import re
from collections.abc import Iterator

import discord

from bot.platforms import UNNAMED, Answered, Incoming
from bot.platforms.mentions import remove_spans
from doppel.transcript.stickers import sticker_text

_USER_MESSAGES = (discord.MessageType.default, discord.MessageType.reply)
_MARKUP = re.compile(r"<(?P<kind>@!?|@&|#)(?P<id>\d{15,20})>|<a?(?P<emoji>:\w+:)\d{15,20}>")


def to_incoming(message: discord.Message, me: discord.ClientUser) -> Incoming | None:
    """The message as `Incoming`, or None if it is ignored. `me` is the bot's own account."""
    if message.author.bot or message.webhook_id is not None or message.type not in _USER_MESSAGES:
        return None
    text, mentioned = _without_mentions(message, me)
    if not text:
        return None
    private = message.guild is None
    return Incoming(
        platform="discord",
        event_id=str(message.id),
        chat=str(message.channel.id),
        kind="dm" if private else "group",
        sender=str(message.author.id),
        sender_name=message.author.display_name,
        text=text,
        sent_at=message.created_at,
        message_id=str(message.id),
        mentions_bot=private or mentioned or _replies_to(message, me),
        allow_ids=allow_ids(message),
        answers=_answered(message, me),
    )


def allow_ids(message: discord.Message) -> tuple[str, ...]:
    """In a direct message the account; in a server the channel, the parent channel of a thread, and the server."""
    if message.guild is None:
        return (str(message.author.id),)
    return _place_ids(message.channel, message.guild)


def channel_allow_ids(channel: discord.abc.GuildChannel | discord.Thread) -> frozenset[str]:
    """The ids that allow the messages of a server's channel or thread."""
    return frozenset(_place_ids(channel, channel.guild))


def _place_ids(channel: discord.abc.Snowflake, guild: discord.Guild) -> tuple[str, ...]:
    parent = (channel.parent_id,) if isinstance(channel, discord.Thread) else ()
    return tuple(str(allow_id) for allow_id in (channel.id, *parent, guild.id))


def _without_mentions(message: discord.Message, me: discord.ClientUser) -> tuple[str, bool]:
    """What people see of a message, without mentions of the bot, and whether there were any."""
    spans = list(_own_mentions(message, me))
    text = _readable(message, remove_spans(message.content, spans))
    if not text:
        text = sticker_text(sticker.name for sticker in message.stickers)
    # A bare mention is read as the persona's name.
    own_name = message.guild.me.display_name if message.guild else me.display_name
    return text or (own_name if spans else ""), bool(spans)


def _own_mentions(message: discord.Message, me: discord.ClientUser) -> Iterator[tuple[int, int]]:
    """Spans of mentions of the bot's account, or of the role that Discord created for it."""
    role = message.guild.self_role if message.guild else None
    for match in _MARKUP.finditer(message.content):
        own_id = role.id if role and match["kind"] == "@&" else me.id
        if match["kind"] in ("@", "@!", "@&") and int(match["id"]) == own_id:
            yield match.span()


def _readable(message: discord.Message, text: str) -> str:
    """Replaces mentions, channels and emoji by the text that people see."""
    people = {user.id: user.display_name for user in message.mentions}
    roles = {role.id: role.name for role in message.role_mentions}
    channels = {channel.id: channel.name for channel in message.channel_mentions}

    def display(match: re.Match[str]) -> str:
        if match["emoji"]:
            return match["emoji"]
        names = {"@&": roles, "#": channels}.get(match["kind"], people)
        return match["kind"][0] + names.get(int(match["id"]), "unknown")

    return _MARKUP.sub(display, text).strip()


def _replies_to(message: discord.Message, me: discord.ClientUser) -> bool:
    answered = _answered_message(message)
    return answered is not None and answered.author.id == me.id


def _answered(message: discord.Message, me: discord.ClientUser) -> Answered | None:
    """What a message answers; None if it answers nothing, something without words, or Discord does not show it."""
    answered = _answered_message(message)
    if answered is None or answered.is_system():
        return None
    text, _ = _without_mentions(answered, me)
    sender = None if answered.author.id == me.id else str(answered.author.id)
    if not text and answered.message_snapshots:
        # A forwarded message; Discord does not tell who wrote it.
        text, sender = _snapshot_text(answered), UNNAMED
    return Answered(sender=sender, text=text, message_id=str(answered.id)) if text else None


def _answered_message(message: discord.Message) -> discord.Message | None:
    resolved = message.reference.resolved if message.reference else None
    return resolved if isinstance(resolved, discord.Message) else None


def _snapshot_text(message: discord.Message) -> str:
    snapshot = message.message_snapshots[0]
    return _readable(message, snapshot.content) or sticker_text(sticker.name for sticker in snapshot.stickers)
