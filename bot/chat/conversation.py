"""Answers one chat: waits until nobody is writing, generates a reply and has it delivered.

A reply is stored in the outbox as a whole before its first bubble is sent; the messages it answers count as answered
once it is delivered. What goes wrong stays in the store, where `ChatRouter.sweep` finds it again.
"""

import asyncio
import logging
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from random import Random

import msgspec
from sqlalchemy import Connection

from bot.cancellation import CancelledByEvent, cancel_on_event
from bot.chat.access import AccessList
from bot.chat.delivery import Delivery
from bot.chat.prompt import to_turns
from bot.chat.responder import Reply, Responder
from bot.chat.retry import RetryTimer, is_counted
from bot.clock import Clock
from bot.store import Store, inbox, outbox
from bot.store.inbox import PromptMessage
from bot.store.leases import LeaseLost, Leases
from bot.store.schema import Chat, IgnoreReason, InboxMessage, InboxState, OutboxError, OutboxMessage
from doppel.config import ReplySettings
from doppel.errors import DoppelError
from doppel.i18n import tr
from doppel.transcript import pseudonym

LEASE_POLL_SECONDS = 1.0
"""How often a daemon asks for a chat that another one works on."""

MAX_DEBOUNCE = 10
"""Somebody who keeps writing is answered after this many times `reply.debounce_seconds`."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Services:
    """What every conversation works with."""

    store: Store
    leases: Leases
    responder: Responder
    delivery: Delivery
    access: AccessList
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
        self._may_have_unsent = True  # until its outbox has been looked at
        self._new_message = asyncio.Event()
        self._first_message_at: float | None = None
        self._last_message_at = -math.inf
        self._logged: str | None = None

    @property
    def idle(self) -> bool:
        """Whether no task is running."""
        return self._task is None or self._task.done()

    def on_message(self, chat: Chat) -> None:
        """Called with the chat's row after a message that needs a reply is committed. Restarts an unfinished reply."""
        now = self._services.clock.monotonic()
        if self._first_message_at is None:
            self._first_message_at = now
        self._last_message_at = now
        self._new_message.set()
        self._start(chat)

    def wake(self, chat: Chat) -> None:
        """Starts the task if it is not running; it checks for messages to answer and bubbles to send."""
        self._may_have_unsent = True
        self._start(chat)

    def _start(self, chat: Chat) -> None:
        self._chat = chat  # its kind and its allowed ids may have changed
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
                if await self._acquire_chat():
                    await self._answer_or_restart()
            except LeaseLost:
                log.info(tr("{platform}: another daemon goes on with a chat", platform=self._chat.platform))
            except DoppelError as error:  # of the store; the sweep tries again
                self._may_have_unsent = True
                self._log_delay(error)
            except Exception as error:
                self._may_have_unsent = True
                log.exception(tr("{platform}: reply failed", platform=self._chat.platform))
                await self._count_unexpected_failure(error)
        await self._services.leases.release_chats([self._chat.id])

    async def _acquire_chat(self) -> bool:
        """Waits until no other daemon works on the chat; False if there is nothing left to do then."""
        services, chat_id = self._services, self._chat.id
        while not await services.delivery.take_over(self._chat):
            await services.clock.sleep(LEASE_POLL_SECONDS)
            if not await services.store.run(inbox.is_unfinished, chat_id):
                return False
        self._may_have_unsent |= services.store.is_shared  # another daemon may have written something
        return True

    async def _answer_or_restart(self) -> None:
        """Sends one reply. A new message before all of it is sent restarts it, but only once."""
        try:
            await self._answer(self._new_message)
        except CancelledByEvent:
            self._may_have_unsent = True  # a post among them is still sent
            services = self._services
            dropped = await services.leases.run_for_chat(
                self._chat.id, outbox.drop_replies, self._chat.id, OutboxError.SUPERSEDED, services.clock.now()
            )
            log.debug("%s: reply restarted, %d unsent bubbles dropped", self._chat.platform, dropped)
            await self._answer(None)

    async def _answer(self, cancel: asyncio.Event | None) -> None:
        """Sends what is left in the outbox, then answers all pending messages; stops when `cancel` is set."""
        services, chat = self._services, self._chat
        if not services.access.still_allows(chat):
            await services.leases.run_for_chat(chat.id, _leave_unanswered, chat.id, services.clock.now())
            return
        if self._may_have_unsent:
            self._may_have_unsent = False
            await services.delivery.send_pending(chat, cancel)
        await self._wait_for_silence()
        timer = RetryTimer(services.random)
        generated: int | None = None
        while True:
            self._new_message.clear()  # before reading, so that a message committed during the read is noticed
            history, pending = await services.store.run(inbox.prompt_context, chat.id, services.reply.history)
            if not pending:
                return
            if await self._expire_messages(pending):
                continue
            started_at = services.clock.monotonic()
            try:
                reply = await cancel_on_event(self._generate(history, pending), cancel)
                break
            except DoppelError as error:
                self._log_delay(error)
                has_served_others = generated is not None and services.responder.generated > generated
                generated = services.responder.generated
                must_count = is_counted(error, has_served_others=has_served_others)
                if must_count and not await services.leases.run_for_chat(
                    chat.id, inbox.record_failure, chat.id, pending[-1].id, str(error)
                ):
                    return
                seconds = timer.seconds(error)
            await cancel_on_event(services.clock.sleep(seconds), cancel)
        self._logged = None
        await services.delivery.send(chat, await self._store_reply(reply, pending[-1]), cancel, since=started_at)

    async def _wait_for_silence(self) -> None:
        """Waits until nobody has written for `reply.debounce_seconds`, but not for ever."""
        pause, clock = self._services.reply.debounce_seconds, self._services.clock
        while self._first_message_at is not None:
            until = min(self._last_message_at + pause, self._first_message_at + MAX_DEBOUNCE * pause)
            seconds = until - clock.monotonic()
            if seconds <= 0:
                break
            await clock.sleep(seconds)
        self._first_message_at = None

    async def _expire_messages(self, pending: Sequence[InboxMessage]) -> bool:
        """Ignores pending messages that are too old to answer; returns whether there were any."""
        services, chat = self._services, self._chat
        oldest = services.clock.now() - services.reply.max_age
        if all(message.sent_at >= oldest for message in pending):
            return False
        expired = await services.leases.run_for_chat(chat.id, inbox.expire, chat.id, oldest)
        values = {"platform": chat.platform, "count": expired, "age": services.reply.stale_after}
        log.warning(tr("{platform}: {count} messages are older than {age} and get no reply", **values))
        return True

    async def _generate(self, history: Sequence[PromptMessage], pending: Sequence[InboxMessage]) -> Reply:
        chat = self._chat
        # Pending messages come last even if a bubble was sent after they arrived: the prompt must end with them.
        messages: list[PromptMessage | InboxMessage] = [*history, *pending]
        if pending[0].attempts == inbox.MAX_ATTEMPTS - 1:
            # The last attempt, without whatever else made the others fail.
            messages = [msgspec.structs.replace(pending[-1], answers_text=None)]
        contact = pseudonym(chat.platform, pending[-1].sender) if chat.kind == "dm" else None
        async with self._services.delivery.typing(chat):
            return await self._services.responder.respond(
                kind=chat.kind,
                platform=chat.platform,
                contact=contact,
                turns=to_turns(chat.platform, messages),
            )

    async def _store_reply(self, reply: Reply, answered: InboxMessage) -> Sequence[OutboxMessage]:
        """Commits a reply to the pending messages up to `answered`; returns all bubbles that are to be sent now."""
        services, chat = self._services, self._chat
        bubbles = services.delivery.fit(chat.platform, reply.bubbles)
        if not bubbles:
            if reply.reason is IgnoreReason.SILENT:
                log.info(tr("{platform}: no reply, the persona had nothing to say", platform=chat.platform))
            await services.leases.run_for_chat(
                chat.id, inbox.resolve, chat.id, answered.id, InboxState.IGNORED, reply.reason
            )
            return ()
        now = services.clock.now()
        unsent = await services.leases.run_for_chat(
            chat.id, _add_reply, chat.id, bubbles, reply.version, answered.id, now=now
        )
        log.info(
            tr(
                "{platform}: replying ({bubbles} bubbles, adapter {version})",
                platform=chat.platform,
                bubbles=len(bubbles),
                version=reply.version,
            )
        )
        return unsent

    async def _count_unexpected_failure(self, error: Exception) -> None:
        """Counts a failure that nobody foresaw, so that a message that causes one each time is given up, too."""
        services, chat = self._services, self._chat
        with suppress(DoppelError):  # the store fails: then the message is not to blame
            pending = await services.store.run(inbox.pending_messages, chat.id, 1)
            if pending:
                await services.leases.run_for_chat(chat.id, inbox.record_failure, chat.id, pending[-1].id, repr(error))

    def _log_delay(self, error: DoppelError) -> None:
        """Logs why there is no reply yet, once for each reason."""
        if self._logged != str(error):
            self._logged = str(error)
            log.warning(tr("{platform}: no reply yet: {error}", platform=self._chat.platform, error=error))


def _add_reply(
    connection: Connection, chat_id: int, bubbles: Sequence[str], adapter: str, answers_up_to: int, *, now: datetime
) -> list[OutboxMessage]:
    """Stores a reply; returns the chat's unsent bubbles. A post that was stored meanwhile is among them."""
    outbox.add_turn(connection, chat_id, "reply", bubbles, adapter=adapter, now=now, answers_up_to=answers_up_to)
    return outbox.pending_bubbles(connection, chat_id)


def _leave_unanswered(connection: Connection, chat_id: int, now: datetime) -> None:
    """Somebody who is no longer allowed gets nothing: no reply, and not the rest of one."""
    outbox.drop_replies(connection, chat_id, OutboxError.NOT_ALLOWED, now)
    inbox.ignore_all(connection, chat_id, IgnoreReason.NOT_ALLOWED)
