"""What goes wrong when files are written, as one line: a full disk, a folder that may not be written.

The libraries that write weights raise kinds of their own; this knows them by what they say, and imports none of them.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from doppel.errors import DoppelError
from doppel.i18n import tr

_SYSTEM = re.compile(r"(?:I/O error: )?(?P<reason>[^:]*) \(os error \d+\)")
_TORCH = re.compile(r"inline_container|PytorchStreamWriter|Parent directory .* does not exist|cannot be opened")


@contextmanager
def translate_write_errors(path: Path) -> Iterator[None]:
    """Whatever keeps the block from writing below `path` becomes a DoppelError that says where and why."""
    try:
        yield
    except OSError as error:
        raise _cannot(path, error.strerror or str(error)) from None
    except Exception as error:
        reason = _reason(error)
        if reason is None:
            raise
        raise _cannot(path, reason) from None


def _reason(error: Exception) -> str | None:
    """What the system said to safetensors, or that torch could not write; None for an error of another kind."""
    kind = type(error)
    if kind.__name__ == "SafetensorError" and kind.__module__.startswith("safetensors"):
        said = _SYSTEM.search(str(error))
        return said["reason"].strip() if said else str(error)
    if isinstance(error, RuntimeError) and _TORCH.search(str(error)):
        return tr("the file ends too early; is the disk full?")
    return None


def _cannot(path: Path, reason: str) -> DoppelError:
    return DoppelError(tr("{path}: cannot be written: {error}", path=path, error=reason))
