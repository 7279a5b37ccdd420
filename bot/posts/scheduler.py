"""Posts of the persona's own accord: each slot once, also across a restart.

APScheduler wakes it; what is due is worked out from the clock and the slots claimed in the store. The claim and the
post are one transaction. Knows no platform.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from sqlalchemy import Connection

from bot.chat.conversation import Means
from bot.chat.responder import Thought
from bot.posts.triggers import Rhythm, RhythmTrigger
from bot.store import inbox, outbox, slots
from bot.store.schema import Chat
from doppel.config import Config, PostSettings
from doppel.errors import DoppelError, UserError
from doppel.i18n import tr

GRACE = timedelta(hours=1)
"""A slot missed by no more than this, while the daemon was down or busy, is still posted."""

log = logging.getLogger(__name__)


class Schedule:
    """All schedules of config.yaml.

    Args:
        config: `posts` and the owner's zone.
        means: the store where slots are claimed, the voice that says the posts, the clock.
        look: told about a chat with something to send.

    Raises:
        UserError: a post's rhythm cannot be understood.
    """

    def __init__(self, config: Config, means: Means, look: Callable[[Chat], None]) -> None:
        self._posts = [(post, Rhythm(post, config.zone)) for post in config.posts]
        self._means = means
        self._look = look
        self._scheduler = AsyncIOScheduler(timezone=config.zone)

    async def start(self) -> None:
        """Makes up for a slot missed by a short downtime, then waits for the next ones."""
        for post, rhythm in self._posts:
            await self._note_missed(post, rhythm)
            await self.wake(post, rhythm)
            self._scheduler.add_job(
                self.wake,
                RhythmTrigger(rhythm),
                args=(post, rhythm),
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

    async def wake(self, post: PostSettings, rhythm: Rhythm) -> None:
        """Posts the newest slot that is due and was not dealt with; older ones are skipped."""
        try:
            slot = await self._due(post, rhythm)
            if slot is not None:
                await self._publish(post, slot)
        except DoppelError as error:
            log.warning(tr("post {name}: {error}", name=post.name, error=error))

    async def _note_missed(self, post: PostSettings, rhythm: Rhythm) -> None:
        """Says so when slots passed while the daemon was down for longer than the grace."""
        now, store = self._means.clock.now(), self._means.store
        known = await store.run(slots.known_since, post.name, rhythm.text, now)
        last = await store.run(slots.last_claimed, post.name)
        start = known if last is None else max(known, last + timedelta(microseconds=1))
        first = next(rhythm.slots(start), None)
        if first is not None and rhythm.moment(first) < now - GRACE:
            log.info(
                tr(
                    "post {name}: nothing was posted between {first} and now, because doppel was not running",
                    name=post.name,
                    first=f"{first:%Y-%m-%d %H:%M} UTC",
                )
            )

    async def _due(self, post: PostSettings, rhythm: Rhythm) -> datetime | None:
        """The newest slot that is due, if its moment is recent; those before it are claimed as skipped."""
        now, store = self._means.clock.now(), self._means.store
        known = await store.run(slots.known_since, post.name, rhythm.text, now)
        passed = rhythm.due(max(known, now - GRACE - rhythm.jitter), now)
        recent = [slot for slot in passed if rhythm.moment(slot) >= now - GRACE]
        missed = await store.run(slots.unclaimed, post.name, recent)
        if not missed:
            return None
        await store.run(slots.skip, post.name, missed[:-1], now)
        return missed[-1]

    async def _publish(self, post: PostSettings, slot: datetime) -> None:
        means, platform = self._means, post.to.partition(":")[0]
        try:
            thought = await means.voice.say(kind="post", platform=platform)
        except DoppelError as error:
            now = means.clock.now()
            await means.store.run(slots.claim, post.name, slot, "failed", now=now, reason=str(error))
            raise
        fitting = Thought(tuple(means.delivery.fit(platform, thought.bubbles)), thought.version, thought.silence)
        chat = await means.store.run(_claim_and_put, post, slot, fitting, means.clock.now())
        if chat is not None:
            log.info(
                tr("post {name}: to {to} (adapter {version})", name=post.name, to=post.to, version=thought.version)
            )
            self._look(chat)


def check_targets(posts: Sequence[PostSettings], off: Mapping[str, str], on: Sequence[str]) -> None:
    """Raises UserError when a post goes to a platform that does not exist or is off (`off`: name to reason)."""
    for post in posts:
        platform = post.to.partition(":")[0]
        if platform in off:
            raise UserError(
                tr(
                    "config.yaml: post `{name}` goes to {platform}, which is off: {reason}",
                    name=post.name,
                    platform=platform,
                    reason=off[platform],
                )
            )
        if platform not in on:
            raise UserError(
                tr(
                    "config.yaml: post `{name}` goes to {platform}, which is no platform; there are: {known}",
                    name=post.name,
                    platform=platform,
                    known=", ".join(sorted((*on, *off))),
                )
            )


def _claim_and_put(
    connection: Connection, post: PostSettings, slot: datetime, thought: Thought, now: datetime
) -> Chat | None:
    """Claims the slot and writes its post, or neither; None when there is nothing to send."""
    platform, _, target = post.to.partition(":")
    if not thought.bubbles:
        slots.claim(connection, post.name, slot, "failed", now=now, reason=thought.silence)
        return None
    slot_id = slots.claim(connection, post.name, slot, "posted", now=now)
    if slot_id is None:
        return None
    chat = inbox.find_chat(connection, platform, target, now=now)
    outbox.put_turn(connection, chat.id, "post", thought.bubbles, adapter=thought.version, now=now, slot_id=slot_id)
    return chat
