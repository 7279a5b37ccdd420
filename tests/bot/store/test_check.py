"""What `doppel store check` finds out about a database."""

import asyncio
import sqlite3
import tarfile
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import insert

from bot.store import outbox, slots
from bot.store.check import InDoubt, Unfinished, check_store
from bot.store.migrations import STEPS
from bot.store.schema import OutboxError, SlotState
from bot.store.schema import outbox as outbox_table
from doppel.config import Config
from doppel.errors import DoppelError, UserError
from tests.bot.harness import config_in
from tests.bot.store.test_backup import damage, database
from tests.bot.store.test_erasure import START, Filled, fill

STORED_FORMATS = Path(__file__).parents[2] / "stored_formats"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return config_in(tmp_path, telegram={"allow": [7, 8, "-100"]})


@pytest.fixture
def any_config(tmp_path: Path, store_url: str) -> Config:
    return config_in(tmp_path, telegram={"allow": [7, 8, "-100"]}, store=store_url)


async def test_states_and_what_is_unfinished_and_in_doubt_beside_a_running_daemon(any_config: Config) -> None:
    config = any_config
    filled = Filled(config)
    with closing(filled.store):
        await filled.reply(await filled.receive("7", "answered"), "answer")
        doubtful = await filled.receive("8", "perhaps answered")
        await filled.reply(doubtful, "perhaps sent", sent=False)
        bubble, *_ = await filled.store.run(outbox.pending_bubbles, doubtful)
        await filled.store.run(outbox.mark_sending, bubble, START)
        lost_at = START + timedelta(minutes=1)
        await filled.store.run(outbox.mark_unknown, bubble, OutboxError.INTERRUPTED, lost_at)
        await filled.receive("9", "waits")
        await filled.store.run(slots.claim, filled.store.persona, "daily", START, SlotState.POSTED, now=START)
        report = check_store(config.store_url)
    assert report.problems == ()
    assert report.schema == report.supported_schema == len(STEPS)
    assert report.messages == {"answered": 2, "new": 1}
    assert report.bubbles == {"sent": 1, "unknown": 1}
    assert report.slots == {"posted": 1}
    assert report.unfinished == Unfinished(messages=1, since=START + timedelta(seconds=3))
    assert report.in_doubt == (InDoubt("telegram", "8", lost_at),)
    if config.store_url.startswith("sqlite"):
        assert report.file_bytes is not None
        assert report.free_bytes is not None
        assert report.file_bytes >= report.free_bytes >= 0


async def test_nothing_is_written_and_no_migration_runs(config: Config, tmp_path: Path) -> None:
    with tarfile.open(STORED_FORMATS / "v0.1" / "database.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    before = database(config).read_bytes()
    report = check_store(config.store_url)
    assert report.problems == ()
    assert 0 < report.schema < len(STEPS)
    assert sum(report.messages.values()) > 0
    assert database(config).read_bytes() == before


async def test_free_pages_are_counted(config: Config) -> None:
    filled = Filled(config)
    with closing(filled.store):
        chat = await filled.receive("7", "hello")
        row = {"chat_id": chat, "kind": "post", "position": 0, "state": "failed", "attempts": 0}
        rows = [
            {**row, "turn": turn, "text": "x" * 1000, "created_at": START, "changed_at": START} for turn in range(99)
        ]
        await filled.store.run(lambda connection: connection.execute(insert(outbox_table), rows) and None)
        await filled.store.run(lambda connection: connection.exec_driver_sql("delete from outbox") and None)
        assert (check_store(config.store_url).free_bytes or 0) > 50_000


@pytest.mark.parametrize("how", ["overwritten", "no database", "orphan"])
def test_damage_is_found(config: Config, how: str) -> None:
    asyncio.run(fill(config))
    if how == "overwritten":
        damage(database(config))
    elif how == "no database":
        database(config).write_bytes(b"something else" * 1000)
    else:
        with closing(sqlite3.connect(database(config), isolation_level=None)) as connection:
            connection.execute("delete from chats where id = 1")
    report = check_store(config.store_url)
    assert report.problems
    assert report.messages == {}
    if how == "orphan":
        assert "inbox, row 1: refers to a row of chats that is missing" in report.problems


def test_a_database_of_a_newer_doppel_is_not_counted(config: Config) -> None:
    asyncio.run(fill(config))
    with closing(sqlite3.connect(database(config), isolation_level=None)) as connection:
        connection.execute("insert into migrations values (99, 'later', '2030-01-01')")
    report = check_store(config.store_url)
    assert (report.schema, report.messages, report.problems) == (99, {}, ())


def test_an_empty_file_has_no_schema_yet(config: Config) -> None:
    database(config).parent.mkdir()
    database(config).touch()
    assert check_store(config.store_url).schema == 0


def test_without_a_database_nothing_is_created(config: Config) -> None:
    with pytest.raises(UserError, match="there is no database yet"):
        check_store(config.store_url)
    assert not database(config).parent.exists()


def test_a_database_that_is_locked_is_not_called_damaged(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.run(fill(config))

    def at_once(path: Path) -> sqlite3.Connection:
        return sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=0)

    monkeypatch.setattr("bot.store.check.connect_read_only", at_once)
    with closing(sqlite3.connect(database(config), isolation_level=None)) as other:
        other.execute("pragma locking_mode=exclusive")
        other.execute("begin exclusive")
        with pytest.raises(DoppelError, match="locked"):
            check_store(config.store_url)


def test_times_are_utc(config: Config) -> None:
    asyncio.run(fill(config))
    with closing(sqlite3.connect(database(config), isolation_level=None)) as connection:
        connection.execute("update inbox set state = 'new', received_at = '2026-03-01 12:00:00.000000'")
    assert check_store(config.store_url).unfinished.since == datetime(2026, 3, 1, 12, tzinfo=UTC)
