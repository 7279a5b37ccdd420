"""Bluesky's repository: the records of one account, and whatever a CAR file may claim."""

import hashlib
import io
import struct
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.exports import ZONE, read_all, write_folder
from training.archives.bluesky import BlueskyReader
from training.archives.formats import car as car_module
from training.archives.formats.car import CID, MAX_DEPTH, DamagedCAR, decode, read_blocks
from training.archives.source_tree import SourceTree, open_folder

READER = BlueskyReader()
DID = "did:plc:mara"
POST = "app.bsky.feed.post"


def encode(value: Any) -> bytes:
    """DAG-CBOR."""
    if isinstance(value, bool) or value is None:
        return {False: b"\xf4", True: b"\xf5", None: b"\xf6"}[value]
    if isinstance(value, int):
        return head(0, value) if value >= 0 else head(1, -1 - value)
    if isinstance(value, float):
        return b"\xfb" + struct.pack(">d", value)
    if isinstance(value, CID):
        return b"\xd8\x2a" + head(2, len(value) + 1) + b"\0" + value
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    if isinstance(value, str):
        raw = value.encode()
        return head(3, len(raw)) + raw
    if isinstance(value, list):
        return head(4, len(value)) + b"".join(map(encode, value))
    keys = sorted(value, key=lambda key: (len(key.encode()), key.encode()))
    return head(5, len(keys)) + b"".join(encode(key) + encode(value[key]) for key in keys)


def head(major: int, number: int) -> bytes:
    if number < 24:
        return bytes((major << 5 | number,))
    power = next(power for power in range(4) if number < 1 << (8 << power))
    return bytes((major << 5 | 24 + power,)) + number.to_bytes(1 << power, "big")


def varint(number: int) -> bytes:
    data = b""
    while number >= 0x80:
        data += bytes((number & 0x7F | 0x80,))
        number >>= 7
    return data + bytes((number,))


def link(block: bytes) -> CID:
    return CID(b"\x01\x71\x12\x20" + hashlib.sha256(block).digest())


def car(*contents: bytes) -> bytes:
    """A CAR file; the first block is its root."""
    header = encode({"version": 1, "roots": [link(contents[0])]})
    sections = [link(block) + block for block in contents]
    return b"".join(varint(len(section)) + section for section in (header, *sections))


def node(records: dict[str, bytes]) -> bytes:
    """A node of the tree that knows where these records are."""
    entries, before = [], b""
    for path in sorted(records):
        key = path.encode()
        shared = next(
            (n for n, (a, b) in enumerate(zip(key, before, strict=False)) if a != b), min(len(key), len(before))
        )
        entries.append({"k": key[shared:], "p": shared, "t": None, "v": link(records[path])})
        before = key
    return encode({"e": entries, "l": None})


def repository(records: dict[str, Any]) -> bytes:
    """A whole export."""
    encoded = {path: encode(record) for path, record in records.items()}
    tree = node(encoded)
    commit = encode({"did": DID, "rev": "3k", "sig": b"\1" * 64, "data": link(tree), "prev": None, "version": 3})
    return car(commit, tree, *encoded.values())


def post(number: int, text: str, **more: Any) -> dict[str, Any]:
    return {"$type": POST, "text": text, "langs": ["en"], "createdAt": f"2024-03-03T16:05:{number:02}.123Z", **more}


def facet(text: str, shown: str, address: str) -> dict[str, Any]:
    begin = len(text[: text.index(shown)].encode())
    return {
        "index": {"byteStart": begin, "byteEnd": begin + len(shown.encode())},
        "features": [{"$type": "app.bsky.richtext.facet#link", "uri": address}],
    }


def reference(path: str, account: str = DID) -> dict[str, str]:
    return {"uri": f"at://{account}/{path}", "cid": "bafy"}


def records() -> dict[str, Any]:
    shortened = "茶 🍵 a.example/long-li... and here"
    mine, theirs = reference(f"{POST}/3a"), reference(f"{POST}/9z", "did:plc:tom")
    quote = {"$type": "app.bsky.embed.record", "record": theirs}
    pictures = {"$type": "app.bsky.embed.images", "images": [{"alt": "x", "image": {"ref": link(b"x"), "size": 1}}]}
    both = {"$type": "app.bsky.embed.recordWithMedia", "record": {"record": theirs}, "media": pictures}
    feed = {"$type": "app.bsky.embed.record", "record": reference("app.bsky.feed.generator/x")}
    facets = [facet(shortened, "a.example/long-li...", "https://a.example/long-link?x=1")]
    named = [facet(shortened, "here", "https://b.example/")]
    return {
        f"{POST}/3a": post(1, shortened, facets=facets + named),
        f"{POST}/3b": post(2, "yes", reply={"root": mine, "parent": mine}),
        f"{POST}/3c": post(3, "no", reply={"root": theirs, "parent": theirs}, embed=quote),
        f"{POST}/3d": post(4, "look", embed=quote),
        f"{POST}/3e": post(5, "picture", embed=pictures),
        f"{POST}/3f": post(6, "both", embed=both),
        f"{POST}/3g": post(7, "a feed", embed=feed),
        "app.bsky.feed.repost/3h": {
            "$type": "app.bsky.feed.repost",
            "subject": theirs,
            "createdAt": "2024-03-04T00:00:00Z",
        },
        "app.bsky.feed.like/3i": {
            "$type": "app.bsky.feed.like",
            "subject": theirs,
            "createdAt": "2024-03-04T00:00:00Z",
        },
        "app.bsky.actor.profile/self": {"$type": "app.bsky.actor.profile", "displayName": "Mara"},
    }


def read(tmp_path: Path, data: bytes) -> tuple[list[Any], list[Any]]:
    (tmp_path / "repo.car").write_bytes(data)
    return read_all(tmp_path / "repo.car", [READER])


def test_a_repository(tmp_path: Path) -> None:
    messages, bad = read(tmp_path, repository(records()))
    assert bad == []
    assert [(message.id.rpartition("/")[2], message.kind, message.text, message.mark) for message in messages] == [
        ("3a", "post", "茶 🍵 https://a.example/long-link?x=1 and here", ""),
        ("3b", "reply", "yes", ""),
        ("3c", "reply", "no", ""),
        ("3d", "quote", "look", ""),
        ("3e", "post", "picture", "media"),
        ("3f", "quote", "both", "media"),
        ("3g", "post", "a feed", ""),
        ("3h", "post", "", "retweet"),
    ]
    assert messages[1].reply_to == messages[0].id == f"at://{DID}/{POST}/3a"
    assert messages[2].reply_to == f"at://did:plc:tom/{POST}/9z"
    assert {(message.sender, message.sender_name, message.chat, message.is_owner) for message in messages} == {
        (DID, "Mara", "posts", True)
    }
    assert messages[0].sent_at == datetime(2024, 3, 3, 16, 5, 1, 123000, tzinfo=UTC)


def test_records_may_come_before_the_tree_and_the_same_block_may_have_two_paths(tmp_path: Path) -> None:
    block = encode(post(1, "twice"))
    tree = node({f"{POST}/3a": block, f"{POST}/3b": block})
    commit = encode({"did": DID, "data": link(tree), "version": 3})
    messages, bad = read(tmp_path, car(block, block, tree, commit))
    assert bad == []
    assert [message.id for message in messages] == [f"at://{DID}/{POST}/3a", f"at://{DID}/{POST}/3b"]


def test_without_tree_and_commit(tmp_path: Path) -> None:
    messages, bad = read(tmp_path, car(encode(post(1, "a")), encode(post(2, "b"))))
    assert bad == []
    assert [(message.text, message.sender, message.is_owner) for message in messages] == [
        ("a", "owner", True),
        ("b", "owner", True),
    ]
    assert messages[0].id.startswith(f"at://owner/{POST}/bafyrei")


def test_damage_is_counted_and_the_rest_is_read(tmp_path: Path) -> None:
    data = records()
    data[f"{POST}/3b"]["createdAt"] = "yesterday"
    del data[f"{POST}/3d"]["text"]
    whole = repository(data)
    flipped = whole.replace(b"picture", b"pixture")
    messages, bad = read(tmp_path, flipped[:-20])
    assert [message.id[-2:] for message in messages] == ["3a", "3c", "3f", "3g", "3h"]
    assert [record.position for record in bad] == ["record 4", "record 6", "record 7", "end of file"]
    assert "block does not match its digest" in bad[2].reason


def test_blocks_larger_than_any_are_left_out_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(car_module, "LARGEST_BLOCK", 1000)
    contents = [encode(post(1, "a")), encode(post(2, "x" * 700_000)), encode(post(3, "c"))]
    messages, bad = read(tmp_path, car(*contents))
    assert [message.text for message in messages] == ["a", "c"]
    assert [(record.position, record.reason) for record in bad] == [("record 2", "block too large")]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",  # a list of 2**64 - 1
        b"\xbb\x7f\xff\xff\xff\xff\xff\xff\xff",
        b"\x7b\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x9f\xff",  # of indefinite length
        b"\xa1\x01\x02",  # a number as key
        b"\xc1\x00",  # another tag
        b"\xd8\x2a\x41\x01",
        b"\xf7",
        b"\x1c",
        b"\x00\x00",
        b"\x81" * (MAX_DEPTH + 2) + b"\x00",
        b"\x81" * 100_000,
        b"\xd8\x2a" * 100_000,
    ],
)
def test_hostile_values_are_refused(data: bytes) -> None:
    with pytest.raises(DamagedCAR):
        decode(data)


def test_a_path_that_grows_with_every_entry_is_bounded(tmp_path: Path) -> None:
    block = encode(post(1, "a"))
    start = f"{POST}/".encode()
    entries = [{"k": start if n == 0 else b"x", "p": n and len(start) + n - 1, "v": link(block)} for n in range(5000)]
    messages, _ = read(tmp_path, car(encode({"e": entries, "l": None}), block))
    assert 0 < len(messages) <= 1024
    assert max(len(message.id) for message in messages) < 1100


@pytest.mark.parametrize("data", [b"", b"\x0aabc", b"PK\x03\x04", b"{}", b"\xff" * 20, b"\x00", b"\x01\xa0"])
def test_others_are_not_claimed(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "file").write_bytes(data)
    assert not READER.sniff(SourceTree(open_folder(tmp_path), "file", "file", ZONE))
    (tmp_path / "file").write_bytes(car(encode({"some": "other data"})))
    assert not READER.sniff(SourceTree(open_folder(tmp_path), "file", "file", ZONE))
    assert not READER.sniff(SourceTree(open_folder(write_folder(tmp_path / "empty", {})), "", "empty", ZONE))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_what_was_encoded_is_decoded(value: Any) -> None:
    assert decode(encode(value)) == value


@settings(max_examples=300)
@given(st.binary(max_size=100))
def test_any_bytes_are_a_value_or_damage(data: bytes) -> None:
    try:
        decode(data)
    except DamagedCAR as damage:
        assert str(damage)  # noqa: PT017 either outcome is right
    try:
        list(read_blocks(io.BytesIO(data), lambda *_: None))
    except DamagedCAR as damage:
        assert str(damage)  # noqa: PT017


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_damage_raises_or_takes_a_post_silently(data: st.DataObject) -> None:
    contents = {f"{POST}/3{n}": post(n, "some words") for n in range(4)}
    whole = bytearray(repository(contents))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(60, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "repo.car").write_bytes(whole)
        tree = SourceTree(open_folder(Path(folder)), "repo.car", "repo.car", ZONE)
        messages = list(READER.read(tree))
    assert len(messages) == 4 or tree.bad_count


def test_a_post_that_speaks_to_somebody_opens_nothing(tmp_path: Path) -> None:
    posts = {f"{POST}/3a": post(1, "@tom.example good morning"), f"{POST}/3b": post(2, "tea with @tom.example")}
    messages, _ = read(tmp_path, repository(posts))
    assert [(message.kind, message.reply_to) for message in messages] == [("reply", None), ("post", None)]
