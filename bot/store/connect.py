"""Opens the database that `store` in config.yaml names: a SQLite file, or PostgreSQL."""

import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import NullPool

from doppel.errors import UserError
from doppel.i18n import tr
from doppel.secrets import STORE_PASSWORD, read_secret
from doppel.system.private_folder import make_private_folder

_SERVER_SETTINGS = {
    "synchronous_commit": "on",  # what is acknowledged survives a power cut, whatever the server's default
    "lock_timeout": "10s",
    "idle_in_transaction_session_timeout": "60s",
}
_CONNECTION_SETTINGS = {"connect_timeout": "5", "tcp_user_timeout": "10000", "keepalives_idle": "10"}
"""Seconds, milliseconds, seconds: a server that vanished is noticed, instead of being waited for."""


def open_engine(url: str, environ: Mapping[str, str] = os.environ) -> Engine:
    """A database whose connections are set up as the daemon needs them; none is opened yet.

    Args:
        url: SQLAlchemy URL; the folder and the file of a SQLite database are created if missing.
        environ: holds the password of a database server.

    Raises:
        UserError: the URL or the password is wrong, a driver is missing, or the file cannot be written.
    """
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
        if backend == "sqlite":
            return _open_sqlite(parsed)
        if backend == "postgresql":
            return _open_postgres(parsed, environ)
    except (ArgumentError, ImportError) as error:
        raise UserError(tr("config.yaml: `store`: {error}", error=error)) from None
    raise UserError(tr("config.yaml: `store`: {backend} is not supported; use SQLite or PostgreSQL", backend=backend))


def display_name(engine: Engine) -> str:
    """What messages call the database: the file, or the URL without a password."""
    if engine.dialect.name == "sqlite":
        return engine.url.database or ":memory:"
    return engine.url.set(drivername=engine.url.get_backend_name(), query={}).render_as_string(hide_password=True)


def sqlite_connection(connection: Connection) -> sqlite3.Connection:
    """The driver's connection."""
    driver_connection = connection.connection.driver_connection
    assert isinstance(driver_connection, sqlite3.Connection)
    return driver_connection


def _open_sqlite(url: URL) -> Engine:
    if url.database:
        path = Path(url.database)
        try:
            make_private_folder(path.parent)
            path.touch(mode=0o600)  # holds private conversations: no access for other users of this machine
        except OSError as error:
            raise UserError(tr("{path}: cannot be written: {error}", path=path, error=error.strerror)) from None
    engine = create_engine(url, poolclass=NullPool)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _open_postgres(url: URL, environ: Mapping[str, str]) -> Engine:
    try:
        import psycopg  # noqa: F401 - the driver that SQLAlchemy loads
    except ImportError:
        raise UserError(tr('PostgreSQL needs its driver; install it: pip install "doppel[postgres]"')) from None
    if password := read_secret(STORE_PASSWORD, environ):
        url = url.set(password=password)
    options = " ".join(f"-c {name}={value}" for name, value in _SERVER_SETTINGS.items())
    settings = {**_CONNECTION_SETTINGS, "application_name": "doppel", "options": options}
    if "options" in url.query:
        settings["options"] += f" {url.query['options']}"
    return create_engine(url, poolclass=NullPool, connect_args=settings)


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    """Makes commits survive a power cut, lets readers and the writer work at the same time, and leaves nothing of what
    is deleted in the file.
    """
    connection.isolation_level = None  # the driver would commit before DDL; `_begin_sqlite` sends BEGIN itself
    settings = ("busy_timeout=5000", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON")
    for setting in settings:
        connection.execute(f"PRAGMA {setting}")


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
