"""Commits Discord's messages: every chat in order, and what was missed before what arrives.

The newest stored message of a chat says from where its missed messages are fetched after the next start. So a chat is
*behind* from the beginning of a session until its missed messages are committed, and what arrives meanwhile is held. A
process that is killed then finds everything again.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from enum import Enum
from random import Random

import discord

from bot.cancellation import cancel_tasks
from bot.platforms import Incoming, Newest, Receive
from bot.platforms.discord.messages import allow_ids, to_incoming
from bot.platforms.discord.missed import (
    FetchFailed,
    channels_written_in,
    chat_name,
    direct_chats,
    fetch_after,
    oldest_id,
)
from bot.platforms.repeated_failures import RepeatedFailures
from doppel.errors import DoppelError
from doppel.i18n import tr
from doppel.system.backoff import Backoff

MAX_HELD = 1000
"""Messages that are held for a chat; earlier ones are in its history when that can be fetched."""
SCAN_ATTEMPTS = 3
"""How often chats without a stored message are asked before all others go on without them."""
LONGEST_WAIT = 30.0
"""Seconds between two attempts to fetch what a chat has missed."""

log = logging.getLogger(__name__)

Sleep = Callable[[float], Awaitable[None]]


class GatewayEvent(Enum):
    """What happens besides messages."""

    CONNECTED = "a new session begins"
    READY = "servers and channels are known"
    CLOSED = "no more events follow"


Events = asyncio.Queue[discord.Message | GatewayEvent | Exception]
"""Messages and events in order of arrival; an exception is what made fetching fail for good."""


class Progress:
    """What has to be fetched, kept from one session to the next of the same process.

    Attributes:
        behind: chats whose missed messages are not all committed → id of the last message before those.
        scan_after: chats without a stored message were not asked since the message with this id; None: they were.
        failures: messages that could not be received.
    """

    def __init__(self) -> None:
        self.behind: dict[int, int] = {}
        self.scan_after: int | None = None
        self.failures = RepeatedFailures()


class EventConsumer:
    """Handles the events of one client.

    Args:
        client: the client; ready when the READY event comes.
        receive: commits a message.
        newest: the last stored message of each chat.
        progress: outlives the client.
        allowed: the ids in `discord.allow`.
        now: the time, UTC.
        sleep: waits for some seconds.
        random: for the waits.
    """

    def __init__(
        self,
        client: discord.Client,
        receive: Receive,
        newest: Newest,
        progress: Progress,
        *,
        allowed: frozenset[str],
        now: Callable[[], datetime],
        sleep: Sleep,
        random: Random,
    ) -> None:
        self._client = client
        self._receive = receive
        self._newest = newest
        self._progress = progress
        self._allowed = allowed
        self._now = now
        self._sleep = sleep
        self._random = random
        self._known: set[int] = set()
        self._connected_after: int | None = None
        self._is_scanning = True
        self._held: dict[int, deque[discord.Message]] = {}
        self._has_work = asyncio.Event()
        self._failing: set[int] = set()

    async def run(self, events: Events) -> None:
        """Runs until the CLOSED event. Raises what `receive` or `newest` raises."""
        catching_up: asyncio.Task[None] | None = None
        try:
            while (item := await events.get()) is not GatewayEvent.CLOSED:
                if isinstance(item, discord.Message):
                    await self._on_message(item)
                elif isinstance(item, Exception):
                    raise item
                else:
                    if catching_up is not None:
                        await cancel_tasks(catching_up)
                    if item is GatewayEvent.CONNECTED:
                        await self._begin_session()
                    else:
                        catching_up = asyncio.create_task(self._catch_up(events))
        finally:
            if catching_up is not None:
                await cancel_tasks(catching_up)
            while not events.empty():  # after a failure: what arrived meanwhile is fetched in the next session
                item = events.get_nowait()
                if isinstance(item, discord.Message):
                    self._progress.behind.setdefault(item.channel.id, item.id - 1)

    async def _begin_session(self) -> None:
        """Every chat may have missed something. Nothing is committed before the chats are known."""
        newest = {
            int(chat): int(message)
            for chat, message in (await self._newest()).items()
            if chat.isdecimal() and message.isdecimal()
        }
        progress = self._progress
        for chat, message in newest.items():
            progress.behind.setdefault(chat, message)
        self._known = set(newest)
        # Up to its newest message of all the bot was connected: what is older was received, or need not be.
        self._connected_after = max(newest.values(), default=None)
        if progress.scan_after is None:
            progress.scan_after = self._connected_after
        self._held.clear()
        self._is_scanning = True

    async def _on_message(self, message: discord.Message) -> None:
        chat, behind = message.channel.id, self._progress.behind
        is_allowed = not self._allowed.isdisjoint(allow_ids(message))
        if self._is_scanning:
            if is_allowed and chat not in behind:
                after = self._progress.scan_after
                behind[chat] = message.id - 1 if after is None else after
        elif message.guild is None and chat not in self._known and is_allowed and self._connected_after is not None:
            # Discord names a direct chat only with a message: it may not have been the first one.
            self._known.add(chat)
            behind.setdefault(chat, self._connected_after)
            self._has_work.set()
        if self._is_scanning or chat in behind or chat in self._held:
            self._held.setdefault(chat, deque(maxlen=MAX_HELD)).append(message)
        else:
            await self._commit(message)

    async def _catch_up(self, events: Events) -> None:
        try:
            await self._scan()
            await self._follow()
        except Exception as error:  # noqa: BLE001 - `run` raises it
            events.put_nowait(error)

    async def _scan(self) -> None:
        """Fetches what was missed in chats without a stored message.

        These have no newest message of their own, so they are committed together in order of time: whatever is
        committed last, everything before it is, too.
        """
        progress, after = self._progress, self._progress.scan_after
        if after is not None:
            after = max(after, oldest_id(self._now()))
            unknown = channels_written_in(self._client, after, self._allowed, self._known)
            direct = await direct_chats(self._client, self._allowed)
            for chat in (*unknown, *(chat for chat in direct if chat not in self._known)):
                progress.behind.setdefault(chat, after)
        fetched = await self._fetch_all([chat for chat in progress.behind if chat not in self._known])
        batch = [message for messages in fetched.values() for message in messages]
        batch += self._take_held(fetched)
        while batch:
            for message in sorted(batch, key=_by_id):
                await self._commit(message)
            batch = self._take_held(fetched)
        for chat in fetched:
            progress.behind.pop(chat, None)
        self._known.update(fetched, progress.behind)
        progress.scan_after = None
        self._is_scanning = False

    def _take_held(self, fetched: Mapping[int, Sequence[discord.Message]]) -> list[discord.Message]:
        """What arrived after that in the chats that were asked, and in those that need not be: they are not allowed."""
        chats = [chat for chat in self._held if chat in fetched or chat not in self._progress.behind]
        last = {chat: messages[-1].id for chat, messages in fetched.items() if messages}
        return [message for chat in chats for message in self._held.pop(chat) if message.id > last.get(chat, 0)]

    async def _fetch_all(self, chats: Sequence[int]) -> dict[int, list[discord.Message]]:
        """The missed messages of the chats that could be asked, oldest first."""
        fetched: dict[int, list[discord.Message]] = {}
        backoff = Backoff(self._random, longest=LONGEST_WAIT)
        for attempt in range(SCAN_ATTEMPTS):
            if attempt and len(fetched) < len(chats):
                await self._sleep(backoff.next())
            for chat in [chat for chat in chats if chat not in fetched]:
                try:
                    fetched[chat] = [
                        message async for message in fetch_after(self._client, chat, self._fetch_from(chat))
                    ]
                except FetchFailed as error:
                    self._log_failed(chat, error)
        return fetched

    async def _follow(self) -> None:
        """Lets every chat that is behind catch up, and those that turn out to be later."""
        backoff = Backoff(self._random, longest=LONGEST_WAIT)
        while True:
            self._has_work.clear()
            failed = 0
            for chat in list(self._progress.behind):
                try:
                    await self._catch_up_chat(chat)
                except FetchFailed as error:
                    failed += 1
                    self._log_failed(chat, error)
            if failed:
                await self._sleep(backoff.next())
            else:
                backoff.reset()
                await self._has_work.wait()

    async def _catch_up_chat(self, chat: int) -> None:
        """Commits what a chat has missed, oldest first, then what was held. Raises FetchFailed."""
        async with aclosing(fetch_after(self._client, chat, self._fetch_from(chat))) as messages:
            async for message in messages:
                await self._commit(message)
                self._progress.behind[chat] = message.id
        await self._release(chat, self._progress.behind[chat])

    async def _release(self, chat: int, after_id: int) -> None:
        """Commits the held messages of a chat after those that were fetched; from then on it is up to date."""
        held = self._held.get(chat, deque())
        while held:
            message = held.popleft()
            if message.id > after_id:
                await self._commit(message)
        self._held.pop(chat, None)
        self._progress.behind.pop(chat, None)
        self._failing.discard(chat)

    async def _commit(self, message: discord.Message) -> None:
        try:
            incoming = self._to_incoming(message)
            if incoming is not None:
                await self._receive(incoming)
        except Exception as error:
            if isinstance(error, DoppelError) or not self._progress.failures.is_last(str(message.id)):
                self._progress.behind.setdefault(message.channel.id, message.id - 1)
                raise
            log.exception(tr("Discord: skipped message {id}, which failed repeatedly", id=message.id))

    def _to_incoming(self, message: discord.Message) -> Incoming | None:
        return to_incoming(message, self._client.user) if self._client.user is not None else None

    def _fetch_from(self, chat: int) -> int:
        return max(self._progress.behind[chat], oldest_id(self._now()))

    def _log_failed(self, chat: int, error: FetchFailed) -> None:
        name = chat_name(self._client, chat)
        level = logging.DEBUG if chat in self._failing else logging.WARNING
        self._failing.add(chat)
        log.log(level, tr("Discord: could not fetch missed messages in {chat}: {error}", chat=name, error=error))


def _by_id(message: discord.Message) -> int:
    return message.id
