"""What a Discord message means: `discord.Message` to `Incoming`. Knows neither connection nor allow-list.

Left out, as nothing a persona could answer: bots, webhooks, the service's own notices, and messages without text.
"""

import re
from collections.abc import Iterator

import discord

from bot.platforms import Incoming
from bot.platforms.mentions import cut_out

_WRITTEN = (discord.MessageType.default, discord.MessageType.reply)
_MARKUP = re.compile(r"<(?P<kind>@!?|@&|#)(?P<id>\d{15,20})>|<a?(?P<emoji>:\w+:)\d{15,20}>")


def translate(message: discord.Message, me: discord.ClientUser) -> Incoming | None:
    """The message as `Incoming`, or None where there is nothing to answer. `me` is the bot's own account."""
    if message.author.bot or message.webhook_id is not None or message.type not in _WRITTEN:
        return None
    spans = list(_own_mentions(message, me))
    own_name = message.guild.me.display_name if message.guild else me.display_name
    # A mention and nothing else is a call by name, and is read as one.
    text = _readable(message, cut_out(message.content, spans)) or (own_name if spans else "")
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
        mentions_bot=private or bool(spans) or _answers(message, me),
        allow_ids=_allow_ids(message),
    )


def _allow_ids(message: discord.Message) -> tuple[str, ...]:
    """In private the account; in a server the channel, the channel a thread hangs on, and the server."""
    if message.guild is None:
        return (str(message.author.id),)
    parent = (message.channel.parent_id,) if isinstance(message.channel, discord.Thread) else ()
    return tuple(str(key) for key in (message.channel.id, *parent, message.guild.id))


def _own_mentions(message: discord.Message, me: discord.ClientUser) -> Iterator[tuple[int, int]]:
    """Where the text mentions the bot's account, or the role that Discord made for it."""
    role = message.guild.self_role if message.guild else None
    for match in _MARKUP.finditer(message.content):
        own_id = role.id if role and match["kind"] == "@&" else me.id
        if match["kind"] in ("@", "@!", "@&") and int(match["id"]) == own_id:
            yield match.span()


def _readable(message: discord.Message, text: str) -> str:
    """The text with the mentions of others, channels and emojis as people see them."""
    people = {user.id: user.display_name for user in message.mentions}
    roles = {role.id: role.name for role in message.role_mentions}
    channels = {channel.id: channel.name for channel in message.channel_mentions}

    def seen(match: re.Match[str]) -> str:
        if match["emoji"]:
            return match["emoji"]
        known = {"@&": roles, "#": channels}.get(match["kind"], people)
        return match["kind"][0] + known.get(int(match["id"]), "unknown")

    return _MARKUP.sub(seen, text).strip()


def _answers(message: discord.Message, me: discord.ClientUser) -> bool:
    quoted = message.reference.resolved if message.reference else None
    return isinstance(quoted, discord.Message) and quoted.author.id == me.id
