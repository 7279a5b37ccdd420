"""The daemon's database. One thread does all reads and writes, so the event loop never waits for the disk.

`Store.run` takes a function whose first argument is a connection (those of `bot.store.inbox`, `outbox` and `slots`) and
runs it as one transaction.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import NullPool

from bot.store.group_commit import GroupCommit
from bot.store.migrations import migrate
from doppel.errors import DoppelError, UserError
from doppel.i18n import tr
from doppel.system.file_lock import acquire_lock
from doppel.system.private_folder import make_private_folder

P = ParamSpec("P")
R = TypeVar("R")


class StoreInUse(UserError):
    """Another `doppel run` has the database open."""


class Store:
    """An open database, migrated to the current tables. Calls run one after another on one thread.

    Args:
        url: SQLAlchemy URL; a SQLite file and its folder are created if missing.
        persona: whose chats are read and written; a database may hold those of several.

    Raises:
        StoreInUse: another process has it open.
        UserError: the path cannot be written, is not a database, or was written by a newer doppel.
    """

    def __init__(self, url: str, persona: str) -> None:
        self.persona = persona
        self.failure: str | None = None
        """Why a transaction failed, as when the disk is full; None again after one that has written something."""
        self._engine = open_engine(url)
        self._path = self._engine.url.database or url
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
            result, has_written = await asyncio.wrap_future(
                self._commits.submit(lambda connection: _noting_writes(connection, work, *args, **kwargs))
            )
        except DBAPIError as error:
            self.failure = tr("{path}: database error: {error}", path=self._path, error=error.orig)
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
        if self._engine.dialect.name != "sqlite":
            return
        try:
            is_complete = await asyncio.wrap_future(self._commits.submit_alone(_compact))
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
            raise UserError(
                tr("{path}: cannot be used as a database: {error}", path=self._path, error=error.orig)
            ) from None
        return connection


def open_engine(url: str) -> Engine:
    """A database whose connections are set up as the daemon needs them; none is opened yet. Raises UserError."""
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite" and parsed.database:
            path = Path(parsed.database)
            make_private_folder(path.parent)
            path.touch(mode=0o600)  # holds private conversations: no access for other users of this machine
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


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    """Makes commits survive a power cut, lets readers and the writer work at the same time, and leaves nothing of what
    is deleted in the file.
    """
    connection.isolation_level = None  # the driver would commit before DDL; `_begin_sqlite` sends BEGIN itself
    settings = ("busy_timeout=5000", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON")
    for setting in settings:
        connection.execute(f"PRAGMA {setting}")


@contextmanager
def _without_foreign_keys(connection: Connection) -> Iterator[None]:
    """Lets a migration replace a table that others refer to: SQLite would delete the rows that do."""
    if connection.dialect.name != "sqlite":
        yield
        return
    _sqlite(connection).execute("PRAGMA foreign_keys=OFF")
    yield
    _sqlite(connection).execute("PRAGMA foreign_keys=ON")


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
    driver_connection = _sqlite(connection)
    driver_connection.execute("VACUUM")
    is_busy, _, _ = driver_connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not is_busy


def _sqlite(connection: Connection) -> sqlite3.Connection:
    driver_connection = connection.connection.driver_connection
    assert isinstance(driver_connection, sqlite3.Connection)
    return driver_connection


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
