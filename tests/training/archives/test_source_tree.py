"""Files in folders and zips: a damaged, locked or malicious zip is one line."""

import io
import json
import random
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doppel.errors import UserError
from tests.training.exports import ZONE, read_all, telegram_message, tweet, twitter_files, write_zip
from training.archives import source_tree as tree
from training.archives.source_tree import SourceTree, open_folder, open_zip
from training.archives.telegram import TelegramReader


def zip_bytes(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def test_reading_reports_sizes_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"x" * 1000)
    place = SourceTree(open_folder(tmp_path), "", "here", ZONE)
    opened: list[int] = []
    read: list[int] = []
    place.on_open, place.on_read = opened.append, read.append
    with place.open("a.txt") as file:
        while file.read(300):
            pass
    assert opened == [1000]
    assert sum(read) == 1000


def test_listing_is_the_same_in_a_folder_and_in_a_zip(tmp_path: Path) -> None:
    for name in ("b.txt", "a/c.txt", "a/d/e.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(name)
    packed = write_zip(tmp_path.parent / "t.zip", {name: name for name in ("b.txt", "a/c.txt", "a/d/e.txt")})
    zipped = open_zip(packed, "t.zip")
    for store in (open_folder(tmp_path), zipped):
        place = SourceTree(store, "", "here", ZONE)
        assert (place.files(), place.folders()) == (["b.txt"], ["a/"])
        assert (place.files("a/"), place.folders("a/")) == (["a/c.txt"], ["a/d/"])
        assert place.files("none/") == []
        assert place.head("a/c.txt", 3) == b"a/c"
        inner = SourceTree(store, "a/", "here/a", ZONE)
        assert inner.files() == ["c.txt"]
    zipped.close()


def test_many_bad_records_are_counted_but_not_all_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "MAX_LISTED_BAD_RECORDS", 3)
    place = SourceTree(open_folder(tmp_path), "", "here", ZONE)
    for number in range(10):
        place.report_bad("a.json", str(number), "because")
    assert place.bad_count == 10
    assert [record.position for record in place.bad_records] == ["0", "1", "2"]
    assert place.bad_records[0].file == "here/a.json"


def test_a_zip_beyond_four_gibibytes(tmp_path: Path) -> None:
    path = tmp_path / "t.zip"
    with path.open("wb") as file:
        file.truncate(5 << 30)  # a hole takes no room on the disk
    with zipfile.ZipFile(path, "a") as archive:
        for name, content in twitter_files(tweets=[tweet(1, "far behind")]).items():
            archive.writestr(name, content)
    messages, bad = read_all(path)
    assert [message.text for message in messages] == ["far behind"]
    assert bad == []


class Endless:
    """A store with one chat of as many messages as asked for, made while they are read."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.chunks = iter(self._chunks(count))

    def _chunks(self, count: int) -> Iterator[bytes]:
        yield b'{"name": "Tom", "type": "personal_chat", "id": 2002, "messages": ['
        for start in range(0, count, 100):
            records = (telegram_message(number, 1001, "x" * 200) for number in range(start, start + 100))
            yield (b"," if start else b"") + json.dumps(list(records)).encode()[1:-1]
        yield b"]}"

    def read(self, _: int = -1, /) -> bytes:
        return next(self.chunks, b"")

    def size(self, _: str) -> int:
        return 3 << 30

    def open(self, _: str) -> "Endless":
        return Endless(self.count)

    def close(self) -> None: ...
    def listing(self, _: str) -> tuple[list[str], list[str]]:
        return ["result.json"], []

    def open_seekable(self, _: str) -> Path:
        raise NotImplementedError


def test_what_is_kept_of_a_file_does_not_grow_with_it() -> None:
    peaks = []
    for count in (2_000, 10_000):
        tracemalloc.start()
        messages = TelegramReader().read(SourceTree(Endless(count), "result.json", "here", ZONE))
        assert sum(1 for _ in messages) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + (1 << 19)  # the larger one is 3 MB larger


@pytest.mark.parametrize("kept", [0, 1, 30, 0.5, 0.99])
def test_a_truncated_zip(tmp_path: Path, kept: float) -> None:
    whole = write_zip(tmp_path / "t.zip", twitter_files(tweets=[tweet(1, "a")])).read_bytes()
    (tmp_path / "t.zip").write_bytes(whole[: int(kept if kept >= 1 else len(whole) * kept)])
    with pytest.raises(UserError, match=r"t\.zip: damaged or incomplete zip; download it again"):
        read_all(tmp_path / "t.zip")


def test_a_zip_with_a_damaged_member(tmp_path: Path) -> None:
    noise = random.Random(0).randbytes(20_000)
    data = bytearray(zip_bytes(**{"data/tweets.js": b"window.YTD.tweets.part0 = [" + noise}))
    data[15_000] ^= 0xFF
    (tmp_path / "t.zip").write_bytes(data)
    with pytest.raises(UserError, match=r"t\.zip: damaged or incomplete zip"):
        read_all(tmp_path / "t.zip")


def test_a_password(tmp_path: Path) -> None:
    data = bytearray(zip_bytes(**{"result.json": b"{}"}))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    (tmp_path / "t.zip").write_bytes(data)
    with pytest.raises(UserError, match=r"t\.zip: password-protected zip; unpack it first"):
        read_all(tmp_path / "t.zip")


def test_a_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "BOMB_BYTES", 1 << 20)
    (tmp_path / "t.zip").write_bytes(zip_bytes(**{"result.json": b" " * (4 << 20)}))
    with pytest.raises(UserError, match=r"t\.zip: result\.json looks like a zip bomb"):
        read_all(tmp_path / "t.zip")


def test_zips_too_deep(tmp_path: Path) -> None:
    data = zip_bytes(**{"a.txt": b"x"})
    for _ in range(4):
        data = zip_bytes(**{"inner.zip": data})
    (tmp_path / "t.zip").write_bytes(data)
    with pytest.raises(UserError, match="unpack it first"):
        read_all(tmp_path / "t.zip")


def test_names_that_climb_are_only_names(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "t.zip", {"../../evil.txt": "x", **twitter_files(tweets=[tweet(1, "a")])})
    messages, _ = read_all(path)
    assert [message.text for message in messages] == ["a"]
    assert not list(tmp_path.parent.rglob("evil.txt"))


def test_folders_named_as_windows_does(tmp_path: Path) -> None:
    files = {name.replace("/", "\\"): text for name, text in twitter_files(tweets=[tweet(1, "a")]).items()}
    messages, bad = read_all(write_zip(tmp_path / "t.zip", files, "x\\"))
    assert [message.text for message in messages] == ["a"]
    assert bad == []


def test_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path)
    assert SourceTree(open_folder(tmp_path), "", "here", ZONE).folders() == []


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_damage_to_a_zip_makes_a_traceback(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "t.zip"
    whole = bytearray(write_zip(path, twitter_files(tweets=[tweet(1, "a" * 200)])).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))] if data.draw(st.booleans()) else whole)
    try:
        read_all(path)
    except UserError as error:
        assert "\n" not in str(error)  # noqa: PT017 either outcome is right
