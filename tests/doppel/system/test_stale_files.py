"""Leftovers of killed processes: removed when old, and nothing else is."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from doppel.config import ModelSettings
from doppel.models.base import prepare_base
from doppel.system.stale_files import STALE, remove_stale

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def aged(path: Path, age: timedelta, now: datetime = NOW) -> Path:
    moment = (now - age).timestamp()
    os.utime(path, (moment, moment), follow_symlinks=False)
    return path


def test_only_old_files_with_the_prefix_are_removed(tmp_path: Path) -> None:
    work, elsewhere = tmp_path / "work", tmp_path / "elsewhere"
    for folder in (work / ".half-old", work / ".half-young", work / "whole", elsewhere):
        folder.mkdir(parents=True)
        (folder / "file").write_text("x")
    (work / ".half-file").write_text("x")
    (work / ".half-link").symlink_to(elsewhere)
    for name in (".half-old", "whole", ".half-file", ".half-link"):
        aged(work / name, STALE + timedelta(seconds=1))
    aged(work / ".half-young", STALE - timedelta(seconds=1))
    remove_stale(work, ".half-", NOW)
    assert sorted(path.name for path in work.iterdir()) == [".half-young", "whole"]
    assert (elsewhere / "file").is_file()


def test_a_missing_folder_has_no_stale_files(tmp_path: Path) -> None:
    remove_stale(tmp_path / "nowhere", ".half-", NOW)
    assert not (tmp_path / "nowhere").exists()


def test_an_abandoned_conversion_is_removed_when_the_base_is_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOPPEL_CACHE", str(tmp_path))
    converted = tmp_path / "gemma-3-270m-bf16-1"
    converted.mkdir()
    (tmp_path / ".converting-abc").mkdir()
    aged(tmp_path / ".converting-abc", STALE * 2, datetime.now(UTC))
    assert prepare_base(ModelSettings(), lambda line: None) == converted
    assert list(tmp_path.iterdir()) == [converted]
