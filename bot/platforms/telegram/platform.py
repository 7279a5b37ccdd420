"""Telegram through python-telegram-bot: polls for messages, sends bubbles, shows "typing".

What a message means is in `telegram_messages`; whether it gets an answer is decided elsewhere. Telegram is told
that a message arrived (the next `offset`) only after `receive` has returned, so a crash loses nothing.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from datetime import timedelta
from functools import partial
from http import HTTPStatus
from random import Random
from typing import Any, TypeVar

import httpx
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
from telegram.ext import AIORateLimiter, Application, ApplicationBuilder, ContextTypes, MessageHandler, filters
from telegram.request import HTTPXRequest

from bot.platforms import Newest, Outgoing, Receive, SendFailed
from bot.platforms.telegram.messages import to_incoming, utf16_length
from bot.platforms.telegram.settings import TelegramSettings, read_token
from bot.redaction import Redaction
from doppel.errors import DoppelError
from doppel.i18n import tr
from doppel.system.backoff import Backoff

POLL_SECONDS = 25
UPDATES = ("message",)

# These print the address of a request at INFO or DEBUG, and the address contains the token.
CHATTY_LOGGERS = ("httpx", "telegram.Bot", "telegram.ext.ExtBot")

# Failures of which it is certain that the request never left this machine.
NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError, httpx.UnsupportedProtocol)

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")
Sleep = Callable[[float], Awaitable[None]]
Result = bool | dict[str, Any] | list[dict[str, Any]]


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
        self._redaction = Redaction(self._token)
        for name in CHATTY_LOGGERS:
            logging.getLogger(name).addFilter(self._redaction)
        self._application = self._build()

    def length(self, text: str) -> int:
        """UTF-16 units, as Telegram counts."""
        return utf16_length(text)

    async def run(self, receive: Receive, connected: Callable[[], None], newest: Newest) -> None:
        """Polls until cancelled; outages are waited out.

        Raises:
            DoppelError: Telegram refuses the token.
            Exception: whatever `receive` raised; the message comes again when `run` is called again.
        """
        self._receive = receive
        application = self._application
        await self._patiently(application.initialize)
        self._advise(application.bot.bot)
        # With a webhook set, polling is refused.
        await self._patiently(partial(application.bot.delete_webhook, drop_pending_updates=False))
        offset: int | None = None
        wait = 0  # the first poll answers at once and shows that the connection stands
        while True:
            poll = partial(application.bot.get_updates, offset=offset, timeout=wait, allowed_updates=UPDATES)
            updates: tuple[Update, ...] = await self._patiently(poll)
            if wait == 0:
                connected()
                wait = POLL_SECONDS
            for update in updates:
                await self._take(update)
                offset = update.update_id + 1

    async def send(self, outgoing: Outgoing) -> str:
        """Sends plain text, without link previews; returns the message id. Raises SendFailed."""
        chat, topic = _address(outgoing.chat)
        quoted = outgoing.reply_to
        try:
            message = await self._application.bot.send_message(
                chat,
                outgoing.text,
                message_thread_id=topic,
                reply_parameters=ReplyParameters(int(quoted), allow_sending_without_reply=True) if quoted else None,
                link_preview_options=LinkPreviewOptions(is_disabled=True),
            )
        except TelegramError as error:
            # From None: what lies below may print the address of the request.
            raise self._send_failed(error) from None
        return str(message.message_id)

    async def typing(self, chat: str) -> None:
        """Shows "typing" for about 5 s. Never raises."""
        try:
            number, topic = _address(chat)
            await self._application.bot.send_chat_action(number, ChatAction.TYPING, message_thread_id=topic)
        except (TelegramError, SendFailed) as error:
            log.debug("typing: %s", self._redaction.redact(str(error)))

    async def close(self) -> None:
        """Closes the connections."""
        await self._application.shutdown()
        # Application.shutdown leaves them open where initialize had failed.
        await self._application.bot.shutdown()
        for name in CHATTY_LOGGERS:
            logging.getLogger(name).removeFilter(self._redaction)

    def _build(self) -> Application[Any, Any, Any, Any, Any, Any]:
        application = (
            ApplicationBuilder()
            .token(self._token)
            .base_url(self._settings.api.rstrip("/") + "/bot")
            .updater(None)
            .rate_limiter(_Pace())
            .request(_Requests(connection_pool_size=16, connect_timeout=10, read_timeout=20, pool_timeout=10))
            .get_updates_request(_Polls(connection_pool_size=1, connect_timeout=10, read_timeout=10))
            .build()
        )
        application.add_handler(MessageHandler(filters.UpdateType.MESSAGE, self._on_message))
        application.add_error_handler(self._on_error)
        return application

    def _advise(self, me: User) -> None:
        if not me.can_read_all_group_messages and any(entry.startswith("-") for entry in self._settings.allow):
            log.info(
                tr(
                    "Telegram: in groups the bot sees mentions and replies only; to let it hear its name, send "
                    "@BotFather /setprivacy, Disable, and add the bot to the group again"
                )
            )

    async def _take(self, update: Update) -> None:
        # Application.process_update swallows what a handler raises; it must not look as if it had worked.
        self._failure = None
        await self._application.process_update(update)
        if self._failure is not None:
            raise self._failure

    async def _on_message(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        try:
            incoming = to_incoming(update, context.bot.bot, self._settings.names)
        except Exception as error:  # noqa: BLE001 - raised, it would make this message come again for ever
            _left_out(error)
            return
        if incoming is not None and self._receive is not None:
            await self._receive(incoming)

    async def _on_error(self, _: object, context: ContextTypes.DEFAULT_TYPE) -> None:
        self._failure = context.error

    async def _patiently(self, call: Callable[[], Awaitable[Answer]]) -> Answer:
        backoff = Backoff(self._random)
        while True:
            try:
                return await call()
            except InvalidToken:
                raise DoppelError(
                    tr("Telegram refuses the token; ask @BotFather for it again (/token) and set TELEGRAM_TOKEN")
                ) from None
            except TelegramError as error:
                seconds = _seconds(error) if isinstance(error, RetryAfter) else backoff.next()
                log.warning(self._outage(error, seconds))
            await self._sleep(seconds)

    def _outage(self, error: TelegramError, seconds: float) -> str:
        if isinstance(error, Conflict):
            return tr(
                "Telegram: another program is using the same TELEGRAM_TOKEN; stop it. Next try in {seconds} s",
                seconds=round(seconds),
            )
        return tr(
            "Telegram cannot be reached: {error}. Next try in {seconds} s",
            error=self._redaction.redact(str(error)).rstrip("."),
            seconds=round(seconds),
        )

    def _send_failed(self, error: TelegramError) -> SendFailed:
        """Says whether trying again can help, and whether the message may have arrived all the same."""
        if isinstance(error, ChatMigrated):
            return SendFailed(
                tr("the group has a new id, {chat}; put it into config.yaml", chat=error.new_chat_id),
                permanent=True,
            )
        text = self._redaction.redact(str(error))
        if isinstance(error, RetryAfter):
            return SendFailed(text, retry_after=_seconds(error))
        if isinstance(error, (Forbidden, BadRequest)):
            return SendFailed(text, permanent=True)
        if isinstance(error, NetworkError):
            return SendFailed(text, unknown=_may_have_arrived(error))
        return SendFailed(text)


class _Pace(AIORateLimiter):
    """Telegram's own limits: 30 messages a second, 20 a minute in one group.

    `max_retries` stays 0 although that hands on every "too many requests": a retry in here would halt all chats for
    the time that one chat has to wait. The outbox waits instead, in that chat alone.
    """

    async def process_request(  # noqa: PLR0917 (the library's signature)
        self,
        callback: Callable[..., Coroutine[Any, Any, Result]],
        args: Any,
        kwargs: dict[str, Any],
        endpoint: str,
        data: dict[str, Any],
        rate_limit_args: int | None,
    ) -> Result:
        # "typing" is no message; counted as one it would use up the group's 20.
        if endpoint == "sendChatAction":
            return await callback(*args, **kwargs)
        refused: list[RetryAfter] = []

        async def request(*args: Any, **kwargs: Any) -> Result:
            try:
                return await callback(*args, **kwargs)
            except RetryAfter as error:
                # Kept from AIORateLimiter, which would print a traceback for every one.
                refused.append(error)
                return False

        result: Result = await super().process_request(request, args, kwargs, endpoint, data, rate_limit_args)
        if refused:
            raise refused[0]
        return result


class _AnswerLost(NetworkError):
    """A gateway between Telegram's front and its servers gave up: the request may have been carried out."""


class _Requests(HTTPXRequest):
    """Tells "refused" (500, 503) from "no idea" (502, 504), which python-telegram-bot throws together."""

    async def do_request(self, *args: Any, **kwargs: Any) -> tuple[int, bytes]:
        code, payload = await super().do_request(*args, **kwargs)
        if code in (HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT):
            raise _AnswerLost(f"{HTTPStatus(code).phrase} ({code})")
        return code, payload


class _Polls(_Requests):
    """Empties updates that python-telegram-bot cannot read: it would throw away all that came with them, for ever."""

    async def do_request(self, *args: Any, **kwargs: Any) -> tuple[int, bytes]:
        code, payload = await super().do_request(*args, **kwargs)
        try:
            answer = json.loads(payload)
            answer["result"] = [_readable(update) for update in answer["result"]]
        except (ValueError, TypeError, KeyError):
            return code, payload  # no list of updates
        return code, json.dumps(answer).encode()


def _readable(update: dict[str, Any]) -> dict[str, Any]:
    """The update itself, or only its number, which tells Telegram to go on to the next."""
    try:
        Update.de_json(update, None)
    except Exception as error:  # noqa: BLE001 - whatever a new kind of message does to the library
        _left_out(error)
        return {"update_id": update["update_id"]}
    return update


def _left_out(error: Exception) -> None:
    log.warning(tr("Telegram: one message could not be read and is left out: {error}", error=repr(error)))


def _address(chat: str) -> tuple[str, int | None]:
    """Chat id (or @name of a channel) and topic id."""
    number, _, topic = chat.partition("/")
    if topic and not topic.isdecimal():
        raise SendFailed(tr("no such chat: {chat}; write its id, or <id>/<topic id>", chat=chat), permanent=True)
    return number, int(topic) if topic else None


def _may_have_arrived(error: NetworkError) -> bool:
    return isinstance(error, _AnswerLost) or (
        isinstance(error.__cause__, httpx.HTTPError) and not isinstance(error.__cause__, NEVER_SENT)
    )


def _seconds(error: RetryAfter) -> float:
    wait = error.retry_after
    return wait.total_seconds() if isinstance(wait, timedelta) else float(wait)
