"""The data set in other trainers' formats: every word of the owner's in it, categories right, whole files or none."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from doppel.errors import DoppelError, UserError
from doppel.transcript import Header, Turn, normalize
from tests.training.dataset.test_build import build_messages
from tests.training.messages import message
from training.dataset import export as data_export
from training.dataset.export import CATEGORIES, FORMATS, HISTORY_LENGTH, export_dataset
from training.dataset.files import SESSIONS_FILE, Session, write_sessions

START = datetime(2020, 6, 1, 9, 0, tzinfo=UTC)


def session(number: int, *turns: tuple[str, str], kind: str | None = "dm", chat: str = "Babelo") -> Session:
    """A session of (speaker, messages by |)."""
    return Session(
        id=f"{number:016x}",
        split="train",
        chat=chat,
        started_at=START,
        header=Header(kind=kind) if kind else Header(),
        turns=tuple(Turn(speaker, tuple(text.split("|"))) for speaker, text in turns),
    )


def exported(root: Path, form: str, *sessions: Session, name: str = "out.jsonl") -> list[dict[str, Any]]:
    """Writes sessions as a data set, exports it and reads the records back."""
    folder = root / "data" / "me"
    folder.mkdir(parents=True, exist_ok=True)
    write_sessions(folder / SESSIONS_FILE, sessions)
    path = root / name
    result = export_dataset(folder, form, path)
    text = path.read_text(encoding="utf-8")
    assert text.endswith("\n") or not text
    lines = text.split("\n")[:-1]
    records = json.loads(text) if name.endswith(".json") else [json.loads(line) for line in lines]
    assert result.records == len(records) == sum(result.categories.values())
    assert [entry.name for entry in root.iterdir() if entry.name.startswith(".")] == []
    return list(records)


TALK = session(1, ("Tomo", "hi|there?"), ("me", "yes|here"), ("Tomo", "good"), ("me", "bye"), ("Tomo", "unanswered"))


def test_alpaca_has_a_record_for_each_turn_of_the_owner(tmp_path: Path) -> None:
    first, second = exported(tmp_path, "alpaca", TALK)
    assert first == {
        "instruction": "hi\nthere?",
        "input": "",
        "output": "yes\nhere",
        "system": "[dm]",
        "history": [],
        "category": "dialogue",
        "split": "train",
        "id": f"{1:016x}",
    }
    assert (second["instruction"], second["output"]) == ("good", "bye")
    assert second["history"] == [["hi\nthere?", "yes\nhere"]]


def test_alpaca_carries_only_the_last_exchanges_along(tmp_path: Path) -> None:
    turns = [turn for number in range(30) for turn in (("Tomo", f"q{number}"), ("me", f"a{number}"))]
    records = exported(tmp_path, "alpaca", session(1, *turns))
    assert len(records) == 30
    assert records[-1]["history"] == [[f"q{number}", f"a{number}"] for number in range(29 - HISTORY_LENGTH, 29)]


def test_sharegpt_takes_turns_and_ends_with_the_owner(tmp_path: Path) -> None:
    said = session(2, ("me", "first"), ("Tomo", "second"), ("me", "third"))
    talk, own_first = exported(tmp_path, "sharegpt", TALK, said)
    assert [turn["value"] for turn in talk["conversations"]] == ["hi\nthere?", "yes\nhere", "good", "bye"]
    assert [turn["from"] for turn in own_first["conversations"]] == ["human", "gpt", "human", "gpt"]
    assert [turn["value"] for turn in own_first["conversations"]] == ["", "first", "second", "third"]
    assert own_first["system"] == "[dm]"


def test_openai_has_roles_and_no_empty_message(tmp_path: Path) -> None:
    (record,) = exported(tmp_path, "openai", session(2, ("me", "first"), ("Tomo", "second"), ("me", "third")))
    assert record["messages"] == [
        {"role": "system", "content": "[dm]"},
        {"role": "assistant", "content": "first"},
        {"role": "user", "content": "second"},
        {"role": "assistant", "content": "third"},
    ]


def test_transcript_is_what_the_model_sees(tmp_path: Path) -> None:
    (record,) = exported(tmp_path, "transcript", session(1, ("Tomo", "hi"), ("me", "yes|here")))
    assert record["text"] == "[dm]\n\nTomo: hi\n\nme: yes\n here"
    assert list(record) == ["text", "category", "split", "id"]


def test_in_a_group_it_is_said_who_spoke(tmp_path: Path) -> None:
    group = session(1, ("Tomo", "hi"), ("Rika", "hello"), ("me", "you two"), kind="group")
    (record,) = exported(tmp_path, "alpaca", group)
    assert record["instruction"] == "Tomo: hi\nRika: hello"


def test_a_header_without_fields_is_no_system_message(tmp_path: Path) -> None:
    bare = session(1, ("Tomo", "hi"), ("me", "yes"), kind=None)
    assert "system" not in exported(tmp_path, "alpaca", bare)[0]
    assert "system" not in exported(tmp_path, "sharegpt", bare)[0]
    assert [message["role"] for message in exported(tmp_path, "openai", bare)[0]["messages"]] == ["user", "assistant"]


def test_categories_also_where_the_header_lost_its_kind(tmp_path: Path) -> None:
    sessions = [
        session(1, ("me", "a post"), kind="post", chat="Posts"),
        session(2, ("me", "a reply"), kind="reply", chat="Tweets"),
        session(3, ("me", "a quote"), kind="quote", chat="Tweets"),
        session(4, ("Tomo", "hi"), ("me", "yes"), kind="group", chat="Talk"),
        session(5, ("me", "alone"), kind=None, chat="Posts"),
        session(6, ("me", "alone"), kind=None, chat="Tweets"),
        session(7, ("me", "alone"), kind=None, chat="Talk"),
        session(8, ("Tomo", "hi"), ("me", "yes"), kind=None, chat="New"),
        session(9, ("me", "alone"), kind=None, chat="Newer"),
    ]
    answering = session(10, ("Tomo", "tea?"), ("me", "yes"), kind=None, chat="Tweets")
    in_context = [msgspec.structs.replace(answering, kind=kind) for kind in ("reply", "quote")]
    categories = [record["category"] for record in exported(tmp_path, "transcript", *sessions, answering, *in_context)]
    assert categories[:4] == ["original", "reply", "quote", "dialogue"]
    assert categories[4:9] == ["original", "unknown", "dialogue", "dialogue", "unknown"]
    assert categories[9:] == ["unknown", "reply", "quote"]


@pytest.mark.parametrize("form", FORMATS)
def test_json_is_one_array_of_the_same_records(tmp_path: Path, form: str) -> None:
    post = session(2, ("me", "post"), kind="post")
    assert exported(tmp_path, form, TALK, post) == exported(tmp_path, form, TALK, post, name="out.json")
    assert exported(tmp_path, form, name="none.json") == []


TEXT = st.text(max_size=12).filter(normalize)
TURNS = st.lists(st.tuples(st.sampled_from(["me", "Tomo", "Rika"]), st.lists(TEXT, min_size=1, max_size=3)), max_size=6)


@given(TURNS, st.sampled_from(["alpaca", "sharegpt", "openai"]))
def test_every_word_of_the_owner_is_an_answer_and_nothing_else_is(
    tmp_path_factory: pytest.TempPathFactory, turns: list[tuple[str, list[str]]], form: str
) -> None:
    session_with_gap = Session(
        id="0" * 16,
        split="test",
        chat="Chat",
        started_at=START,
        header=Header(),
        turns=tuple(Turn(speaker, tuple(bubbles)) for speaker, bubbles in turns),
    )
    records = exported(tmp_path_factory.mktemp("export"), form, session_with_gap)
    assert [text for record in records for text in answers(form, record)] == [
        "\n".join(bubbles) for speaker, bubbles in turns if speaker == "me"
    ]
    assert {record["split"] for record in records} <= {"test"}


def answers(form: str, record: dict[str, Any]) -> list[str]:
    """What a record of a format has the owner say."""
    if form == "alpaca":
        return [record["output"]]
    if form == "sharegpt":
        return [said["value"] for said in record["conversations"] if said["from"] == "gpt"]
    return [said["content"] for said in record["messages"] if said["role"] == "assistant"]


def test_what_cannot_be_exported_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "me"
    with pytest.raises(UserError, match="csv: unknown format; available: alpaca, sharegpt, openai, transcript"):
        export_dataset(folder, "csv", tmp_path / "out.csv")
    with pytest.raises(UserError, match="no data set yet"):
        export_dataset(folder, "openai", tmp_path / "out.jsonl")
    with pytest.raises(UserError, match="is a folder"):
        export_dataset(folder, "openai", tmp_path)
    with pytest.raises(UserError, match="is inside the data set"):
        export_dataset(folder, "openai", folder / SESSIONS_FILE)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_fails_halfway_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = exported(tmp_path, "openai", TALK)
    with (tmp_path / "data" / "me" / SESSIONS_FILE).open("ab") as file:
        file.write(b"{broken\n")
    with pytest.raises(UserError, match="line 2"):
        export_dataset(tmp_path / "data" / "me", "openai", tmp_path / "out.jsonl")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    write_sessions(tmp_path / "data" / "me" / SESSIONS_FILE, [TALK])
    monkeypatch.setattr(data_export, "_write", full)
    with pytest.raises(DoppelError, match=r"out\.jsonl: cannot be written: No space left on device"):
        export_dataset(tmp_path / "data" / "me", "openai", tmp_path / "out.jsonl")
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()] == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out.jsonl"]


def test_a_build_keeps_the_categories_of_posts_whatever_their_headers_lost(tmp_path: Path) -> None:
    kinds = ("post", "reply", "quote", "dm")
    written = [
        message(number, f"{kind} {number}", at=number * 24 * 60, kind=kind, chat="talk" if kind == "dm" else "tweets")
        for number, kind in enumerate(kinds * 20)
    ]
    build_messages(tmp_path, written)
    path = tmp_path / "out.jsonl"
    assert export_dataset(tmp_path / "data" / "sample", "openai", path).records == 80
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        assert record["category"] == CATEGORIES[record["messages"][-1]["content"].split()[0]]
