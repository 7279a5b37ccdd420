"""Posts of the persona's own accord: each slot once, also across a restart.

APScheduler wakes it; what is due is worked out from the clock and the slots claimed in the store. The claim and the
post are one transaction. Knows no platform.
"""

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from sqlalchemy import Connection

from bot.chat.conversation import Services
from bot.chat.responder import Reply
from bot.posts.triggers import ApschedulerTrigger, PostTrigger
from bot.store import inbox, outbox, slots
from bot.store.schema import Chat
from doppel.config import Config, PostSettings
from doppel.errors import DoppelError
from doppel.i18n import tr

GRACE = timedelta(hours=1)
"""A slot missed by no more than this, while the daemon was down or busy, is still posted."""

log = logging.getLogger(__name__)


class PostScheduler:
    """All schedules of config.yaml.

    Args:
        config: `posts` and the owner's zone.
        means: the store where slots are claimed, the voice that says the posts, the clock.
        look: told about a chat with something to send.

    Raises:
        UserError: a post's rhythm cannot be understood.
    """

    def __init__(self, config: Config, services: Services, wake_chat: Callable[[Chat], None]) -> None:
        self._posts = [(post, PostTrigger(post, config.zone)) for post in config.posts]
        self._services = services
        self._wake_chat = wake_chat
        self._scheduler = AsyncIOScheduler(timezone=config.zone)

    async def start(self) -> None:
        """Makes up for a slot missed by a short downtime, then waits for the next ones."""
        for post, trigger in self._posts:
            await self._log_missed_slots(post, trigger)
            await self.wake(post, trigger)
            self._scheduler.add_job(
                self.wake,
                ApschedulerTrigger(trigger),
                args=(post, trigger),
                id=post.name,
                misfire_grace_time=None,  # however late it wakes, `wake` finds what is due
                coalesce=True,
                max_instances=1,
            )
        self._scheduler.start()

    def stop(self) -> None:
        """No further slot fires."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    async def wake(self, post: PostSettings, trigger: PostTrigger) -> None:
        """Posts the newest slot that is due and was not dealt with; older ones are skipped."""
        try:
            slot = await self._due(post, trigger)
            if slot is not None:
                await self._publish(post, slot)
        except DoppelError as error:
            log.warning(tr("post {name}: {error}", name=post.name, error=error))

    async def _log_missed_slots(self, post: PostSettings, trigger: PostTrigger) -> None:
        """Says so when slots passed while the daemon was down for longer than the grace."""
        now, store = self._services.clock.now(), self._services.store
        known = await store.run(slots.trigger_since, post.name, trigger.text, now)
        last = await store.run(slots.last_claimed, post.name)
        start = known if last is None else max(known, last + timedelta(microseconds=1))
        first = next(trigger.slots(start), None)
        if first is not None and trigger.fire_time(first) < now - GRACE:
            log.info(
                tr(
                    "post {name}: nothing was posted between {first} and now, because doppel was not running",
                    name=post.name,
                    first=f"{first:%Y-%m-%d %H:%M} UTC",
                )
            )

    async def _due(self, post: PostSettings, trigger: PostTrigger) -> datetime | None:
        """The newest slot that is due, if its moment is recent; those before it are claimed as skipped."""
        now, store = self._services.clock.now(), self._services.store
        known = await store.run(slots.trigger_since, post.name, trigger.text, now)
        passed = trigger.due(max(known, now - GRACE - trigger.jitter), now)
        recent = [slot for slot in passed if trigger.fire_time(slot) >= now - GRACE]
        missed = await store.run(slots.unclaimed, post.name, recent)
        if not missed:
            return None
        await store.run(slots.skip, post.name, missed[:-1], now)
        return missed[-1]

    async def _publish(self, post: PostSettings, slot: datetime) -> None:
        services, platform = self._services, post.to.partition(":")[0]
        try:
            reply = await services.responder.respond(kind="post", platform=platform)
        except DoppelError as error:
            now = services.clock.now()
            await services.store.run(slots.claim, post.name, slot, "failed", now=now, reason=str(error))
            raise
        fitting = Reply(tuple(services.delivery.fit(platform, reply.bubbles)), reply.version, reply.silence)
        chat = await services.store.run(_claim_and_put, post, slot, fitting, services.clock.now())
        if chat is not None:
            log.info(tr("post {name}: to {to} (adapter {version})", name=post.name, to=post.to, version=reply.version))
            self._wake_chat(chat)


def _claim_and_put(
    connection: Connection, post: PostSettings, slot: datetime, reply: Reply, now: datetime
) -> Chat | None:
    """Claims the slot and writes its post, or neither; None when there is nothing to send."""
    platform, _, target = post.to.partition(":")
    if not reply.bubbles:
        slots.claim(connection, post.name, slot, "failed", now=now, reason=reply.silence)
        return None
    slot_id = slots.claim(connection, post.name, slot, "posted", now=now)
    if slot_id is None:
        return None
    chat = inbox.get_or_create_chat(connection, platform, target, now=now)
    outbox.add_turn(connection, chat.id, "post", reply.bubbles, adapter=reply.version, now=now, slot_id=slot_id)
    return chat
