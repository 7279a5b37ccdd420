"""`doppel store`: what it prints, for people and for programs, and its exit codes."""

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from bot.store import outbox
from doppel.cli.app import app
from doppel.config import load_config
from doppel.errors import ExitCode
from tests.bot.store.test_backup import damage
from tests.bot.store.test_erasure import START, Filled, fill


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text("timezone: UTC")
    return tmp_path


def invoke(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app(), ["store", *arguments, "--config", str(folder / "config.yaml")])


async def leave_in_doubt(folder: Path, count: int) -> None:
    filled = Filled(load_config(folder / "config.yaml"))
    with closing(filled.store):
        for _ in range(count):
            chat = await filled.receive("7", "hello")
            await filled.reply(chat, "perhaps", sent=False)
            bubble, *_ = await filled.store.run(outbox.pending_bubbles, chat)
            await filled.store.run(outbox.mark_sending, bubble, START)
            await filled.store.run(outbox.mark_unknown, bubble, "connection lost", START)


def test_backup_writes_where_it_says(folder: Path) -> None:
    asyncio.run(fill(load_config(folder / "config.yaml")))
    result = invoke(folder, "backup", "--json")
    assert result.exit_code == ExitCode.OK
    written = json.loads(result.stdout)
    assert Path(written["file"]).parent == folder / "data" / "backups"
    assert Path(written["file"]).stat().st_size == written["bytes"]
    named = invoke(folder, "backup", str(folder / "mine.db"))
    assert named.exit_code == ExitCode.OK
    assert "written and checked" in named.output
    again = invoke(folder, "backup", str(folder / "mine.db"))
    assert again.exit_code == ExitCode.USER_ERROR
    assert "--force" in again.output
    assert invoke(folder, "backup", str(folder / "mine.db"), "--force").exit_code == ExitCode.OK


def test_backup_of_a_server_names_its_tool(folder: Path) -> None:
    (folder / "config.yaml").write_text("store: postgresql+psycopg://mara@localhost/doppel")
    result = invoke(folder, "backup")
    assert result.exit_code == ExitCode.USER_ERROR
    assert "pg_dump" in result.output


def test_check_shows_what_is_in_doubt(folder: Path) -> None:
    asyncio.run(leave_in_doubt(folder, 22))
    result = invoke(folder, "check")
    assert result.exit_code == ExitCode.OK
    assert "whole;" in result.output
    assert "messages: 22 answered" in result.output
    assert "unfinished: nothing" in result.output
    assert "in doubt (may have arrived or not): 22" in result.output
    assert result.output.count("2026-03-01 12:00:00 UTC  telegram:7") == 20
    assert "and 2 older ones" in result.output
    whole = json.loads(invoke(folder, "check", "--json").stdout)
    assert len(whole["in_doubt"]) == 22
    assert whole["in_doubt"][0] == {"platform": "telegram", "chat": "7", "at": "2026-03-01T12:00:00Z"}
    assert whole["messages"] == {"answered": 22}


def test_damage_has_an_exit_code_of_its_own(folder: Path) -> None:
    asyncio.run(fill(load_config(folder / "config.yaml")))
    damage(folder / "data" / "doppel.db")
    result = invoke(folder, "check")
    assert result.exit_code == ExitCode.DAMAGED
    assert "the database is damaged" in result.output
    assert json.loads(invoke(folder, "check", "--json").stdout)["problems"]


def test_other_schemas_are_named(folder: Path) -> None:
    asyncio.run(fill(load_config(folder / "config.yaml")))
    path = folder / "data" / "doppel.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("delete from migrations where number > 2")
        older = invoke(folder, "check")
        connection.execute("insert into migrations values (99, 'later', '2030-01-01')")
        newer = invoke(folder, "check")
    assert older.exit_code == ExitCode.OK
    assert "schema 2; the next `doppel run` updates it to" in older.output
    assert newer.exit_code == ExitCode.USER_ERROR
    assert "update doppel" in newer.output
