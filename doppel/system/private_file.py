"""Files that only the user may read, written completely or not at all."""

import os
import secrets
from pathlib import Path

from doppel.system.write_errors import translate_write_errors


def write_private(path: Path, content: bytes) -> None:
    """Replaces the content of a file, or creates it, readable for the user alone. Raises DoppelError."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with translate_write_errors(path):
        try:
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
