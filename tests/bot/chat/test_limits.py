"""How much one person may ask for, and who gets nothing."""

import pytest

from bot.chat.inbound import MAX_TEXT
from bot.chat.rate_window import WINDOW_SECONDS, RateWindow
from tests.bot.conftest import MakeHarness
from tests.bot.harness import incoming


def test_a_window_slides() -> None:
    window = RateWindow(2)
    assert [window.allows(now, ("ann",)) for now in (0.0, 10.0, 20.0)] == [True, True, False]
    assert window.allows(20.0, ("bob",))
    assert window.allows(WINDOW_SECONDS, ("ann",))  # the first one is an hour old
    assert not window.allows(WINDOW_SECONDS + 1, ("ann",))


def test_what_one_key_refuses_is_not_counted_for_the_other() -> None:
    window = RateWindow(1)
    assert window.allows(0.0, ("ann",), ("group",))
    assert not window.allows(1.0, ("bob",), ("group",))
    assert window.allows(2.0, ("bob",))


def test_zero_means_any_number() -> None:
    assert all(RateWindow(0).allows(0.0, ("ann",)) for _ in range(1000))


async def test_who_asks_too_much_gets_no_more_replies_for_a_while(
    make_harness: MakeHarness, caplog: pytest.LogCaptureFixture
) -> None:
    harness = await make_harness(telegram={"allow": [7, 8]}, reply={"max_per_hour": 2})
    harness.engine.always = ["ok"]
    for event in range(4):
        await harness.on_message(incoming(event))
        await harness.clock.advance(20)
    assert harness.platform.texts == ["ok", "ok"]
    assert [row.state for row in await harness.inbox_rows()] == ["answered", "answered", "ignored", "ignored"]
    assert "more than 2 messages in an hour from 7" in caplog.text
    await harness.on_message(incoming(8, chat="8", sender="8"))
    await harness.clock.advance(WINDOW_SECONDS)
    await harness.on_message(incoming(9))
    await harness.clock.advance(20)
    assert harness.platform.texts == ["ok"] * 4


async def test_a_blocked_person_gets_nothing_in_an_allowed_group(make_harness: MakeHarness) -> None:
    harness = await make_harness(telegram={"allow": ["-100", 7], "block": [9, 7]})
    harness.engine.always = ["ok"]
    await harness.on_message(incoming(1, chat="-100", kind="group", sender="9"))
    await harness.on_message(incoming(2))
    await harness.clock.advance(20)
    assert await harness.inbox_rows() == []
    await harness.on_message(incoming(3, chat="-100", kind="group", sender="8"))
    await harness.clock.advance(20)
    assert harness.platform.texts == ["ok"]


async def test_a_huge_message_is_cut(make_harness: MakeHarness) -> None:
    harness = await make_harness(ready=False)
    await harness.on_message(incoming(1, "x" * (MAX_TEXT + 1)))
    assert [len(row.text) for row in await harness.inbox_rows()] == [MAX_TEXT]


async def test_characters_that_no_database_takes_are_left_out(make_harness: MakeHarness) -> None:
    harness = await make_harness()
    await harness.on_message(incoming(1, "half \ud83d, null \0."), incoming(2, "\0"))
    assert [row.text for row in await harness.inbox_rows()] == ["half ?, null ."]
