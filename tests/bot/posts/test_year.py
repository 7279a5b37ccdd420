"""A year of a daemon that is restarted, suspended and has its clock set at random: which slots get posted.

Only what a schedule talks to is replaced: the responder answers at once, and time passes when all schedules sleep. The
machine is off for most of the year, since every minute that the daemon runs is a real look at the clock.
"""

import asyncio
import heapq
import itertools
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from types import SimpleNamespace
from typing import Any, cast
from zoneinfo import ZoneInfo

from sqlalchemy import select

from bot.chat.conversation import Services
from bot.chat.responder import Reply
from bot.posts.scheduler import GRACE, POLL_INTERVAL, PostScheduler
from bot.posts.triggers import PostTrigger
from bot.store import Store
from bot.store.leases import Leases
from bot.store.schema import SlotState, outbox, slots
from doppel.config import PostSettings

ZONE = ZoneInfo("Europe/Berlin")
START = datetime(2026, 1, 1, 11, 30, tzinfo=UTC)
YEAR = timedelta(days=365)
SEED = 1
POSTS = [
    PostSettings(name="hourly", to="web:a", cron="20 * * * *"),
    PostSettings(name="daily", to="web:a", cron="30 2 * * *", jitter_minutes=45),
    PostSettings(name="weekly", to="web:b", cron="0 12 * * sun"),
    PostSettings(name="interval", to="web:b", every="6h", jitter_minutes=10),
]


class SimulatedMachine:
    """The clock of a machine whose wall clock can be set and goes on in a suspend. Records when somebody could look."""

    def __init__(self) -> None:
        self.wall = START
        self.elapsed = 0.0
        self.awake: list[tuple[datetime, datetime]] = []
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()
        self._all_sleep = asyncio.Event()

    def now(self) -> datetime:
        return self.wall

    def monotonic(self) -> float:
        return self.elapsed

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            return
        sleeper = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.elapsed + seconds, next(self._numbers), sleeper))
        if len(self._sleepers) == len(POSTS):
            self._all_sleep.set()
        await sleeper

    async def run_for(self, seconds: float) -> None:
        """Lets the schedules run: time moves on to the next sleeper whenever all of them sleep."""
        start, end = self.wall, self.elapsed + seconds
        await self._all_sleep.wait()
        while self._sleepers[0][0] <= end:
            due, _, sleeper = heapq.heappop(self._sleepers)
            self._pass(due - self.elapsed)
            self._all_sleep.clear()
            sleeper.set_result(None)
            await self._all_sleep.wait()
        self._pass(end - self.elapsed)
        self.awake.append((start, self.wall))

    def restart(self) -> None:
        """The schedules have been stopped; new ones do not sleep yet."""
        self._sleepers.clear()
        self._all_sleep.clear()

    def set_clock(self, by: timedelta) -> None:
        self.wall += by

    def _pass(self, seconds: float) -> None:
        self.elapsed += seconds
        self.wall += timedelta(seconds=seconds)


def services_on(machine: SimulatedMachine, store: Store) -> Services:
    async def respond(**_: Any) -> Reply:
        return Reply(("hello",), "0001")

    def fit(platform: str, bubbles: Sequence[str]) -> list[str]:
        return list(bubbles)

    parts = {
        "responder": SimpleNamespace(respond=respond),
        "delivery": SimpleNamespace(fit=fit),
        "leases": Leases(store, cast(Any, machine)),
        "access": None,
        "reply": None,
    }
    return Services(store=store, clock=machine, random=Random(1), **cast(Any, parts))


async def live(machine: SimulatedMachine, store: Store, random: Random) -> None:
    """A year of short runs, each of which begins and ends in some way."""
    services = services_on(machine, store)
    scheduler = PostScheduler(POSTS, ZONE, services, lambda chat: None)
    await scheduler.start()
    while machine.wall < START + YEAR:
        await machine.run_for(60 * random.choice([0.2, 2, 5, 15]))
        event = random.choice(["suspend", "short suspend", "restart", "stay down", "set back", "set forward"])
        if event in ("restart", "stay down"):
            await scheduler.stop()
            machine.restart()
            machine.set_clock(timedelta(minutes=1) if event == "restart" else until_some_slot(machine.wall, random))
            scheduler = PostScheduler(POSTS, ZONE, services, lambda chat: None)
            await scheduler.start()
        elif event == "suspend":
            machine.set_clock(until_some_slot(machine.wall, random))
        elif event == "short suspend":
            machine.set_clock(timedelta(minutes=random.uniform(0, 70)))
        elif event == "set back":
            machine.set_clock(-timedelta(minutes=random.choice([0.01, 5, 50, 200])))
        else:
            machine.set_clock(timedelta(minutes=random.choice([0.01, 5, 50, 200])))
    await scheduler.stop()


def until_some_slot(now: datetime, random: Random) -> timedelta:
    """A time of days that ends shortly before, within or shortly after the grace of a slot of one of the schedules."""
    trigger = PostTrigger(random.choice(POSTS), ZONE)
    start = now + timedelta(days=random.uniform(0.1, 5))
    slot = next(trigger.slots(start, start + timedelta(days=8)))
    return trigger.fire_time(slot) + timedelta(minutes=random.uniform(-5, 62)) - now


def could_be_posted(machine: SimulatedMachine, fire_time: datetime) -> bool:
    """Whether the daemon ran for longer than one interval of its looks while the slot was within its grace."""
    return any(min(end, fire_time + GRACE) - max(start, fire_time) > POLL_INTERVAL for start, end in machine.awake)


async def test_every_slot_that_could_be_posted_is_posted_once() -> None:
    machine, store = SimulatedMachine(), Store("sqlite://", "ann")
    try:
        await live(machine, store, Random(SEED))
        query = select(slots.c.schedule, slots.c.due).join(outbox, outbox.c.slot_id == slots.c.id)
        posted = Counter(await store.run(lambda connection: [tuple(row) for row in connection.execute(query)]))
        states = await store.run(lambda connection: {*connection.execute(select(slots.c.state)).scalars()})
    finally:
        store.close()
    assert set(posted.values()) == {1}
    assert states == {SlotState.POSTED}
    for post in POSTS:
        trigger = PostTrigger(post, ZONE)
        fire_times = {slot: trigger.fire_time(slot) for slot in trigger.slots(START, machine.wall)}
        expected = {slot for slot, fire_time in fire_times.items() if could_be_posted(machine, fire_time)}
        assert len(expected) > {"hourly": 100, "daily": 10, "weekly": 10, "interval": 20}[post.name]
        assert expected <= {slot for name, slot in posted if name == post.name}
