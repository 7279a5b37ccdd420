"""Folders of ours are closed to other users."""

import os
from pathlib import Path

import pytest

from doppel.system.atomic_folder import atomic_folder
from doppel.system.private_folder import make_private_folder

pytestmark = pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_missing_parents_are_private_and_others_stay(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o755)
    make_private_folder(shared / "one" / "two")
    make_private_folder(shared)
    assert [mode(path) for path in (shared, shared / "one", shared / "one" / "two")] == [0o755, 0o700, 0o700]


def test_a_file_in_the_way_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        make_private_folder(tmp_path / "file" / "folder")


def test_a_data_set_is_private_or_as_open_as_before(tmp_path: Path) -> None:
    target = tmp_path / "data" / "mira"
    for _ in range(2):
        with atomic_folder(target, "marker") as staging:
            (staging / "marker").touch()
        assert mode(target.parent) == 0o700
        assert mode(target) == 0o700
    target.chmod(0o750)
    with atomic_folder(target, "marker") as staging:
        (staging / "marker").touch()
    assert mode(target) == 0o750
