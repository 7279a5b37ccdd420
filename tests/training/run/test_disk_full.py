"""A disk that fills up while a model trains: a clear line, the last checkpoint whole, `current` as it was."""

import errno
import os
import resource
from pathlib import Path
from typing import Any

import pytest

from doppel.adapters import versions
from doppel.adapters.versions import current_version, list_versions, read_manifest
from doppel.errors import DoppelError
from doppel.system import atomic_file
from tests.processes import Child
from tests.tiny import publish_adapter
from tests.training.runs import small_config, small_run, weights_of
from training.run import checkpoints, publish
from training.run import run as fitting
from training.run.checkpoints import list_checkpoints
from training.run.completion_marker import is_complete, mark_complete
from training.run.folders import run_folder
from training.run.run import run_training
from training.run.run_state import RunFolder


def _train(root: Path, base: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(fitting, "SampleReplies", lambda *_: list)
    run_training(small_config(root, base))


def _train_whole(root: Path, base: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        _train(root, base, patch)


def _train_until_full(root: Path, base: Path, largest: int) -> None:
    """From the first checkpoint on no file may grow beyond `largest` bytes."""

    def fill(folder: Path) -> None:
        mark_complete(folder)
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "mark_complete", fill)
        _train(root, base, patch)


@pytest.mark.parametrize("largest", [2_000, 30_000])  # no weights any more; weights, but not the optimizer's state
def test_a_full_disk_keeps_the_last_complete_checkpoint(tmp_path: Path, tiny_base: Path, largest: int) -> None:
    config = small_run(tmp_path / "full", tiny_base)
    with pytest.raises(DoppelError, match=r"sample\.training: cannot be written") as caught:
        Child(_train_until_full, (tmp_path / "full", tiny_base, largest)).result()
    assert "\n" not in str(caught.value)
    assert [*list_checkpoints(run_folder(config.data_dir))] == [2]
    assert is_complete(run_folder(config.data_dir) / "checkpoint-2")
    assert list_versions(config.adapters_dir) == []
    Child(_train_whole, (tmp_path / "full", tiny_base)).result()
    whole = small_run(tmp_path / "whole", tiny_base)
    Child(_train_whole, (tmp_path / "whole", tiny_base)).result()
    assert weights_of(config) == weights_of(whole)


def _publish_until_full(root: Path, base: Path, largest: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        publishing = publish.publishing

        def fill(*arguments: Any, **options: Any) -> object:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
            return publishing(*arguments, **options)

        patch.setattr(publish, "publishing", fill)
        _train(root, base, patch)


def test_a_full_disk_while_publishing_leaves_no_version(tmp_path: Path, tiny_base: Path) -> None:
    config = small_run(tmp_path, tiny_base)
    Child(_train_whole, (tmp_path, tiny_base)).result()
    before = weights_of(config)
    with pytest.raises(DoppelError, match=r"adapters/sample: cannot be written: File too large"):
        Child(_publish_until_full, (tmp_path, tiny_base, 2_000)).result()
    assert list_versions(config.adapters_dir) == ["0001"]
    assert weights_of(config) == before
    assert sorted(path.name for path in config.adapters_dir.iterdir()) == ["0001", "current"]
    Child(_train_whole, (tmp_path, tiny_base)).result()
    folder = current_version(config.adapters_dir)
    assert folder is not None
    assert read_manifest(folder).version == "0002"
    assert weights_of(config) == before


def _full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _full_for_the_pointer(file: int) -> None:
    if Path(f"/proc/self/fd/{file}").readlink().name.startswith(".current"):
        _full()


def test_a_full_disk_at_the_start_is_one_line(tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_run(tmp_path, tiny_base)
    monkeypatch.setattr(atomic_file, "fsync_path", _full)
    with pytest.raises(DoppelError, match=r"sample\.training/plan\.json: cannot be written: No space left"):
        run_training(config)
    assert RunFolder(run_folder(config.data_dir), "").read_state() is None


def test_a_full_disk_while_writing_the_pointer_keeps_the_old_one(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_adapter(tiny_base, tmp_path)
    monkeypatch.setattr(versions.os, "fsync", _full_for_the_pointer)
    with pytest.raises(DoppelError, match="cannot be written: No space left"):
        publish_adapter(tiny_base, tmp_path, seed=1)
    with pytest.raises(DoppelError, match="cannot be written: No space left"):
        versions.use_version(tmp_path, "0001")
    assert (tmp_path / "current").read_text() == "0001\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0001", "current"]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, tiny_base: Path) -> None:
    (tmp_path / "adapters").write_text("a file where a folder belongs")
    with pytest.raises(DoppelError, match="adapters/sample: cannot be written"):
        publish_adapter(tiny_base, tmp_path / "adapters" / "sample")
