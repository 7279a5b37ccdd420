"""Decides when to answer what, in one chat: listens, waits for silence, thinks, has it sent.

Knows no platform: it sees the inbox, the voice and the delivery. A turn is in the outbox, whole, before its first
bubble is sent, and a message waits in the inbox until then.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random

from bot.cancellation import CancelledByEvent, cancel_on_event
from bot.chat.delivery import Delivery
from bot.chat.prompt import turns_of
from bot.chat.responder import SILENT, Reply, Responder
from bot.clock import Clock
from bot.store import Store, inbox, outbox
from bot.store.inbox import HistoryMessage
from bot.store.schema import Chat, InboxMessage
from doppel.config import ReplySettings
from doppel.errors import DoppelError
from doppel.i18n import tr
from doppel.system.backoff import Backoff
from doppel.transcript import pseudonym

ATTEMPTS = 3
"""A message that could not be answered so often is given up."""

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


class Conversation:
    """One chat. Its task lives only while there is something to do; `idle` tells whether it does."""

    def __init__(self, chat: Chat, services: Services) -> None:
        self._chat = chat
        self._services = services
        self._task: asyncio.Task[None] | None = None
        self._wanted = False
        self._heard = asyncio.Event()
        self._heard_at: datetime | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing is being done."""
        return self._task is None or self._task.done()

    def on_message(self) -> None:
        """A message that deserves an answer was committed; a reply that is not finished is thought over."""
        self._heard_at = self._services.clock.now()
        self._heard.set()
        self.wake()

    def wake(self) -> None:
        """There may be something to answer or to send."""
        self._wanted = True
        if self.idle:
            self._task = asyncio.create_task(self._work())

    async def close(self) -> None:
        """Stops at once; what is not done stays in the store."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _work(self) -> None:
        await self._services.responder.wait_until_ready()
        while self._wanted:
            self._wanted = False
            try:
                await self._serve()
            except DoppelError as error:
                log.warning(tr("{platform}: no reply yet: {error}", platform=self._chat.platform, error=error))
            except Exception:
                log.exception(tr("{platform}: a reply failed", platform=self._chat.platform))

    async def _serve(self) -> None:
        """One reply. A message that comes before all of it is sent makes the persona think again, once."""
        try:
            await self._reply(self._heard)
        except CancelledByEvent:
            dropped = await self._services.store.run(outbox.drop_unsent, self._chat.id, self._services.clock.now())
            log.debug("%s: thinking again, %d unsent bubbles dropped", self._chat.platform, dropped)
            await self._reply(None)

    async def _reply(self, interruption: asyncio.Event | None) -> None:
        services, chat = self._services, self._chat
        await services.delivery.send_pending(chat, interruption)
        await self._silence()
        backoff = Backoff(services.random, longest=30.0)
        while True:
            self._heard.clear()  # before reading, so that what comes after the reading is noticed
            before, asked = await services.store.run(inbox.prompt_context, chat.id, services.reply.history)
            if not asked:
                return
            began = services.clock.now()
            try:
                reply = await cancel_on_event(self._think(before, asked), interruption)
                break
            except DoppelError as error:
                if await self._give_up(asked, error):
                    return
                await cancel_on_event(services.clock.sleep(backoff.next()), interruption)
        await self._put(reply, asked)
        await services.delivery.send_pending(chat, interruption, since=began)

    async def _silence(self) -> None:
        """Waits until nobody has written for a while."""
        pause = timedelta(seconds=self._services.reply.debounce_seconds)
        while self._heard_at is not None:
            left = (self._heard_at + pause - self._services.clock.now()).total_seconds()
            if left <= 0:
                break
            await self._services.clock.sleep(left)

    async def _think(self, before: Sequence[HistoryMessage], asked: Sequence[InboxMessage]) -> Reply:
        chat = self._chat
        # What is asked comes last even where a bubble was sent after it arrived: the prompt ends with the others.
        said = [(entry.sender, entry.text) for entry in before] + [(one.sender, one.text) for one in asked]
        contact = pseudonym(chat.platform, asked[-1].sender) if chat.kind == "dm" else None
        async with self._services.delivery.typing(chat):
            return await self._services.responder.respond(
                kind=chat.kind, platform=chat.platform, contact=contact, turns=turns_of(chat.platform, said)
            )

    async def _put(self, reply: Reply, asked: Sequence[InboxMessage]) -> None:
        services, chat, ids = self._services, self._chat, [one.id for one in asked]
        bubbles = services.delivery.fit(chat.platform, reply.bubbles)
        if not bubbles:
            if reply.silence == SILENT:
                log.info(tr("{platform}: no reply, the persona had nothing to say", platform=chat.platform))
            await services.store.run(inbox.resolve, ids, "ignored", reply.silence)
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

    async def _give_up(self, asked: Sequence[InboxMessage], error: DoppelError) -> bool:
        """Counts a failed attempt; messages tried too often are marked failed, and then there may be none left."""
        services = self._services
        await services.store.run(inbox.count_attempt, [one.id for one in asked], str(error))
        hopeless = [one.id for one in asked if one.attempts + 1 >= ATTEMPTS]
        if hopeless:
            await services.store.run(inbox.resolve, hopeless, "failed", str(error))
        log.warning(tr("{platform}: no reply yet: {error}", platform=self._chat.platform, error=error))
        return len(hopeless) == len(asked)
