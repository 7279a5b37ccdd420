"""One polite line to people who are not allowed: once ever, to few at a time, and to nobody else."""

import asyncio
import logging
from pathlib import Path

import pytest

from bot.chat import strangers
from bot.platforms import SendFailed
from bot.store.forget_requests import erase_from
from bot.store.personal_data import LiveMessages
from bot.store.strangers import is_remembered, remember
from doppel.errors import UserError
from doppel.personal_data import Account, find_person
from tests.bot.conftest import MakeHarness
from tests.bot.harness import START, FakePlatform, Harness, config_in, incoming

LINE = "This bot is private."
POLITE = {"allow": [7], "block": [13], "stranger_reply": LINE}
HOUR = 3600.0


@pytest.fixture
async def polite(make_harness: MakeHarness) -> Harness:
    return await make_harness(telegram=POLITE)


def sent_to(harness: Harness) -> list[str]:
    assert {outgoing.text for outgoing in harness.platform.outgoing} <= {LINE}
    return [outgoing.chat for outgoing in harness.platform.outgoing]


async def test_nothing_is_sent_by_default(harness: Harness) -> None:
    await harness.on_message(incoming(1, chat="8", sender="8"))
    assert harness.platform.texts == []


async def test_each_stranger_gets_it_once_also_after_a_restart(polite: Harness) -> None:
    await polite.on_message(incoming(1, chat="8", sender="8"), incoming(2, chat="8", sender="8"))
    await polite.on_message(incoming(3, chat="9", sender="9"))
    assert sent_to(polite) == ["8", "9"]
    assert len({outgoing.id for outgoing in polite.platform.outgoing}) == 2
    await polite.restart()
    await polite.on_message(incoming(4, chat="8", sender="8"), incoming(5, "", chat="10", sender="10"))
    assert sent_to(polite) == ["8", "9", "10"]


async def test_nothing_that_they_write_is_stored(polite: Harness) -> None:
    await polite.on_message(incoming(1, "a zebra", chat="8", sender="8"))
    assert await polite.inbox_rows() == []
    assert await polite.outbox_rows() == []
    await polite.stop()
    for path in (polite.config.root / "data").glob("*"):  # none for PostgreSQL
        assert b"zebra" not in path.read_bytes()


async def test_not_in_groups_not_to_blocked_and_not_to_allowed_people(polite: Harness) -> None:
    polite.engine.always = ["hello"]
    await polite.on_message(
        incoming(1, kind="group", chat="-5", sender="8", allow_ids=("-5",)),
        incoming(2, chat="13", sender="13"),
        incoming(3, chat="7", sender="7"),
    )
    await polite.clock.advance(60)
    assert polite.platform.texts == ["hello"]


async def test_few_are_answered_in_an_hour_and_the_others_later(polite: Harness) -> None:
    people = [str(number) for number in range(100, 100 + 2 * strangers.MAX_PER_HOUR)]
    for event, person in enumerate(people):
        await polite.on_message(incoming(event, chat=person, sender=person))
    assert sent_to(polite) == people[: strangers.MAX_PER_HOUR]
    await polite.clock.advance(HOUR)
    for event, person in enumerate(people):
        await polite.on_message(incoming(1000 + event, chat=person, sender=person))
    assert sent_to(polite) == people


async def test_a_flood_waits_in_no_queue(polite: Harness) -> None:
    polite.platform.hold = hold = asyncio.Event()
    for number in range(200):
        await polite.router.receive(incoming(number, chat=str(100 + number), sender=str(100 + number)))
    assert len(polite.router._strangers._waiting) <= strangers.MAX_WAITING
    hold.set()
    for _ in range(strangers.MAX_WAITING):
        await polite.resolve()
    assert len(sent_to(polite)) <= strangers.MAX_PER_HOUR
    assert polite.router._strangers._waiting == {}


async def test_it_waits_for_the_rate_limit_of_the_platform(make_harness: MakeHarness) -> None:
    platform = FakePlatform()
    platform.permits = asyncio.Semaphore(0)
    harness = await make_harness(platform, telegram=POLITE)
    await harness.on_message(incoming(1, chat="8", sender="8"))
    assert sent_to(harness) == []
    platform.permits.release()
    await harness.resolve()
    assert sent_to(harness) == ["8"]


@pytest.mark.parametrize("failure", [SendFailed("blocked", permanent=True), RuntimeError("bug")])
async def test_a_failure_is_dropped_without_a_word(
    polite: Harness, failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    polite.platform.failures = [failure]
    with caplog.at_level(logging.INFO):
        await polite.on_message(incoming(1, chat="8", sender="8"), incoming(2, chat="8", sender="8"))
        await polite.on_message(incoming(3, chat="9", sender="9"))
    assert sent_to(polite) == ["9"]
    assert "blocked" not in caplog.text
    assert "bug" not in caplog.text


async def test_a_stop_meanwhile_is_in_order(polite: Harness) -> None:
    polite.platform.hold = asyncio.Event()
    await polite.on_message(incoming(1, chat="8", sender="8"))
    await polite.stop()
    await polite.router.receive(incoming(2, chat="9", sender="9"))
    assert sent_to(polite) == []


async def test_who_got_it_is_shown_and_forgotten_on_request(polite: Harness) -> None:
    await polite.on_message(incoming(1, chat="8", sender="8"), incoming(2, chat="9", sender="9"))
    await polite.stop()
    live = LiveMessages(polite.config)

    def ask_and_forget() -> None:
        person = find_person(polite.config, [live], "telegram:8")
        assert live.export(person) == [
            {"platform": "telegram", "chat": "8", "kind": "stranger_reply", "by": "persona", "at": START.isoformat()}
        ]
        erased = live.erase(person)
        assert erased.records == 1
        assert any("stranger_reply" in line for line in erased.lines)
        with pytest.raises(UserError, match="no such contact"):
            find_person(polite.config, [live], "telegram:8")
        assert find_person(polite.config, [live], "telegram:9").accounts == {Account("telegram", "9")}

    await asyncio.to_thread(ask_and_forget)  # commands have no event loop


async def test_the_running_daemon_forgets_them_too(polite: Harness) -> None:
    ana = Account("telegram", "8")
    await polite.on_message(incoming(1, chat="8", sender="8"))
    assert (await erase_from(polite.store, [ana])).stranger_replies == 1
    assert not await polite.store.run(is_remembered, polite.store.persona, ana)


async def test_an_id_that_cannot_be_stored_counts_as_remembered(polite: Harness) -> None:
    long = Account("telegram", "8" * 300)
    assert await polite.store.run(is_remembered, polite.store.persona, long)
    await polite.store.run(remember, polite.store.persona, Account("telegram", "a%_"), START)
    assert not await polite.store.run(is_remembered, polite.store.persona, Account("telegram", "abc"))


def test_a_text_that_is_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"`telegram.stranger_reply`: must have at most 1000 characters"):
        config_in(tmp_path, telegram={"stranger_reply": "x" * 1001})
