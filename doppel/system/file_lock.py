"""A lock that ends with the process that holds it, however that dies. Knows nothing of what it protects."""

import errno
import os
import sys
from pathlib import Path
from typing import BinaryIO

_TAKEN = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)


def acquire_lock(path: Path) -> BinaryIO | None:
    """Locks a file, made when missing; held until the answer is closed. None: somebody else holds it.

    The file stays behind, empty: removing it would let two hold "it" at once. A file system that knows no locks
    refuses nobody.

    Raises:
        OSError: the file cannot be opened for writing.
    """
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
    try:
        _lock(file)
    except OSError as error:
        if error.errno in _TAKEN:
            file.close()
            return None
    return file


def _lock(file: BinaryIO) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
