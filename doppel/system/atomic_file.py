"""Files that appear complete or not at all: written under a temporary name, synced to disk, then renamed."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from doppel.system.durable_files import fsync_path
from doppel.system.write_errors import translate_write_errors


@contextmanager
def open_atomically(path: Path) -> Iterator[IO[bytes]]:
    """A new file that replaces `path` when the block ends; if the block raises, nothing changes.

    A file that is replaced passes on its permissions.

    Raises:
        DoppelError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    with translate_write_errors(path):
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileNotFoundError):
                temporary.chmod(path.stat().st_mode & 0o7777)
            temporary.replace(path)
            fsync_path(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Replaces the content of a file, or creates it. Raises DoppelError."""
    with open_atomically(path) as file:
        file.write(content)
