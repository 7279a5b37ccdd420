"""Discord through discord.py: listens on the gateway, sends bubbles, shows "typing".

The gateway has no acknowledgement: messages written while the bot was offline are fetched after each new session.
"""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from random import Random
from typing import Any

import discord

from bot.platforms import Newest, Outgoing, Receive, SendFailed
from bot.platforms.discord.events import EventConsumer, Events, GatewayEvent, Progress, Sleep
from bot.platforms.discord.missed import UNREACHABLE
from bot.platforms.discord.settings import DiscordSettings, read_token
from doppel.errors import DoppelError
from doppel.i18n import tr
from doppel.system.backoff import Backoff

MESSAGE_LIMIT = 2000
NONCE_LIMIT = 25
MAX_RATE_LIMIT_WAIT = 30.0  # seconds; the smallest value that discord.py accepts
BAD_TOKEN = 4004  # close code of the gateway

OUTAGES = (*UNREACHABLE, discord.HTTPException, discord.GatewayNotFound, discord.ConnectionClosed)

log = logging.getLogger(__name__)


Start = Callable[[discord.Client, str], Awaitable[None]]


class DiscordPlatform:
    """Direct messages and server channels of one bot account. Tests replace `start`, which logs in and listens."""

    name = "discord"
    limit = MESSAGE_LIMIT
    # Discord remembers a nonce for some minutes; the outbox does not resend later than that.
    resend_is_safe = True

    def __init__(
        self,
        settings: DiscordSettings,
        environ: Mapping[str, str],
        *,
        start: Start = discord.Client.start,
        sleep: Sleep = asyncio.sleep,
        random: Random | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._now = now
        self._token = read_token(environ)
        # Unlike Telegram's library, discord.py does not read the proxy variables itself.
        proxy = environ.get("HTTPS_PROXY") or environ.get("https_proxy") or ""
        self._proxy = proxy if proxy.startswith("http") else None
        self._start = start
        self._sleep = sleep
        self._random = random or Random()
        self._backoff = Backoff(self._random)
        self._allowed = frozenset(settings.allow)
        self._progress = Progress()
        self._client: discord.Client | None = None
        self._traceback_filter = _ReconnectFilter()
        logging.getLogger("discord.client").addFilter(self._traceback_filter)

    def length(self, text: str) -> int:
        """Code points, as Discord counts."""
        return len(text)

    async def run(self, receive: Receive, connected: Callable[[], None], newest: Newest) -> None:
        """Listens until cancelled; reconnects after outages.

        Raises:
            DoppelError: Discord refuses the token, or the bot may not read messages.
            Exception: whatever `receive` raised.
        """
        was_ready = False

        def ready() -> None:
            nonlocal was_ready
            self._backoff.reset()
            if not was_ready:
                was_ready = True
                connected()

        while True:
            reason = await self._listen(receive, ready, newest)
            seconds = self._backoff.next()
            log.warning(
                tr("Discord cannot be reached: {error}; retrying in {seconds} s", error=reason, seconds=round(seconds))
            )
            await self._sleep(seconds)

    async def send(self, outgoing: Outgoing) -> str:
        """Sends text in which mentions notify nobody; returns the message id. Raises SendFailed."""
        channel = self._channel(outgoing.chat)
        try:
            if outgoing.reply_to is None:
                message = await channel.send(
                    outgoing.text, nonce=_nonce(outgoing), allowed_mentions=discord.AllowedMentions.none()
                )
            else:
                quoted = discord.MessageReference(
                    message_id=int(outgoing.reply_to), channel_id=channel.id, fail_if_not_exists=False
                )
                message = await channel.send(
                    outgoing.text,
                    nonce=_nonce(outgoing),
                    reference=quoted,
                    allowed_mentions=discord.AllowedMentions.none(),
                )
        except (discord.DiscordException, *UNREACHABLE) as error:
            raise _send_failed(error) from error
        return str(message.id)

    async def typing(self, chat: str) -> None:
        """Shows "typing" for about 10 s. Never raises."""
        try:
            await self._channel(chat).typing()
        except (discord.DiscordException, SendFailed, *UNREACHABLE) as error:
            log.debug("typing: %s", error)

    async def close(self) -> None:
        """Leaves the gateway and closes the connections."""
        logging.getLogger("discord.client").removeFilter(self._traceback_filter)
        await self._leave()

    async def _listen(self, receive: Receive, ready: Callable[[], None], newest: Newest) -> str:
        """Runs one client until its connection ends; returns why, if reconnecting makes sense."""
        await self._leave()
        events: Events = asyncio.Queue()
        client = self._client = _build(events, ready, self._proxy)
        connection = asyncio.ensure_future(self._start(client, self._token))
        consumer = EventConsumer(
            client,
            receive,
            newest,
            self._progress,
            allowed=self._allowed,
            now=self._now,
            sleep=self._sleep,
            random=self._random,
        )
        consuming = asyncio.create_task(consumer.run(events))
        try:
            await asyncio.wait({connection, consuming}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            connection.cancel()
            # Queued messages of chats that are up to date are still committed; the others will be fetched.
            events.put_nowait(GatewayEvent.CLOSED)
            await asyncio.gather(connection, consuming, return_exceptions=True)
        consuming.result()
        try:
            connection.result()
        except discord.LoginFailure:
            raise DoppelError(_bad_token_message()) from None
        except discord.PrivilegedIntentsRequired:
            raise DoppelError(
                tr(
                    "Discord does not let the bot read messages; turn on Message Content Intent at "
                    "discord.com/developers, your application, Bot"
                )
            ) from None
        except OUTAGES as error:
            if isinstance(error, discord.ConnectionClosed) and error.code == BAD_TOKEN:
                raise DoppelError(_bad_token_message()) from None
            return str(error) or type(error).__name__
        return tr("the connection was closed")

    async def _leave(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            await client.close()

    def _channel(self, chat: str) -> discord.PartialMessageable:
        if self._client is None or not self._client.is_ready():
            raise SendFailed(tr("Discord is not connected"))
        if not chat.isdecimal():
            raise SendFailed(tr("no such channel: {chat}; use its numeric id", chat=chat), permanent=True)
        return self._client.get_partial_messageable(int(chat))


def _build(events: Events, ready: Callable[[], None], proxy: str | None) -> discord.Client:
    """A client that subscribes to no more than it needs and puts every message into `events`."""
    # Otherwise every start warns twice that voice is not supported.
    discord.VoiceClient.warn_nacl = False
    discord.VoiceClient.warn_dave = False
    intents = discord.Intents.none()
    intents.guilds = True
    intents.guild_messages = True
    intents.dm_messages = True
    intents.message_content = True
    options: dict[str, Any] = {"proxy": proxy, "max_messages": None, "max_ratelimit_timeout": MAX_RATE_LIMIT_WAIT}
    return _Client(events, ready, intents=intents, **options)


class _ReconnectFilter(logging.Filter):
    """Drops the traceback from discord.py's message about a lost connection, which it restores itself."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and str(record.msg).startswith("Attempting a reconnect"):
            error = record.exc_info[1]
            record.msg = f"{record.getMessage()}: {error or type(error).__name__}"
            record.args = record.exc_info = None
            record.levelno, record.levelname = logging.WARNING, "WARNING"
        return True


class _Client(discord.Client):
    def __init__(self, events: Events, ready: Callable[[], None], **options: Any) -> None:
        super().__init__(**options)
        self._events = events
        self._on_first_ready = ready

    async def on_connect(self) -> None:
        self._events.put_nowait(GatewayEvent.CONNECTED)

    async def on_ready(self) -> None:
        self._on_first_ready()
        self._events.put_nowait(GatewayEvent.READY)

    async def on_message(self, message: discord.Message) -> None:
        # discord.py runs one task a message; the queue keeps their order.
        self._events.put_nowait(message)


def _nonce(outgoing: Outgoing) -> str:
    """The same for the same bubble, so that Discord drops duplicates. Has the text too: ids restart in a new outbox."""
    bubble = f"{outgoing.id}\n{outgoing.chat}\n{outgoing.text}"
    return hashlib.sha256(bubble.encode("utf-8", "surrogatepass")).hexdigest()[:NONCE_LIMIT]


def _send_failed(error: Exception) -> SendFailed:
    """Classifies an error: whether retrying can help, and whether the message may have arrived."""
    text = str(error) or type(error).__name__
    if isinstance(error, discord.RateLimited):
        return SendFailed(text, retry_after=error.retry_after)
    if isinstance(error, discord.HTTPException):
        return SendFailed(text, permanent=error.status in (400, 403, 404))
    return SendFailed(text, unknown=isinstance(error, UNREACHABLE))


def _bad_token_message() -> str:
    return tr(
        "Discord refuses the token; reset it at discord.com/developers (your application, Bot), set DISCORD_TOKEN"
    )
