"""An engine that fails is reopened; one that keeps failing or hangs ends the daemon."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from bot.cancellation import cancel_tasks
from bot.chat.engine_supervisor import EngineSupervisor
from bot.chat.responder import HANG_SECONDS
from doppel.config import Config
from doppel.engine import EngineUnavailable, Health
from doppel.errors import ExitCode, TryAgainLater
from tests.bot.conftest import MakeHarness
from tests.bot.harness import FakeEngine, Harness, incoming


class MortalEngine(FakeEngine):
    """Can die as a local engine does when its thread ends."""

    failure: str | None = None

    def die(self) -> None:
        self.failure = "the model failed: out of memory"
        self.fault = lambda prompt: EngineUnavailable("the engine is closed")

    def health(self) -> Health:
        return Health(self.failure is None, tuple(self.loaded), self.failure)


class Supervised:
    """A harness whose engine is opened by a supervisor; `engines` are those it has opened."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.engines: list[MortalEngine] = []
        self.supervisor = EngineSupervisor(harness.config, self._open, harness.responder, harness.clock)
        self.task = asyncio.create_task(self.supervisor.run())

    def _open(self, config: Config) -> MortalEngine:
        engine = MortalEngine(self.harness.engine.transcript)
        engine.always = [f"from engine {len(self.engines) + 1}"]
        self.engines.append(engine)
        return engine

    async def opened(self, count: int) -> None:
        """Waits until so many engines were opened and the last one is in use; opening is done by a real thread."""
        async with asyncio.timeout(20):
            while len(self.engines) < count or not self.harness.responder.is_ready():
                await self.harness.clock.advance(1)


@pytest.fixture
async def supervised(make_harness: MakeHarness) -> AsyncIterator[Supervised]:
    supervised = Supervised(await make_harness(ready=False))
    await supervised.opened(1)
    yield supervised
    await cancel_tasks(supervised.task)


async def test_a_dead_engine_is_reopened_and_nothing_is_lost(supervised: Supervised) -> None:
    harness = supervised.harness
    supervised.engines[0].die()
    await harness.on_message(incoming(1))
    await supervised.opened(2)
    await harness.clock.advance(60)
    assert harness.platform.texts == ["from engine 2"]
    assert supervised.supervisor.failure is None


async def test_an_engine_that_keeps_failing_ends_the_daemon(supervised: Supervised) -> None:
    for count in (1, 2, 3):
        supervised.engines[-1].die()
        await supervised.opened(count + 1)
    supervised.engines[-1].die()
    await supervised.harness.clock.advance(5)
    with pytest.raises(TryAgainLater, match="keeps failing: the model failed: out of memory") as ended:
        await asyncio.wait_for(supervised.task, 20)
    assert ended.value.exit_code == ExitCode.TRY_AGAIN


async def test_failures_far_apart_are_not_added_up(supervised: Supervised) -> None:
    for count in range(1, 6):
        supervised.engines[-1].die()
        await supervised.opened(count + 1)
        await supervised.harness.clock.advance(400)
    assert not supervised.task.done()


async def test_an_engine_that_hangs_ends_the_daemon(supervised: Supervised) -> None:
    supervised.engines[0].gate.clear()
    await supervised.harness.on_message(incoming(1))
    await supervised.harness.clock.advance(HANG_SECONDS)
    assert not supervised.task.done()
    await supervised.harness.clock.advance(5)
    with pytest.raises(TryAgainLater, match="does not respond"):
        await asyncio.wait_for(supervised.task, 20)
