"""How bubbles are sent: rhythm, order, splitting, failures."""

import pytest

from bot.platforms import SendFailed
from tests.bot.conftest import MakeStage
from tests.bot.stage import FakePlatform, Stage, incoming


async def test_bubbles_come_in_the_owners_rhythm(stage: Stage) -> None:
    stage.engine.turns = [["four", "sixsix", "a" * 40]]
    await stage.hear(incoming(1))
    await stage.clock.advance(60)
    # 2 s of silence, then half a second a character, at most eight
    assert [moment for moment, _ in stage.platform.sent] == [4.0, 7.0, 15.0]


async def test_time_spent_thinking_counts_as_typing(stage: Stage) -> None:
    stage.engine.gate.clear()
    stage.engine.turns = [["four", "four"]]
    await stage.hear(incoming(1))
    await stage.clock.advance(3.5)
    stage.engine.gate.set()
    await stage.clock.advance(60)
    assert [moment for moment, _ in stage.platform.sent] == [4.0, 6.0]


async def test_long_bubble_is_cut_where_the_platform_must(make_stage: MakeStage) -> None:
    stage = await make_stage(FakePlatform(limit=10))
    stage.engine.turns = [["one two three four", "ok"]]
    await stage.hear(incoming(1))
    await stage.clock.advance(60)
    assert stage.platform.texts == ["one two", "three four", "ok"]
    assert [one.position for one in await stage.outbox_rows()] == [0, 1, 2]
    assert len({one.id for one in stage.platform.outgoing}) == 3


async def test_failure_is_tried_again_and_order_is_kept(stage: Stage) -> None:
    stage.platform.failures = [SendFailed("busy"), SendFailed("busy")]
    stage.engine.turns = [["aa", "bb"]]
    await stage.hear(incoming(1))
    await stage.clock.advance(60)
    assert stage.platform.texts == ["aa", "bb"]
    assert [row.attempts for row in await stage.outbox_rows()] == [3, 1]


async def test_wait_the_platform_asks_for_is_kept_in_that_chat_alone(make_stage: MakeStage) -> None:
    stage = await make_stage(telegram={"allow": [7, 8]})
    stage.platform.failures = [SendFailed("slow down", retry_after=30)]
    stage.engine.turns = [["aa"], ["aa"]]
    await stage.hear(incoming(1))
    await stage.hear(incoming(2, chat="8", sender="8"))
    await stage.clock.advance(60)
    assert [
        (moment, one.chat) for (moment, _), one in zip(stage.platform.sent, stage.platform.outgoing, strict=True)
    ] == [
        (3.0, "8"),
        (33.0, "7"),
    ]


async def test_wait_survives_a_restart(stage: Stage) -> None:
    stage.platform.failures = [SendFailed("slow down", retry_after=30)]
    stage.engine.turns = [["aa"]]
    await stage.hear(incoming(1))
    await stage.clock.advance(10)
    await stage.restart()
    await stage.clock.advance(60)
    assert stage.platform.sent == [(33.0, "aa")]


async def test_permanent_failure_is_final_and_says_why(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    stage.platform.failures = [SendFailed("the bot was blocked", permanent=True)]
    stage.engine.turns = [["aa"]]
    await stage.hear(incoming(1))
    await stage.clock.advance(600)
    (row,) = await stage.outbox_rows()
    assert (row.state, row.error, row.attempts) == ("failed", "the bot was blocked", 1)
    assert "telegram: a bubble was given up: the bot was blocked" in caplog.text


async def test_failing_for_ever_is_given_up(stage: Stage) -> None:
    stage.platform.failures = [SendFailed("busy")] * 100
    stage.engine.turns = [["aa"]]
    await stage.hear(incoming(1))
    await stage.clock.advance(3000)
    assert await stage.bubbles() == [("aa", "pending")]
    await stage.clock.advance(1200)
    (row,) = await stage.outbox_rows()
    assert row.state == "failed"
    assert 8 < row.attempts < 40


async def test_an_outage_of_some_minutes_costs_no_reply(stage: Stage) -> None:
    stage.platform.failures = [SendFailed("no network")] * 10
    stage.engine.turns = [["aa"]]
    await stage.hear(incoming(1))
    await stage.clock.advance(1800)
    assert await stage.bubbles() == [("aa", "sent")]


async def test_what_may_have_arrived_is_not_sent_again_once_the_service_has_forgotten_it(make_stage: MakeStage) -> None:
    stage = await make_stage(FakePlatform(resend_is_safe=True))
    stage.platform.failures = [SendFailed("no answer", unknown=True)] + [SendFailed("no network")] * 10
    stage.engine.turns = [["aa"]]
    await stage.hear(incoming(1))
    await stage.clock.advance(3600)
    assert await stage.bubbles() == [("aa", "unknown")]
    assert stage.platform.texts == []


@pytest.mark.parametrize(("safe", "state"), [(False, "unknown"), (True, "sent")])
async def test_bubble_that_may_have_arrived_is_sent_again_only_where_that_is_safe(
    make_stage: MakeStage, safe: bool, state: str
) -> None:
    stage = await make_stage(FakePlatform(resend_is_safe=safe))
    stage.platform.failures = [SendFailed("no answer", unknown=True)]
    stage.engine.turns = [["aa"]]
    await stage.hear(incoming(1))
    await stage.clock.advance(60)
    assert [row.state for row in await stage.outbox_rows()] == [state]


async def test_platforms_own_mistake_is_unknown_and_stops_nothing(stage: Stage) -> None:
    stage.platform.failures = [ZeroDivisionError("oops")]
    stage.engine.turns = [["aa", "bb"]]
    await stage.hear(incoming(1))
    await stage.clock.advance(60)
    assert await stage.bubbles() == [("aa", "unknown"), ("bb", "sent")]


async def test_bubbles_wait_for_the_connection(stage: Stage) -> None:
    line = stage.lines["telegram"]
    line.connected.clear()
    stage.engine.turns = [["aa"]]
    await stage.hear(incoming(1))
    await stage.clock.advance(600)
    assert await stage.bubbles() == [("aa", "pending")]
    line.connected.set()
    await stage.clock.advance(60)
    assert await stage.bubbles() == [("aa", "sent")]


async def test_turns_are_counted_for_the_report(stage: Stage) -> None:
    stage.engine.turns = [["aa", "bb"], ["cc"]]
    for event in (1, 2):
        await stage.hear(incoming(event))
        await stage.clock.advance(60)
    assert stage.delivery.sent == {"reply": 2, "post": 0}
