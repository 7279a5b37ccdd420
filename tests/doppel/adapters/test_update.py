"""Adding to a published adapter: digests hold before and after, and a crash loses nothing."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from doppel.adapters import versions
from doppel.adapters.update import replace_file, update_version
from doppel.adapters.versions import (
    Manifest,
    current_version,
    list_versions,
    read_manifest,
    retired_path,
    version_folder,
)
from doppel.system.file_lock import holding_lock
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
    names = {path.name for path in folder.parent.iterdir()}
    assert names == {*list_versions(folder.parent), "current", ".updating.lock"}


def test_a_failed_update_changes_nothing(folder: Path) -> None:
    before = read_manifest(folder)

    def fail(staging: Path, manifest: Manifest) -> Manifest:
        replace_file(staging / "habits.json", b"broken")
        raise KeyError("x")

    with pytest.raises(KeyError):
        update_version(folder, fail)
    assert read_manifest(folder) == before
    assert not list(folder.parent.glob(".a*"))
    update_version(folder, lambda _, manifest: manifest)  # the lock is free again


def test_a_version_that_a_crash_left_under_another_name_is_restored(folder: Path) -> None:
    before = read_manifest(folder)
    folder.rename(retired_path(folder))
    assert version_folder(folder.parent) == folder
    assert read_manifest(folder) == before


def test_a_version_left_aside_by_a_crash_comes_back_by_its_number(folder: Path) -> None:
    folder.rename(retired_path(folder))
    assert version_folder(folder.parent, folder.name) == folder
    read_manifest(folder)


def test_a_reader_waits_for_an_update_and_moves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, waits = [], threading.Event()

    @contextmanager
    def announced(path: Path) -> Iterator[None]:
        waits.set()
        with holding_lock(path):
            yield

    with holding_lock(folder.with_name(".updating.lock")):  # another process, between its two renames
        folder.rename(retired_path(folder))
        monkeypatch.setattr(versions, "holding_lock", announced)
        reader = threading.Thread(target=lambda: read.append(version_folder(folder.parent)))
        reader.start()
        assert waits.wait(10)
        assert current_version(folder.parent) == folder
        assert list_versions(folder.parent) == []
        assert read == []
        retired_path(folder).rename(folder)
    reader.join(10)
    assert read == [folder]


def test_the_number_of_a_version_that_is_being_updated_is_not_given_away(
    folder: Path, publish_tiny_adapter: PublishAdapter
) -> None:
    folder.rename(retired_path(folder))
    assert publish_tiny_adapter(folder.parent).name == "0002"


def test_updates_at_the_same_time_all_count(folder: Path) -> None:
    def update(name: str) -> None:
        update_version(
            folder, lambda _, manifest: msgspec.structs.replace(manifest, sampling={**manifest.sampling, name: 1.0})
        )

    names = {f"setting-{number}" for number in range(8)}
    with ThreadPoolExecutor() as threads:
        list(threads.map(update, names))
    assert names <= read_manifest(folder).sampling.keys()


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
