"""Opens a SQLite database for reading, also beside a running daemon, and looks for damage."""

import sqlite3
from pathlib import Path

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from doppel.i18n import tr

MAX_PROBLEMS = 20
"""One damaged page can cause thousands of them."""


def sqlite_file(url: str) -> Path | None:
    """The file of a SQLite database; None for others."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        return None
    return Path(parsed.database) if parsed.get_backend_name() == "sqlite" and parsed.database else None


def connect_read_only(path: Path) -> sqlite3.Connection:
    """A connection that cannot write. Opens lazily: whether it is a database shows at the first statement."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False)


def find_problems(connection: sqlite3.Connection) -> list[str]:
    """What is damaged in the file, as SQLite words it; empty if it is whole. Reads all of it.

    Raises:
        sqlite3.Error: it cannot be read, for a reason that is not damage.
    """
    try:
        damage = [row[0] for row in connection.execute(f"PRAGMA integrity_check({MAX_PROBLEMS})") if row[0] != "ok"]
        if damage:
            return damage
        orphans = connection.execute("PRAGMA foreign_key_check").fetchmany(MAX_PROBLEMS)
    except sqlite3.DatabaseError as error:
        if type(error) is not sqlite3.DatabaseError:  # such as OperationalError: locked, or no permission
            raise
        return [str(error)]  # not a database at all, or too damaged to be read
    return [
        tr("{table}, row {row}: refers to a row of {parent} that is missing", table=table, row=row, parent=parent)
        for table, row, parent, _ in orphans
    ]
