"""A lock between processes that the operating system releases when its holder exits, even if killed."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
    try:
        _lock(file)
    except OSError as error:
        if error.errno in _LOCKED_ELSEWHERE:
            file.close()
            return None
    return file


@contextmanager
def wait_for_lock(path: Path) -> Iterator[None]:
    """Holds the lock of `acquire_lock` during the block; blocks while another thread or process holds it.

    Raises:
        OSError: the file cannot be opened for writing.
    """
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
        with suppress(OSError):  # a file system without locks
            _lock(file, wait=True)
        yield


def _lock(file: BinaryIO, *, wait: bool = False) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
