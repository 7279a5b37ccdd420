"""Posts of its own accord: each slot once, also across restarts."""

import asyncio
import logging
from datetime import timedelta
from typing import Any

import pytest

from bot.clock import SystemClock
from bot.posts.scheduler import PostScheduler
from bot.posts.triggers import PostTrigger
from doppel.config import PostSettings
from doppel.engine import EngineError
from tests.bot.conftest import MakeHarness
from tests.bot.harness import START, Harness, incoming

DAILY = {"name": "daily", "to": "telegram:-100", "cron": "0 13 * * *"}
HOUR = 3600.0


async def wake(harness: Harness) -> None:
    for post, trigger in harness.scheduler._posts:
        await harness.scheduler.wake(post, trigger)
    await harness.resolve()


async def restart(harness: Harness) -> None:
    """As the daemon does it: the schedule looks for missed slots when it starts."""
    harness.scheduler.stop()
    await harness.restart()
    await harness.scheduler.start()
    await harness.resolve()


@pytest.fixture
async def daily(make_harness: MakeHarness) -> Harness:
    harness = await make_harness(posts=[DAILY])
    harness.engine.turns = [["good day", "everyone"], ["again"]]
    await wake(harness)
    return harness


async def test_slot_is_posted_through_the_outbox_with_an_empty_context(daily: Harness) -> None:
    await daily.clock.advance(HOUR)
    await wake(daily)
    await daily.clock.advance(60)
    assert daily.platform.texts == ["good day", "everyone"]
    assert {one.chat for one in daily.platform.outgoing} == {"-100"}
    assert daily.engine.prompts[0].endswith("post]\n\nme:")
    rows = await daily.outbox_rows()
    assert [(row.kind, row.adapter, row.slot_id) for row in rows] == [("post", "0001", 1)] * 2
    assert await daily.slot_rows() == [(START + timedelta(hours=1), "posted")]
    assert daily.delivery.sent["post"] == 1


async def test_slot_fires_once_also_across_a_restart(daily: Harness) -> None:
    await daily.clock.advance(HOUR)
    await wake(daily)
    await wake(daily)
    await daily.clock.advance(60)
    await restart(daily)
    await daily.clock.advance(60)
    assert daily.platform.texts == ["good day", "everyone"]


async def test_slot_missed_by_a_short_downtime_is_made_up_for(daily: Harness) -> None:
    await daily.clock.advance(HOUR + 1800)
    await restart(daily)
    await daily.clock.advance(60)
    assert daily.platform.texts == ["good day", "everyone"]


async def test_slot_missed_by_a_long_downtime_is_skipped_and_said(
    daily: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    await daily.clock.advance(3 * HOUR)
    with caplog.at_level(logging.INFO):
        await restart(daily)
    await daily.clock.advance(60)
    assert daily.platform.texts == []
    assert "post daily: nothing was posted since 2026-03-02 13:00 UTC" in caplog.text


async def test_only_the_newest_of_several_missed_slots_is_posted(make_harness: MakeHarness) -> None:
    harness = await make_harness(posts=[{"name": "often", "to": "telegram:-100", "every": "10m"}])
    harness.engine.turns = [["zero"], ["newest"]]
    await wake(harness)
    await harness.clock.advance(1805)
    await restart(harness)
    await harness.clock.advance(60)
    assert harness.platform.texts == ["zero", "newest"]
    assert [state for _, state in await harness.slot_rows()] == ["posted", "skipped", "skipped", "posted"]


async def test_slot_before_the_schedule_was_written_is_nobodys(make_harness: MakeHarness) -> None:
    harness = await make_harness(posts=[{"name": "daily", "to": "telegram:-100", "cron": "30 11 * * *"}])
    harness.engine.turns = [["too late"]]
    await wake(harness)
    await harness.clock.advance(60)
    assert harness.platform.texts == []
    assert await harness.slot_rows() == []


async def test_crash_while_thinking_does_not_lose_the_post(daily: Harness) -> None:
    daily.engine.gate.clear()
    await daily.clock.advance(HOUR)
    thinking = asyncio.create_task(wake(daily))
    await daily.resolve()
    assert len(daily.engine.prompts) == 1
    thinking.cancel()
    await daily.resolve()
    daily.engine.gate.set()
    await restart(daily)
    await daily.clock.advance(60)
    assert daily.platform.texts == ["good day", "everyone"]


async def test_failed_post_is_recorded_and_not_repeated(daily: Harness, caplog: pytest.LogCaptureFixture) -> None:
    daily.engine.turns = [EngineError("full"), ["later"]]
    await daily.clock.advance(HOUR)
    await wake(daily)
    await wake(daily)
    await daily.clock.advance(60)
    assert daily.platform.texts == []
    assert [state for _, state in await daily.slot_rows()] == ["failed"]
    assert "post daily: full" in caplog.text


async def test_new_message_does_not_drop_a_post(make_harness: MakeHarness) -> None:
    harness = await make_harness(posts=[{**DAILY, "to": "telegram:7"}])
    harness.engine.turns = [["one one", "two two"], ["answer"]]
    await wake(harness)
    await harness.clock.advance(HOUR)
    await wake(harness)
    await harness.on_message(incoming(1))
    await harness.clock.advance(60)
    assert harness.platform.texts == ["one one", "two two", "answer"]


async def test_scheduler_wakes_by_itself(make_harness: MakeHarness) -> None:
    harness = await make_harness(posts=[{"name": "often", "to": "telegram:-100", "every": "0.05s"}])
    harness.engine.turns = [["tick"]] * 100
    posted = asyncio.Event()
    harness.services = type(harness.services)(**{**vars(harness.services), "clock": SystemClock()})
    schedule = PostScheduler(harness.config.posts, harness.config.zone, harness.services, lambda chat: posted.set())
    await schedule.start()
    async with asyncio.timeout(20):
        await posted.wait()
    schedule.stop()
    await asyncio.sleep(0)
    assert not schedule._scheduler.running


def post(**content: Any) -> PostSettings:
    return PostSettings(name="daily", every="6h", **content)


def test_rhythm_text_changes_with_what_slots_depend_on(make_harness: MakeHarness) -> None:
    from zoneinfo import ZoneInfo

    texts = {
        PostTrigger(post(to="web:a"), ZoneInfo("UTC")).text,
        PostTrigger(post(to="web:b"), ZoneInfo("Asia/Tokyo")).text,
        PostTrigger(post(to="web:b", jitter_minutes=3), ZoneInfo("UTC")).text,
    }
    assert len(texts) == 3
