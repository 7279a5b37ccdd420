"""Adding to a published adapter: digests hold before and after, and a crash loses nothing."""

from pathlib import Path

import msgspec
import pytest

from doppel.adapters.update import replace_file, update_version
from doppel.adapters.versions import (
    Manifest,
    current_version,
    list_versions,
    read_manifest,
    retired_path,
    version_folder,
)
from tests.conftest import PublishAdapter


@pytest.fixture
def folder(tmp_path: Path, publish_tiny_adapter: PublishAdapter) -> Path:
    return publish_tiny_adapter(tmp_path / "adapters")


def test_files_and_manifest_of_a_version_are_replaced(folder: Path) -> None:
    before = read_manifest(folder)

    def change(staging: Path, manifest: Manifest) -> Manifest:
        replace_file(staging / "fidelity.json", b"{}")
        return msgspec.structs.replace(manifest, sampling={"temperature": 0.7})

    update_version(folder, change)
    after = read_manifest(folder)
    assert after.sampling == {"temperature": 0.7}
    assert after.files.keys() - before.files.keys() == {"fidelity.json"}
    assert (after.version, after.created_at) == (before.version, before.created_at)
    assert current_version(folder.parent) == folder
    assert sorted(path.name for path in folder.parent.iterdir()) == sorted([*list_versions(folder.parent), "current"])


def test_a_failed_update_changes_nothing(folder: Path) -> None:
    before = read_manifest(folder)

    def fail(staging: Path, manifest: Manifest) -> Manifest:
        replace_file(staging / "habits.json", b"broken")
        raise KeyError("x")

    with pytest.raises(KeyError):
        update_version(folder, fail)
    assert read_manifest(folder) == before
    assert not list(folder.parent.glob(".a*"))


def test_a_version_that_a_crash_left_under_another_name_is_restored(folder: Path) -> None:
    before = read_manifest(folder)
    folder.rename(retired_path(folder))
    assert version_folder(folder.parent) == folder
    assert read_manifest(folder) == before


def test_replacing_files_does_not_change_the_old_version(folder: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.hardlink_to(folder / "habits.json")
    content = kept.read_bytes()

    def change(staging: Path, manifest: Manifest) -> Manifest:
        replace_file(staging / "habits.json", b"{}")
        return manifest

    update_version(folder, change)
    assert kept.read_bytes() == content
    assert (folder / "habits.json").read_bytes() == b"{}"
