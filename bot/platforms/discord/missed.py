"""Fetches messages that were written in Discord while the daemon was not connected.

The gateway does not keep messages for a bot that is offline, so after each new session every known chat is asked for
messages after the last known one. A first direct message from a new person is missed: Discord names that chat only
with their next message.
"""

import logging
from collections.abc import AsyncIterator, Mapping
from datetime import datetime, timedelta

import aiohttp
import discord

from doppel.i18n import tr

MAX_AGE = timedelta(hours=24)
"""Older messages are not fetched. Telegram keeps messages for a bot just as long."""
MAX_MESSAGES = 200
"""Per chat; of more, the last ones are fetched."""
UNREACHABLE = (OSError, aiohttp.ClientError)
"""Errors of a request when Discord cannot be reached."""

log = logging.getLogger(__name__)


async def fetch_missed(
    client: discord.Client, newest: Mapping[str, str], now: datetime
) -> AsyncIterator[discord.Message]:
    """Yields the messages after the newest known one of each chat, oldest first. Skips chats that refuse.

    Args:
        client: logged in and ready.
        newest: channel id → id of its last known message.
        now: UTC.
    """
    oldest_id = discord.utils.time_snowflake(now - MAX_AGE)
    for chat, newest_id in newest.items():
        if not (chat.isdecimal() and newest_id.isdecimal()):
            continue
        try:
            messages = await _fetch_after(client, int(chat), max(int(newest_id), oldest_id))
        except (discord.NotFound, discord.Forbidden) as error:
            log.debug("discord: %s: %s", chat, error)
            continue
        except (discord.DiscordException, *UNREACHABLE) as error:
            channel = getattr(client.get_channel(int(chat)), "name", None)
            name = f"#{channel}" if channel else chat
            log.warning(tr("Discord: could not fetch missed messages in {chat}: {error}", chat=name, error=error))
            continue
        for message in messages:
            yield message


async def _fetch_after(client: discord.Client, chat: int, after_id: int) -> list[discord.Message]:
    channel = client.get_channel(chat) or await client.fetch_channel(chat)
    if not isinstance(channel, discord.abc.Messageable):
        return []
    last = getattr(channel, "last_message_id", None)
    if last is not None and last <= after_id:
        return []
    after = discord.Object(after_id)
    return [message async for message in channel.history(after=after, limit=MAX_MESSAGES, oldest_first=False)][::-1]
