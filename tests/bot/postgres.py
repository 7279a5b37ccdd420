"""A PostgreSQL server of its own for tests, on a Unix socket, as Debian installs it."""

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

_INSTALLED = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
POSTGRES_PROGRAMS = _INSTALLED[-1] if _INSTALLED else None
"""Where the server's programs are; None where there is none."""

# Speed: what these tests lose in a power cut is made again.
_SETTINGS = ("fsync=off", "full_page_writes=off", "listen_addresses=", "max_connections=50", "shared_buffers=16MB")


class PostgresServer:
    """A running server."""

    def __init__(self, folder: Path) -> None:
        assert POSTGRES_PROGRAMS is not None
        self._bin = POSTGRES_PROGRAMS
        self._folder = folder
        self._numbers = itertools.count(1)

    def start(self) -> None:
        settings = " ".join(f"-c {setting}" for setting in (*_SETTINGS, f"unix_socket_directories={self._folder}"))
        self._run("pg_ctl", "--wait", "-D", self._folder / "data", "-l", self._folder / "log", "-o", settings, "start")

    def stop(self) -> None:
        """Ends the server and every connection to it at once."""
        self._run("pg_ctl", "--wait", "-D", self._folder / "data", "-m", "immediate", "stop")

    def create_database(self) -> str:
        """An empty database; returns its URL."""
        name = f"doppel{next(self._numbers)}"
        with psycopg.connect(f"host={self._folder} user=doppel dbname=postgres", autocommit=True) as connection:
            connection.execute(f"create database {name} strategy file_copy")  # type: ignore[call-overload]
        return f"postgresql://doppel@/{name}?host={self._folder}"

    def create_cluster(self) -> None:
        self._run("initdb", "-D", self._folder / "data", "-U", "doppel", "-A", "trust", "-E", "UTF8", "--no-sync")

    def _run(self, program: str, *arguments: object) -> None:
        command = [str(self._bin / program), *map(str, arguments)]
        user = "postgres" if os.geteuid() == 0 else None  # the server refuses to be run by root
        done = subprocess.run(
            command, user=user, cwd="/", capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 0, f"{program}: {done.stdout}{done.stderr}"


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """A server while the block runs."""
    folder = Path(tempfile.mkdtemp(prefix="doppel-pg-", dir="/tmp"))
    if os.geteuid() == 0:
        os.chown(folder, pwd.getpwnam("postgres").pw_uid, -1)
    server = PostgresServer(folder)
    try:
        server.create_cluster()
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
