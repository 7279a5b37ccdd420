"""A lock between processes that the operating system releases when its holder exits, even if killed."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_LOCKED_ELSEWHERE = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)


def acquire_lock(path: Path) -> BinaryIO | None:
    """Locks a file, which is created if missing; close the result to release it. None if another process holds it.

    The empty file is left behind: if it were removed, two processes could each lock a file of this name. On a file
    system without locks, every process gets the lock.

    Raises:
        OSError: the file cannot be opened for writing.
    """
    file = _open(path)
    try:
        _lock(file, wait=False)
    except OSError as error:
        if error.errno in _LOCKED_ELSEWHERE:
            file.close()
            return None
    return file


@contextmanager
def holding_lock(path: Path) -> Iterator[None]:
    """Holds a lock on a file during the block; waits while another process, or another block of this one, does.

    Meant for blocks of seconds: on Windows the wait ends after ten. Otherwise as `acquire_lock`.

    Raises:
        OSError: the file cannot be opened for writing, or the wait took too long.
    """
    with _open(path) as file:
        try:
            _lock(file, wait=True)
        except OSError as error:
            if error.errno in _LOCKED_ELSEWHERE:
                raise
        yield


def _open(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")


def _lock(file: BinaryIO, *, wait: bool) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
