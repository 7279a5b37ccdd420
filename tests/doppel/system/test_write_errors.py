"""A disk that is full or may not be written is one clear line, whichever library met it."""

import errno
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from doppel.errors import DoppelError, UserError
from doppel.system.write_errors import translate_write_errors

BIG = torch.zeros(100_000)

WRITERS: dict[str, Callable[[Path], object]] = {
    "safetensors": lambda path: save_file({"weights": BIG}, path),
    "torch": lambda path: torch.save({"weights": BIG}, path),
    "python": lambda path: path.write_bytes(bytes(400_000)),
}


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may grow beyond 100 kB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize(
    ("writer", "reason"),
    [("safetensors", "File too large"), ("torch", "is the disk full"), ("python", "File too large")],
)
def test_a_file_that_exceeds_the_limit_is_one_line(writer: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(DoppelError, match=reason) as caught, translate_write_errors(tmp_path):
        WRITERS[writer](tmp_path / "file")
    assert str(caught.value).startswith(f"{tmp_path}: cannot be written: ")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("writer", WRITERS)
def test_a_folder_that_is_not_there(writer: str, tmp_path: Path) -> None:
    with pytest.raises(DoppelError, match="cannot be written"), translate_write_errors(tmp_path):
        WRITERS[writer](tmp_path / "missing" / "file")


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DoppelError, match="No space left on device"), translate_write_errors(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("error", [ValueError("no"), RuntimeError("shapes differ"), UserError("yours")])
def test_other_exceptions_are_not_translated(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(type(error)) as caught, translate_write_errors(tmp_path):
        raise error
    assert caught.value is error
