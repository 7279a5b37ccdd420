"""Reading in a process of its own: the same data set, the same account of it and the same errors as reading here."""

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from doppel.config import Config, PrivateKind, parse_config
from doppel.errors import UserError
from tests.training.exports import (
    telegram_account,
    telegram_chat,
    telegram_message,
    tweet,
    twitter_files,
    write_folder,
    write_json,
)
from training.archives.discovery import discover, installed_readers
from training.archives.source_tree import BadRecord
from training.dataset import parallel_reader
from training.dataset.build import build_dataset
from training.dataset.parallel_reader import CleanedMessage, MessageReader

MESSAGES = 1000
KEY = bytes(range(32))


class SummedProgress:
    """Adds up the progress."""

    def __init__(self) -> None:
        self.bytes_total = self.bytes_read = self.count = 0

    def stage(self, text: str) -> None: ...

    def add_bytes_total(self, size: int) -> None:
        self.bytes_total += size

    def add_bytes_read(self, size: int) -> None:
        self.bytes_read += size

    def add_messages(self, count: int) -> None:
        self.count += count


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """Two chats with a secret, a text to be cleaned, and a record that makes no sense."""
    chats = []
    for chat in (2002, 2003):
        records: list[Any] = [
            telegram_message(number, 1001 if number % 2 else chat, f"this is what I said as number {number}")
            for number in range(MESSAGES // 2)
        ]
        records[7]["text"] = "my number is +49 151 23456789, call me"
        records[8]["text"] = "  blanks  "
        records[9] = {"id": 9, "type": "message"}
        chats.append(telegram_chat(records, id=chat))
    return write_json(tmp_path / "export" / "result.json", telegram_account(*chats))


def open_reader(config: Config, *kinds: PrivateKind, uses_installed_readers: bool = True) -> MessageReader:
    return parallel_reader.open_reader(
        config.archives, config.root, config.zone, frozenset(kinds), uses_installed_readers=uses_installed_readers
    )


def build(root: Path, archive: str = "export") -> dict[str, bytes]:
    """The files of the data set, without what tells how long it took."""
    config = parse_config({"archive": [archive], "timezone": "Europe/Berlin"}, root / "config.yaml")
    config.data_dir.mkdir(parents=True, exist_ok=True)
    (config.data_dir / "scrub.key").write_bytes(KEY)
    (config.data_dir / "sessions.jsonl").touch()
    progress = SummedProgress()
    report = build_dataset(config, progress)
    assert report.bad == 2
    assert progress.count == report.read == MESSAGES - 2
    size = (root / "export" / "result.json").stat().st_size
    assert progress.bytes_total == size
    assert progress.bytes_read <= size
    lines = {path.name: path.read_bytes() for path in config.data_dir.iterdir()}
    lines["report.json"] = b"\n".join(line for line in lines["report.json"].split(b"\n") if b'"seconds"' not in line)
    return lines


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """Every archive is large; gives the processes that were started."""
    processes: list[subprocess.Popen[bytes]] = []

    class Noted(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            processes.append(self)

    monkeypatch.setattr(subprocess, "Popen", Noted)
    monkeypatch.setattr(parallel_reader, "LARGE_ARCHIVES", 1)
    monkeypatch.setattr(parallel_reader, "_core_count", lambda: 2)
    return processes


def test_two_processes_make_what_one_makes(
    tmp_path: Path, export: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    two = build(tmp_path)
    assert len(started) == 1
    assert started[0].returncode is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel_reader, "LARGE_ARCHIVES", export.stat().st_size + 1)
        assert build(tmp_path) == two
    assert len(started) == 1


def test_what_the_other_process_opened_is_known_here(tmp_path: Path, started: list[subprocess.Popen[bytes]]) -> None:
    path = write_folder(tmp_path / "x", {**twitter_files(tweets=[tweet(1, "hello")]), "data/odd.xyz": "x"})
    config = parse_config({"archive": ["x"]}, tmp_path / "config.yaml")
    with closing(discover(config.archives, config.root, config.zone, installed_readers())) as discovery:
        with closing(open_reader(config)) as archives:
            assert list(archives.messages(discovery.sources[0]))
        assert started
        assert discovery.unread().files == [str(path / "data" / "odd.xyz")]


def test_where_the_other_process_ends_too_early_reading_goes_on_here(
    tmp_path: Path, export: Path, started: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = build(tmp_path)
    following = parallel_reader._SubprocessReader._next
    batches = 0

    def ending(self: Any) -> Any:
        nonlocal batches
        batches += 1
        if batches == 2:
            started[-1].kill()
            self._process.stdout.read()
        return following(self)

    monkeypatch.setattr(parallel_reader._SubprocessReader, "_next", ending)
    assert build(tmp_path) == whole
    assert batches == 2
    assert started[-1].returncode is not None


def test_where_no_process_can_be_started_this_one_reads(
    tmp_path: Path, export: Path, started: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing"))
    build(tmp_path)
    assert not started


def test_an_archive_that_breaks_off_is_the_same_error(
    tmp_path: Path, export: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    source = tmp_path / "broken.zip"
    with zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(export, "result.json")
    data = bytearray(source.read_bytes())
    data[data.rindex(b"PK\x01\x02") + 16] ^= 1  # the member's checksum is wrong now, which shows when it is read
    source.write_bytes(data)
    with pytest.raises(UserError, match=r"broken\.zip: damaged or incomplete zip"):
        build(tmp_path, "broken.zip")
    assert len(started) == 1
    assert started[0].returncode is not None


def test_who_stops_in_the_middle_leaves_no_process(
    tmp_path: Path, export: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    config = parse_config({"archive": ["export"]}, tmp_path / "config.yaml")
    discovery = discover(config.archives, config.root, config.zone, installed_readers())
    archives = open_reader(config, "phone")
    messages: Iterator[CleanedMessage] = archives.messages(discovery.sources[0])
    _, text, secrets = [next(messages) for _ in range(8)][7]
    assert text[secrets[0].start : secrets[0].end] == "+49 151 23456789"
    assert started[0].poll() is None
    archives.close()
    assert started[0].returncode is not None
    discovery.close()


def test_readers_of_the_callers_own_are_asked_here(
    tmp_path: Path, export: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    config = parse_config({"archive": ["export"]}, tmp_path / "config.yaml")
    discovery = discover(config.archives, config.root, config.zone, installed_readers())
    archives = open_reader(config, uses_installed_readers=False)
    assert len(list(archives.messages(discovery.sources[0]))) == MESSAGES - 2
    assert discovery.sources[0].tree.bad_records[0] == BadRecord(
        str(discovery.sources[0].tree.label), "Tom, message 10", "missing 'date'"
    )
    archives.close()
    discovery.close()
    assert not started
