"""Sends `stranger_reply` of config.yaml, once ever, to people who write to the bot and are not allowed.

A flood of strangers costs neither memory nor the disk: few wait at a time, few are answered in an hour, and whoever has
been dealt with is not looked up again.
"""

import asyncio
import logging
import zlib
from collections import deque
from collections.abc import Mapping

from bot.cancellation import cancel_tasks
from bot.chat.access import AccessList
from bot.chat.rate_window import WINDOW_SECONDS
from bot.clock import Clock
from bot.platforms import Incoming, Outgoing
from bot.platforms.connection import PlatformConnection
from bot.store import Store
from bot.store.strangers import is_remembered, remember
from doppel.personal_data import Account

MAX_PER_HOUR = 20
"""Strangers who are answered in an hour, on all platforms together."""

MAX_WAITING = 20
"""Strangers who wait for their answer. Others get it when they write again."""

_MAX_DONE = 10_000

log = logging.getLogger(__name__)


class StrangerReplies:
    """Answers strangers one after the other, in a task that runs only while there are some.

    Args:
        access: who is a stranger, and what they are sent.
        store: remembers who was answered.
        connections: the platforms, by name.
        clock: time.
    """

    def __init__(
        self, access: AccessList, store: Store, connections: Mapping[str, PlatformConnection], clock: Clock
    ) -> None:
        self._access = access
        self._store = store
        self._connections = connections
        self._clock = clock
        self._waiting: dict[Account, tuple[str, str]] = {}
        self._done: set[Account] = set()
        self._sent_at: deque[float] = deque()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def on_refused(self, incoming: Incoming) -> None:
        """Called with every message of somebody who is not allowed. Never waits, never raises."""
        text = self._access.stranger_reply(incoming)
        account = Account(incoming.platform, incoming.sender)
        if text is None or self._closed or account in self._done or account in self._waiting:
            return
        if len(self._waiting) >= MAX_WAITING or not self._has_room():
            return
        self._waiting[account] = (incoming.chat, text)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stops at once. Who was not answered yet may be when they write again."""
        self._closed = True
        if self._task is not None:
            await cancel_tasks(self._task)

    def _has_room(self) -> bool:
        """Whether one more stranger may be answered in this hour."""
        oldest = self._clock.monotonic() - WINDOW_SECONDS
        while self._sent_at and self._sent_at[0] <= oldest:
            self._sent_at.popleft()
        return len(self._sent_at) < MAX_PER_HOUR

    async def _run(self) -> None:
        while self._waiting:
            account, (chat, text) = next(iter(self._waiting.items()))
            try:
                await self._answer(account, chat, text)
            except Exception as error:  # noqa: BLE001 - courtesy to a stranger must not disturb anything else
                log.debug("%s: stranger_reply: %r", account.platform, error)
            finally:
                del self._waiting[account]

    async def _answer(self, account: Account, chat: str, text: str) -> None:
        """Sends the text unless that was done before. It is remembered first, so that it is never sent twice."""
        if await self._store.run(is_remembered, self._store.persona, account):
            self._mark_done(account)
            return
        if not self._has_room():  # it was full by the time this one had its turn
            return
        self._sent_at.append(self._clock.monotonic())
        await self._store.run(remember, self._store.persona, account, self._clock.now())
        self._mark_done(account)
        connection = self._connections[account.platform]
        if connection.rate_limited is not None:
            await connection.rate_limited.wait_for_rate_limit(chat)
        await connection.platform.send(Outgoing(id=_id_outside_the_outbox(account), chat=chat, text=text))

    def _mark_done(self, account: Account) -> None:
        if len(self._done) >= _MAX_DONE:
            self._done.clear()  # they are looked up in the store again
        self._done.add(account)


def _id_outside_the_outbox(account: Account) -> int:
    """A negative number, the same for the same stranger: services tell duplicates by it."""
    return -1 - zlib.crc32(str(account).encode("utf-8", "surrogatepass"))
