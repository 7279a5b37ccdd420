"""The daemon's database: one writer on a thread of its own, so the event loop never waits for the disk.

`Store.run` takes a function of a connection (those of `bot.store.inbox`, `outbox` and `schedule`) and
runs it as one transaction. Knows when to commit, and nothing of what is stored.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import NullPool

from bot.store.migrations import migrate
from doppel.errors import DoppelError, UserError
from doppel.i18n import tr
from doppel.system.file_lock import acquire_lock

P = ParamSpec("P")
R = TypeVar("R")


class Store:
    """An open database, brought to the present tables. Every call runs in order on one thread.

    Args:
        url: SQLAlchemy URL; a SQLite file and its folder are made when missing.

    Raises:
        UserError: the place cannot be written, is no database, was written by a newer doppel, or is in use by
            another process.
    """

    def __init__(self, url: str) -> None:
        self._engine = _engine(url)
        self._place = self._engine.url.database or url
        self._lock = _lock(self._engine)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        try:
            self._connection = self._thread.submit(self._open).result()
        except BaseException:
            self._thread.shutdown()
            self._unlock()
            raise

    async def run(self, work: Callable[Concatenate[Connection, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Runs `work(connection, ...)` as one transaction: all of it is on disk when this returns, or none.

        Cancelling the caller does not undo work that has begun. Raises DoppelError when the disk fails.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, partial(self._transaction, work, *args, **kwargs))

    def close(self) -> None:
        """Waits for what was asked for and closes the database."""
        self._thread.submit(self._connection.close).result()
        self._thread.shutdown()
        self._engine.dispose()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()

    def _open(self) -> Connection:
        try:
            connection = self._engine.connect()
            with connection.begin():
                migrate(connection, self._place)
        except DBAPIError as error:
            raise UserError(
                tr("{path}: cannot be used as database: {error}", path=self._place, error=error.orig)
            ) from None
        return connection

    def _transaction(self, work: Callable[..., R], *args: Any, **kwargs: Any) -> R:
        try:
            with self._connection.begin():
                return work(self._connection, *args, **kwargs)
        except DBAPIError as error:
            raise DoppelError(tr("{path}: the database failed: {error}", path=self._place, error=error.orig)) from error


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite" and parsed.database:
            path = Path(parsed.database)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)  # it holds conversations: nobody else's business on this machine
        engine = create_engine(parsed, poolclass=NullPool)
    except (ArgumentError, ImportError) as error:
        raise UserError(tr("config.yaml: `store`: {error}", error=error)) from None
    except OSError as error:
        raise UserError(tr("{path}: cannot be written: {error}", path=parsed.database, error=error.strerror)) from None
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _lock(engine: Engine) -> BinaryIO | None:
    """Keeps a second daemon off a SQLite file: both would send the same bubbles. None: there is no file to lock."""
    place = engine.url.database
    if engine.dialect.name != "sqlite" or not place or place == ":memory:":
        return None
    try:
        lock = acquire_lock(Path(f"{place}.lock"))
    except OSError as error:
        raise UserError(tr("{path}: cannot be written: {error}", path=place, error=error.strerror)) from None
    if lock is None:
        raise UserError(
            tr("{path}: another `doppel run` is using this database; stop it, or choose another `store`", path=place)
        )
    return lock


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    """Durable and patient: a commit survives a power cut, readers and the writer do not block one another."""
    connection.isolation_level = None  # the driver would commit before data definition; BEGIN is sent below
    for setting in ("busy_timeout=5000", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {setting}")


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
