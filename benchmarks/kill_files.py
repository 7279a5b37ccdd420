"""What kill.py kills beside the daemon at work: migrations of its database, and publications of adapters."""

import asyncio
import itertools
import os
import random
import shutil
import sqlite3
import tarfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from daemon_process import Child, ForkServer, publish_in

from doppel.adapters.versions import current_version, list_versions, read_manifest
from doppel.errors import DoppelError
from tests.bot.fakes.telegram_server import TOKEN
from tests.bot.harness import config_in

STORED = Path(__file__).parents[1] / "tests" / "stored_formats" / "v0.1" / "database.tar.gz"
ROWS = 2000
"""Messages, and as many bubbles, that are added to the database of 0.1, so that migrating takes some time."""
_OLD_COLUMNS = {
    "inbox": "id, chat_id, platform, event_id, message_id, sender, text, sent_at, received_at, attempts",
    "outbox": "id, chat_id, kind, turn, position, text, state, adapter, inbox_id, slot_id, message_id, error",
    "slots": "id, schedule, due, claimed_at, state, reason",
    "cursors": "name, value",
}
_CHECKS = ("integrity_check", "foreign_key_check")
_NUMBERS = f"with recursive numbers(n) as (select 1 union all select n + 1 from numbers where n < {ROWS}) "
_PREPARATION = (
    # What a start would go on with: it would change after the migration.
    "update inbox set state = 'answered' where state = 'new'",
    "update outbox set state = 'unknown' where state = 'sending'",
    "insert into inbox (chat_id, platform, event_id, message_id, sender, text, addressed, sent_at, received_at, state, "
    f"attempts) {_NUMBERS} select 1, 'telegram', 'x' || n, 'y' || n, '5001', 'message ' || n, 1, "
    "'2026-03-02 12:00:00.000000', '2026-03-02 12:00:00.000000', 'answered', 0 from numbers",
    "insert into outbox (chat_id, kind, turn, position, text, state, attempts, message_id, created_at, changed_at) "
    f"{_NUMBERS} select 1, 'reply', 1000 + n, 0, 'bubble ' || n, 'sent', 1, 'z' || n, "
    "'2026-03-02 12:00:00.000000', '2026-03-02 12:00:00.000000' from numbers",
)
NOWHERE = "http://127.0.0.1:9"
"""No Telegram: a daemon that has migrated must not change what is compared."""
_LOG = "*-wal"
_STAGING = ".publishing-*"


class Migrations:
    """Starts the daemon on a database of version 0.1 and kills it while it migrates.

    Every other time before a chosen statement, in turn from the first to the last commit; else at a random moment.
    """

    def __init__(self, folder: Path, forks: ForkServer) -> None:
        self._persona = config_in(folder).persona.name
        self._original = folder / "v0.1.db"
        self._reference = folder / "reference"
        self._forks = forks
        self._numbers = itertools.count()
        self._expected: dict[str, list[Any]] = {}
        self.result = {"kills": 0, "not_begun": 0, "before_commit": 0, "after_commit": 0, "wrong": 0, "statements": 0}

    async def prepare(self) -> None:
        """Makes the database, and migrates a copy undisturbed."""
        await asyncio.to_thread(self._make)
        database = await asyncio.to_thread(self._copy, self._reference)
        child = await self._forks.start("store", url=f"sqlite:///{database}", persona=self._persona)
        await _begun(database.parent, _LOG, child)
        began = time.monotonic()
        if await child.ended:
            raise RuntimeError("the migration fails")
        self._seconds = time.monotonic() - began
        self.result["statements"] = _number_in(database.with_name(f"{database.name}.statements"))
        self._expected = _tables(database)
        self.result["wrong"] += _old_columns(database) != _old_columns(self._original)

    async def kill_one(self, folder: Path) -> None:
        """Kills one migration, and compares what another start makes of what it left."""
        database = await asyncio.to_thread(self._copy, folder)
        kill_at = _chosen(next(self._numbers), self.result["statements"])
        child = await self._forks.start(
            "daemon until", kill_at=kill_at, folder=str(folder), settings=self._settings(), token=TOKEN
        )
        await _end(child, kill_at, self._seconds, database.parent, _LOG)
        await self._compare(database)

    async def _compare(self, database: Path) -> None:
        self.result["kills"] += 1
        self.result[await asyncio.to_thread(_progress, database)] += 1
        child = await self._forks.start("store", url=f"sqlite:///{database}", persona=self._persona)
        is_opened = await child.ended == 0
        tables = await asyncio.to_thread(_tables, database)
        self.result["wrong"] += not is_opened or tables != self._expected
        await asyncio.to_thread(shutil.rmtree, database.parents[1])

    def _settings(self) -> dict[str, Any]:
        return {"telegram": {"api": NOWHERE, "allow": [5001, -7007]}, "web": {"enabled": False}}

    def _copy(self, folder: Path) -> Path:
        database = folder / "data" / "doppel.db"
        database.parent.mkdir(parents=True)
        shutil.copy(self._original, database)
        publish_in(folder, weights=1)
        return database

    def _make(self) -> None:
        unpacked = self._original.parent / "stored"
        with tarfile.open(STORED) as archive:
            archive.extractall(unpacked, filter="data")
        with closing(sqlite3.connect(unpacked / "data" / "doppel.db")) as connection:
            for statement in _PREPARATION:
                connection.execute(statement)
                connection.commit()
            connection.execute(f"vacuum into '{self._original}'")
        with closing(sqlite3.connect(self._original)) as connection:
            connection.execute("pragma journal_mode=wal")


class Publications:
    """Publishes adapters and kills it on the way: every other time at a chosen call that changes the disk, in turn."""

    def __init__(self, forks: ForkServer) -> None:
        self._forks = forks
        self._numbers = itertools.count()
        self.result = {"kills": 0, "published": 0, "complete_and_not_current": 0, "damaged": 0, "left": 0, "calls": 0}

    async def prepare(self, folder: Path) -> None:
        """Counts the calls of an undisturbed publication, and takes its time."""
        await asyncio.to_thread(folder.mkdir)
        child = await self._forks.start("publish", folder=str(folder))
        await _begun(config_in(folder).adapters_dir, _STAGING, child)
        began = time.monotonic()
        if await child.ended:
            raise RuntimeError("publishing fails")
        self._seconds = time.monotonic() - began
        self.result["calls"] = _number_in(folder / "calls")

    async def kill_one(self, folder: Path) -> None:
        """Kills one publication and examines what there is then."""
        before = self.current(folder)
        kill_at = _chosen(next(self._numbers), self.result["calls"])
        child = await self._forks.start("publish", folder=str(folder), kill_at=kill_at)
        await _end(child, kill_at, self._seconds, config_in(folder).adapters_dir, _STAGING)
        self.result["kills"] += 1
        self.result["published"] += self.current(folder) != before
        await asyncio.to_thread(self._examine, folder)

    def current(self, folder: Path) -> str:
        """The version in use."""
        current = current_version(config_in(folder).adapters_dir)
        return current.name if current is not None else ""

    async def clean_up(self, folder: Path) -> None:
        """Publishes once more, a day later, and counts what is left of those that were killed."""
        adapters = config_in(folder).adapters_dir
        for path in adapters.glob(".*"):
            os.utime(path, (0, 0))
        before = list_versions(adapters)
        child = await self._forks.start("publish", folder=str(folder))
        self.result["damaged"] += await child.ended != 0 or int(self.current(folder)) != int(before[-1]) + 1
        self._examine(folder)
        self.result["left"] += len([path for path in adapters.iterdir() if path.name not in _expected(adapters)])

    def _examine(self, folder: Path) -> None:
        adapters = config_in(folder).adapters_dir
        versions = list_versions(adapters)
        current = self.current(folder)
        self.result["damaged"] += current not in versions
        self.result["complete_and_not_current"] += versions[-1:] != [current]
        for version in versions[-2:]:
            try:
                read_manifest(adapters / version)
            except DoppelError:
                self.result["damaged"] += 1


def _chosen(number: int, count: int) -> int:
    """Every other time one of `count` places to kill at, in turn; else 0, which is a random moment."""
    return 0 if number % 2 else 1 + number // 2 % count


async def _begun(folder: Path, pattern: str, child: Child) -> None:
    """Waits until the work of a child shows, by a file."""
    while not child.ended.done() and not _exists(folder, pattern):
        await child.ends_within(0.002)


def _exists(folder: Path, pattern: str) -> bool:
    return any(folder.glob(pattern))


async def _end(child: Child, kill_at: int, seconds: float, folder: Path, pattern: str) -> None:
    """Waits until a child has killed itself, or kills it while it works, which takes `seconds`."""
    if not kill_at:
        await _begun(folder, pattern, child)
        await child.ends_within(random.uniform(0, 1.5 * seconds))
        child.kill()
    if not await child.ends_within(60):
        raise RuntimeError("the process to be killed does nothing")


def _expected(adapters: Path) -> set[str]:
    return {*list_versions(adapters), "current"}


def _number_in(path: Path) -> int:
    return int(path.read_text())


def _progress(database: Path) -> str:
    """How far a killed migration came; looks at a copy, so that another start finds the log as it was left."""
    log = database.with_name(f"{database.name}-wal")
    if not log.exists():
        return "not_begun"
    copy = database.with_name("copy.db")
    shutil.copy(database, copy)
    shutil.copy(log, copy.with_name(f"{copy.name}-wal"))
    with closing(sqlite3.connect(copy)) as connection:
        (last,) = connection.execute("select max(number) from migrations").fetchone()
    return "before_commit" if last == 1 else "after_commit"


def _tables(database: Path) -> dict[str, list[Any]]:
    """Everything in a database, and what SQLite finds wrong with it."""
    with closing(sqlite3.connect(database)) as connection:
        result = {check: connection.execute(f"pragma {check}").fetchall() for check in _CHECKS}
        for table, columns in {**dict.fromkeys(("chats", *_OLD_COLUMNS), "*"), "migrations": "number, name"}.items():
            result[table] = connection.execute(f"select {columns} from {table} order by 1, 2").fetchall()
    return result


def _old_columns(database: Path) -> dict[str, list[Any]]:
    """What 0.1 stored and no later version may change."""
    with closing(sqlite3.connect(database)) as connection:
        return {
            table: connection.execute(f"select {columns} from {table} order by 1").fetchall()
            for table, columns in _OLD_COLUMNS.items()
        }
