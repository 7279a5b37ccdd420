"""Sends what stands in the outbox: bubble by bubble, in a person's rhythm, again when it failed.

Every change of state is committed before and after the platform is asked. Knows no platform but by its contract,
and nothing of how the bubbles came about.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from random import Random

from bot.cancellation import CancelledByEvent, cancel_on_event
from bot.chat.split_text import split
from bot.clock import Clock
from bot.platforms import Outgoing, Platform, SendFailed
from bot.platforms.connection import PlatformConnection
from bot.store import Store, outbox
from bot.store.schema import Bubble, Chat
from doppel.adapters.habits import Habits
from doppel.i18n import tr
from doppel.system.backoff import Backoff

TYPING_SECONDS = 4.0
"""How often "typing" is shown anew; services let it fade after five seconds or more."""

ATTEMPTS = 8
GIVE_UP_AFTER = timedelta(hours=1)
"""A bubble that failed so often and is so old is given up; an outage of some minutes costs nothing."""

log = logging.getLogger(__name__)


class Delivery:
    """Sends the bubbles of any chat; callers see to it that one chat is served by one task.

    Args:
        store: where the outbox is.
        lines: the platforms that are on, by name.
        clock: time.
        random: for the waits after failures.
        habits: the timing in force.
    """

    def __init__(
        self,
        store: Store,
        connections: Mapping[str, PlatformConnection],
        clock: Clock,
        random: Random,
        habits: Callable[[], Habits],
    ) -> None:
        self._store = store
        self._connections = connections
        self._clock = clock
        self._random = random
        self._habits = habits
        self._sending: set[asyncio.Task[bool]] = set()
        self._unsure_since: dict[int, datetime] = {}
        self.sent = {"reply": 0, "post": 0}
        """Turns sent since the start, by kind."""

    def fit(self, platform: str, bubbles: Sequence[str]) -> list[str]:
        """The bubbles, cut where one is longer than the platform takes."""
        service = self._connections[platform].platform
        return [piece for bubble in bubbles for piece in split(bubble, service.limit, service.length)]

    @asynccontextmanager
    async def typing(self, chat: Chat) -> AsyncIterator[None]:
        """Shows "typing" in the chat for as long as the block runs."""
        visible_messages = asyncio.create_task(self._show_typing(self._connections[chat.platform].platform, chat.chat))
        try:
            yield
        finally:
            visible_messages.cancel()
            await asyncio.gather(visible_messages, return_exceptions=True)

    async def send_pending(
        self, chat: Chat, interruption: asyncio.Event | None = None, since: datetime | None = None
    ) -> None:
        """Sends the chat's pending bubbles in order; returns when none is left.

        Args:
            chat: whose outbox.
            interruption: stops a reply between two bubbles; posts go on.
            since: when the first bubble began to be thought of; that time counts as typing.

        Raises:
            Interrupted: bubbles of a reply are left unsent.
        """
        connection = self._connections[chat.platform]
        backoff = Backoff(self._random, longest=300.0)
        while (bubble := await self._store.run(outbox.next_pending, chat.id)) is not None:
            stop = interruption if bubble.kind == "reply" else None
            await cancel_on_event(self._wait_for_turn(connection, chat, bubble, since or self._clock.now()), stop)
            if stop is not None and stop.is_set():
                raise CancelledByEvent
            since = None
            task = asyncio.create_task(self._send(connection.platform, chat, bubble, backoff))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)
            # Shielded: a bubble on its way is followed to its end even when the daemon stops; see `finish`.
            if await asyncio.shield(task) and bubble.position == 0:
                self.sent[bubble.kind] += 1

    async def finish(self, seconds: float) -> None:
        """Gives bubbles on their way so long to arrive."""
        if self._sending:
            await asyncio.wait(self._sending, timeout=seconds)

    async def _wait_for_turn(self, connection: PlatformConnection, chat: Chat, bubble: Bubble, since: datetime) -> None:
        """Waits for the connection, for the time a failed bubble may be tried again, and for the typing."""
        await connection.connected.wait()
        if bubble.not_before is not None:
            await self._clock.sleep((bubble.not_before - self._clock.now()).total_seconds())
        if bubble.attempts == 0:
            spent = (self._clock.now() - since).total_seconds()
            async with self.typing(chat):
                await self._clock.sleep(self._habits().typing_seconds(bubble.text) - spent)

    async def _show_typing(self, platform: Platform, chat: str) -> None:
        while True:
            await platform.typing(chat)
            await self._clock.sleep(TYPING_SECONDS)

    async def _send(self, platform: Platform, chat: Chat, bubble: Bubble, backoff: Backoff) -> bool:
        """Sends one bubble and commits how it went; tells whether it was sent."""
        quoted = None
        if chat.kind == "group" and bubble.position == 0 and bubble.inbox_id is not None:
            quoted = await self._store.run(outbox.answered_message_id, bubble)
        await self._store.run(outbox.mark_sending, bubble.id, self._clock.now())
        outgoing = Outgoing(id=bubble.id, chat=chat.chat, text=bubble.text, reply_to=quoted)
        try:
            message_id = await platform.send(outgoing)
        except SendFailed as failure:
            await self._failed(platform, bubble, failure, backoff)
            return False
        except Exception as error:
            # A platform's own mistake: nobody knows whether the bubble arrived.
            log.exception(tr("{platform}: failed while sending", platform=platform.name))
            await self._failed(platform, bubble, SendFailed(repr(error), unknown=True), backoff)
            return False
        await self._store.run(outbox.mark_sent, bubble.id, message_id, self._clock.now())
        self._unsure_since.pop(bubble.id, None)
        backoff.reset()
        return True

    async def _failed(self, platform: Platform, bubble: Bubble, failure: SendFailed, backoff: Backoff) -> None:
        now, values = self._clock.now(), {"platform": platform.name, "error": failure}
        seconds = backoff.next() if failure.retry_after is None else failure.retry_after
        if failure.unknown:
            self._unsure_since.setdefault(bubble.id, now)
        unsure_since = self._unsure_since.get(bubble.id)
        forgotten = unsure_since is not None and now + timedelta(seconds=seconds) > unsure_since + outbox.RESEND_WINDOW
        if unsure_since is not None and (forgotten or not platform.resend_is_safe):
            log.warning(tr("{platform}: a bubble may not have arrived; it is not sent again: {error}", **values))
            await self._store.run(outbox.mark_unknown, bubble.id, str(failure), now)
        elif failure.permanent or (bubble.attempts + 1 >= ATTEMPTS and now - bubble.created_at >= GIVE_UP_AFTER):
            log.warning(tr("{platform}: a bubble was given up: {error}", **values))
            await self._store.run(outbox.mark_failed, bubble.id, str(failure), now)
        else:
            log.info(tr("{platform}: sent again in {seconds} s: {error}", seconds=round(seconds, 1), **values))
            await self._store.run(outbox.schedule_retry, bubble.id, str(failure), now + timedelta(seconds=seconds), now)
