"""Copies the database while the daemon uses it: a consistent copy that appears complete or not at all."""

import os
import secrets
import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path

from bot.store.integrity import connect_read_only, find_problems
from doppel.config import Config
from doppel.errors import DataDamaged, DoppelError, UserError
from doppel.i18n import tr
from doppel.system.durable_files import fsync_path
from doppel.system.private_folder import make_private_folder
from doppel.system.stale_files import remove_stale
from doppel.system.write_errors import translate_write_errors

_TEMPORARY = ".doppel-backup."
_COMPANIONS = ("", "-journal", "-wal", "-shm")
"""What SQLite writes beside a database, by the end of its name."""


def backups_folder(config: Config) -> Path:
    """Where backups are written unless another file is named."""
    return config.root / config.data / "backups"


def default_file(config: Config, now: datetime) -> Path:
    """The file of a backup made at a time in UTC. Raises UserError if the folder is that of the data set."""
    folder = backups_folder(config)
    if folder == config.data_dir:  # `doppel build` replaces it as a whole
        raise UserError(tr("{path} holds the data set of this persona; name a file for the backup", path=folder))
    return folder / f"doppel-{now:%Y%m%dT%H%M%SZ}.db"


def back_up(database: Path, target: Path, now: datetime, *, replace: bool = False) -> int:
    """Writes a checked copy of a SQLite database to `target`, readable for the user alone; returns its size in bytes.

    The copy is the state of one moment. The daemon goes on writing meanwhile.

    Raises:
        UserError: there is no database, or `target` is there already and `replace` is false, or is the database.
        DataDamaged: the copy is damaged, and so probably is the database; nothing was written.
        DoppelError: the copy cannot be written.
    """
    if not database.is_file():
        raise UserError(tr("{path}: there is no database yet; `doppel run` creates it", path=database))
    if target.resolve() in {database.resolve().with_name(f"{database.name}{end}") for end in _COMPANIONS}:
        raise UserError(tr("{path}: is the database itself; name another file for the backup", path=target))
    if target.is_dir():
        raise UserError(tr("{path}: is a folder; name a file for the backup", path=target))
    if target.exists() and not replace:
        raise UserError(tr("{path}: is there already; name another file, or replace it with --force", path=target))
    temporary = target.with_name(f"{_TEMPORARY}{secrets.token_hex(8)}")
    with translate_write_errors(target):
        make_private_folder(target.parent)
        remove_stale(target.parent, _TEMPORARY, now)
        try:
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            _copy(database, temporary)
            fsync_path(temporary)
            temporary.replace(target)
            fsync_path(target.parent)
        except sqlite3.Error as error:
            raise DoppelError(tr("{path}: cannot be backed up: {error}", path=database, error=error)) from error
        finally:
            for end in _COMPANIONS:
                Path(f"{temporary}{end}").unlink(missing_ok=True)
    return target.stat().st_size


def _copy(database: Path, target: Path) -> None:
    """Copies in one step, as a copy in several begins anew whenever the daemon writes."""
    with closing(connect_read_only(database)) as source, closing(sqlite3.connect(target)) as copy:
        try:
            source.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, with nothing of it in a log beside it
            problems = find_problems(copy)
        except sqlite3.DatabaseError as error:
            if type(error) is not sqlite3.DatabaseError:
                raise
            problems = [str(error)]
    if problems:
        raise DataDamaged(
            tr(
                "{path}: damaged, so no backup was written: {problem}. `doppel store check` shows more",
                path=database,
                problem=problems[0],
            )
        )
