"""A build with secrets in the archive: none is left in the data set, nothing is lost, and the report says so."""

import json
from pathlib import Path
from typing import Any

from doppel.config import Config
from tests.training.dataset.test_build import assert_accounted, build_messages, sessions_of
from tests.training.messages import message
from tests.training.privacy.lines import core, planted
from training.archives.message import Message
from training.privacy.scrub import KEY_FILE, SCRUBBED_FILE


def archive() -> tuple[list[str], list[Message]]:
    """The planted secrets, and a conversation that tells them."""
    rows = planted(1)
    messages = [
        message(number, f"{text} ({number})", sender="me" if number % 2 else "ana", origin=f"chat.json:{number}")
        for number, (_, _, text) in enumerate(rows)
    ]
    return [core(secret) for _, secret, _ in rows], messages


def test_no_planted_secret_reaches_the_data_set(tmp_path: Path) -> None:
    secrets, messages = archive()
    report = build_messages(tmp_path, messages)
    assert_accounted(report)
    assert report.read == len(messages)
    assert report.kept == len(messages) - report.dropped.get("link-only", 0) - report.dropped.get("duplicate", 0)
    folder = tmp_path / "data" / "sample"
    bubbles = [bubble for session in sessions_of(tmp_path) for turn in session.turns for bubble in turn.bubbles]
    assert [secret for secret in secrets if any(secret in bubble for bubble in bubbles)] == []
    written = (folder / "sessions.jsonl").read_text(encoding="utf-8")
    assert [secret for secret in secrets if secret in written] == []
    listed = [json.loads(line) for line in (folder / SCRUBBED_FILE).read_text(encoding="utf-8").splitlines()]
    assert sum(report.scrubbed.values()) == len(listed) > 0
    assert report.scrubbed == json.loads((folder / "report.json").read_bytes())["scrubbed"]
    assert report.summary()["scrubbed"] == report.scrubbed
    assert {contact["origin"] for contact in listed} <= {message.origin for message in messages}


def test_a_second_build_has_the_same_stand_ins(tmp_path: Path) -> None:
    _, messages = archive()
    build_messages(tmp_path, messages)
    folder = tmp_path / "data" / "sample"
    before = {name: (folder / name).read_bytes() for name in ("sessions.jsonl", SCRUBBED_FILE, KEY_FILE)}
    build_messages(tmp_path, messages)
    assert {name: (folder / name).read_bytes() for name in before} == before


def test_a_damaged_key_is_made_anew(tmp_path: Path) -> None:
    _, messages = archive()
    build_messages(tmp_path, messages)
    (tmp_path / "data" / "sample" / KEY_FILE).write_bytes(b"short")
    build_messages(tmp_path, messages)
    assert len((tmp_path / "data" / "sample" / KEY_FILE).read_bytes()) == 32


def test_scrubbing_can_be_switched_off(tmp_path: Path) -> None:
    report = build_messages(tmp_path, [message(1, "mail ann@gmail.com")], privacy={"scrub": False})
    assert report.scrubbed == {}
    assert sessions_of(tmp_path)[0].turns[0].bubbles == ("mail ann@gmail.com",)
    assert not (tmp_path / "data" / "sample" / SCRUBBED_FILE).exists()


def test_excluded_messages_are_counted_as_such(tmp_path: Path) -> None:
    messages = [message(1, "hello"), message(2, "about the secret project"), message(3, "yes", sender="ana")]
    exclude: dict[str, Any] = {"people": ["ana"], "words": ["secret project"]}
    report = build_messages(tmp_path, messages, exclude=exclude)
    assert_accounted(report)
    assert report.dropped == {"excluded": 2}
    assert report.kept == 1


def test_the_rules_belong_to_what_a_data_set_is_made_from() -> None:
    plain = Config().archive_digest
    assert Config(privacy={"scrub": False}).archive_digest != plain
    assert Config(exclude={"words": ("x",)}).archive_digest != plain
    assert Config(privacy={"scrub": True}, exclude={}).archive_digest == plain
