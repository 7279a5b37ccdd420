"""Answers one chat: waits until nobody is writing, generates a reply and has it delivered.

A reply is stored in the outbox as a whole before its first bubble is sent, and only then are the messages it answers
marked as answered, so a crash loses neither.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random

from bot.cancellation import CancelledByEvent, cancel_on_event
from bot.chat.delivery import Delivery
from bot.chat.prompt import to_turns
from bot.chat.responder import Reply, Responder
from bot.clock import Clock
from bot.store import Store, inbox, outbox
from bot.store.inbox import HistoryMessage
from bot.store.schema import Chat, IgnoreReason, InboxMessage, InboxState
from doppel.config import ReplySettings
from doppel.errors import DoppelError
from doppel.i18n import tr
from doppel.system.backoff import Backoff
from doppel.transcript import pseudonym

MAX_ATTEMPTS = 3
"""Attempts to answer a message before it is marked as failed."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Services:
    """What every conversation works with."""

    store: Store
    responder: Responder
    delivery: Delivery
    reply: ReplySettings
    clock: Clock
    random: Random


class ChatConversation:
    """One chat. Its task runs only while there is something to answer or to send."""

    def __init__(self, chat: Chat, services: Services) -> None:
        self._chat = chat
        self._services = services
        self._task: asyncio.Task[None] | None = None
        self._has_work = False
        self._new_message = asyncio.Event()
        self._last_message_at: datetime | None = None

    @property
    def idle(self) -> bool:
        """Whether no task is running."""
        return self._task is None or self._task.done()

    def on_message(self) -> None:
        """Called after a message that needs a reply is committed. Restarts an unfinished reply."""
        self._last_message_at = self._services.clock.now()
        self._new_message.set()
        self.wake()

    def wake(self) -> None:
        """Starts the task if it is not running; it checks for messages to answer and bubbles to send."""
        self._has_work = True
        if self.idle:
            self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stops at once; unfinished work stays in the store."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        await self._services.responder.wait_until_ready()
        while self._has_work:
            self._has_work = False
            try:
                await self._answer_or_restart()
            except DoppelError as error:
                log.warning(tr("{platform}: no reply yet: {error}", platform=self._chat.platform, error=error))
            except Exception:
                log.exception(tr("{platform}: reply failed", platform=self._chat.platform))

    async def _answer_or_restart(self) -> None:
        """Sends one reply. A new message before all of it is sent restarts it, but only once."""
        try:
            await self._answer(self._new_message)
        except CancelledByEvent:
            dropped = await self._services.store.run(outbox.drop_unsent, self._chat.id, self._services.clock.now())
            log.debug("%s: reply restarted, %d unsent bubbles dropped", self._chat.platform, dropped)
            await self._answer(None)

    async def _answer(self, cancel: asyncio.Event | None) -> None:
        """Sends what is left in the outbox, then answers all pending messages; stops when `cancel` is set."""
        services, chat = self._services, self._chat
        await services.delivery.send_pending(chat, cancel)
        await self._wait_for_silence()
        backoff = Backoff(services.random, longest=30.0)
        while True:
            self._new_message.clear()  # before reading, so that a message committed during the read is noticed
            history, pending = await services.store.run(inbox.prompt_context, chat.id, services.reply.history)
            if not pending:
                return
            started_at = services.clock.now()
            try:
                reply = await cancel_on_event(self._generate(history, pending), cancel)
                break
            except DoppelError as error:
                if await self._record_failure(pending, error):
                    return
                await cancel_on_event(services.clock.sleep(backoff.next()), cancel)
        await self._store_reply(reply, pending)
        await services.delivery.send_pending(chat, cancel, since=started_at)

    async def _wait_for_silence(self) -> None:
        """Waits until nobody has written for `reply.debounce_seconds`."""
        pause = timedelta(seconds=self._services.reply.debounce_seconds)
        while self._last_message_at is not None:
            seconds = (self._last_message_at + pause - self._services.clock.now()).total_seconds()
            if seconds <= 0:
                break
            await self._services.clock.sleep(seconds)

    async def _generate(self, history: Sequence[HistoryMessage], pending: Sequence[InboxMessage]) -> Reply:
        chat = self._chat
        # Pending messages come last even if a bubble was sent after they arrived: the prompt must end with them.
        messages: list[HistoryMessage | InboxMessage] = [*history, *pending]
        contact = pseudonym(chat.platform, pending[-1].sender) if chat.kind == "dm" else None
        async with self._services.delivery.typing(chat):
            return await self._services.responder.respond(
                kind=chat.kind,
                platform=chat.platform,
                contact=contact,
                turns=to_turns(chat.platform, [(message.sender, message.text) for message in messages]),
            )

    async def _store_reply(self, reply: Reply, pending: Sequence[InboxMessage]) -> None:
        services, chat, ids = self._services, self._chat, [message.id for message in pending]
        bubbles = services.delivery.fit(chat.platform, reply.bubbles)
        if not bubbles:
            if reply.reason is IgnoreReason.SILENT:
                log.info(tr("{platform}: no reply, the persona had nothing to say", platform=chat.platform))
            await services.store.run(inbox.resolve, ids, InboxState.IGNORED, reply.reason)
            return
        now = services.clock.now()
        await services.store.run(
            outbox.add_turn, chat.id, "reply", bubbles, adapter=reply.version, now=now, answers=ids
        )
        log.info(
            tr(
                "{platform}: replying ({bubbles} bubbles, adapter {version})",
                platform=chat.platform,
                bubbles=len(bubbles),
                version=reply.version,
            )
        )

    async def _record_failure(self, pending: Sequence[InboxMessage], error: DoppelError) -> bool:
        """Counts a failed attempt and marks messages that have had too many as failed; True if none is left."""
        store = self._services.store
        await store.run(inbox.record_attempt, [message.id for message in pending], str(error))
        failed = [message.id for message in pending if message.attempts + 1 >= MAX_ATTEMPTS]
        if failed:
            await store.run(inbox.resolve, failed, InboxState.FAILED, str(error))
        log.warning(tr("{platform}: no reply yet: {error}", platform=self._chat.platform, error=error))
        return len(failed) == len(pending)
