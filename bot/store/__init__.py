"""The daemon's database: SQLite, or PostgreSQL, which several daemons may share.

One thread does all reads and writes, so the event loop never waits for the disk.

`Store.run` takes a function whose first argument is a connection (those of `bot.store.inbox`, `outbox` and `slots`) and
runs it as one transaction.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, OperationalError

from bot.store.connect import display_name, open_engine, sqlite_connection
from bot.store.group_commit import GroupCommit
from bot.store.migrations import migrate
from doppel.errors import DoppelError, TryAgainLater, UserError
from doppel.i18n import tr
from doppel.system.file_lock import acquire_lock

P = ParamSpec("P")
R = TypeVar("R")


class StoreInUse(UserError):
    """Another `doppel run` has the database open."""


class Store:
    """An open database, migrated to the current tables. Calls run one after another on one thread.

    Args:
        url: as for `open_engine`.
        persona: whose chats are read and written; a database may hold those of several.

    Raises:
        StoreInUse: another process has it open.
        UserError: the path cannot be written, is not a database, or was written by a newer doppel.
        TryAgainLater: the database server cannot be reached.
    """

    def __init__(self, url: str, persona: str) -> None:
        self.persona = persona
        self.failure: str | None = None
        """Why a transaction failed, as when the disk is full; None again after one that has written something."""
        self._engine = open_engine(url)
        self.is_shared = self._engine.dialect.name != "sqlite"
        """Whether other daemons may use the database at the same time."""
        self._path = display_name(self._engine)
        self._lock = _lock(self._engine)
        try:
            self._commits = GroupCommit(self._open)
        except BaseException:
            self._unlock()
            raise

    @property
    def file(self) -> Path | None:
        """The SQLite file; None if the database is no file."""
        return Path(self._path) if self._lock is not None else None

    async def run(self, work: Callable[Concatenate[Connection, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Runs `work(connection, ...)` as one transaction: when this returns, all of it is on disk.

        It may share the transaction with others, and be run again; so it must change nothing but the database.
        Cancelling the caller does not undo work that has started. Raises DoppelError when the database fails.
        """
        try:
            result, has_written = await self._commits.submit(
                lambda connection: _noting_writes(connection, work, *args, **kwargs)
            )
        except DBAPIError as error:
            self.failure = tr("{path}: database error: {error}", path=self._path, error=_one_line(error))
            raise DoppelError(self.failure) from error
        if has_written:  # a full disk can still be read
            self.failure = None
        return result

    async def check_writable(self) -> None:
        """Writes something that changes nothing, so that `failure` is None again if that works. Raises DoppelError."""
        await self.run(_rewrite_version)
        self.failure = None

    async def compact(self) -> None:
        """Writes the file anew without the space of deleted rows, and empties the write-ahead log. SQLite only.

        Raises DoppelError when there is no room for the copy, or another program has the database open.
        """
        if self.is_shared:
            return
        try:
            is_complete = await self._commits.submit_alone(_compact)
        except (DBAPIError, sqlite3.Error) as error:
            raise DoppelError(tr("{path}: database error: {error}", path=self._path, error=error)) from error
        if not is_complete:
            raise DoppelError(tr("{path}: another program has this database open; close it", path=self._path))

    def close(self) -> None:
        """Finishes the queued work and closes the database."""
        self._commits.close()
        self._engine.dispose()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()

    def _open(self) -> Connection:
        try:
            connection = self._engine.connect()
            with _without_foreign_keys(connection), connection.begin():
                migrate(connection, self._path, self.persona)
        except DBAPIError as error:
            text = tr("{path}: cannot be used as a database: {error}", path=self._path, error=_one_line(error))
            # A server that is starting, or away, will be there later; a file that is no database stays one.
            is_passing = self.is_shared and isinstance(error, OperationalError)
            raise (TryAgainLater if is_passing else UserError)(text) from None
        return connection


def _one_line(error: DBAPIError) -> str:
    """What the driver says."""
    return " ".join(str(error.orig).split())


def _lock(engine: Engine) -> BinaryIO | None:
    """Locks a SQLite file, since two daemons would both send the same bubbles. None if there is no file to lock."""
    path = engine.url.database
    if engine.dialect.name != "sqlite" or not path or path == ":memory:":
        return None
    try:
        lock = acquire_lock(Path(f"{path}.lock"))
    except OSError as error:
        raise UserError(tr("{path}: cannot be written: {error}", path=path, error=error.strerror)) from None
    if lock is None:
        raise StoreInUse(
            tr("{path}: another `doppel run` is using this database; stop it, or choose another `store`", path=path)
        )
    return lock


@contextmanager
def _without_foreign_keys(connection: Connection) -> Iterator[None]:
    """Lets a migration replace a table that others refer to: SQLite would delete the rows that do."""
    if connection.dialect.name != "sqlite":
        yield
        return
    sqlite_connection(connection).execute("PRAGMA foreign_keys=OFF")
    yield
    sqlite_connection(connection).execute("PRAGMA foreign_keys=ON")


def _noting_writes(
    connection: Connection, work: Callable[Concatenate[Connection, P], R], *args: P.args, **kwargs: P.kwargs
) -> tuple[R, bool]:
    """What `work` returns, and whether it has changed rows; True where the database does not count them."""
    driver = connection.connection.driver_connection
    if not isinstance(driver, sqlite3.Connection):
        return work(connection, *args, **kwargs), True
    before = driver.total_changes
    return work(connection, *args, **kwargs), driver.total_changes != before


def _rewrite_version(connection: Connection) -> None:
    """Writes a field that doppel does not use, with the value it has: SQLite writes its page all the same."""
    if connection.dialect.name == "sqlite":
        version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
        connection.exec_driver_sql(f"PRAGMA user_version={version}")


def _compact(connection: Connection) -> bool:
    """Returns whether the write-ahead log could be emptied."""
    driver_connection = sqlite_connection(connection)
    driver_connection.execute("VACUUM")
    is_busy, _, _ = driver_connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not is_busy
