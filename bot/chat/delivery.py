"""Sends the bubbles in the outbox one by one at a person's typing speed, and retries those that fail.

Every change of state is committed before and after the platform is called, so a crash never sends a bubble twice.
What a crash leaves in doubt is only what was being sent: a wait for the platform's rate limit comes before.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from random import Random

from bot.cancellation import CancelledByEvent, cancel_on_event, cancel_tasks
from bot.chat.retry import LONGEST_SEND_WAIT, RetryTimer
from bot.chat.split_text import split
from bot.clock import Clock
from bot.platforms import Outgoing, Platform, SendFailed
from bot.platforms.connection import PlatformConnection
from bot.store import outbox
from bot.store.leases import LeaseLost, Leases
from bot.store.outbox import InterruptedSend
from bot.store.schema import Chat, OutboxMessage
from doppel.adapters.habits import Habits
from doppel.errors import DoppelError
from doppel.i18n import tr

TYPING_SECONDS = 4.0
"""How often "typing" is shown again; services hide it after five seconds or more."""

log = logging.getLogger(__name__)


class Delivery:
    """Sends the bubbles of any chat. Callers must serve each chat from one task only.

    Args:
        leases: which chats of the store this daemon works on.
        connections: the platforms that are on, by name.
        clock: time.
        random: for the waits after failures.
        habits: returns the typing speed in use.
        max_age: a bubble that was written longer ago than this is not sent.
    """

    def __init__(
        self,
        leases: Leases,
        connections: Mapping[str, PlatformConnection],
        clock: Clock,
        random: Random,
        habits: Callable[[], Habits],
        *,
        max_age: timedelta,
    ) -> None:
        self._store = leases.store
        self._leases = leases
        self._connections = connections
        self._clock = clock
        self._random = random
        self._habits = habits
        self._max_age = max_age
        self._sends: set[asyncio.Task[bool]] = set()
        self._unconfirmed_since: dict[int, datetime] = {}
        self.sent = {"reply": 0, "post": 0}
        """Turns sent since the start, by kind."""

    def fit(self, platform: str, bubbles: Sequence[str]) -> list[str]:
        """The bubbles, split where one is longer than the platform allows."""
        service = self._connections[platform].platform
        return [piece for bubble in bubbles for piece in split(bubble, service.limit, service.length)]

    @asynccontextmanager
    async def typing(self, chat: Chat) -> AsyncIterator[None]:
        """Shows "typing" in the chat while the block runs."""
        task = asyncio.create_task(self._show_typing(self._connections[chat.platform].platform, chat.chat))
        try:
            yield
        finally:
            await cancel_tasks(task)

    async def recover(self) -> None:
        """Resolves what was being sent when the last run was killed; before anything is sent.

        Where daemons share the database, that is done chat by chat by `take_over`: another one may be sending.
        """
        if self._store.is_shared:
            return
        now, persona = self._clock.now(), self._store.persona
        _log_interrupted(await self._store.run(outbox.recover_interrupted_sends, persona, self._resend_safe(), now))

    async def take_over(self, chat: Chat) -> bool:
        """Makes this daemon the one that works on the chat; False if another one does. Raises DoppelError."""
        is_mine, interrupted = await self._leases.acquire_chat(chat.id, self._resend_safe())
        _log_interrupted(interrupted)
        return is_mine

    def _resend_safe(self) -> set[str]:
        return {name for name, connection in self._connections.items() if connection.platform.resend_is_safe}

    async def send_pending(self, chat: Chat, cancel: asyncio.Event | None = None) -> None:
        """Sends what is in the chat's outbox; see `send`."""
        await self.send(chat, await self._store.run(outbox.pending_bubbles, chat.id), cancel)

    async def send(
        self,
        chat: Chat,
        bubbles: Sequence[OutboxMessage],
        cancel: asyncio.Event | None = None,
        since: float | None = None,
    ) -> None:
        """Sends the chat's pending bubbles in order, and returns when none is left. Those that are too old are dropped.

        Args:
            chat: the chat whose outbox is sent.
            bubbles: all of its pending bubbles.
            cancel: stops a reply between two bubbles; posts are always finished.
            since: when generation of the first bubble began, by the monotonic clock; that time counts as typing time.

        Raises:
            CancelledByEvent: bubbles of a reply are left unsent.
        """
        connection = self._connections[chat.platform]
        timer = RetryTimer(self._random, LONGEST_SEND_WAIT)
        unsent = deque(bubbles)
        while unsent:
            bubble = unsent.popleft()
            stop = cancel if bubble.kind == "reply" else None
            if since is None:
                since = self._clock.monotonic()
            await cancel_on_event(self._wait_to_send(connection, chat, bubble, since), stop)
            if stop is not None and stop.is_set():
                raise CancelledByEvent
            since = None
            is_sent = False
            if not await self._drop_stale(chat, bubble):
                task = asyncio.create_task(self._send(connection.platform, chat, bubble, timer))
                self._sends.add(task)
                task.add_done_callback(self._sends.discard)
                # Shielded: a send in progress completes even when the daemon stops; see `finish`.
                is_sent = await asyncio.shield(task)
            if is_sent:
                self.sent[bubble.kind] += bubble.position == 0
            else:  # it is to be sent again, or others were dropped with it
                unsent = deque(await self._store.run(outbox.pending_bubbles, chat.id))

    async def finish(self, seconds: float) -> None:
        """Waits up to `seconds` for sends in progress."""
        if self._sends:
            await asyncio.wait(self._sends, timeout=seconds)

    async def _wait_to_send(
        self, connection: PlatformConnection, chat: Chat, bubble: OutboxMessage, since: float
    ) -> None:
        """Waits for the connection, for the retry time of a failed bubble or the typing time of a new one, and for the
        platform's rate limit.
        """
        await connection.connected.wait()
        if bubble.not_before is not None:
            # No longer than was meant then, if the wall clock was set back meanwhile.
            wait = min(bubble.not_before - self._clock.now(), bubble.not_before - bubble.changed_at)
            await self._clock.sleep(wait.total_seconds())
        if bubble.attempts == 0:
            seconds = self._habits().typing_seconds(bubble.text) - (self._clock.monotonic() - since)
            if seconds > 0:
                async with self.typing(chat):
                    await self._clock.sleep(seconds)
        if connection.rate_limited is not None:
            await connection.rate_limited.wait_for_rate_limit(chat.chat)

    async def _drop_stale(self, chat: Chat, bubble: OutboxMessage) -> bool:
        """Drops the bubbles of the chat that are too old to send, if this one is; returns whether it is."""
        now = self._clock.now()
        if bubble.created_at >= now - self._max_age:
            return False
        dropped = await self._leases.run_for_chat(chat.id, outbox.expire, chat.id, now - self._max_age, now)
        log.warning(
            tr(
                "{platform}: {count} unsent messages are too old and were dropped",
                platform=chat.platform,
                count=dropped,
            )
        )
        return True

    async def _show_typing(self, platform: Platform, chat: str) -> None:
        while True:
            await platform.typing(chat)
            await self._clock.sleep(TYPING_SECONDS)

    async def _send(self, platform: Platform, chat: Chat, bubble: OutboxMessage, timer: RetryTimer) -> bool:
        """Sends one bubble and commits the outcome; True if it was sent."""
        reply_to = None
        if chat.kind == "group" and bubble.position == 0 and bubble.inbox_id is not None:
            reply_to = await self._store.run(outbox.answered_message_id, bubble)
        if not await self._leases.run_for_chat(chat.id, outbox.mark_sending, bubble, self._clock.now()):
            return False
        outgoing = Outgoing(id=bubble.id, chat=chat.chat, text=bubble.text, reply_to=reply_to)
        try:
            message_id = await platform.send(outgoing)
        except SendFailed as failure:
            await self._handle_failure(platform, bubble, failure, timer)
            return False
        except Exception as error:
            # A bug in the platform: the bubble may or may not have arrived.
            log.exception(tr("{platform}: sending failed", platform=platform.name))
            await self._handle_failure(platform, bubble, SendFailed(repr(error), unknown=True), timer)
            return False
        now = self._clock.now()
        # The truth, even if another daemon has taken over the chat meanwhile and left the bubble in doubt.
        await self._commit(lambda: self._store.run(outbox.mark_sent, bubble, message_id, now))
        self._unconfirmed_since.pop(bubble.id, None)
        timer.reset()
        return True

    async def _handle_failure(
        self, platform: Platform, bubble: OutboxMessage, failure: SendFailed, timer: RetryTimer
    ) -> None:
        """Decides whether a bubble is retried, dropped, or left unconfirmed, and commits that."""
        now, values = self._clock.now(), {"platform": platform.name, "error": failure}
        seconds = timer.seconds(failure)
        if failure.unknown:
            self._unconfirmed_since.setdefault(bubble.id, now)
        unconfirmed_since = self._unconfirmed_since.get(bubble.id)
        retry_at = now + timedelta(seconds=seconds)
        run = self._leases.run_for_chat
        if unconfirmed_since is not None and (
            not platform.resend_is_safe or retry_at > unconfirmed_since + outbox.RESEND_WINDOW
        ):
            log.warning(tr("{platform}: delivery unconfirmed; not retrying to avoid a duplicate: {error}", **values))
            await self._commit(lambda: run(bubble.chat_id, outbox.mark_unknown, bubble, str(failure), now))
        elif failure.permanent:
            log.warning(tr("{platform}: message dropped: {error}", **values))
            await self._commit(lambda: run(bubble.chat_id, outbox.mark_failed, bubble, str(failure), now))
        else:
            log.info(tr("{platform}: retrying in {seconds} s: {error}", seconds=round(seconds, 1), **values))
            await self._commit(lambda: run(bubble.chat_id, outbox.schedule_retry, bubble, str(failure), retry_at, now))

    async def _commit(self, commit: Callable[[], Awaitable[None]]) -> None:
        """Commits what became of a bubble, however long the database fails: the platform cannot be asked again.

        Raises LeaseLost.
        """
        timer = RetryTimer(self._random, LONGEST_SEND_WAIT)
        while True:
            try:
                return await commit()
            except LeaseLost:
                raise
            except DoppelError as error:
                log.warning(tr("cannot store what was sent: {error}", error=error))
                await self._clock.sleep(timer.seconds(error))


def _log_interrupted(sends: Sequence[InterruptedSend]) -> None:
    for send in sends:
        values = {"platform": send.platform, "chat": send.chat}
        log.warning(
            tr("{platform}: doppel stopped while sending to {chat}; sending it again", **values)
            if send.is_resent
            else tr(
                "{platform}: doppel stopped while sending to {chat}; delivery unconfirmed, not retrying to avoid "
                "a duplicate",
                **values,
            )
        )
