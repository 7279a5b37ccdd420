"""A bounded look at JSON files, and that readers recognize theirs whatever comes first in it."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.training.exports import ZONE, read_all, telegram_chat, telegram_message, write_json
from training.archives.discovery import discover, installed_readers
from training.archives.formats import json_outline
from training.archives.formats.json_outline import SAMPLED_ITEMS, outline
from training.archives.message import Message
from training.archives.source_tree import SourceTree, open_folder


def outline_of(path: Path) -> Any:
    tree = SourceTree(open_folder(path), path.name, str(path), ZONE)
    found = outline(tree, path.name)
    assert tree.opened == set()  # looking is not reading
    assert tree.bad_records == []
    return found


def test_arrays_are_cut_and_everything_behind_them_is_seen(tmp_path: Path) -> None:
    content = {"list": [{"n": number} for number in range(9000)], "behind": {"a": [1, [2]]}}
    assert outline_of(write_json(tmp_path / "x.json", content)) == {
        "list": content["list"][:SAMPLED_ITEMS],
        "behind": {"a": [1, [2]]},
    }


@pytest.mark.parametrize("text", ["", "   ", "words", '"text"', "PK\x03\x04", "<html>"])
def test_other_files_have_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "x").write_text(text)
    assert outline_of(tmp_path / "x") is None


def test_damage_and_the_limit_end_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").write_text('\ufeff{"a": [{"b": 1}, {"b": tru')
    assert outline_of(tmp_path / "x") == {"a": [{"b": 1}, {"b": None}]}
    monkeypatch.setattr(json_outline, "SNIFFED_BYTES", 100)
    path = write_json(tmp_path / "y", {"a": 1, "b": ["x" * 40_000], "c": 2})
    assert outline_of(path) == {"a": 1, "b": []}


AUTHOR = {"id": "1", "name": "ann", "isBot": False}
EXPORTS: dict[str, dict[str, Any]] = {
    "telegram": telegram_chat([telegram_message(number, 2002, "hi") for number in range(1, 200)]),
    "discord-exporter": {
        "guild": {"id": "0", "name": "Direct Messages"},
        "channel": {"id": "410000000000000009", "type": "DirectTextChat", "name": "tom"},
        "messages": [
            {
                "id": str(n),
                "type": "Default",
                "timestamp": "2021-03-04T12:00:00+00:00",
                "content": "x",
                "author": AUTHOR,
            }
            for n in range(1, 200)
        ],
    },
    "matrix": {
        "room_name": "Tom",
        "room_creator": "@a:b.example",
        "messages": [
            {
                "type": "m.room.message",
                "sender": "@a:b.example",
                "event_id": f"${n}",
                "origin_server_ts": 1_600_000_000_000 + n,
                "content": {"msgtype": "m.text", "body": "x"},
            }
            for n in range(1, 200)
        ],
    },
    "mastodon": {
        "@context": "https://www.w3.org/ns/activitystreams",
        "id": "outbox.json",
        "type": "OrderedCollection",
        "totalItems": 199,
        "orderedItems": [
            {
                "id": f"https://a.example/{n}/activity",
                "type": "Create",
                "actor": "https://a.example/users/ann",
                "published": "2021-03-04T12:00:00Z",
                "to": ["https://www.w3.org/ns/activitystreams#Public"],
                "object": {"id": f"https://a.example/{n}", "type": "Note", "content": "<p>x</p>"},
            }
            for n in range(1, 200)
        ],
    },
    "google-chat": {
        "messages": [
            {
                "creator": {"name": "Ann", "email": "ann@a.example"},
                "created_date": "Tuesday, March 3, 2020 at 4:05:06 PM UTC",
                "text": "x",
                "topic_id": "t",
                "message_id": f"m{n}",
            }
            for n in range(1, 200)
        ]
    },
}


def identities(messages: list[Message]) -> list[tuple[str, str, str, str]]:
    return sorted((message.chat, message.id, message.kind, message.sender) for message in messages)


@pytest.mark.parametrize("name", EXPORTS)
@pytest.mark.parametrize("seed", range(4))
def test_an_export_with_its_keys_in_another_order_is_the_same(tmp_path: Path, name: str, seed: int) -> None:
    path = tmp_path / "export.json"
    original = read_all(write_json(path, EXPORTS[name]))
    write_json(path, shuffled(EXPORTS[name], random.Random(seed)))
    found = discover([path.name], tmp_path, ZONE, installed_readers())
    assert [source.reader.name for source in found.sources] == [name]
    assert identities(read_all(path)[0]) == identities(original[0])
    assert len(original[0]) == 199


def shuffled(value: Any, order: random.Random) -> Any:
    if isinstance(value, list):
        return [shuffled(item, order) for item in value]
    if not isinstance(value, dict):
        return value
    keys = list(value)
    order.shuffle(keys)
    if "messages" in keys:  # the worst case: everything else is behind the messages
        keys.sort(key=lambda key: key != "messages")
    return {key: shuffled(value[key], order) for key in keys}


def test_the_conversation_of_a_meta_download_in_another_order(tmp_path: Path) -> None:
    records = [{"timestamp_ms": 1_600_000_000_000 + n, "content": "x", "sender_name": "Ann"} for n in range(9)]
    content = {"messages": records, "title": "Tom", "participants": [{"name": "Tom"}, {"name": "Ann"}]}
    folder = tmp_path / "inbox" / "tom_1"
    folder.mkdir(parents=True)
    (folder / "message_1.json").write_text(json.dumps(content))
    found = discover(["inbox"], tmp_path, ZONE, installed_readers())
    assert [source.reader.name for source in found.sources] == ["meta"]
