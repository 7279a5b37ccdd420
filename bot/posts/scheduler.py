"""Posts on a schedule: each slot is posted at most once, also across restarts.

APScheduler only wakes the scheduler; which slot is due follows from the clock and the slots claimed in the store. The
claim and the post are one transaction.
"""

import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from sqlalchemy import Connection

from bot.chat.conversation import Services
from bot.chat.responder import Reply
from bot.posts.triggers import ApschedulerTrigger, PostTrigger
from bot.store import inbox, outbox, slots
from bot.store.schema import Chat, SlotState
from doppel.config import PostSettings
from doppel.errors import DoppelError
from doppel.i18n import tr

GRACE = timedelta(hours=1)
"""A slot missed by at most this much, while the daemon was down or busy, is still posted."""

log = logging.getLogger(__name__)


class PostScheduler:
    """Runs the schedules of config.yaml.

    Args:
        posts: the schedules.
        zone: the owner's time zone, which cron expressions use.
        services: the store, the responder that writes the posts, the clock.
        wake_chat: called with a chat that has a post to send.

    Raises:
        UserError: a cron expression is invalid.
    """

    def __init__(
        self, posts: Sequence[PostSettings], zone: ZoneInfo, services: Services, wake_chat: Callable[[Chat], None]
    ) -> None:
        self._posts = [(post, PostTrigger(post, zone)) for post in posts]
        self._services = services
        self._wake_chat = wake_chat
        self._scheduler = AsyncIOScheduler(timezone=zone)

    async def start(self) -> None:
        """Posts a slot that a short downtime missed, then waits for the next ones."""
        for post, trigger in self._posts:
            await self._log_missed_slots(post, trigger)
            await self.wake(post, trigger)
            self._scheduler.add_job(
                self.wake,
                ApschedulerTrigger(trigger),
                args=(post, trigger),
                id=post.name,
                misfire_grace_time=None,  # however late it runs, `wake` finds the slot that is due
                coalesce=True,
                max_instances=1,
            )
        self._scheduler.start()

    def stop(self) -> None:
        """Starts no further posts."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    async def wake(self, post: PostSettings, trigger: PostTrigger) -> None:
        """Posts the newest slot that is due and unclaimed; older ones are skipped."""
        try:
            slot = await self._claimable_slot(post, trigger)
            if slot is not None:
                await self._post(post, slot)
        except DoppelError as error:
            log.warning(tr("post {name}: {error}", name=post.name, error=error))

    async def _log_missed_slots(self, post: PostSettings, trigger: PostTrigger) -> None:
        """Logs that slots passed while the daemon was down for longer than `GRACE`."""
        now, store = self._services.clock.now(), self._services.store
        since = await store.run(slots.trigger_since, post.name, trigger.text, now)
        last = await store.run(slots.last_claimed, post.name)
        start = since if last is None else max(since, last + timedelta(microseconds=1))
        first = next(trigger.slots(start), None)
        if first is not None and trigger.fire_time(first) < now - GRACE:
            log.info(
                tr(
                    "post {name}: nothing was posted since {first}, because doppel was not running",
                    name=post.name,
                    first=f"{first:%Y-%m-%d %H:%M} UTC",
                )
            )

    async def _claimable_slot(self, post: PostSettings, trigger: PostTrigger) -> datetime | None:
        """The newest unclaimed slot within `GRACE`; those before it are claimed as skipped."""
        now, store = self._services.clock.now(), self._services.store
        since = await store.run(slots.trigger_since, post.name, trigger.text, now)
        due = trigger.due(max(since, now - GRACE - trigger.jitter), now)
        recent = [slot for slot in due if trigger.fire_time(slot) >= now - GRACE]
        unclaimed = await store.run(slots.unclaimed, post.name, recent)
        if not unclaimed:
            return None
        await store.run(slots.skip, post.name, unclaimed[:-1], now)
        return unclaimed[-1]

    async def _post(self, post: PostSettings, slot: datetime) -> None:
        services, platform = self._services, post.to.partition(":")[0]
        try:
            reply = await services.responder.respond(kind="post", platform=platform)
        except DoppelError as error:
            now = services.clock.now()
            await services.store.run(slots.claim, post.name, slot, SlotState.FAILED, now=now, reason=str(error))
            raise
        fitted = Reply(tuple(services.delivery.fit(platform, reply.bubbles)), reply.version, reply.reason)
        chat = await services.store.run(
            _claim_and_store, services.store.persona, post, slot, fitted, now=services.clock.now()
        )
        if chat is not None:
            log.info(
                tr(
                    "post {name}: sending to {to} (adapter {version})",
                    name=post.name,
                    to=post.to,
                    version=reply.version,
                )
            )
            self._wake_chat(chat)


def _claim_and_store(
    connection: Connection, persona: str, post: PostSettings, slot: datetime, reply: Reply, *, now: datetime
) -> Chat | None:
    """Claims the slot and stores its post, both or neither; None if there is nothing to send."""
    platform, _, target = post.to.partition(":")
    if not reply.bubbles:
        slots.claim(connection, post.name, slot, SlotState.FAILED, now=now, reason=reply.reason)
        return None
    slot_id = slots.claim(connection, post.name, slot, SlotState.POSTED, now=now)
    if slot_id is None:
        return None
    chat = inbox.get_or_create_chat(connection, persona, platform, target, now=now)
    outbox.add_turn(connection, chat.id, "post", reply.bubbles, adapter=reply.version, now=now, slot_id=slot_id)
    return chat
