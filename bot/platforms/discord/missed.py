"""What was written in Discord while nobody listened: asked of the channels' histories after a start.

The gateway keeps nothing for a bot that is away, so every known chat is asked for what came after its last known
message. A first direct message, sent while nobody listened, is in no known chat: Discord names that only with the next.
"""

import logging
from collections.abc import AsyncIterator, Mapping
from datetime import datetime, timedelta

import aiohttp
import discord

from doppel.i18n import tr

MAX_AGE = timedelta(hours=24)
"""Nothing older is fetched; Telegram keeps messages for a bot as long."""
MAX_MESSAGES = 200
"""Messages of one chat; of more, the last ones."""
UNREACHABLE = (OSError, aiohttp.ClientError)
"""What a request ends with where Discord cannot be reached."""

log = logging.getLogger(__name__)


async def missed(client: discord.Client, newest: Mapping[str, str], now: datetime) -> AsyncIterator[discord.Message]:
    """The messages after the newest known of each chat, a chat's oldest first. A chat that refuses is left out.

    Args:
        client: logged in and ready.
        newest: channel id → id of the last message that is known of it.
        now: UTC.
    """
    oldest = discord.utils.time_snowflake(now - MAX_AGE)
    for chat, known in newest.items():
        if not (chat.isdecimal() and known.isdecimal()):
            continue
        try:
            found = await _since(client, int(chat), max(int(known), oldest))
        except (discord.NotFound, discord.Forbidden) as error:
            log.debug("discord: %s: %s", chat, error)
            continue
        except (discord.DiscordException, *UNREACHABLE) as error:
            log.warning(
                tr("Discord: what was written in {chat} meanwhile cannot be read: {error}", chat=chat, error=error)
            )
            continue
        for message in found:
            yield message


async def _since(client: discord.Client, chat: int, known: int) -> list[discord.Message]:
    channel = client.get_channel(chat) or await client.fetch_channel(chat)
    if not isinstance(channel, discord.abc.Messageable):
        return []
    last = getattr(channel, "last_message_id", None)
    if last is not None and last <= known:
        return []
    after = discord.Object(known)
    return [message async for message in channel.history(after=after, limit=MAX_MESSAGES, oldest_first=False)][::-1]
