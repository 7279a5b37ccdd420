"""The store: migrations, the inbox, the outbox and slots, on real SQLite files."""

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import create_engine, inspect, select, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from bot.store import Store, inbox, outbox, slots
from bot.store.connect import open_engine
from bot.store.migrations import STEPS
from bot.store.schema import Chat, InboxState, NewMessage, OutboxError, OutboxMessage, metadata
from bot.store.schema import inbox as inbox_table
from bot.store.schema import outbox as outbox_table
from doppel.errors import DoppelError, UserError

PERSONA = "ann"
START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "doppel.db"


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    store = Store(store_url, PERSONA)
    yield store
    store.close()


@pytest.fixture
def sqlite_store(path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{path}", PERSONA)
    yield store
    store.close()


def message(number: int, text: str = "hello", *, mentions_bot: bool = True, chat: str = "7") -> NewMessage:
    return NewMessage(
        platform="telegram",
        event_id=str(number),
        chat=chat,
        kind="dm",
        sender="7",
        text=text,
        message_id=f"m{number}",
        mentions_bot=mentions_bot,
        sent_at=START,
        allow_ids=(chat,),
    )


async def chat_with(store: Store, *texts: str) -> Chat:
    for number, words in enumerate(texts):
        chat = await store.run(inbox.receive, PERSONA, message(number, words), START + timedelta(seconds=number))
    assert chat is not None
    return chat


async def next_bubble(store: Store, chat: Chat) -> OutboxMessage:
    return (await store.run(outbox.pending_bubbles, chat.id))[0]


async def states(store: Store) -> list[str]:
    return await store.run(
        lambda connection: list(connection.execute(select(outbox_table.c.state).order_by(outbox_table.c.id)).scalars())
    )


def shape(url: str) -> dict[str, object]:
    """Everything a reader of the schema sees: columns, keys, constraints, indexes."""
    engine = create_engine(url)
    seen = inspect(engine)
    tables = sorted(set(seen.get_table_names()) - {"migrations"})
    result = {
        table: {
            "columns": [(one["name"], str(one["type"]), one["nullable"]) for one in seen.get_columns(table)],
            "key": seen.get_pk_constraint(table)["constrained_columns"],
            "indexes": sorted(map(str, seen.get_indexes(table))),
            "unique": sorted(map(str, seen.get_unique_constraints(table))),
            "foreign": sorted(map(str, seen.get_foreign_keys(table))),
        }
        for table in tables
    }
    engine.dispose()
    return result


def test_migrated_database_equals_the_schema(new_store_url: Callable[[], str]) -> None:
    migrated, fresh = new_store_url(), new_store_url()
    Store(migrated, PERSONA).close()
    engine = open_engine(fresh)
    metadata.create_all(engine)
    engine.dispose()
    assert shape(migrated) == shape(fresh)
    assert len(shape(migrated)) == 6


async def test_opening_again_changes_nothing(store: Store, store_url: str) -> None:
    store.close()
    before = shape(store_url)
    store.__init__(store_url, PERSONA)  # type: ignore[misc]
    assert shape(store_url) == before
    query = text("select number, name from migrations order by number")
    assert await store.run(lambda connection: [tuple(row) for row in connection.execute(query)]) == [
        (1, "inbox_and_outbox"),
        (2, "personas_and_positions"),
        (3, "shared_databases"),
        (4, "references_by_index"),
        (5, "answered_messages"),
    ]


def test_newer_database_is_refused(path: Path) -> None:
    Store(f"sqlite:///{path}", PERSONA).close()
    with sqlite3.connect(path) as connection:
        connection.execute("insert into migrations values (99, 'from_the_future', '2030-01-01')")
    connection.close()
    with pytest.raises(UserError, match=r"newer doppel .*99.*update doppel"):
        Store(f"sqlite:///{path}", PERSONA)


def test_failing_migration_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(connection: object, persona: str) -> None:
        raise UserError("stop")

    monkeypatch.setattr("bot.store.migrations.STEPS", (*STEPS, broken))
    with pytest.raises(UserError, match="stop"):
        Store(f"sqlite:///{path}", PERSONA)
    assert shape(f"sqlite:///{path}") == {}


def test_not_a_database_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "doppel.db").write_text("this is a text file, and a long one at that" * 50)
    with pytest.raises(UserError, match=r"doppel\.db: cannot be used as a database: file is not a database"):
        Store(f"sqlite:///{tmp_path / 'doppel.db'}", PERSONA)


def test_wrong_url_is_a_clear_error() -> None:
    with pytest.raises(UserError, match=r"config\.yaml: `store`"):
        Store("nonsense://x/y", PERSONA)


def test_place_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        Store(f"sqlite:///{tmp_path / 'file' / 'doppel.db'}", PERSONA)


def test_only_its_owner_may_read_it(sqlite_store: Store, path: Path) -> None:
    assert path.stat().st_mode & 0o077 == 0


async def test_sqlite_is_durable(sqlite_store: Store) -> None:
    def settings(connection: object) -> list[object]:
        names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        return [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names]  # type: ignore[attr-defined]

    assert await sqlite_store.run(settings) == ["wal", 2, 1, 5000]


def test_schema_has_nothing_only_sqlite_knows() -> None:
    for table in metadata.sorted_tables:
        assert "CREATE TABLE" in str(CreateTable(table).compile(dialect=postgresql.dialect()))


async def test_same_event_is_committed_once(store: Store) -> None:
    first = await store.run(inbox.receive, PERSONA, message(1), START)
    assert first == Chat(id=1, platform="telegram", chat="7", kind="dm", allow_ids=("7",))
    assert await store.run(inbox.receive, PERSONA, message(1, "again"), START) is None
    assert [one.text for one in await store.run(inbox.pending_messages, 1, 10)] == ["hello"]


async def test_unaddressed_message_is_context_only(store: Store) -> None:
    chat = await store.run(inbox.receive, PERSONA, message(1, mentions_bot=False), START)
    assert chat is not None
    assert await store.run(inbox.pending_messages, chat.id, 10) == []
    assert await store.run(inbox.prompt_context, chat.id, 10) == ([], [])
    assert await store.run(inbox.unfinished_chats, PERSONA) == []
    await store.run(inbox.receive, PERSONA, message(2, "and you?"), START)
    history, pending = await store.run(inbox.prompt_context, chat.id, 10)
    assert ([line.text for line in history], [line.text for line in pending]) == (["hello"], ["and you?"])


async def test_times_come_back_in_utc(store: Store) -> None:
    chat = await chat_with(store, "hello")
    (row,) = await store.run(inbox.pending_messages, chat.id, 10)
    assert row.received_at == START
    assert row.received_at.tzinfo is UTC


async def test_turn_and_its_answered_messages_are_one_transaction(store: Store) -> None:
    chat = await chat_with(store, "one", "two")
    last = (await store.run(inbox.pending_messages, chat.id, 10))[-1].id

    def crash(connection: object) -> None:
        outbox.add_turn(connection, chat.id, "reply", ["a"], adapter="0001", now=START, answers_up_to=last)  # type: ignore[arg-type]
        raise KeyError("the power went")

    with pytest.raises(KeyError):
        await store.run(crash)
    assert await states(store) == []
    assert len(await store.run(inbox.pending_messages, chat.id, 10)) == 2
    await store.run(outbox.add_turn, chat.id, "reply", ["a", "b"], adapter="0001", now=START, answers_up_to=last)
    assert await states(store) == ["pending", "pending"]
    assert await store.run(inbox.pending_messages, chat.id, 10) == []


async def test_bubbles_come_in_order_and_carry_their_adapter(store: Store) -> None:
    chat = await chat_with(store, "one")
    (asked,) = await store.run(inbox.pending_messages, chat.id, 10)
    await store.run(outbox.add_turn, chat.id, "reply", ["a", "b"], adapter="0001", now=START, answers_up_to=asked.id)
    await store.run(outbox.add_turn, chat.id, "post", ["c"], adapter="0002", now=START)
    seen = []
    for bubble in await store.run(outbox.pending_bubbles, chat.id):
        await store.run(outbox.mark_sending, bubble, START)
        await store.run(outbox.mark_sent, bubble, f"p{bubble.id}", START)
        seen.append((bubble.text, bubble.turn, bubble.position, bubble.adapter))
        if bubble.text == "a":
            assert await store.run(outbox.answered_message_id, bubble) == "m0"
    assert seen == [("a", 1, 0, "0001"), ("b", 1, 1, "0001"), ("c", 2, 0, "0002")]
    assert await states(store) == ["sent"] * 3


async def test_newest_message_of_each_chat_of_a_platform(store: Store) -> None:
    for number, (platform, chat) in enumerate(
        (("discord", "1"), ("telegram", "2"), ("discord", "1"), ("discord", "3"))
    ):
        received = msgspec.structs.replace(message(number, chat=chat), platform=platform)
        await store.run(inbox.receive, PERSONA, received, START)
    for chat, sent in (("3", "p1"), ("4", "p2"), ("5", None)):
        target = await store.run(
            lambda connection, name=chat: inbox.get_or_create_chat(connection, PERSONA, "discord", name, now=START)
        )
        await store.run(outbox.add_turn, target.id, "post", ["a"], adapter=None, now=START)
        if sent is not None:
            (bubble,) = await store.run(outbox.pending_bubbles, target.id)
            await store.run(outbox.mark_sending, bubble, START)
            await store.run(outbox.mark_sent, bubble, sent, START)
    assert await store.run(inbox.newest_message_ids, PERSONA, "discord") == {"1": "m2", "3": "m3", "4": "p2"}


async def test_dropping_spares_posts_and_what_was_sent(store: Store) -> None:
    chat = await chat_with(store, "one")
    await store.run(outbox.add_turn, chat.id, "reply", ["a", "b", "c"], adapter=None, now=START)
    await store.run(outbox.add_turn, chat.id, "post", ["d"], adapter=None, now=START)
    bubble = await next_bubble(store, chat)
    await store.run(outbox.mark_sending, bubble, START)
    await store.run(outbox.mark_sent, bubble, "p1", START)
    assert await store.run(outbox.drop_replies, chat.id, OutboxError.SUPERSEDED, START) == 2
    assert await states(store) == ["sent", "failed", "failed", "pending"]


async def test_recovery_resends_only_where_it_is_safe(store: Store) -> None:
    for number, platform in enumerate(("telegram", "discord")):
        received = msgspec.structs.replace(message(number), platform=platform)
        chat = await store.run(inbox.receive, PERSONA, received, START)
        assert chat is not None
        await store.run(outbox.add_turn, chat.id, "reply", ["a"], adapter=None, now=START)
        await store.run(outbox.mark_sending, await next_bubble(store, chat), START)
    interrupted = await store.run(outbox.recover_interrupted_sends, PERSONA, {"discord"}, START)
    assert [(send.platform, send.is_resent) for send in interrupted] == [("telegram", False), ("discord", True)]
    assert await states(store) == ["unknown", "pending"]


@pytest.mark.parametrize(("seconds", "again"), [(120, True), (121, False)])
async def test_recovery_resends_only_while_the_first_sending_is_remembered(
    store: Store, seconds: float, again: bool
) -> None:
    chat = await chat_with(store, "one")
    await store.run(outbox.add_turn, chat.id, "reply", ["a"], adapter=None, now=START - timedelta(days=1))
    await store.run(outbox.mark_sending, await next_bubble(store, chat), START)
    interrupted = await store.run(
        outbox.recover_interrupted_sends, PERSONA, {"telegram"}, START + timedelta(seconds=seconds)
    )
    assert [send.is_resent for send in interrupted] == [again]
    assert await states(store) == ["pending" if again else "unknown"]


def test_a_second_daemon_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "doppel.db"
    first = Store(f"sqlite:///{path}", PERSONA)
    with pytest.raises(UserError, match=r"another `doppel run` is using this database"):
        Store(f"sqlite:///{path}", PERSONA)
    first.close()
    Store(f"sqlite:///{path}", PERSONA).close()


def test_a_killed_daemon_leaves_no_lock(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'doppel.db'}"
    holding = (
        f"import os, signal; from bot.store import Store; Store({url!r}, 'ann'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", holding], check=False).returncode == -signal.SIGKILL
    Store(url, PERSONA).close()


async def test_a_long_chat_loses_its_beginning_by_the_quarter(store: Store) -> None:
    beginnings, sizes = [], []
    for number in range(60):
        chat = await store.run(
            inbox.receive, PERSONA, message(number, f"text {number}"), START + timedelta(seconds=number)
        )
        assert chat is not None
        said, asked = await store.run(inbox.prompt_context, chat.id, 20)
        assert [one.text for one in said] == [f"text {one}" for one in range(number - len(said), number)]
        assert [one.text for one in asked] == [f"text {number}"]
        beginnings.append(number - len(said))
        sizes.append(len(said) + len(asked))
        await store.run(inbox.resolve, chat.id, asked[-1].id, InboxState.ANSWERED)
    assert sorted(set(beginnings)) == [*range(0, 41, 5)]
    assert beginnings == sorted(beginnings)
    assert max(sizes) == 20
    assert min(sizes[20:]) == 16


async def test_history_stands_in_the_order_in_which_it_was_seen(store: Store) -> None:
    chat = await chat_with(store, "one", "two")
    later = START + timedelta(minutes=1)
    (_, two) = await store.run(inbox.pending_messages, chat.id, 10)
    await store.run(outbox.add_turn, chat.id, "reply", ["a", "b"], adapter="0001", now=START, answers_up_to=two.id)
    await store.run(inbox.receive, PERSONA, message(5, "three"), START)
    await store.run(outbox.mark_sending, await next_bubble(store, chat), START)  # at the same time, but after "three"
    seen = await store.run(inbox.visible_messages, PERSONA, "telegram", "7", 10)
    assert [line.text for line in seen] == ["one", "two", "three", "a"]
    history, pending = await store.run(inbox.prompt_context, chat.id, 10)
    assert [line.text for line in history] == ["one", "two", "a"]
    assert [line.text for line in pending] == ["three"]
    await store.run(outbox.mark_failed, await next_bubble(store, chat), "blocked", later)
    history, _ = await store.run(inbox.prompt_context, chat.id, 3)
    assert [line.text for line in history] == ["two", "a"]
    assert await store.run(inbox.visible_messages, "somebody else", "telegram", "7", 10) == []


class TestAnswered:
    """A message is answered when a reply that was written for it was delivered."""

    async def turn(self, store: Store, *bubbles: str) -> Chat:
        chat = await chat_with(store, "one", "two")
        (_, two) = await store.run(inbox.pending_messages, chat.id, 10)
        await store.run(outbox.add_turn, chat.id, "reply", bubbles, adapter="0001", now=START, answers_up_to=two.id)
        assert await self.messages(store) == ["replying", "replying"]
        return chat

    async def messages(self, store: Store) -> list[str]:
        query = select(inbox_table.c.state).order_by(inbox_table.c.id)
        return await store.run(lambda connection: list(connection.execute(query).scalars()))

    async def test_when_the_last_bubble_is_sent(self, store: Store) -> None:
        chat = await self.turn(store, "a", "b")
        for expected in ("replying", "answered"):
            bubble = await next_bubble(store, chat)
            await store.run(outbox.mark_sending, bubble, START)
            await store.run(outbox.mark_sent, bubble, "p", START)
            assert await self.messages(store) == [expected] * 2

    async def test_not_when_the_turn_is_dropped_before_any_of_it_was_seen(self, store: Store) -> None:
        chat = await self.turn(store, "a", "b")
        assert await store.run(outbox.drop_replies, chat.id, OutboxError.SUPERSEDED, START) == 2
        assert await self.messages(store) == ["new", "new"]
        assert [row.attempts for row in await store.run(inbox.pending_messages, chat.id, 10)] == [0, 0]

    async def test_when_the_rest_is_dropped_after_something_was_seen(self, store: Store) -> None:
        chat = await self.turn(store, "a", "b")
        bubble = await next_bubble(store, chat)
        await store.run(outbox.mark_sending, bubble, START)
        await store.run(outbox.mark_sent, bubble, "p", START)
        await store.run(outbox.drop_replies, chat.id, OutboxError.SUPERSEDED, START)
        assert await self.messages(store) == ["answered", "answered"]

    async def test_a_bubble_in_doubt_ends_the_turn(self, store: Store) -> None:
        chat = await self.turn(store, "a", "b")
        bubble = await next_bubble(store, chat)
        await store.run(outbox.mark_sending, bubble, START)
        await store.run(outbox.mark_unknown, bubble, "no answer", START)
        assert await states(store) == ["unknown", "failed"]
        assert await self.messages(store) == ["answered", "answered"]

    async def test_what_cannot_be_delivered_is_written_again_a_few_times(self, store: Store) -> None:
        chat = await self.turn(store, "a", "b")
        for attempts in (1, 2, 3):
            await store.run(outbox.mark_failed, await next_bubble(store, chat), "refused", START)
            pending = await store.run(inbox.pending_messages, chat.id, 10)
            if attempts < 3:
                assert [row.attempts for row in pending] == [attempts] * 2
                last = pending[-1].id
                await store.run(outbox.add_turn, chat.id, "reply", ["c"], adapter=None, now=START, answers_up_to=last)
        assert await self.messages(store) == ["failed", "failed"]


async def test_slot_is_claimed_once(store: Store) -> None:
    tomorrow = START + timedelta(days=1)
    assert await store.run(slots.claim, PERSONA, "daily", START, "posted", now=START) == 1
    assert await store.run(slots.claim, PERSONA, "daily", START, "posted", now=START) is None
    assert await store.run(slots.unclaimed, PERSONA, "daily", [tomorrow, START]) == [tomorrow]
    assert await store.run(slots.claim, PERSONA, "hourly", START, "skipped", now=START) == 2
    assert await store.run(slots.claim, "bob", "daily", START, "posted", now=START) == 3


async def test_schedule_counts_from_when_its_rhythm_was_first_seen(store: Store) -> None:
    later = START + timedelta(days=1)
    assert await store.run(slots.trigger_since, PERSONA, "daily", "0 9 * * *", START) == START
    assert await store.run(slots.trigger_since, PERSONA, "daily", "0 9 * * *", later) == START
    assert await store.run(slots.trigger_since, PERSONA, "daily", "0 8 * * *", later) == later
    assert await store.run(slots.trigger_since, PERSONA, "daily", "0 8 * * *", later + timedelta(1)) == later


async def test_disk_failure_is_a_doppel_error(store: Store) -> None:
    def wrong(connection: object) -> None:
        connection.exec_driver_sql("insert into inbox (id) values (1)")  # type: ignore[attr-defined]

    with pytest.raises(DoppelError, match="database error"):
        await store.run(wrong)
    assert await store.run(inbox.unfinished_chats, PERSONA) == []


async def test_it_counts_as_failed_until_something_was_written(sqlite_store: Store, path: Path) -> None:
    def fail(connection: object) -> None:
        connection.exec_driver_sql("insert into inbox (id) values (1)")  # type: ignore[attr-defined]

    for repair in (sqlite_store.check_writable, lambda: chat_with(sqlite_store, "one")):
        with pytest.raises(DoppelError):
            await sqlite_store.run(fail)
        await sqlite_store.run(inbox.unfinished_chats, PERSONA)
        assert sqlite_store.failure is not None
        await repair()
        assert sqlite_store.failure is None
    log = path.with_name(f"{path.name}-wal")
    size = log.stat().st_size
    await sqlite_store.check_writable()
    assert log.stat().st_size > size  # a full disk would be noticed


async def test_chat_row_can_be_forgotten_with_all_it_holds(store: Store) -> None:
    chat = await chat_with(store, "one")
    await store.run(outbox.add_turn, chat.id, "reply", ["a"], adapter=None, now=START)
    await store.run(lambda connection: connection.exec_driver_sql("delete from chats") and None)
    assert await states(store) == []
    assert await store.run(lambda connection: connection.execute(select(inbox_table)).all()) == []
