"""Asks Discord for messages that were written while the daemon was not connected.

The gateway does not keep messages for a bot that is offline, but every channel's history can be read, if one knows the
channel. Discord names the channels and active threads of servers. It does not name direct chats: those of the accounts
in `discord.allow` are opened by account, which shows nothing to anybody; others are found with their next message.
"""

import logging
from collections.abc import AsyncGenerator, Collection
from datetime import datetime, timedelta

import aiohttp
import discord

from bot.platforms.discord.messages import channel_allow_ids
from doppel.i18n import tr

MAX_AGE = timedelta(hours=24)
"""Older messages are not fetched. Telegram keeps messages for a bot just as long."""
MAX_CHANNELS = 200
"""Channels and threads without a stored message that are asked after one connection, those written in last first."""
MAX_ACCOUNTS = 20
"""Accounts of `discord.allow` whose direct chat is opened after one connection."""
UNREACHABLE = (OSError, aiohttp.ClientError)
"""Errors of a request when Discord cannot be reached."""

_ServerChannel = discord.TextChannel | discord.VoiceChannel | discord.StageChannel | discord.Thread

log = logging.getLogger(__name__)


class FetchFailed(Exception):
    """Discord could not be reached or failed; the same request may succeed later."""


def oldest_id(now: datetime) -> int:
    """The id before those of all messages that are fetched at `now` (UTC)."""
    return discord.utils.time_snowflake(now - MAX_AGE)


async def fetch_after(client: discord.Client, chat: int, after_id: int) -> AsyncGenerator[discord.Message]:
    """Yields all messages of a chat after one, oldest first. Yields none if Discord refuses.

    Args:
        client: logged in and ready.
        chat: id of the channel, thread or direct chat.
        after_id: id of the last message that is not wanted.

    Raises:
        FetchFailed: the rest could not be fetched now.
    """
    try:
        channel = client.get_channel(chat) or await client.fetch_channel(chat)
        last_id = getattr(channel, "last_message_id", None)
        if not isinstance(channel, discord.abc.Messageable) or (last_id is not None and last_id <= after_id):
            return
        async for message in channel.history(after=discord.Object(after_id), limit=None, oldest_first=True):
            yield message
    except (discord.DiscordException, *UNREACHABLE) as error:
        if not _is_passing(error):
            log.debug("discord: %s: %s", chat, error)
            return
        raise FetchFailed(str(error) or type(error).__name__) from error


def channels_written_in(
    client: discord.Client, after_id: int, allowed: Collection[str], known: Collection[int]
) -> list[int]:
    """Ids of the allowed server channels and active threads that are not known and have a message after `after_id`.

    At most `MAX_CHANNELS`, those written in last.
    """
    found: list[_ServerChannel] = []
    for guild in client.guilds:
        channels: tuple[_ServerChannel, ...] = (
            *guild.text_channels,
            *guild.voice_channels,
            *guild.stage_channels,
            *guild.threads,
        )
        found += [
            channel
            for channel in channels
            if channel.id not in known
            and (channel.last_message_id or 0) > after_id
            and not channel_allow_ids(channel).isdisjoint(allowed)
            and _is_readable(channel)
        ]
    found.sort(key=lambda channel: channel.last_message_id or 0, reverse=True)
    left_out = len(found) - MAX_CHANNELS
    if left_out > 0:
        log.warning(tr("Discord: {count} more channels were not asked for missed messages", count=left_out))
    return [channel.id for channel in found[:MAX_CHANNELS]]


async def direct_chats(client: discord.Client, allowed: Collection[str]) -> list[int]:
    """Ids of the direct chats with the accounts among the allowed ids, at most `MAX_ACCOUNTS`.

    An entry that cannot be opened is skipped: it may be a server or channel that the bot is not in.
    """
    chats = []
    accounts = [int(entry) for entry in sorted(allowed) if entry.isdecimal() and not _is_place(client, int(entry))]
    for account in accounts[:MAX_ACCOUNTS]:
        try:
            chats.append((await client.create_dm(discord.Object(account))).id)
        except (discord.DiscordException, *UNREACHABLE) as error:
            log.debug("discord: direct chat with %s: %s", account, error)
    return chats


def chat_name(client: discord.Client, chat: int) -> str:
    """What people call a chat, for messages: `#name`, or its id."""
    name = getattr(client.get_channel(chat), "name", None)
    return f"#{name}" if name else str(chat)


def _is_passing(error: Exception) -> bool:
    if isinstance(error, discord.HTTPException):
        return error.status >= 500 or error.status == 429
    return isinstance(error, (*UNREACHABLE, discord.RateLimited))


def _is_place(client: discord.Client, entry: int) -> bool:
    return client.get_guild(entry) is not None or client.get_channel(entry) is not None


def _is_readable(channel: _ServerChannel) -> bool:
    try:
        permissions = channel.permissions_for(channel.guild.me)
    except discord.ClientException:  # a thread whose channel is hidden: Discord decides
        return True
    return permissions.read_messages and permissions.read_message_history
