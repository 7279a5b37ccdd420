"""What goes wrong around the daemon, and that every message is answered all the same."""

import asyncio
import re
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from sqlalchemy import event as sqlalchemy_event

from bot.platforms import SendFailed
from bot.store import inbox, outbox
from bot.store.schema import Chat
from doppel.engine import EngineBusy, EngineUnavailable
from doppel.errors import DoppelError
from doppel.transcript import pseudonym
from tests.bot.conftest import MakeHarness
from tests.bot.harness import START, Harness, incoming

PEOPLE = tuple(range(1000, 1200))


def private(event: int, person: int, text: str) -> Any:
    return incoming(event, text, chat=str(person), sender=str(person))


async def answered_texts(harness: Harness) -> set[str]:
    """Texts of the messages that count as answered."""
    rows = await harness.inbox_rows()
    return {row.text for row in rows if row.state == "answered"}


class TestEngine:
    async def test_it_is_away_while_thirty_messages_arrive(self, make_harness: MakeHarness) -> None:
        harness = await make_harness(telegram={"allow": PEOPLE[:30]})
        harness.engine.always = ["ok"]
        harness.engine.fault = lambda prompt: EngineUnavailable("the server is restarting")
        for number, person in enumerate(PEOPLE[:30]):
            await harness.router.receive(private(number, person, f"text {number}"))
            await harness.clock.advance(20 / 30)
        assert harness.platform.sent == []
        back = harness.clock.monotonic()
        harness.engine.fault = lambda prompt: None
        await harness.clock.advance(60)
        assert await answered_texts(harness) == {f"text {number}" for number in range(30)}
        assert min(at for at, _ in harness.platform.sent) - back < 7

    async def test_the_wait_it_asks_for_is_kept(self, harness: Harness) -> None:
        harness.engine.always = ["ok"]
        harness.engine.turns = [EngineUnavailable("loading", retry_after=12.0)]
        await harness.on_message(incoming(1))
        await harness.clock.advance(2 + 11.9)
        assert len(harness.engine.prompts) == 1
        await harness.clock.advance(5)
        assert harness.platform.texts == ["ok"]

    async def test_two_hundred_people_write_at_once(self, make_harness: MakeHarness) -> None:
        harness = await make_harness(telegram={"allow": PEOPLE})
        harness.engine.always = ["ok"]
        active = 0

        def full(prompt: str) -> Exception | None:
            nonlocal active
            active += 1
            return EngineBusy("too many requests") if active % 3 else None

        harness.engine.fault = full
        for number, person in enumerate(PEOPLE):
            await harness.router.receive(private(number, person, f"text {number}"))
        await harness.clock.advance(120)
        assert len(await answered_texts(harness)) == len(PEOPLE)
        assert len(harness.platform.sent) == len(PEOPLE)

    async def test_no_more_requests_run_than_it_takes(self, make_harness: MakeHarness) -> None:
        harness = await make_harness(telegram={"allow": PEOPLE})
        harness.engine.always = ["ok"]
        harness.engine.gate.clear()
        for number, person in enumerate(PEOPLE[:40]):
            await harness.router.receive(private(number, person, "hello"))
        await harness.clock.advance(3)
        assert len(harness.engine.prompts) == harness.engine.stats().max_active
        harness.engine.gate.set()
        await harness.clock.advance(60)
        assert len(await harness.inbox_rows()) == 40
        assert {row.state for row in await harness.inbox_rows()} == {"answered"}

    async def test_it_fails_at_one_prompt_while_it_serves_others(self, make_harness: MakeHarness) -> None:
        harness = await make_harness(telegram={"allow": [7, 8]})
        harness.engine.always = ["ok"]
        harness.engine.fault = lambda prompt: EngineUnavailable("gone") if "poison" in prompt else None
        await harness.on_message(incoming(1, "poison"))
        for event in range(2, 12):
            await harness.on_message(private(event, 8, f"text {event}"))
            await harness.clock.advance(10)
        assert (await harness.inbox_states())[0] == ("failed", "gone")
        await harness.on_message(incoming(99, "are you there?"))
        await harness.clock.advance(30)
        assert (await harness.inbox_rows())[-1].state == "answered"
        assert "poison" not in harness.engine.prompts[-1]

    async def test_a_message_too_old_to_answer_is_left(self, make_harness: MakeHarness) -> None:
        harness = await make_harness(reply={"stale_after": "1h"})
        harness.engine.always = ["ok"]
        harness.engine.fault = lambda prompt: EngineUnavailable("gone")
        await harness.on_message(incoming(1, "old"))
        await harness.clock.advance(3700)
        assert await harness.inbox_states() == [("ignored", "too old to answer")]
        harness.engine.fault = lambda prompt: None
        await harness.on_message(fresh(harness, 2, "new"))
        await harness.clock.advance(30)
        assert harness.platform.texts == ["ok"]


def fresh(harness: Harness, event: int, text: str = "hello") -> Any:
    """A message that is written now."""
    return msgspec.structs.replace(incoming(event, text), sent_at=harness.clock.now())


async def test_every_message_is_in_a_reply_that_was_delivered(make_harness: MakeHarness) -> None:
    """Messages keep coming while replies are written and typed, and interrupt them."""
    people = PEOPLE[:5]
    harness = await make_harness(telegram={"allow": people})
    harness.engine.always = ["one bubble", "and another"]
    for number in range(50):
        harness.engine.gate.clear()
        await harness.router.receive(private(number, people[number * 7 % 5], f"text-{number}."))
        await harness.clock.advance(0.7)
        if number % 3 == 0:
            harness.engine.gate.set()
            await harness.resolve()
    harness.engine.gate.set()
    await harness.clock.advance(120)
    rows, bubbles = await harness.inbox_rows(), await harness.outbox_rows()
    assert {row.state for row in rows} == {"answered"}
    assert "failed" in {row.state for row in bubbles}  # replies were interrupted
    delivered = {row.turn for row in bubbles if row.state == "sent"}
    assert all(row.turn in delivered for row in rows)


class TestDelivery:
    async def test_a_new_message_reopens_what_a_dropped_reply_would_have_answered(self, harness: Harness) -> None:
        harness.engine.turns = [["a long first bubble"], ["both"]]
        await harness.on_message(incoming(1, "one"))
        await harness.clock.advance(2)
        assert await harness.inbox_states() == [("replying", None)]
        await harness.on_message(incoming(2, "two"))
        assert await harness.inbox_states() == [("new", None), ("new", None)]
        await harness.clock.advance(30)
        assert harness.platform.texts == ["both"]
        assert f"{pseudonym('telegram', '7')}: one\n two\n\nme:" in harness.engine.prompts[1]
        assert [row.state for row in await harness.inbox_rows()] == ["answered"] * 2

    async def test_nobody_sees_the_end_of_a_reply_without_its_beginning(self, harness: Harness) -> None:
        harness.engine.turns = [["one", "two", "three"]]
        harness.platform.failures = [SendFailed("bad gateway", unknown=True)]
        await harness.on_message(incoming(1))
        await harness.clock.advance(60)
        assert harness.platform.texts == []
        assert [row.state for row in await harness.outbox_rows()] == ["unknown", "failed", "failed"]
        assert await harness.inbox_states() == [("answered", "it is not certain that the reply was delivered")]

    async def test_killed_while_it_waits_for_the_rate_limit_nothing_is_in_doubt(
        self, make_harness: MakeHarness
    ) -> None:
        harness = await make_harness(telegram={"allow": PEOPLE})
        harness.engine.always = ["ok"]
        harness.platform.permits = asyncio.Semaphore(30)
        for number, person in enumerate(PEOPLE):
            await harness.router.receive(private(number, person, "hello"))
        await harness.clock.advance(60)
        assert len(harness.platform.sent) == 30
        harness.platform.permits = None
        await harness.restart()
        await harness.clock.advance(60)
        assert len(harness.platform.sent) == len(PEOPLE)
        assert {row.state for row in await harness.outbox_rows()} == {"sent"}

    async def test_what_waited_for_weeks_is_not_sent(self, harness: Harness) -> None:
        harness.connections["telegram"].connected.clear()
        harness.engine.turns = [["aa"], ["bb"]]
        await harness.on_message(incoming(1))
        await harness.clock.advance(60)
        harness.clock.suspend(timedelta(weeks=3).total_seconds())
        harness.connections["telegram"].connected.set()
        await harness.clock.advance(60)
        assert harness.platform.sent == []
        assert await harness.inbox_states() == [("ignored", "too old to answer")]


class TestStore:
    async def test_the_disk_is_full_for_a_while(self, harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
        harness.engine.always = ["one", "two"]
        await harness.on_message(incoming(1))
        await harness.clock.advance(2.5)
        run = harness.store.run

        async def full(work: Any, *args: Any, **kwargs: Any) -> Any:
            raise DoppelError("database or disk is full")

        monkeypatch.setattr(harness.store, "run", full)
        harness.clock.resolve = harness.clock._yield
        with pytest.raises(DoppelError):  # so that the platform does not acknowledge it
            await harness.router.receive(incoming(2, "not stored"))
        await harness.clock.advance(300)
        monkeypatch.setattr(harness.store, "run", run)
        harness.clock.resolve = harness.resolve
        await harness.router.receive(incoming(2, "now stored"))
        await harness.clock.advance(120)
        assert {row.state for row in await harness.inbox_rows()} == {"answered"}
        assert {row.state for row in await harness.outbox_rows()} <= {"sent", "failed"}

    async def test_an_unexpected_exception_is_counted_and_the_sweep_tries_again(
        self, harness: Harness, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        harness.engine.always = ["ok"]
        fit = harness.delivery.fit
        failures = [ZeroDivisionError("oops")]

        def failing(*args: Any) -> Any:
            if failures:
                raise failures.pop()
            return fit(*args)

        monkeypatch.setattr(harness.delivery, "fit", failing)
        await harness.on_message(incoming(1))
        await harness.clock.advance(5)
        assert await harness.inbox_states() == [("new", "ZeroDivisionError('oops')")]
        await harness.clock.advance(60)
        assert harness.platform.texts == ["ok"]

    async def test_a_message_that_always_raises_is_given_up(
        self, harness: Harness, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def failing(*args: Any) -> Any:
            raise ZeroDivisionError("oops")

        with monkeypatch.context() as patch:
            patch.setattr(harness.delivery, "fit", failing)
            harness.engine.always = ["ok"]
            await harness.on_message(incoming(1))
            await harness.clock.advance(180)
            assert await harness.inbox_states() == [("failed", "ZeroDivisionError('oops')")]
        await harness.on_message(incoming(2))
        await harness.clock.advance(60)
        assert harness.platform.texts == ["ok"]

    async def test_another_persona_sees_nothing_of_the_first_ones_chats(self, make_harness: MakeHarness) -> None:
        sample = await make_harness()
        sample.engine.always = ["words of sample"]
        await sample.on_message(incoming(1, "hello sample"))
        await sample.clock.advance(60)
        await sample.on_message(incoming(2, "still unanswered"))
        await sample.stop()
        ann = await make_harness(persona={"name": "ann"})
        ann.engine.always = ["words of ann"]
        await ann.clock.advance(60)
        assert ann.engine.prompts == []
        await ann.on_message(incoming(3, "hello ann"))
        await ann.clock.advance(60)
        assert "sample" not in ann.engine.prompts[0]

    @pytest.mark.parametrize("new_store_url", ["sqlite"], indirect=True)
    async def test_a_prompt_is_read_by_index_however_long_the_chat_is(self, harness: Harness) -> None:
        harness.engine.always = ["ok"]
        await harness.on_message(incoming(1))
        await harness.clock.advance(60)
        statements: list[tuple[str, Any]] = []
        sqlalchemy_event.listen(
            harness.store._engine, "before_cursor_execute", lambda *seen: statements.append((seen[2], seen[3]))
        )
        await harness.on_message(incoming(2))
        await harness.clock.advance(60)

        def plans(connection: Any) -> list[str]:
            return [
                " ".join(row[3] for row in connection.exec_driver_sql(f"explain query plan {statement}", values))
                for statement, values in list(statements)
                if statement.startswith("SELECT")
            ]

        found = await harness.store.run(plans)
        assert found
        assert not [plan for plan in found if re.search(r"\bSCAN (inbox|outbox)(?! USING)", plan)]


class TestTime:
    async def test_somebody_who_never_stops_writing_is_answered(self, harness: Harness) -> None:
        harness.engine.always = ["ok"]
        for event in range(30):
            await harness.on_message(incoming(event, f"text {event}"))
            await harness.clock.advance(1.9)
        assert harness.platform.texts

    async def test_the_clock_is_set_back_an_hour(self, harness: Harness) -> None:
        harness.engine.always = ["ok"]
        await harness.on_message(incoming(1))
        await harness.clock.advance(1)
        harness.clock.wall_offset = -timedelta(hours=1)
        await harness.clock.advance(10)
        assert harness.platform.texts == ["ok"]

    async def test_the_clock_is_set_back_before_a_retry(self, harness: Harness) -> None:
        harness.engine.always = ["ok"]
        harness.platform.failures = [SendFailed("busy", retry_after=20.0)]
        await harness.on_message(incoming(1))
        await harness.clock.advance(5)
        harness.clock.wall_offset = -timedelta(hours=1)
        await harness.clock.advance(30)
        assert harness.platform.texts == ["ok"]


class TestAccess:
    async def test_somebody_taken_off_the_list_gets_no_more_replies(self, make_harness: MakeHarness) -> None:
        harness = await make_harness(telegram={"allow": [7]}, ready=False)
        await harness.on_message(incoming(1))
        await harness.stop()
        harness = await make_harness(telegram={"allow": [8]})
        harness.engine.always = ["ok"]
        await harness.clock.advance(60)
        assert harness.platform.sent == []
        assert await harness.inbox_states() == [("ignored", "its sender is no longer allowed")]

    async def test_a_group_that_only_got_posts_becomes_a_group(self, harness: Harness) -> None:
        def post(connection: Any) -> Chat:
            chat = inbox.get_or_create_chat(connection, harness.store.persona, "telegram", "-100", now=START)
            outbox.add_turn(connection, chat.id, "post", ["a post"], adapter=None, now=START)
            return chat

        harness.router.wake(await harness.store.run(post))
        await harness.clock.advance(60)
        harness.engine.always = ["ok"]
        await harness.on_message(incoming(1, "what?", chat="-100", kind="group", sender="9"))
        await harness.clock.advance(60)
        assert "group" in harness.engine.prompts[0].splitlines()[0]
        assert harness.platform.outgoing[-1].reply_to == "m1"
