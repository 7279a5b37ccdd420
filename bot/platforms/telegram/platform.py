"""Telegram through python-telegram-bot: polls for messages, sends bubbles, shows "typing".

A message is acknowledged (by the next `offset`) only after `receive` has returned, so a crash loses nothing.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from functools import partial
from http import HTTPStatus
from random import Random
from typing import Any, TypeVar

import httpx
from aiolimiter import AsyncLimiter
from telegram import LinkPreviewOptions, ReplyParameters, Update, User
from telegram.constants import ChatAction, MessageLimit
from telegram.error import (
    BadRequest,
    ChatMigrated,
    Conflict,
    Forbidden,
    InvalidToken,
    NetworkError,
    RetryAfter,
    TelegramError,
)
from telegram.ext import Application, ApplicationBuilder, ContextTypes, MessageHandler, filters
from telegram.request import HTTPXRequest

from bot.cancellation import cancel_tasks
from bot.platforms import Newest, Outgoing, Receive, SendFailed
from bot.platforms.repeated_failures import RepeatedFailures
from bot.platforms.telegram.messages import to_incoming, utf16_length
from bot.platforms.telegram.settings import TelegramSettings, read_token
from doppel.errors import DoppelError
from doppel.i18n import tr
from doppel.redaction import Redactor
from doppel.system.backoff import Backoff

POLL_SECONDS = 25
LONGEST_RETRY_WAIT = 5.0
"""Seconds between attempts while Telegram or the store is away: messages are taken in this soon after its return."""
SEND_TIMEOUT = 60.0
"""Seconds that Telegram has to confirm a bubble. One that is confirmed later is in doubt, so this is more than it takes
on bad days.
"""
MAX_CONNECTIONS = 16
MAX_TYPING = 8
"""Connections that showing "typing" may use at a time: messages need the others."""
_MAX_GROUPS = 1000
UPDATES = ("message",)

# These log request URLs at INFO or DEBUG, and the URLs contain the token.
URL_LOGGERS = ("httpx", "telegram.Bot", "telegram.ext.ExtBot")

# Errors after which the request certainly has not been sent.
NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError, httpx.UnsupportedProtocol)

log = logging.getLogger(__name__)

T = TypeVar("T")
Sleep = Callable[[float], Awaitable[None]]


class TelegramPlatform:
    """Private chats, groups and forum topics (`chat` is then `<chat id>/<topic id>`) of one bot account."""

    name = "telegram"
    limit = int(MessageLimit.MAX_TEXT_LENGTH)
    resend_is_safe = False

    def __init__(
        self,
        settings: TelegramSettings,
        environ: Mapping[str, str],
        *,
        sleep: Sleep = asyncio.sleep,
        random: Random | None = None,
    ) -> None:
        self._settings = settings
        self._token = read_token(environ)
        self._sleep = sleep
        self._random = random or Random()
        self._receive: Receive | None = None
        self._failure: Exception | None = None
        self._repeated_failures = RepeatedFailures()
        self._redactor = Redactor(self._token)
        for name in URL_LOGGERS:
            logging.getLogger(name).addFilter(self._redactor)
        self._application = self._build()
        self._rate_limits = _RateLimits()
        self._typing: set[asyncio.Task[None]] = set()

    def length(self, text: str) -> int:
        """UTF-16 code units, as Telegram counts."""
        return utf16_length(text)

    async def connect(self) -> None:
        """Asks Telegram who the bot is; retries during outages. Raises DoppelError when it refuses the token."""
        await self._with_retries(self._application.initialize)

    async def run(self, receive: Receive, connected: Callable[[], None], newest: Newest) -> None:
        """Polls until cancelled; retries during outages.

        Raises:
            DoppelError: Telegram refuses the token.
            Exception: what `receive` raised if that is no DoppelError, and so probably a bug; the message comes again
                when `run` is called again, and is skipped the third time. After a DoppelError, so while the store
                fails, the message is tried again here.
        """
        self._receive = receive
        application = self._application
        await self.connect()
        self._log_privacy_hint(application.bot.bot)
        # With a webhook set, polling is refused.
        await self._with_retries(partial(application.bot.delete_webhook, drop_pending_updates=False))
        offset: int | None = None
        wait = 0  # the first poll returns at once and shows that the connection works
        while True:
            poll = partial(application.bot.get_updates, offset=offset, timeout=wait, allowed_updates=UPDATES)
            updates: tuple[Update, ...] = await self._with_retries(poll)
            if wait == 0:
                connected()
                wait = POLL_SECONDS
            for update in updates:
                await self._process_until_stored(update)
                offset = update.update_id + 1

    async def wait_for_rate_limit(self, chat: str) -> None:
        """Waits until Telegram takes one more message for the chat."""
        await self._rate_limits.acquire(chat.partition("/")[0])

    async def send(self, outgoing: Outgoing) -> str:
        """Sends plain text, without link previews; returns the message id. Raises SendFailed."""
        chat, topic = _parse_chat(outgoing.chat)
        quoted = outgoing.reply_to
        try:
            message = await self._application.bot.send_message(
                chat,
                outgoing.text,
                message_thread_id=topic,
                reply_parameters=ReplyParameters(int(quoted), allow_sending_without_reply=True) if quoted else None,
                link_preview_options=LinkPreviewOptions(is_disabled=True),
                read_timeout=SEND_TIMEOUT,
            )
        except TelegramError as error:
            # From None: the cause may print the URL with the token.
            raise self._send_failed(error) from None
        return str(message.message_id)

    async def typing(self, chat: str) -> None:
        """Shows "typing" for about 5 s; does nothing while many such requests are unanswered. Never raises."""
        if len(self._typing) >= MAX_TYPING:
            return
        request = asyncio.create_task(self._show_typing(chat))
        self._typing.add(request)
        request.add_done_callback(self._typing.discard)
        # Shielded: a request that is cancelled may leave its connection occupied, and the client has only some of them.
        await asyncio.shield(request)

    async def _show_typing(self, chat: str) -> None:
        try:
            number, topic = _parse_chat(chat)
            await self._application.bot.send_chat_action(number, ChatAction.TYPING, message_thread_id=topic)
        except (TelegramError, SendFailed) as error:
            log.debug("typing: %s", self._redactor.redact(str(error)))

    async def close(self) -> None:
        """Closes the connections."""
        await cancel_tasks(*self._typing)
        await self._application.shutdown()
        # Application.shutdown leaves them open if initialize has failed.
        await self._application.bot.shutdown()
        for name in URL_LOGGERS:
            logging.getLogger(name).removeFilter(self._redactor)

    def _build(self) -> Application[Any, Any, Any, Any, Any, Any]:
        application = (
            ApplicationBuilder()
            .token(self._token)
            .base_url(self._settings.api.rstrip("/") + "/bot")
            .updater(None)
            .request(
                _ClassifyingRequest(
                    connection_pool_size=MAX_CONNECTIONS, connect_timeout=10, read_timeout=20, pool_timeout=10
                )
            )
            .get_updates_request(_PollRequest(connection_pool_size=1, connect_timeout=10, read_timeout=10))
            .build()
        )
        application.add_handler(MessageHandler(filters.UpdateType.MESSAGE, self._on_message))
        application.add_error_handler(self._on_error)
        return application

    def _log_privacy_hint(self, me: User) -> None:
        if not me.can_read_all_group_messages and any(entry.startswith("-") for entry in self._settings.allow):
            log.info(
                tr(
                    "Telegram: in groups the bot sees only mentions and replies; to let it react to its name, send "
                    "/setprivacy to @BotFather, choose Disable, and add the bot to the group again"
                )
            )

    async def _process_until_stored(self, update: Update) -> None:
        """Processes an update, and again while the store fails: a new connection would help nothing and take longer."""
        backoff, logged = Backoff(self._random, longest=LONGEST_RETRY_WAIT), ""
        while True:
            try:
                return await self._process(update)
            except DoppelError as error:
                if logged != (logged := str(error)):
                    log.warning(
                        tr("Telegram: a message cannot be stored and is kept until it can: {error}", error=error)
                    )
            await self._sleep(backoff.next())

    async def _process(self, update: Update) -> None:
        # Application.process_update swallows exceptions of handlers; `_on_error` keeps them for here.
        self._failure = None
        await self._application.process_update(update)
        failure = self._failure
        if failure is None:
            return
        if isinstance(failure, DoppelError) or not self._repeated_failures.is_last(str(update.update_id)):
            raise failure
        log.error(tr("Telegram: skipped update {id}, which failed repeatedly", id=update.update_id), exc_info=failure)

    async def _on_message(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        try:
            incoming = to_incoming(update, context.bot.bot, self._settings.names)
        except Exception as error:  # noqa: BLE001 - if raised, this message would be delivered again for ever
            _log_skipped(error)
            return
        if incoming is not None and self._receive is not None:
            await self._receive(incoming)

    async def _on_error(self, _: object, context: ContextTypes.DEFAULT_TYPE) -> None:
        self._failure = context.error

    async def _with_retries(self, call: Callable[[], Awaitable[T]]) -> T:
        backoff = Backoff(self._random, longest=LONGEST_RETRY_WAIT)
        while True:
            try:
                return await call()
            except InvalidToken:
                raise DoppelError(
                    tr("Telegram refuses the token; ask @BotFather for it again (/token) and set TELEGRAM_TOKEN")
                ) from None
            except TelegramError as error:
                seconds = _retry_seconds(error) if isinstance(error, RetryAfter) else backoff.next()
                log.warning(self._outage_message(error, seconds))
            await self._sleep(seconds)

    def _outage_message(self, error: TelegramError, seconds: float) -> str:
        if isinstance(error, Conflict):
            return tr(
                "Telegram: another program uses the same TELEGRAM_TOKEN; stop it. Retrying in {seconds} s",
                seconds=round(seconds),
            )
        return tr(
            "Telegram cannot be reached: {error}; retrying in {seconds} s",
            error=self._redactor.redact(str(error)).rstrip("."),
            seconds=round(seconds),
        )

    def _send_failed(self, error: TelegramError) -> SendFailed:
        """Classifies an error: whether retrying can help, and whether the message may have arrived."""
        if isinstance(error, ChatMigrated):
            return SendFailed(
                tr("the group has a new id: {chat}; use it in config.yaml", chat=error.new_chat_id),
                permanent=True,
            )
        text = self._redactor.redact(str(error))
        if isinstance(error, RetryAfter):
            return SendFailed(text, retry_after=_retry_seconds(error))
        if isinstance(error, (Forbidden, BadRequest)):
            return SendFailed(text, permanent=True)
        if isinstance(error, NetworkError):
            return SendFailed(text, unknown=_may_have_arrived(error))
        return SendFailed(text)


class _RateLimits:
    """Telegram's own limits: 30 messages a second, 20 a minute in one group.

    Not python-telegram-bot's rate limiter, which waits inside the request: a bubble must be marked as being sent after
    that wait, not before it. A "too many requests" is passed on: the outbox then waits for that chat only.
    """

    def __init__(self) -> None:
        self._all = AsyncLimiter(30, 1)
        self._groups: dict[str, AsyncLimiter] = {}

    async def acquire(self, chat: str) -> None:
        """Waits until one more message may be sent to a chat."""
        if chat.startswith(("-", "@")):
            if len(self._groups) > _MAX_GROUPS:
                self._groups = {name: group for name, group in self._groups.items() if not group.has_capacity(20)}
            await self._groups.setdefault(chat, AsyncLimiter(20, 60)).acquire()
        await self._all.acquire()


class _ResponseLost(NetworkError):
    """A gateway in front of Telegram's servers timed out: the request may have been carried out."""


class _ClassifyingRequest(HTTPXRequest):
    """Distinguishes "refused" (500, 503) from "unknown" (502, 504), which python-telegram-bot does not."""

    async def do_request(self, *args: Any, **kwargs: Any) -> tuple[int, bytes]:
        code, payload = await super().do_request(*args, **kwargs)
        if code in (HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT):
            raise _ResponseLost(f"{HTTPStatus(code).phrase} ({code})")
        return code, payload


class _PollRequest(_ClassifyingRequest):
    """Empties updates that python-telegram-bot cannot parse; it would drop the whole batch with them, for ever."""

    async def do_request(self, *args: Any, **kwargs: Any) -> tuple[int, bytes]:
        code, payload = await super().do_request(*args, **kwargs)
        try:
            answer = json.loads(payload)
            answer["result"] = [_parsable(update) for update in answer["result"]]
        except (ValueError, TypeError, KeyError):
            return code, payload  # not a list of updates
        return code, json.dumps(answer).encode()


def _parsable(update: dict[str, Any]) -> dict[str, Any]:
    """The update itself, or only its id, which is enough to acknowledge it."""
    try:
        Update.de_json(update, None)
    except Exception as error:  # noqa: BLE001 - the library may raise anything on a new kind of message
        _log_skipped(error)
        return {"update_id": update["update_id"]}
    return update


def _log_skipped(error: Exception) -> None:
    log.warning(tr("Telegram: skipped a message that could not be read: {error}", error=repr(error)))


def _parse_chat(chat: str) -> tuple[str, int | None]:
    """Chat id (or @name of a channel), and topic id if there is one."""
    number, _, topic = chat.partition("/")
    if topic and not topic.isdecimal():
        raise SendFailed(tr("no such chat: {chat}; use its id, or <id>/<topic id>", chat=chat), permanent=True)
    return number, int(topic) if topic else None


def _may_have_arrived(error: NetworkError) -> bool:
    return isinstance(error, _ResponseLost) or (
        isinstance(error.__cause__, httpx.HTTPError) and not isinstance(error.__cause__, NEVER_SENT)
    )


def _retry_seconds(error: RetryAfter) -> float:
    wait = error.retry_after
    return wait.total_seconds() if isinstance(wait, timedelta) else float(wait)
