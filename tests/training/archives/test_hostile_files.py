"""Odd encodings, invalid escapes, and malicious zips."""

import io
import stat
import struct
import zipfile
from pathlib import Path

import pytest

from doppel.errors import UserError
from tests.training.archives.hostile import EXPORTS, Files, survive, write
from tests.training.exports import read_all
from training.archives import source_tree as tree

TEXTS = (
    *(("whatsapp", "android"), ("whatsapp", "ios"), ("line", ""), ("kakaotalk", "text"), ("kakaotalk", "table")),
    *(("irc", "weechat"), ("irc", "irssi"), ("imessage", ""), ("signal", "text"), ("signal", "records")),
    *(("reddit", "request"), ("instructions", "array"), ("instructions", "table"), ("table", "")),
)
"""Exports that people save again from an editor or a spreadsheet, so in any encoding."""

MARKED = (
    *(("telegram", "chat"), ("telegram", "account"), ("twitter", ""), ("discord", ""), ("discord-exporter", "")),
    *(("matrix", ""), ("google-chat", ""), ("reddit", "dump")),
)
"""Exports that are JSON, to which an editor adds at most a mark."""


def read_summary(folder: Path, files: Files, *, as_zip: bool = False) -> tuple[list[tuple[str, str, str]], int]:
    folder.mkdir(parents=True, exist_ok=True)
    messages, bad = read_all(write(folder, files, as_zip=as_zip))
    return [(message.sender, message.text, message.mark) for message in messages], len(bad)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "gb18030"])
@pytest.mark.parametrize("name", TEXTS)
def test_text_says_the_same_in_every_encoding(tmp_path: Path, name: tuple[str, str], encoding: str) -> None:
    again = {file: data.decode().encode(encoding) for file, data in EXPORTS[name].items()}
    assert read_summary(tmp_path / "a", again) == read_summary(tmp_path / "b", EXPORTS[name])


@pytest.mark.parametrize("name", MARKED)
def test_json_says_the_same_behind_a_mark(tmp_path: Path, name: tuple[str, str]) -> None:
    again = {file: b"\xef\xbb\xbf" + data for file, data in EXPORTS[name].items()}
    assert read_summary(tmp_path / "a", again) == read_summary(tmp_path / "b", EXPORTS[name])


@pytest.mark.parametrize("name", [name for name in TEXTS if name[0] != "instructions"])
def test_a_byte_that_is_no_text_costs_no_message(tmp_path: Path, name: tuple[str, str]) -> None:
    words = (b"hello", b"hallo", b"surely", "안녕".encode())
    spoiled = {}
    for file, data in EXPORTS[name].items():
        spoiled[file] = data
        for word in words:
            spoiled[file] = spoiled[file].replace(word, word[:1] + b"\xff" + word[2:])
    assert spoiled != EXPORTS[name]
    before, after = read_summary(tmp_path / "a", EXPORTS[name]), read_summary(tmp_path / "b", spoiled)
    assert len(after[0]) == len(before[0])
    assert any("\ufffd" in text for _, text, _ in after[0])


@pytest.mark.parametrize("name", [("whatsapp", "android"), ("telegram", "chat"), ("discord-exporter", "")])
def test_text_that_was_mangled_before_stays_as_it_is(tmp_path: Path, name: tuple[str, str]) -> None:
    """Only Meta's own way of mangling is known for sure; mending others would spoil what people really wrote."""
    words = ("schÃ¶n ï¿½ 浣犲ソ", "hello" if name[0] == "whatsapp" else "hi")
    files = {file: data.replace(words[1].encode(), words[0].encode()) for file, data in EXPORTS[name].items()}
    assert any(words[0] in text for _, text, _ in read_summary(tmp_path, files)[0])


@pytest.mark.parametrize("escape", [rb"\x41", rb"\q", rb"\u12", rb"\ud800"])
@pytest.mark.parametrize(
    ("name", "word"),
    [
        (("telegram", "chat"), b'"hi"'),
        (("discord-exporter", ""), b'"hi"'),
        (("matrix", ""), b'"hello"'),
        (("meta", ""), b'"hi"'),
        (("reddit", "dump"), b'"iron"'),
        (("instructions", "array"), b'"Add"'),
        (("signal", "records"), b'"hello  "'),
    ],
)
def test_a_broken_escape_costs_at_most_its_record(
    tmp_path: Path, name: tuple[str, str], word: bytes, escape: bytes
) -> None:
    files = {file: data.replace(word, word[:-1] + escape + b'"') for file, data in EXPORTS[name].items()}
    assert files != EXPORTS[name]
    before, after = read_summary(tmp_path / "a", EXPORTS[name]), read_summary(tmp_path / "b", files)
    lost = 2 if name[0] == "instructions" else 1
    assert len(after[0]) == len(before[0]) or (after[1] == 1 and len(after[0]) == len(before[0]) - lost)
    if escape == rb"\x41" and name[0] == "telegram":
        assert after[0][0][1] == "hiA"


NAMES = (
    *("/etc/evil.txt", "../../evil.txt", "..\\..\\evil.txt", "C:\\evil.txt", "a/../../evil.txt", "./evil.txt"),
    *("//evil.txt", "evil.txt/", "evil\x00.txt", "\u202egpj.evil.txt", "a" * 5000 + ".txt", "-rf", "~/evil.txt"),
)


@pytest.mark.parametrize("name", NAMES)
def test_names_in_a_zip_lead_nowhere(tmp_path: Path, name: str) -> None:
    content = EXPORTS["whatsapp", "android"]["_chat.txt"]
    place = tmp_path / "deep" / "deeper"
    place.mkdir(parents=True)
    messages = survive(write(place, {name: content, "_chat.txt": content}, as_zip=True))
    assert messages
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["archive.zip", "deep", "deeper"]
    assert not Path("/etc/evil.txt").exists()


def test_a_link_in_a_zip_is_only_its_text(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_bytes(EXPORTS["whatsapp", "android"]["_chat.txt"])
    member = zipfile.ZipInfo("_chat.txt")
    member.create_system = 3
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.writestr(member, str(tmp_path / "secret.txt"))
    with pytest.raises(UserError, match=r"t\.zip: unknown archive format"):
        read_all(tmp_path / "t.zip")


def test_a_name_that_is_a_file_and_a_folder_and_one_that_comes_twice(tmp_path: Path) -> None:
    content = EXPORTS["whatsapp", "android"]["_chat.txt"]
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.writestr("a", content)
        archive.writestr("a/b", content)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a", b"")
    assert survive(tmp_path / "t.zip")


def test_names_of_a_chinese_windows(tmp_path: Path) -> None:
    raw = "与小林的聊天.txt".encode("gb18030")
    place = tmp_path / "placeholder.zip"
    with zipfile.ZipFile(place, "w") as archive:
        archive.writestr("x" * len(raw), EXPORTS["whatsapp", "android"]["_chat.txt"])
    place.write_bytes(place.read_bytes().replace(b"x" * len(raw), raw))
    assert len(survive(place)) == 5


def test_a_member_that_lies_about_its_size_is_not_unpacked_further(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("_chat.txt", EXPORTS["whatsapp", "android"]["_chat.txt"] + b" " * (8 << 20))
    data = bytearray(buffer.getvalue())
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = data.index(signature) + offset
        data[at : at + 4] = struct.pack("<I", 200)
    (tmp_path / "t.zip").write_bytes(data)
    with pytest.raises(UserError, match=r"t\.zip: damaged or incomplete zip"):
        read_all(tmp_path / "t.zip")


@pytest.mark.parametrize("inner", ["result.json", "_chat.txt", "data/tweets.js", "dump.zst"])
def test_a_bomb_whatever_it_is_called_and_wherever_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inner: str
) -> None:
    monkeypatch.setattr(tree, "BOMB_BYTES", 1 << 20)
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(inner, b"0" * (4 << 20))
    path = write(tmp_path, {"inner.zip": bomb.getvalue()}, as_zip=True)
    with pytest.raises(UserError, match="looks like a zip bomb; refused"):
        read_all(path)


@pytest.mark.parametrize("name", EXPORTS)
@pytest.mark.parametrize("kept", [0.3, 0.7, 0.95])
def test_a_zip_that_ends_early_is_one_line(tmp_path: Path, name: tuple[str, str], kept: float) -> None:
    path = write(tmp_path, EXPORTS[name], as_zip=True)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(UserError, match=r"archive\.zip: damaged or incomplete zip; download it again"):
        read_all(path)


@pytest.mark.parametrize("name", EXPORTS)
def test_a_file_that_ends_early_is_read_to_there(tmp_path: Path, name: tuple[str, str]) -> None:
    for tenths in range(1, 10):
        place = tmp_path / str(tenths)
        place.mkdir()
        survive(
            write(place, {file: data[: len(data) * tenths // 10] for file, data in EXPORTS[name].items()}, as_zip=False)
        )
