"""Turns failed writes, such as on a full disk or in a read-only folder, into one-line errors.

safetensors and torch raise exceptions of their own. They are recognised by name and message, so that neither library
needs to be imported.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from doppel.errors import DoppelError
from doppel.i18n import tr

_SAFETENSORS = re.compile(r"(?:I/O error: )?(?P<reason>[^:]*) \(os error \d+\)")
_TORCH = re.compile(r"inline_container|PytorchStreamWriter|Parent directory .* does not exist|cannot be opened")


@contextmanager
def translate_write_errors(path: Path) -> Iterator[None]:
    """Raises DoppelError with `path` and the reason when the block fails to write a file."""
    try:
        yield
    except OSError as error:
        raise _write_error(path, error.strerror or str(error)) from None
    except Exception as error:
        reason = _library_reason(error)
        if reason is None:
            raise
        raise _write_error(path, reason) from None


def _library_reason(error: Exception) -> str | None:
    """Why safetensors or torch could not write; None for any other error."""
    kind = type(error)
    if kind.__name__ == "SafetensorError" and kind.__module__.startswith("safetensors"):
        match = _SAFETENSORS.search(str(error))
        return match["reason"].strip() if match else str(error)
    if isinstance(error, RuntimeError) and _TORCH.search(str(error)):
        return tr("the file ends too early; is the disk full?")
    return None


def _write_error(path: Path, reason: str) -> DoppelError:
    return DoppelError(tr("{path}: cannot be written: {error}", path=path, error=reason))
