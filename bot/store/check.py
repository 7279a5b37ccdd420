"""What an owner wants to be sure of in the bot's database: is it whole, what is unfinished, what is in doubt.

Only reads, so it works beside a running daemon, and on databases that earlier versions wrote.
"""

import sqlite3
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection, Engine, Table, create_engine, func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from bot.store.connect import display_name, open_engine
from bot.store.integrity import connect_read_only, find_problems, sqlite_file
from bot.store.migrations import STEPS, applied_version
from bot.store.schema import InboxState, OutboxState, chats, inbox, outbox, slots
from doppel.errors import DoppelError, UserError
from doppel.i18n import tr


class InDoubt(msgspec.Struct, frozen=True):
    """A bubble that may or may not have arrived. `at` is when that became clear, in UTC."""

    platform: str
    chat: str
    at: datetime


class Unfinished(msgspec.Struct, frozen=True, kw_only=True):
    """What is still to be answered or sent. `since` is the time of the oldest of it, in UTC; None if there is none."""

    messages: int = 0
    bubbles: int = 0
    since: datetime | None = None


class StoreReport(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a database.

    Attributes:
        problems: what is damaged; without any, it is whole. Always empty for a database server, which checks itself.
        schema: number of the last migration that was applied; 0: it has no tables yet.
        supported_schema: the newest one that this version of doppel applies.
        messages: received messages by state. Nothing is counted in a damaged database, or one of a newer doppel.
        bubbles: the persona's bubbles by state.
        slots: of schedules, by state.
        unfinished: what is still to be done.
        in_doubt: bubbles in state `unknown`, newest first.
        file_bytes: size of the SQLite file and its write-ahead log; None for a database server.
        free_bytes: how much of it is free for what comes next.
    """

    problems: tuple[str, ...] = ()
    schema: int = 0
    supported_schema: int = len(STEPS)
    messages: dict[str, int] = {}
    bubbles: dict[str, int] = {}
    slots: dict[str, int] = {}
    unfinished: Unfinished = Unfinished()
    in_doubt: tuple[InDoubt, ...] = ()
    file_bytes: int | None = None
    free_bytes: int | None = None


def check_store(url: str) -> StoreReport:
    """Examines a database; reads all of a SQLite file.

    Raises:
        UserError: there is no SQLite file, or the server's driver is missing.
        DoppelError: it cannot be read, for a reason that is not damage.
    """
    file = sqlite_file(url)
    if file is not None and not file.is_file():
        raise UserError(tr("{path}: there is no database yet; `doppel run` creates it", path=file))
    engine = open_engine(url) if file is None else _read_only_engine(file)
    try:
        with engine.connect() as connection:
            return _examine(connection, file)
    except (DBAPIError, sqlite3.Error) as error:
        reason = error.orig if isinstance(error, DBAPIError) else error
        name = file or display_name(engine)
        raise DoppelError(tr("{path}: database error: {error}", path=name, error=reason)) from error
    finally:
        engine.dispose()


def _read_only_engine(file: Path) -> Engine:
    return create_engine("sqlite://", creator=partial(connect_read_only, file), poolclass=NullPool)


def _examine(connection: Connection, file: Path | None) -> StoreReport:
    sizes: dict[str, Any] = {}
    if file is not None:
        driver_connection = connection.connection.driver_connection
        assert isinstance(driver_connection, sqlite3.Connection)
        if problems := find_problems(driver_connection):
            return StoreReport(problems=tuple(problems), file_bytes=_size(file))
        free_pages, page_bytes = (
            driver_connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("freelist_count", "page_size")
        )
        sizes = {"file_bytes": _size(file), "free_bytes": free_pages * page_bytes}
    schema = applied_version(connection)
    if not 0 < schema <= len(STEPS):
        return StoreReport(schema=schema, **sizes)
    return StoreReport(
        schema=schema,
        messages=_by_state(connection, inbox),
        bubbles=_by_state(connection, outbox),
        slots=_by_state(connection, slots),
        unfinished=_unfinished(connection),
        in_doubt=_in_doubt(connection),
        **sizes,
    )


def _size(file: Path) -> int:
    log = file.with_name(f"{file.name}-wal")
    return file.stat().st_size + (log.stat().st_size if log.exists() else 0)


def _by_state(connection: Connection, table: Table) -> dict[str, int]:
    query = select(table.c.state, func.count().label("rows")).group_by(table.c.state).order_by(table.c.state)
    return {row.state: row.rows for row in connection.execute(query)}


def _unfinished(connection: Connection) -> Unfinished:
    waiting = inbox.c.state.in_((InboxState.NEW, InboxState.REPLYING))
    unsent = outbox.c.state.in_((OutboxState.PENDING, OutboxState.SENDING))
    messages, received = connection.execute(select(func.count(), func.min(inbox.c.received_at)).where(waiting)).one()
    bubbles, written = connection.execute(select(func.count(), func.min(outbox.c.created_at)).where(unsent)).one()
    since = min((time for time in (received, written) if time is not None), default=None)
    return Unfinished(messages=messages, bubbles=bubbles, since=since)


def _in_doubt(connection: Connection) -> tuple[InDoubt, ...]:
    query = (
        select(chats.c.platform, chats.c.chat, outbox.c.changed_at)
        .join(chats, outbox.c.chat_id == chats.c.id)
        .where(outbox.c.state == OutboxState.UNKNOWN)
        .order_by(outbox.c.changed_at.desc())
    )
    return tuple(InDoubt(*row) for row in connection.execute(query))
