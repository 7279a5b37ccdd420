"""One platform's connection: kept up, and no other's trouble."""

import asyncio
import logging
from collections.abc import Callable
from random import Random

import pytest

from bot.platforms import Incoming, Newest, Receive
from bot.platforms.connection import PlatformConnection
from doppel.errors import DoppelError
from tests.bot.harness import FakeClock, FakePlatform, no_known_messages


class Shaky(FakePlatform):
    """Raises the next of `ends` each time it runs, then stays connected."""

    def __init__(self, *ends: Exception | None) -> None:
        super().__init__("shaky")
        self.ends = list(ends)
        self.runs = 0

    async def run(self, receive: Receive, connected: Callable[[], None], newest: Newest) -> None:
        self.runs += 1
        if self.ends:
            end = self.ends.pop(0)
            if end is not None:
                raise end
            return
        await super().run(receive, connected, newest)

    async def close(self) -> None:
        raise ConnectionError


async def ignore(_: Incoming) -> None:
    pass


async def advance(clock: FakeClock, seconds: float) -> None:
    for _ in range(10):
        await asyncio.sleep(0)
    await clock.advance(seconds)
    for _ in range(10):
        await asyncio.sleep(0)


async def test_failing_platform_is_tried_again_with_growing_waits(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    platform = Shaky(DoppelError("bad token"), OSError("no network"), None)
    connection = PlatformConnection(platform, clock, Random(1))
    with caplog.at_level(logging.INFO):
        task = asyncio.create_task(connection.run(ignore, no_known_messages))
        for runs, seconds in ((2, 2), (3, 4), (4, 8)):
            await advance(clock, seconds)
            assert platform.runs == runs
    assert connection.connected.is_set()
    assert "shaky: bad token (retrying in" in caplog.messages[0]
    assert "shaky: failed; retrying in" in caplog.messages[1]
    assert "shaky: connection ended; reconnecting in" in caplog.messages[2]
    assert caplog.messages[3] == "shaky: connected"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_wait_stays_below_half_a_minute() -> None:
    clock = FakeClock()
    platform = Shaky(*[OSError("no network")] * 30)
    task = asyncio.create_task(PlatformConnection(platform, clock, Random(1)).run(ignore, no_known_messages))
    for _ in range(30):
        await advance(clock, 30)
    assert platform.runs == 31
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_close_never_raises() -> None:
    await PlatformConnection(Shaky(), FakeClock(), Random(1)).close()
