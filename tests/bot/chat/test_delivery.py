"""How bubbles are sent: rhythm, order, splitting, failures."""

import pytest

from bot.platforms import SendFailed
from tests.bot.conftest import MakeHarness
from tests.bot.harness import FakePlatform, Harness, incoming


async def test_bubbles_come_in_the_owners_rhythm(harness: Harness) -> None:
    harness.engine.turns = [["four", "sixsix", "a" * 40]]
    await harness.on_message(incoming(1))
    await harness.clock.advance(60)
    # 2 s of silence, then half a second a character, at most eight
    assert [fire_time for fire_time, _ in harness.platform.sent] == [4.0, 7.0, 15.0]


async def test_time_spent_thinking_counts_as_typing(harness: Harness) -> None:
    harness.engine.gate.clear()
    harness.engine.turns = [["four", "four"]]
    await harness.on_message(incoming(1))
    await harness.clock.advance(3.5)
    harness.engine.gate.set()
    await harness.clock.advance(60)
    assert [fire_time for fire_time, _ in harness.platform.sent] == [4.0, 6.0]


async def test_long_bubble_is_cut_where_the_platform_must(make_harness: MakeHarness) -> None:
    harness = await make_harness(FakePlatform(limit=10))
    harness.engine.turns = [["one two three four", "ok"]]
    await harness.on_message(incoming(1))
    await harness.clock.advance(60)
    assert harness.platform.texts == ["one two", "three four", "ok"]
    assert [one.position for one in await harness.outbox_rows()] == [0, 1, 2]
    assert len({one.id for one in harness.platform.outgoing}) == 3


async def test_failure_is_tried_again_and_order_is_kept(harness: Harness) -> None:
    harness.platform.failures = [SendFailed("busy"), SendFailed("busy")]
    harness.engine.turns = [["aa", "bb"]]
    await harness.on_message(incoming(1))
    await harness.clock.advance(60)
    assert harness.platform.texts == ["aa", "bb"]
    assert [row.attempts for row in await harness.outbox_rows()] == [3, 1]


async def test_wait_the_platform_asks_for_is_kept_in_that_chat_alone(make_harness: MakeHarness) -> None:
    harness = await make_harness(telegram={"allow": [7, 8]})
    harness.platform.failures = [SendFailed("slow down", retry_after=30)]
    harness.engine.turns = [["aa"], ["aa"]]
    await harness.on_message(incoming(1))
    await harness.on_message(incoming(2, chat="8", sender="8"))
    await harness.clock.advance(60)
    assert [
        (fire_time, one.chat)
        for (fire_time, _), one in zip(harness.platform.sent, harness.platform.outgoing, strict=True)
    ] == [
        (3.0, "8"),
        (33.0, "7"),
    ]


async def test_wait_survives_a_restart(harness: Harness) -> None:
    harness.platform.failures = [SendFailed("slow down", retry_after=30)]
    harness.engine.turns = [["aa"]]
    await harness.on_message(incoming(1))
    await harness.clock.advance(10)
    await harness.restart()
    await harness.clock.advance(60)
    assert harness.platform.sent == [(33.0, "aa")]


async def test_permanent_failure_is_final_and_says_why(harness: Harness, caplog: pytest.LogCaptureFixture) -> None:
    harness.platform.failures = [SendFailed("the bot was blocked", permanent=True)]
    harness.engine.turns = [["aa"]]
    await harness.on_message(incoming(1))
    await harness.clock.advance(600)
    (row,) = await harness.outbox_rows()
    assert (row.state, row.error, row.attempts) == ("failed", "the bot was blocked", 1)
    assert "telegram: message dropped: the bot was blocked" in caplog.text


async def test_an_outage_is_waited_out_until_the_reply_is_too_old(make_harness: MakeHarness) -> None:
    harness = await make_harness(reply={"stale_after": "2h"})
    harness.platform.failures = [SendFailed("busy")] * 1000
    harness.engine.turns = [["aa"]]
    await harness.on_message(incoming(1))
    await harness.clock.advance(7000)
    assert await harness.bubbles() == [("aa", "pending")]
    await harness.clock.advance(300)
    (row,) = await harness.outbox_rows()
    assert (row.state, row.error) == ("failed", "too old to send")
    assert 200 < row.attempts < 600
    assert await harness.inbox_states() == [("ignored", "too old to answer")]


async def test_an_outage_of_some_minutes_costs_no_reply(harness: Harness) -> None:
    harness.platform.failures = [SendFailed("no network")] * 10
    harness.engine.turns = [["aa"]]
    await harness.on_message(incoming(1))
    await harness.clock.advance(1800)
    assert await harness.bubbles() == [("aa", "sent")]


async def test_what_may_have_arrived_is_not_sent_again_once_the_service_has_forgotten_it(
    make_harness: MakeHarness,
) -> None:
    harness = await make_harness(FakePlatform(resend_is_safe=True))
    harness.platform.failures = [SendFailed("no answer", unknown=True)] + [SendFailed("no network")] * 10
    harness.engine.turns = [["aa"]]
    await harness.on_message(incoming(1))
    await harness.clock.advance(3600)
    assert await harness.bubbles() == [("aa", "unknown")]
    assert harness.platform.texts == []


@pytest.mark.parametrize(("safe", "state"), [(False, "unknown"), (True, "sent")])
async def test_bubble_that_may_have_arrived_is_sent_again_only_where_that_is_safe(
    make_harness: MakeHarness, safe: bool, state: str
) -> None:
    harness = await make_harness(FakePlatform(resend_is_safe=safe))
    harness.platform.failures = [SendFailed("no answer", unknown=True)]
    harness.engine.turns = [["aa"]]
    await harness.on_message(incoming(1))
    await harness.clock.advance(60)
    assert [row.state for row in await harness.outbox_rows()] == [state]


async def test_platforms_own_mistake_is_unknown_and_stops_nothing(harness: Harness) -> None:
    harness.platform.failures = [ZeroDivisionError("oops")]
    harness.engine.turns = [["aa", "bb"], ["cc"]]
    await harness.on_message(incoming(1))
    await harness.clock.advance(60)
    await harness.on_message(incoming(2))
    await harness.clock.advance(60)
    assert await harness.bubbles() == [("aa", "unknown"), ("bb", "failed"), ("cc", "sent")]


async def test_bubbles_wait_for_the_connection(harness: Harness) -> None:
    line = harness.connections["telegram"]
    line.connected.clear()
    harness.engine.turns = [["aa"]]
    await harness.on_message(incoming(1))
    await harness.clock.advance(600)
    assert await harness.bubbles() == [("aa", "pending")]
    line.connected.set()
    await harness.clock.advance(60)
    assert await harness.bubbles() == [("aa", "sent")]


async def test_turns_are_counted_for_the_report(harness: Harness) -> None:
    harness.engine.turns = [["aa", "bb"], ["cc"]]
    for event in (1, 2):
        await harness.on_message(incoming(event))
        await harness.clock.advance(60)
    assert harness.delivery.sent == {"reply": 2, "post": 0}
