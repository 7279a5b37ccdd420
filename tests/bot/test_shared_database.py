"""Two daemons on one database: each chat and each slot is handled by one of them, whatever happens to the other."""

import asyncio
from random import Random

import pytest
from sqlalchemy import update

from bot.platforms import Incoming
from bot.platforms.connection import PlatformConnection
from bot.store import Store
from bot.store.leases import LeaseLost, Leases
from bot.store.schema import OutboxError, leases
from tests.bot.conftest import MakeHarness
from tests.bot.harness import START, FakeClock, FakePlatform, Harness, incoming, no_known_messages

pytestmark = pytest.mark.parametrize("new_store_url", ["postgresql"], indirect=True)

DAILY = {"name": "daily", "to": "telegram:-100", "cron": "0 13 * * *"}


@pytest.fixture
async def first(make_harness: MakeHarness) -> Harness:
    harness = await make_harness(posts=[DAILY])
    harness.engine.always = ["from the first"]
    return harness


@pytest.fixture
async def second(first: Harness, make_harness: MakeHarness) -> Harness:
    harness = await make_harness(posts=[DAILY])
    harness.engine.always = ["from the second"]
    return harness


async def expire_leases(harness: Harness) -> None:
    """As time does when their daemon has been killed or stopped for a while."""
    await harness.store.run(lambda connection: connection.execute(update(leases).values(expires_at=START)))


async def states(harness: Harness) -> list[str]:
    return [state for state, _ in await harness.inbox_states()]


async def test_a_chat_is_answered_by_the_daemon_that_has_it(first: Harness, second: Harness) -> None:
    first.engine.gate.clear()
    await first.on_message(incoming(1))
    await first.clock.advance(10)
    await second.on_message(incoming(2))  # what the second one receives is in the inbox of both
    await second.router.sweep()
    await second.clock.advance(10)
    assert (len(first.engine.prompts), len(second.engine.prompts)) == (1, 0)
    first.engine.gate.set()
    await first.clock.advance(60)
    await second.clock.advance(60)
    assert len(first.platform.texts + second.platform.texts) == 2
    assert await states(first) == ["answered", "answered"]


async def test_a_chat_of_a_dead_daemon_is_taken_over(first: Harness, second: Harness) -> None:
    first.engine.gate.clear()
    await first.on_message(incoming(1))
    await first.clock.advance(10)
    await expire_leases(first)
    await second.clock.advance(60)
    assert second.platform.texts == ["from the second"]
    first.engine.gate.set()  # it was only stopped, and wakes up with its reply
    await first.clock.advance(60)
    assert first.platform.texts == []
    assert await states(first) == ["answered"]


async def test_what_was_being_sent_is_not_sent_by_another(first: Harness, second: Harness) -> None:
    first.platform.hold = asyncio.Event()
    await first.on_message(incoming(1))
    await first.clock.advance(60)
    assert await first.bubbles() == [("from the first", "sending")]
    await expire_leases(first)
    await second.clock.advance(60)
    assert await second.bubbles() == [("from the first", "unknown")]
    first.platform.hold.set()  # the platform had it after all
    await first.resolve()
    assert await second.bubbles() == [("from the first", "sent")]
    assert second.platform.texts == []
    assert await states(first) == ["answered"]


async def test_a_failed_send_does_not_change_what_another_daemon_decided(first: Harness, second: Harness) -> None:
    first.platform.hold = asyncio.Event()
    first.platform.failures = [ConnectionError()]
    await first.on_message(incoming(1))
    await first.clock.advance(60)
    await expire_leases(first)
    await second.clock.advance(60)
    first.platform.hold.set()
    await first.clock.advance(600)
    [row] = await second.outbox_rows()
    assert (row.state, row.error) == ("unknown", OutboxError.INTERRUPTED)
    assert first.platform.texts + second.platform.texts == []


async def test_a_daemon_that_ends_lets_go_at_once(first: Harness, second: Harness) -> None:
    first.engine.gate.clear()
    await first.on_message(incoming(1))
    await first.clock.advance(10)
    await first.stop()
    await second.router.sweep()
    await second.clock.advance(30)
    assert second.platform.texts == ["from the second"]


async def test_a_slot_is_posted_by_one_of_them(first: Harness, second: Harness) -> None:
    for harness in (first, second):
        harness.engine.gate.clear()
        await harness.scheduler.start()
        await harness.clock.advance(3601)
    assert len(first.engine.prompts) + len(second.engine.prompts) == 1
    for harness in (first, second):
        harness.engine.gate.set()
        await harness.clock.advance(300)
    assert len(first.platform.texts + second.platform.texts) == 1
    assert [state for _, state in await first.slot_rows()] == ["posted"]


async def test_a_slot_of_a_dead_daemon_is_posted_by_another(first: Harness, second: Harness) -> None:
    first.engine.gate.clear()
    for harness in (first, second):
        await harness.scheduler.start()
        await harness.clock.advance(3601)
    assert second.engine.prompts == []
    await expire_leases(first)
    await second.clock.advance(120)
    assert second.platform.texts == ["from the second"]
    first.engine.gate.set()
    await first.clock.advance(120)
    assert first.platform.texts == []


async def test_turns_written_at_once_have_different_numbers(first: Harness, second: Harness) -> None:
    for number in range(5):
        await asyncio.gather(
            *(
                harness.router.receive(incoming(number, chat=f"{which}{number}", sender="7"))
                for which, harness in enumerate((first, second))
            )
        )
    for harness in (first, second):
        await harness.clock.advance(60)
    rows = await first.outbox_rows()
    assert len({row.turn for row in rows}) == len(rows) == 10


async def test_the_same_event_received_by_both_is_stored_once(first: Harness, second: Harness) -> None:
    await asyncio.gather(*(harness.router.receive(incoming(n)) for n in range(20) for harness in (first, second)))
    assert len(await states(first)) == 20
    positions = [row.chat_position for row in await first.inbox_rows()]
    assert sorted(positions) == list(range(1, 21))


class OneReceiver(FakePlatform):
    """A service that is polled by one program at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.is_receiving = False

    async def connect(self) -> None:
        pass

    async def run(self, receive: object, connected: object, newest: object) -> None:
        self.is_receiving = True
        try:
            await asyncio.Event().wait()
        finally:
            self.is_receiving = False


async def test_one_daemon_receives_and_all_can_send(store_url: str) -> None:
    async def ignore(_: Incoming) -> None:
        pass

    clock, stores = FakeClock(), [Store(store_url, "ann") for _ in range(2)]
    held = [Leases(store, clock) for store in stores]
    platforms = [OneReceiver(), OneReceiver()]
    connections = [
        PlatformConnection(platform, clock, Random(1), lambda mine=mine: mine.holding("receive:ann:telegram"))  # type: ignore[misc]
        for platform, mine in zip(platforms, held, strict=True)
    ]

    async def settle() -> None:
        for _ in range(20):
            for store in stores:
                await store.run(lambda connection: None)
            await asyncio.sleep(0)

    clock.resolve = settle
    tasks = []
    for connection in connections:
        tasks.append(asyncio.create_task(connection.run(ignore, no_known_messages)))
        await clock.advance(1)
    assert [platform.is_receiving for platform in platforms] == [True, False]
    assert all(connection.connected.is_set() for connection in connections)
    tasks[0].cancel()
    await asyncio.gather(tasks[0], return_exceptions=True)
    await clock.advance(10)
    assert [platform.is_receiving for platform in platforms] == [False, True]
    # The second is cut off for a while: it notices when it renews, and stands by.
    assert await stores[0].run(lambda connection: connection.execute(update(leases).values(owner="other")).rowcount)
    await held[1].renew()
    await clock.advance(1)
    assert [platform.is_receiving for platform in platforms] == [False, False]
    tasks[1].cancel()
    await asyncio.gather(tasks[1], return_exceptions=True)
    for store in stores:
        store.close()


async def test_work_for_a_chat_needs_its_lease(first: Harness, second: Harness) -> None:
    await first.on_message(incoming(1))
    for harness in (first, second):
        assert (await harness.leases.acquire_chat(1, ()))[0] == (harness is first)
    with pytest.raises(LeaseLost):
        await second.leases.run_for_chat(1, lambda connection: None)
