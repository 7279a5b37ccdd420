"""Discovery: what is recognized, what is reported as unknown, and one clear line when nothing is found."""

import json
from contextlib import closing
from pathlib import Path

import pytest

from doppel.errors import UserError
from tests.training.archives.hostile import EXPORTS, survive, write
from tests.training.exports import (
    ZONE,
    telegram_chat,
    telegram_message,
    tweet,
    twitter_files,
    write_folder,
    write_zip,
)
from training.archives import discovery as discovery_module
from training.archives.discovery import Discovery, discover, installed_readers, sample_path
from training.archives.unread import Unread

CHAT = json.dumps(telegram_chat([telegram_message(1, 1001, "hi")]))
TWITTER = twitter_files(tweets=[tweet(1, "hello")])


def find(*paths: Path) -> Discovery:
    discovery = discover([str(path) for path in paths], paths[0].parent, ZONE, installed_readers())
    discovery.close()
    return discovery


def sources_with_readers(discovery: Discovery) -> list[tuple[str, str]]:
    return sorted((source.reader.name, Path(source.tree.label).name) for source in discovery.sources)


def test_a_folder_may_hold_several_archives(tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    write_folder(folder / "ChatExport_1", {"result.json": CHAT, "photos/a.jpg": "x", "files/odd.txt": "x"})
    write_folder(folder, {"renamed.txt": CHAT})
    write_zip(folder / "tweets.zip", TWITTER, "x/")
    write_folder(folder / "unpacked", TWITTER)
    discovery = find(folder)
    assert sources_with_readers(discovery) == [
        ("telegram", "renamed.txt"),
        ("telegram", "result.json"),
        ("twitter", "unpacked"),
        ("twitter", "x"),
    ]
    assert discovery.unknown == []


def test_two_archives_unpacked_into_one_folder(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "archive", {**TWITTER, "result.json": CHAT})
    assert sources_with_readers(find(folder)) == [("telegram", "result.json"), ("twitter", "archive")]


def test_unknown_files_beside_known_ones_are_listed(tmp_path: Path) -> None:
    folder = write_folder(
        tmp_path / "archive",
        {"result.json": CHAT, "diary.txt": "dear diary", "more/data.bin": "x", "photo.jpg": "x", ".hidden": "x"},
    )
    write_zip(folder / "odd.zip", {"a.txt": "x", "b.txt": "y"})
    assert find(folder).unknown == [f"{folder}/{name}" for name in ("diary.txt", "odd.zip", "more/data.bin")]


def read(path: Path) -> Unread:
    """What is left unread once everything that is recognised at a path was read."""
    discovery = discover([str(path)], path.parent, ZONE, installed_readers())
    with closing(discovery):
        for source in discovery.sources:
            assert list(source.reader.read(source.tree))
        return discovery.unread()


def test_what_no_reader_knows_in_a_recognised_zip_is_named(tmp_path: Path) -> None:
    chat = {
        "result.json": CHAT,
        "photos/a.jpg": "x",
        "files/letter.xyz": "x",
        "css/style.css": "x",
        "js/script.js": "x",
    }
    others = {"old/messages.html": "<html>", "talk.xyz": "x", ".DS_Store": "x", "__MACOSX/._talk.xyz": "x"}
    path = write_zip(tmp_path / "all.zip", {**chat, **others}, "DataExport/")
    unread = read(path)
    assert unread.files == [f"{path}/DataExport/{name}" for name in ("talk.xyz", "old/messages.html")]
    assert (unread.count, unread.attachments) == (2, 4)


def test_of_an_export_that_is_a_folder_everything_that_was_not_opened_is_told(tmp_path: Path) -> None:
    files = {**TWITTER, "data/tweets_media/1.jpg": "x", "data/notes.xyz": "x", "result.json": CHAT}
    unread = read(write_folder(tmp_path / "twitter", files))
    assert unread.files == [str(tmp_path / "twitter" / "data/notes.xyz")]
    # like.js, the page, its script, and the picture
    assert (unread.count, unread.attachments) == (1, 4)


def test_a_long_list_of_unknown_files_is_cut_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery_module, "MAX_LISTED", 3)
    unread = read(write_folder(tmp_path / "a", {"result.json": CHAT, **{f"{n}.xyz": "x" for n in range(7)}}))
    assert [Path(name).name for name in unread.files] == ["0.xyz", "1.xyz", "2.xyz"]
    assert unread.count == 7


def test_a_broken_zip_that_somebody_sent_ends_nothing(tmp_path: Path) -> None:
    chat = {"ChatExport/result.json": CHAT, "ChatExport/files/broken.zip": "no zip", "ChatExport/files/a.txt": "x"}
    unread = read(write_folder(tmp_path / "archive", chat))
    assert (unread.files, unread.attachments) == ([], 2)
    unread = read(write_zip(tmp_path / "all.zip", {"result.json": CHAT, "sent.zip": "no zip"}))
    assert unread.files == [str(tmp_path / "all.zip/sent.zip")]


def test_folders_nested_by_the_thousand(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "deep.zip", {"result.json": CHAT, "a/" * 5000 + "result.json": CHAT})
    unread = read(path)
    assert unread.count == 1
    assert unread.files[0].endswith("/a")


def test_several_paths_and_the_sample(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a", {"result.json": CHAT})
    discovery = discover(["sample", "a"], folder.parent, ZONE, installed_readers())
    assert sources_with_readers(discovery) == [("sample", "dataset.json"), ("telegram", "result.json")]


def test_the_sample_is_recognised_by_content(tmp_path: Path) -> None:
    with sample_path().open("rb") as file:
        head = file.read(1000)
    (tmp_path / "anything").write_bytes(head)
    assert sources_with_readers(find(tmp_path / "anything")) == [("sample", "anything")]


@pytest.mark.parametrize(
    ("name", "files", "expected"),
    [
        ("missing", None, "missing: no such file or folder; set `archive` in config.yaml"),
        ("empty", {}, "empty: no messages found; `doppel build --list-formats`"),
        ("pictures", {"a.jpg": "x"}, "pictures: no messages found; `doppel build --list-formats`"),
        ("unknown", {"diary.txt": "x"}, "unknown/diary.txt: unknown archive format; `doppel build --list-formats`"),
    ],
)
def test_one_clear_line(tmp_path: Path, name: str, files: dict[str, str] | None, expected: str) -> None:
    if files is not None:
        (tmp_path / name).mkdir()
        write_folder(tmp_path / name, files)
    with pytest.raises(UserError) as raised:
        find(tmp_path / name)
    assert str(raised.value).startswith(f"{tmp_path}/{expected}")
    assert "\n" not in str(raised.value)


def test_an_unknown_file_is_told_what_is_supported(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(
        UserError, match=r"notes\.txt: unknown archive format; `doppel build --list-formats` lists the supported ones$"
    ):
        find(tmp_path / "notes.txt")


@pytest.mark.parametrize("name", ["archive-2023.tar.gz", "takeout.TGZ", "chats.rar", "chats.7z"])
def test_what_is_packed_otherwise_has_to_be_unpacked(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x1f\x8b")
    for path in (tmp_path / name, tmp_path):
        with pytest.raises(UserError, match=f"{name}: unsupported compression format; unpack it first"):
            find(path)


def test_an_export_as_pages_is_to_be_made_again(tmp_path: Path) -> None:
    export = write_folder(tmp_path / "ChatExport", {"messages.html": "<!DOCTYPE html>", "css/style.css": "x"})
    with pytest.raises(UserError, match=r"messages\.html: HTML exports are not supported; export again as JSON"):
        find(export)


def test_an_empty_zip(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"empty\.zip: unknown archive format"):
        find(write_zip(tmp_path / "empty.zip", {}))


@pytest.mark.parametrize(
    "export", sorted(export for export in EXPORTS if export[0] in ("slack", "mastodon", "meta", "sample", "telegram"))
)
def test_a_byte_order_mark_changes_nothing(tmp_path: Path, export: tuple[str, str]) -> None:
    texts = []
    for folder, mark in ((tmp_path / "plain", b""), (tmp_path / "marked", b"\xef\xbb\xbf")):
        folder.mkdir()
        files = {name: mark + data if name.endswith(".json") else data for name, data in EXPORTS[export].items()}
        texts.append([message.text for message in survive(write(folder, files, as_zip=False))])
    assert texts[0] == texts[1] != []
