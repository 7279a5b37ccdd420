"""Posts on a schedule: each slot is posted at most once, also across restarts.

Every schedule has a task of its own, which asks at each slot and at least once a minute what is due. The answer
depends only on the wall clock and on the slots claimed in the store, so it is right after a suspend and after somebody
has set the clock; a timer until the next slot, as job schedulers have it, would wait for too long or not long enough.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from bot.cancellation import cancel_tasks
from bot.chat.conversation import Services
from bot.chat.responder import Reply
from bot.chat.retry import RetryTimer, is_counted
from bot.posts.triggers import PostTrigger
from bot.store import inbox, outbox, slots
from bot.store.inbox import MAX_ATTEMPTS
from bot.store.schema import Chat, IgnoreReason, OutboxError, SlotState
from doppel.config import PostSettings
from doppel.engine import EngineError
from doppel.errors import DoppelError
from doppel.i18n import tr

GRACE = timedelta(hours=1)
"""A slot is posted up to this long after its fire time, if the daemon was down or busy or the engine failed."""

POLL_INTERVAL = timedelta(minutes=1)
"""The longest time between two looks at the wall clock."""

log = logging.getLogger(__name__)


class PostScheduler:
    """Runs the schedules of config.yaml.

    Args:
        posts: the schedules.
        zone: the owner's time zone, which cron expressions use.
        services: the store, the responder that writes the posts, the clock.
        wake_chat: called with a chat that has a post to send.

    Raises:
        ValueError: a cron expression is invalid.
    """

    def __init__(
        self, posts: Sequence[PostSettings], zone: ZoneInfo, services: Services, wake_chat: Callable[[Chat], None]
    ) -> None:
        self._schedules = [_Schedule(post, PostTrigger(post, zone), services, wake_chat) for post in posts]
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Starts all schedules. A slot that a short downtime missed is posted at once.

        Raises:
            DoppelError: the database fails.
        """
        for schedule in self._schedules:
            await schedule.register()
        self._tasks = [asyncio.create_task(schedule.run()) for schedule in self._schedules]

    async def stop(self) -> None:
        """Ends all schedules. A post that is being written is lost, its slot stays unclaimed."""
        await cancel_tasks(*self._tasks)


@dataclass
class _FailedSlot:
    """A slot that could not be posted yet, and why. It is kept in memory: after a restart, attempts count anew.

    `generated` is what the engine had generated for everybody at the last attempt.
    """

    slot: datetime
    reason: str = ""
    attempts: int = 0
    generated: int | None = None


class _Schedule:
    """One schedule; `register` comes before `run`."""

    def __init__(
        self, post: PostSettings, trigger: PostTrigger, services: Services, wake_chat: Callable[[Chat], None]
    ) -> None:
        self._post = post
        self._trigger = trigger
        self._services = services
        self._wake_chat = wake_chat
        self._since = self._polled_at = services.clock.now()
        self._failed: _FailedSlot | None = None
        """The last slot that could not be posted."""

    async def register(self) -> None:
        """Stores when the schedule got its trigger, unless that is known."""
        now, store, name = self._services.clock.now(), self._services.store, self._post.name
        self._since = await store.run(slots.trigger_since, store.persona, name, self._trigger.text, now)
        last = await store.run(slots.last_claimed, store.persona, name)
        self._polled_at = self._since if last is None else max(self._since, last + timedelta(microseconds=1))

    async def run(self) -> None:
        """Posts what is due until cancelled. An error is logged when it differs from the one before."""
        timer = RetryTimer(self._services.random)
        last_error = ""
        while True:
            try:
                await self._poll()
                seconds = self._seconds_to_wait()
            except Exception as error:  # noqa: BLE001 - a schedule must go on after any error
                if last_error != (last_error := repr(error)):
                    self._log_error(error)
                seconds = timer.seconds(error)
            else:
                timer.reset()
                last_error = ""
            await self._services.clock.sleep(seconds)

    async def _poll(self) -> None:
        """Posts the newest slot that is due and unclaimed; older ones are skipped.

        Raises whatever prevents it. The slot then stays unclaimed until it is posted, `GRACE` is over, or it has failed
        `MAX_ATTEMPTS` times by itself.
        """
        now = self._services.clock.now()
        self._since = min(self._since, now)  # the clock was ahead when the schedule was registered
        last_polled_at, self._polled_at = self._polled_at, now
        await self._log_missed_slots(last_polled_at, now)
        await self._give_up_failed_slot(now)
        slot = await self._claimable_slot(now)
        leases, lease = self._services.leases, f"schedule:{self._services.store.persona}:{self._post.name}"
        if slot is None or not await leases.acquire(lease):  # else another daemon is writing it
            return
        try:
            await self._make_post(slot)
        except Exception as error:
            if not await self._count_failure(slot, error):
                raise
        finally:
            await leases.release(lease)

    def _seconds_to_wait(self) -> float:
        """Seconds until the next slot fires, at most `POLL_INTERVAL`."""
        now = self._services.clock.now()
        if not timedelta() <= now - self._polled_at <= POLL_INTERVAL:
            return 0.0  # writing a post took long, or the clock was set
        end = now + POLL_INTERVAL
        fire_times = map(self._trigger.fire_time, self._trigger.firing(self._polled_at, end))
        return (min(fire_times, default=end) - now).total_seconds()

    def _log_error(self, error: Exception) -> None:
        if isinstance(error, DoppelError):
            log.warning(tr("post {name}: {error} (retrying)", name=self._post.name, error=error))
        else:
            log.error(tr("post {name}: failed; retrying", name=self._post.name), exc_info=error)

    async def _log_missed_slots(self, start: datetime, now: datetime) -> None:
        """Logs that slots from `start` on passed unseen for longer than `GRACE`."""
        missed = (
            slot for slot in self._trigger.slots(start, now - GRACE) if self._trigger.fire_time(slot) <= now - GRACE
        )
        some = list(islice(missed, 100))
        store = self._services.store
        unclaimed = await store.run(slots.unclaimed, store.persona, self._post.name, some) if some else []
        if unclaimed:
            log.info(
                tr(
                    "post {name}: nothing was posted since {first}, because doppel or this machine was not running",
                    name=self._post.name,
                    first=f"{unclaimed[0]:%Y-%m-%d %H:%M} UTC",
                )
            )

    async def _give_up_failed_slot(self, now: datetime) -> None:
        """Claims the slot that could not be posted as failed when its `GRACE` is over."""
        if self._failed is None or not self._is_too_late(self._failed.slot, now):
            return
        reason = self._failed.reason
        if await self._claim_as_failed(self._failed.slot, reason, now):
            log.warning(tr("post {name}: given up after an hour: {error}", name=self._post.name, error=reason))
        self._failed = None

    async def _count_failure(self, slot: datetime, error: Exception) -> bool:
        """Remembers a failed attempt at a slot; claims the slot and returns True if it was the last one."""
        failed = self._failed if self._failed is not None and self._failed.slot == slot else _FailedSlot(slot)
        failed.reason = str(error) if isinstance(error, DoppelError) else repr(error)
        generated = self._services.responder.generated
        has_served_others = failed.generated is not None and generated > failed.generated
        failed.generated, self._failed = generated, failed
        is_of_the_store = isinstance(error, DoppelError) and not isinstance(error, EngineError)
        failed.attempts += not is_of_the_store and is_counted(error, has_served_others=has_served_others)
        if failed.attempts < MAX_ATTEMPTS:
            return False
        if not isinstance(error, DoppelError):
            self._log_error(error)
        if await self._claim_as_failed(slot, failed.reason, self._services.clock.now()):
            values = {"name": self._post.name, "count": failed.attempts, "error": failed.reason}
            log.warning(tr("post {name}: given up after {count} attempts: {error}", **values))
        self._failed = None
        return True

    async def _claim_as_failed(self, slot: datetime, reason: str, now: datetime) -> bool:
        """Claims a slot that will not be posted; returns False if it was claimed before."""
        store = self._services.store
        claim = store.run(slots.claim, store.persona, self._post.name, slot, SlotState.FAILED, now=now, reason=reason)
        return await claim is not None

    def _is_too_late(self, slot: datetime, now: datetime) -> bool:
        return self._trigger.fire_time(slot) <= now - GRACE

    async def _claimable_slot(self, now: datetime) -> datetime | None:
        """The newest unclaimed slot within `GRACE`; those before it are claimed as skipped."""
        store, persona, name = self._services.store, self._services.store.persona, self._post.name
        due = [slot for slot in self._trigger.firing(now - GRACE, now) if slot >= self._since]
        unclaimed = await store.run(slots.unclaimed, persona, name, due) if due else []
        if not unclaimed:
            return None
        if unclaimed[:-1]:
            await store.run(slots.skip, persona, name, unclaimed[:-1], now)
        return unclaimed[-1]

    async def _make_post(self, slot: datetime) -> None:
        services, post, platform = self._services, self._post, self._post.to.partition(":")[0]
        reply = await services.responder.respond(kind="post", platform=platform)
        now = services.clock.now()
        if self._is_too_late(slot, now):  # the engine was away all the while
            await self._claim_as_failed(slot, OutboxError.STALE, now)
            log.warning(tr("post {name}: given up after an hour: {error}", name=post.name, error=OutboxError.STALE))
            return
        fitted = Reply(tuple(services.delivery.fit(platform, reply.bubbles)), reply.version, reply.reason)
        chat = await services.store.run(_claim_and_store, services.store.persona, post, slot, fitted, now=now)
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
        elif reply.reason is IgnoreReason.SILENT and not fitted.bubbles:
            log.info(tr("post {name}: nothing was posted, the persona had nothing to say", name=post.name))


def _claim_and_store(
    connection: Connection, persona: str, post: PostSettings, slot: datetime, reply: Reply, *, now: datetime
) -> Chat | None:
    """Claims the slot and stores its post, both or neither; None if there is nothing to send."""
    platform, _, target = post.to.partition(":")
    if not reply.bubbles:
        slots.claim(connection, persona, post.name, slot, SlotState.FAILED, now=now, reason=reply.reason)
        return None
    slot_id = slots.claim(connection, persona, post.name, slot, SlotState.POSTED, now=now)
    if slot_id is None:
        return None
    chat = inbox.get_or_create_chat(connection, persona, platform, target, now=now)
    outbox.add_turn(connection, chat.id, "post", reply.bubbles, adapter=reply.version, now=now, slot_id=slot_id)
    return chat
