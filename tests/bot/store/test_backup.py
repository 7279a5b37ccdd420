"""Copies of the database: consistent, checked, private, whole or not there."""

import asyncio
import os
import sqlite3
import stat
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bot.store import Store
from bot.store.backup import back_up, backups_folder, default_file
from bot.store.personal_data import LiveMessages
from doppel.config import Config
from doppel.errors import DataDamaged, DoppelError, UserError
from tests.bot.harness import config_in
from tests.bot.store.test_erasure import ANA, Filled, fill, person

NOW = datetime(2026, 3, 2, 12, 30, 5, tzinfo=UTC)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return config_in(tmp_path, telegram={"allow": [7, 8, "-100"]})


def database(config: Config) -> Path:
    return config.root / "data" / "doppel.db"


def texts(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [text for (text,) in connection.execute("select text from inbox order by id")]


def damage(path: Path) -> None:
    """Overwrites the inside of a database, not its header."""
    content = bytearray(path.read_bytes())
    content[4096:20480] = b"\xff" * (20480 - 4096)
    path.write_bytes(content)


async def test_a_copy_is_made_while_the_database_is_in_use(config: Config) -> None:
    filled, target = Filled(config), config.root / "copy.db"
    with closing(filled.store):
        await filled.receive("7", "before")
        back_up(database(config), target, NOW)
        await filled.receive("7", "after")
        assert texts(target) == ["before"]
        assert sorted(path.name for path in config.root.glob("*copy*")) == ["copy.db"]
        assert stat.S_IMODE(target.stat().st_mode) == 0o600


async def test_a_copy_is_of_one_moment_while_messages_come_in(config: Config) -> None:
    filled, target = Filled(config), config.root / "copy.db"
    with closing(filled.store):
        for number in range(20):
            await filled.receive("7", f"text {number}")
        writing = asyncio.gather(*(filled.receive("7", f"text {number}") for number in range(20, 120)))
        await asyncio.to_thread(back_up, database(config), target, NOW)
        await writing
    copied = texts(target)
    assert copied == [f"text {number}" for number in range(len(copied))]
    assert 20 <= len(copied) <= 120


async def test_a_restored_copy_opens_as_it_was(config: Config) -> None:
    await fill(config)
    expected, copy = texts(database(config)), default_file(config, NOW)
    back_up(database(config), copy, NOW)
    for path in database(config).parent.glob("doppel.db*"):
        path.unlink()
    database(config).write_bytes(copy.read_bytes())
    with closing(Store(config.store_url, config.persona.name)) as store:
        assert await store.run(lambda connection: connection.exec_driver_sql("select count(*) from inbox").scalar())
    assert texts(database(config)) == expected


def test_a_file_that_is_there_is_replaced_only_if_that_is_wanted(config: Config) -> None:
    asyncio.run(fill(config))
    target = config.root / "copy.db"
    target.write_text("mine")
    with pytest.raises(UserError, match="is there already"):
        back_up(database(config), target, NOW)
    assert target.read_text() == "mine"
    back_up(database(config), target, NOW, replace=True)
    assert len(texts(target)) == 4
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["doppel.db", "doppel.db-wal", "../data/doppel.db"])
def test_the_database_is_never_overwritten(config: Config, name: str) -> None:
    asyncio.run(fill(config))
    with pytest.raises(UserError, match="is the database itself"):
        back_up(database(config), database(config).parent / name, NOW, replace=True)
    assert len(texts(database(config))) == 4


def test_a_folder_and_a_missing_database_are_refused(config: Config, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no database yet"):
        back_up(database(config), tmp_path / "copy.db", NOW)
    asyncio.run(fill(config))
    with pytest.raises(UserError, match="is a folder"):
        back_up(database(config), tmp_path, NOW, replace=True)


@pytest.mark.parametrize("content", ["damaged", "no database"])
def test_a_damaged_database_gives_no_copy_and_says_so(config: Config, content: str) -> None:
    asyncio.run(fill(config))
    if content == "damaged":
        damage(database(config))
    else:
        database(config).write_bytes(b"something else" * 1000)
    with pytest.raises(DataDamaged, match="no backup was written"):
        back_up(database(config), config.root / "copies" / "copy.db", NOW)
    assert list((config.root / "copies").iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_one_line(config: Config, tmp_path: Path) -> None:
    asyncio.run(fill(config))
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(DoppelError, match="cannot be written"):
        back_up(database(config), tmp_path / "closed" / "copy.db", NOW)


def test_what_a_killed_backup_left_is_removed_by_a_later_one(config: Config) -> None:
    asyncio.run(fill(config))
    folder = backups_folder(config)
    folder.mkdir()
    old, new = folder / ".doppel-backup.0123", folder / ".doppel-backup.4567"
    for path in (old, new):
        path.write_bytes(b"half")
        os.utime(path, (NOW.timestamp(), NOW.timestamp()))
    os.utime(old, (0, 0))
    target = default_file(config, NOW)
    back_up(database(config), target, NOW)
    assert sorted(path.name for path in folder.iterdir()) == [new.name, "doppel-20260302T123005Z.db"]


def test_a_persona_called_backups_keeps_its_folder(tmp_path: Path) -> None:
    config = config_in(tmp_path, persona={"name": "backups"})
    with pytest.raises(UserError, match="holds the data set of this persona"):
        default_file(config, NOW)


def test_forgetting_somebody_names_the_backups(config: Config) -> None:
    asyncio.run(fill(config))
    assert not any("backups" in line for line in LiveMessages(config).erase(person(ANA)).lines)
    asyncio.run(fill_again(config))
    back_up(database(config), default_file(config, NOW), NOW)
    assert any("1 backups of the bot's database" in line for line in LiveMessages(config).erase(person(ANA)).lines)
    assert any("1 backups of the bot's database" in line for line in LiveMessages(config).erase(person(ANA)).lines)


async def fill_again(config: Config) -> None:
    filled = Filled(config)
    filled._events = 100
    with closing(filled.store):
        await filled.receive("7", "ana is back")
