"""Posts of its own accord: each slot once, also across restarts, suspends and a clock that is set."""

import asyncio
import logging
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from bot.chat.conversation import Services
from bot.chat.responder import Reply
from bot.chat.retry import LONGEST_WAIT
from bot.clock import SystemClock
from bot.posts.scheduler import PostScheduler
from bot.store import schema, slots
from bot.store.inbox import MAX_ATTEMPTS
from doppel.engine import EngineBusy, EngineError, EngineUnavailable
from doppel.errors import DoppelError
from tests.bot.conftest import MakeHarness
from tests.bot.harness import START, Harness, incoming

DAILY = {"name": "daily", "to": "telegram:-100", "cron": "0 13 * * *"}
HALF_HOURLY = {"name": "often", "to": "telegram:-100", "every": "30m"}
SLOT = START + timedelta(hours=1)
MINUTE = 60.0
HOUR = 3600.0


async def restart(harness: Harness) -> None:
    await harness.restart()
    await harness.scheduler.start()
    await harness.resolve()


async def start(make_harness: MakeHarness, *posts: dict[str, Any]) -> Harness:
    """A harness with schedules that begin an hour before the slot of `DAILY`."""
    harness = await make_harness(posts=list(posts))
    await harness.scheduler.start()
    await harness.resolve()
    return harness


async def claims(harness: Harness) -> list[Any]:
    query = select(schema.slots).order_by(schema.slots.c.due)
    return await harness.store.run(lambda connection: list(connection.execute(query)))


@pytest.fixture
async def daily(make_harness: MakeHarness) -> Harness:
    harness = await start(make_harness, DAILY)
    harness.engine.turns = [["good day", "everyone"], ["again"]]
    return harness


async def test_slot_is_posted_through_the_outbox_with_an_empty_context(daily: Harness) -> None:
    await daily.clock.advance(HOUR - 1)
    assert daily.engine.prompts == []
    await daily.clock.advance(61)
    assert daily.platform.texts == ["good day", "everyone"]
    assert {one.chat for one in daily.platform.outgoing} == {"-100"}
    assert daily.engine.prompts[0].endswith("post]\n\nme:")
    rows = await daily.outbox_rows()
    assert [(row.kind, row.adapter, row.slot_id) for row in rows] == [("post", "0001", 1)] * 2
    assert await daily.slot_rows() == [(SLOT, "posted")]
    assert daily.delivery.sent["post"] == 1


async def test_slot_fires_at_its_second(make_harness: MakeHarness) -> None:
    harness = await make_harness(posts=[{"name": "often", "to": "telegram:-100", "every": "90s"}])
    harness.engine.turns = [["zero"], ["one"], ["two"]]
    await harness.scheduler.start()
    await harness.clock.advance(185)
    assert [row.claimed_at for row in await claims(harness)] == [START + n * timedelta(seconds=90) for n in range(3)]


async def test_slot_fires_once_also_across_a_restart(daily: Harness) -> None:
    await daily.clock.advance(HOUR + 60)
    await restart(daily)
    await daily.clock.advance(5 * MINUTE)
    assert daily.platform.texts == ["good day", "everyone"]


async def test_slot_missed_by_a_short_downtime_is_made_up_for(daily: Harness) -> None:
    await daily.scheduler.stop()
    await daily.clock.advance(HOUR + 1800)
    await restart(daily)
    await daily.clock.advance(60)
    assert daily.platform.texts == ["good day", "everyone"]


async def test_slot_missed_by_a_long_downtime_is_skipped_and_logged(
    daily: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    await daily.scheduler.stop()
    await daily.clock.advance(3 * HOUR)
    with caplog.at_level(logging.INFO):
        await restart(daily)
    await daily.clock.advance(60)
    assert daily.platform.texts == []
    assert "post daily: nothing was posted since 2026-03-02 13:00 UTC" in caplog.text


async def test_only_the_newest_of_several_missed_slots_is_posted(make_harness: MakeHarness) -> None:
    harness = await make_harness(posts=[{"name": "often", "to": "telegram:-100", "every": "10m"}])
    harness.engine.turns = [["zero"], ["newest"]]
    await harness.scheduler.start()
    await harness.clock.advance(5)
    await harness.scheduler.stop()
    await harness.clock.advance(1800)
    await restart(harness)
    await harness.clock.advance(60)
    assert harness.platform.texts == ["zero", "newest"]
    assert [state for _, state in await harness.slot_rows()] == ["posted", "skipped", "skipped", "posted"]


async def test_slot_before_the_schedule_was_written_is_not_posted(make_harness: MakeHarness) -> None:
    harness = await start(make_harness, {"name": "daily", "to": "telegram:-100", "cron": "30 11 * * *"})
    harness.engine.turns = [["too late"]]
    await harness.clock.advance(60)
    assert harness.platform.texts == []
    assert await harness.slot_rows() == []


async def test_stop_while_writing_does_not_lose_the_post(daily: Harness) -> None:
    daily.engine.gate.clear()
    await daily.clock.advance(HOUR)
    assert len(daily.engine.prompts) == 1
    await daily.scheduler.stop()
    assert daily.engine.cancelled == 1
    daily.engine.gate.set()
    await restart(daily)
    await daily.clock.advance(60)
    assert daily.platform.texts == ["good day", "everyone"]


async def test_suspend_over_a_slot_posts_it_within_the_grace(daily: Harness) -> None:
    await daily.clock.advance(HOUR / 2)
    daily.clock.suspend(HOUR)  # from 12:30 to 13:30
    await daily.clock.advance(2 * MINUTE)
    assert daily.platform.texts == ["good day", "everyone"]
    assert await daily.slot_rows() == [(SLOT, "posted")]


async def test_suspend_for_longer_is_logged_and_the_next_day_posted(
    daily: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    await daily.clock.advance(HOUR / 2)
    with caplog.at_level(logging.INFO):
        daily.clock.suspend(4 * HOUR)
        await daily.clock.advance(2 * MINUTE)
        daily.clock.suspend(20 * HOUR)
        await daily.clock.advance(HOUR)
    assert caplog.text.count("post daily: nothing was posted since 2026-03-02 13:00 UTC") == 1
    assert await daily.slot_rows() == [(SLOT + timedelta(days=1), "posted")]


async def test_clock_set_back_does_not_post_twice(daily: Harness) -> None:
    await daily.clock.advance(HOUR + 10 * MINUTE)
    daily.clock.wall_offset -= timedelta(minutes=30)
    await daily.clock.advance(HOUR)
    assert daily.platform.texts == ["good day", "everyone"]


async def test_clock_set_forward_over_a_slot_posts_it(daily: Harness) -> None:
    daily.clock.wall_offset += timedelta(minutes=110)
    await daily.clock.advance(2 * MINUTE)
    assert daily.platform.texts == ["good day", "everyone"]


async def test_clock_that_was_ahead_when_the_schedule_was_new(make_harness: MakeHarness) -> None:
    harness = await make_harness(posts=[DAILY])
    harness.engine.turns = [["good day"]]
    harness.clock.wall_offset = timedelta(hours=5)
    await harness.scheduler.start()
    await harness.clock.advance(60)
    harness.clock.wall_offset = timedelta()
    await harness.clock.advance(HOUR)
    assert await harness.slot_rows() == [(SLOT, "posted")]


async def test_failed_post_is_retried(daily: Harness, caplog: pytest.LogCaptureFixture) -> None:
    daily.engine.turns = [EngineUnavailable(reason) for reason in ("full", "full", "closed", "closed")]
    daily.engine.always = ["at last"]
    await daily.clock.advance(HOUR + 5 * MINUTE)
    assert daily.platform.texts == ["at last"]
    assert await daily.slot_rows() == [(SLOT, "posted")]
    assert caplog.text.count("post daily: full (retrying)") == 1
    assert caplog.text.count("post daily: closed (retrying)") == 1


async def test_post_that_always_fails_is_given_up_after_the_grace(
    daily: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    daily.engine.fault = lambda prompt: EngineUnavailable("full")
    await daily.clock.advance(HOUR + 59 * MINUTE)
    assert await daily.slot_rows() == []
    attempts = len(daily.engine.prompts)
    assert attempts >= 59 * MINUTE / LONGEST_WAIT
    await daily.clock.advance(2 * HOUR)
    assert await daily.slot_rows() == [(SLOT, "failed")]
    assert len(daily.engine.prompts) <= attempts + 2 * MINUTE / LONGEST_WAIT
    assert [row.reason for row in await claims(daily)] == ["full"]
    assert caplog.text.count("post daily: full (retrying)") == 1
    assert caplog.text.count("post daily: given up after an hour: full") == 1


async def test_prompt_at_which_the_engine_fails_is_given_up_after_a_few_attempts(
    make_harness: MakeHarness, caplog: pytest.LogCaptureFixture
) -> None:
    harness = await make_harness(posts=[HALF_HOURLY])
    harness.engine.fault = lambda prompt: EngineError("too long")
    await harness.scheduler.start()
    await harness.clock.advance(20 * MINUTE)
    assert len(harness.engine.prompts) == MAX_ATTEMPTS
    assert await harness.slot_rows() == [(START, "failed")]
    assert [row.reason for row in await claims(harness)] == ["too long"]
    assert caplog.text.count("post often: too long (retrying)") == 1
    assert caplog.text.count("post often: given up after 3 attempts: too long") == 1
    harness.engine.fault = lambda prompt: None
    harness.engine.turns = [["good day"]]
    await harness.clock.advance(20 * MINUTE)
    assert harness.platform.texts == ["good day"]


async def test_each_slot_has_its_own_attempts(make_harness: MakeHarness) -> None:
    harness = await make_harness(posts=[HALF_HOURLY])
    failures = [EngineError("too long")] * (MAX_ATTEMPTS - 1)
    harness.engine.turns = [*failures, ["first"], *failures, ["second"]]
    await harness.scheduler.start()
    await harness.clock.advance(40 * MINUTE)
    assert harness.platform.texts == ["first", "second"]


@pytest.mark.parametrize(("error", "given_up"), [(EngineUnavailable("gone"), True), (EngineBusy("full"), False)])
async def test_engine_that_serves_others_meanwhile_fails_at_this_prompt(
    daily: Harness, error: EngineError, given_up: bool
) -> None:
    def fault(prompt: str) -> EngineError:
        daily.responder.generated += 1  # as if it had answered a chat
        return error

    daily.engine.fault = fault
    await daily.clock.advance(HOUR + 10 * MINUTE)
    assert await daily.slot_rows() == ([(SLOT, "failed")] if given_up else [])


async def test_engine_says_when_to_come_back(daily: Harness) -> None:
    daily.engine.turns = [EngineUnavailable("restarting", retry_after=20.0), ["back"]]
    await daily.clock.advance(HOUR + 19)
    assert len(daily.engine.prompts) == 1
    await daily.clock.advance(10)
    assert daily.platform.texts == ["back"]


async def test_post_is_not_made_more_than_an_hour_late(daily: Harness, caplog: pytest.LogCaptureFixture) -> None:
    daily.responder.stop()
    await daily.clock.advance(3 * HOUR)
    await daily.start_responder()
    await daily.clock.advance(MINUTE)
    assert daily.platform.texts == []
    assert await daily.slot_rows() == [(SLOT, "failed")]
    assert caplog.text.count("post daily: given up after an hour: too old to send") == 1


async def test_unexpected_error_that_stays_is_given_up(
    daily: Harness, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(**arguments: Any) -> Reply:
        raise RuntimeError("boom")

    monkeypatch.setattr(daily.responder, "respond", fail)
    await daily.clock.advance(HOUR + 5 * MINUTE)
    assert [row.reason for row in await claims(daily)] == ["RuntimeError('boom')"]
    assert "post daily: given up after 3 attempts: RuntimeError('boom')" in caplog.text


async def test_unexpected_error_is_logged_and_retried(
    daily: Harness, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    respond = daily.responder.respond
    errors = [RuntimeError("boom"), RuntimeError("boom")]

    async def fail_first(**arguments: Any) -> Reply:
        if errors:
            raise errors.pop()
        return await respond(**arguments)

    monkeypatch.setattr(daily.responder, "respond", fail_first)
    await daily.clock.advance(HOUR + 5 * MINUTE)
    assert daily.platform.texts == ["good day", "everyone"]
    assert caplog.text.count("post daily: failed; retrying") == 1
    assert caplog.text.count("Traceback") == 1


async def test_database_error_does_not_end_the_schedule(
    daily: Harness, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> list[Any]:
        raise DoppelError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(slots, "unclaimed", fail)
        await daily.clock.advance(HOUR + 5 * MINUTE)
    assert daily.engine.prompts == []
    await daily.clock.advance(5 * MINUTE)
    assert daily.platform.texts == ["good day", "everyone"]
    assert caplog.text.count("post daily: disk full (retrying)") == 1


async def test_one_schedule_does_not_block_another(make_harness: MakeHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    harness = await start(
        make_harness,
        {**DAILY, "name": "stuck"},
        {**DAILY, "name": "broken"},
        {**DAILY, "name": "fine", "cron": "1 13 * * *"},
    )
    respond, calls = harness.responder.respond, 0

    async def by_turns(**arguments: Any) -> Reply:
        nonlocal calls
        calls += 1
        if calls == 1:
            await asyncio.Event().wait()
        if calls <= 3:
            raise RuntimeError("boom")
        return await respond(**arguments)

    monkeypatch.setattr(harness.responder, "respond", by_turns)
    harness.engine.turns = [["one"], ["two"]]
    await harness.clock.advance(HOUR + 5 * MINUTE)
    assert sorted(harness.platform.texts) == ["one", "two"]
    assert [state for _, state in await harness.slot_rows()] == ["posted", "posted"]


async def test_nothing_to_say_is_not_retried(daily: Harness, caplog: pytest.LogCaptureFixture) -> None:
    daily.engine.turns = [[]] * 10
    with caplog.at_level(logging.INFO):
        await daily.clock.advance(HOUR + 10 * MINUTE)
    assert await daily.slot_rows() == [(SLOT, "failed")]
    assert len(daily.engine.prompts) == 3  # the attempts of one reply
    assert "post daily: nothing was posted, the persona had nothing to say" in caplog.text


async def test_new_message_does_not_drop_a_post(make_harness: MakeHarness) -> None:
    harness = await start(make_harness, {**DAILY, "to": "telegram:7"})
    harness.engine.turns = [["one one", "two two"], ["answer"]]
    await harness.clock.advance(HOUR)
    await harness.on_message(incoming(1))
    await harness.clock.advance(60)
    assert harness.platform.texts == ["one one", "two two", "answer"]


async def test_system_clock_wakes_it(make_harness: MakeHarness) -> None:
    harness = await make_harness(posts=[{"name": "often", "to": "telegram:-100", "every": "1s"}])
    harness.engine.turns = [["tick"]] * 100
    posted = asyncio.Event()
    services = Services(**{**vars(harness.services), "clock": SystemClock()})
    scheduler = PostScheduler(harness.config.posts, harness.config.zone, services, lambda chat: posted.set())
    await scheduler.start()
    async with asyncio.timeout(20):
        await posted.wait()
    await scheduler.stop()
