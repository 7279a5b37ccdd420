"""What is deleted after `store.keep`, and what stays however old it is."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select

from bot.cancellation import cancel_tasks
from bot.store import Store, inbox, outbox, retention, slots
from bot.store.retention import Deleted, Retention
from bot.store.schema import Chat, InboxState, NewMessage, SlotState, chats
from bot.store.schema import inbox as inbox_table
from bot.store.schema import outbox as outbox_table
from bot.store.schema import slots as slots_table
from doppel.errors import DoppelError
from tests.bot.harness import START, FakeClock

PERSONA = "ann"
DAY = timedelta(days=1)
KEEP = 10 * DAY


class Filled:
    """A store with a clock, and short ways to fill it."""

    def __init__(self, url: str) -> None:
        self.store = Store(url, PERSONA)
        self.clock = FakeClock()
        self.clock.resolve = self._resolve
        self.retention = Retention(self.store, KEEP, self.clock)
        self._events = 0

    async def receive(self, text: str, *, chat: str = "7", persona: str = PERSONA) -> Chat:
        self._events += 1
        message = NewMessage(
            platform="telegram",
            event_id=str(self._events),
            chat=chat,
            kind="dm",
            sender=chat,
            text=text,
            message_id=f"m{self._events}",
            mentions_bot=True,
            sent_at=self.clock.now(),
        )
        row = await self.store.run(inbox.receive, persona, message, self.clock.now())
        assert row is not None
        return row

    async def write(self, chat: Chat, *bubbles: str) -> None:
        """A turn that answers what is pending; none of it is sent."""
        pending = await self.store.run(inbox.pending_messages, chat.id, 10)
        await self.store.run(
            outbox.add_turn,
            chat.id,
            "reply",
            bubbles,
            adapter=None,
            now=self.clock.now(),
            answers_up_to=pending[-1].id,
        )

    async def send(self, chat: Chat) -> None:
        bubble, *_ = await self.store.run(outbox.pending_bubbles, chat.id)
        await self.store.run(outbox.mark_sending, bubble, self.clock.now())
        await self.store.run(outbox.mark_sent, bubble, f"p{bubble.id}", self.clock.now())

    async def exchange(self, text: str, answer: str, **where: str) -> Chat:
        chat = await self.receive(text, **where)
        await self.write(chat, answer)
        await self.send(chat)
        return chat

    async def _resolve(self) -> None:
        """Lets the store do what was asked of it."""
        for _ in range(10):
            await self.store.run(lambda connection: None)
            await asyncio.sleep(0)

    async def texts(self) -> list[str]:
        return await self.store.run(
            lambda connection: [
                *connection.execute(select(inbox_table.c.text).order_by(inbox_table.c.id)).scalars(),
                *connection.execute(select(outbox_table.c.text).order_by(outbox_table.c.id)).scalars(),
            ]
        )


@pytest.fixture
async def filled(store_url: str) -> AsyncIterator[Filled]:
    filled = Filled(store_url)
    yield filled
    filled.store.close()


async def test_what_was_finished_long_ago_goes_and_nothing_else(filled: Filled, store_url: str, tmp_path: Path) -> None:
    chat = await filled.exchange("old zebra", "old answer")
    await filled.clock.advance(9 * 86_400)
    await filled.exchange("new", "new answer")
    assert await filled.retention.delete_old() == Deleted()
    await filled.clock.advance(1.5 * 86_400)
    assert await filled.retention.delete_old() == Deleted(messages=1, bubbles=1)
    assert await filled.texts() == ["new", "new answer"]
    assert [row.id for row in await filled.store.run(lambda c: list(c.execute(select(chats))))] == [chat.id]
    filled.store.close()
    files = sorted(tmp_path.glob("data/*"))  # noqa: ASYNC240 - none for PostgreSQL, whose server has them
    assert b"zebra" not in b"".join(file.read_bytes() for file in files)
    filled.store = Store(store_url, PERSONA)


async def test_what_is_unfinished_stays_with_the_rest_of_its_turn(filled: Filled) -> None:
    half_sent = await filled.receive("answered by half", chat="8")
    await filled.write(half_sent, "first half", "second half")
    await filled.send(half_sent)
    await filled.receive("waits", chat="9")
    await filled.exchange("done", "and answered")
    await filled.clock.advance(100 * 86_400)
    await filled.exchange("last", "last answer")
    assert await filled.retention.delete_old() == Deleted(messages=1, bubbles=1)
    assert await filled.texts() == ["answered by half", "waits", "last", "first half", "second half", "last answer"]
    await filled.send(half_sent)
    await filled.clock.advance(11 * 86_400)
    await filled.retention.delete_old()
    assert await filled.texts() == ["waits", "last answer"]


async def test_numbers_of_turns_are_not_used_again(filled: Filled) -> None:
    await filled.exchange("one", "1")
    await filled.exchange("two", "2")
    await filled.clock.advance(100 * 86_400)
    assert await filled.retention.delete_old() == Deleted(messages=2, bubbles=1)
    await filled.exchange("three", "3")
    turns = await filled.store.run(lambda c: list(c.execute(select(outbox_table.c.turn)).scalars()))
    assert turns == [2, 3]


async def test_the_history_of_a_prompt_goes_on_where_it_was(filled: Filled) -> None:
    for number in range(30):
        chat = await filled.exchange(f"in {number}", f"out {number}")
        await filled.clock.advance(86_400)
    await filled.receive("now")
    before, _ = await filled.store.run(inbox.prompt_context, chat.id, 12)
    await filled.retention.delete_old()
    after, pending = await filled.store.run(inbox.prompt_context, chat.id, 12)
    assert after == before
    assert [one.text for one in pending] == ["now"]
    longest, _ = await filled.store.run(inbox.prompt_context, chat.id, 1000)
    assert [one.text for one in longest] == [
        text for number in range(20, 30) for text in (f"in {number}", f"out {number}")
    ]
    await filled.exchange("next", "answer")
    await filled.receive("last")
    latest, _ = await filled.store.run(inbox.prompt_context, chat.id, 1000)
    assert [one.text for one in latest[-3:]] == ["now", "next", "answer"]
    newest = await filled.store.run(inbox.newest_message_ids, PERSONA, "telegram")
    assert newest == {"7": "m33"}


async def test_chats_of_another_persona_stay(filled: Filled) -> None:
    other = await filled.receive("of another", persona="ben")
    await filled.store.run(inbox.ignore_all, other.id, inbox.IgnoreReason.SILENT)
    await filled.exchange("of ann", "from ann")
    await filled.exchange("of ann", "from ann")
    await filled.clock.advance(100 * 86_400)
    assert await filled.retention.delete_old() == Deleted(messages=2, bubbles=1)
    assert await filled.texts() == ["of another", "from ann"]


async def test_old_slots_go_but_the_newest_of_each_schedule(filled: Filled) -> None:
    for days in range(3):
        await filled.store.run(slots.claim, PERSONA, "daily", START + days * DAY, SlotState.POSTED, now=START)
    await filled.store.run(slots.claim, PERSONA, "weekly", START, SlotState.SKIPPED, now=START)
    await filled.clock.advance(100 * 86_400)
    assert await filled.retention.delete_old() == Deleted(slots=2)
    assert await filled.store.run(slots.last_claimed, PERSONA, "daily") == START + 2 * DAY
    assert await filled.store.run(slots.last_claimed, PERSONA, "weekly") == START


async def test_slot_of_a_post_that_is_not_sent_stays(filled: Filled) -> None:
    slot = await filled.store.run(slots.claim, PERSONA, "daily", START, SlotState.POSTED, now=START)
    await filled.store.run(slots.claim, PERSONA, "daily", START + DAY, SlotState.POSTED, now=START)
    chat = await filled.receive("hello")
    await filled.store.run(outbox.add_turn, chat.id, "post", ["a"], adapter=None, now=START, slot_id=slot)
    await filled.clock.advance(100 * 86_400)
    assert await filled.retention.delete_old() == Deleted()
    ids = await filled.store.run(lambda connection: list(connection.execute(select(slots_table.c.id)).scalars()))
    assert ids == [1, 2]


async def test_many_rows_are_deleted_in_small_transactions(filled: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = await filled.receive("first")
    row = {
        **{"chat_id": chat.id, "platform": "telegram", "sender": "7", "addressed": True, "attempts": 0, "turn": None},
        **{"sent_at": START, "received_at": START, "state": InboxState.ANSWERED, "reason": None, "text": "x"},
    }
    rows = [
        {**row, "event_id": f"e{one}", "message_id": f"e{one}", "chat_position": one + 2}
        for one in range(2 * retention.BATCH + 50)
    ]
    await filled.store.run(lambda connection: connection.execute(insert(inbox_table), rows) and None)
    await filled.clock.advance(100 * 86_400)
    counts: list[int] = []
    run = filled.store.run

    async def counted(work: Any, *args: Any) -> Any:
        result = await run(work, *args)
        counts.append(result[0])
        return result

    monkeypatch.setattr(filled.store, "run", counted)
    assert await filled.retention.delete_old() == Deleted(messages=2 * retention.BATCH + 50)
    assert max(counts) <= retention.BATCH
    monkeypatch.undo()
    assert await filled.texts() == ["first"]


@pytest.mark.parametrize("new_store_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("table", ["inbox", "slots"])
async def test_what_refers_to_a_deleted_row_is_found_by_index(filled: Filled, table: str) -> None:
    column = {"inbox": "inbox_id", "slots": "slot_id"}[table]
    plan = await filled.store.run(
        lambda connection: connection.exec_driver_sql(
            f"explain query plan select 1 from outbox where {column} = 1"
        ).all()
    )
    assert "USING" in plan[0][3]
    assert "INDEX" in plan[0][3]


class Recorded(Retention):
    """Fails with `errors`, and notes when it deleted."""

    def __init__(self, filled: Filled, *errors: DoppelError) -> None:
        super().__init__(filled.store, KEEP, filled.clock)
        self.times: list[datetime] = []
        self._now = filled.clock.now
        self._errors = list(errors)

    async def delete_old(self) -> Deleted:
        if self._errors:
            raise self._errors.pop()
        self.times.append(self._now())
        return await super().delete_old()


async def test_it_runs_at_the_start_and_daily_also_across_a_suspend(filled: Filled) -> None:
    await filled.exchange("one", "1")
    await filled.exchange("two", "2")
    await filled.clock.advance((KEEP - 2 * DAY).total_seconds())
    recorded, began = Recorded(filled), filled.clock.now()
    task = asyncio.create_task(recorded.run())
    await filled.clock.advance(47 * 3600)
    assert recorded.times == [began, began + DAY]
    assert len(await filled.texts()) == 4
    filled.clock.suspend(23 * 3600)
    await filled.clock.advance(3601)
    assert len(recorded.times) == 3
    assert await filled.texts() == ["2"]
    await cancel_tasks(task)


async def test_a_failing_database_is_tried_again_in_an_hour(filled: Filled, caplog: pytest.LogCaptureFixture) -> None:
    recorded = Recorded(filled, DoppelError("disk full"))
    task = asyncio.create_task(recorded.run())
    await filled.clock.advance(60)
    assert "cannot delete old messages: disk full" in caplog.text
    await filled.clock.advance(7200)
    assert recorded.times == [START + timedelta(hours=1)]
    await cancel_tasks(task)
