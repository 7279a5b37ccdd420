"""Instruction data of every known kind comes out as the same dialogues, and what cannot be used says why."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doppel.errors import UserError
from doppel.transcript import normalize
from training.archives.formats.instructions import DialogueTurn, UnusableRecord, read_instructions, read_record

HELLO = (DialogueTurn("user", "hi"), DialogueTurn("assistant", "hello"))


@pytest.mark.parametrize(
    "record",
    [
        {"instruction": "hi", "input": "", "output": "hello"},
        {"instruction": "hi", "context": "", "response": "hello", "category": "qa"},
        {"input": "hi", "output": "hello"},
        {"prompt": "hi", "completion": "hello"},
        {"Question": "hi", "Answer": "hello"},
        {"user": "hi", "assistant": "hello", "system": None},
        {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]},
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "hi"}]},
                *[{"role": "assistant", "content": "hello"}],
            ]
        },
        {"id": "a", "conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]},
        {"conversations": [{"role": "User", "content": "hi"}, {"role": "Assistant", "content": "hello"}]},
        {
            "items": [
                {"from": "gpt", "value": "Welcome!"},
                {"from": "human", "value": "hi"},
                {"from": "gpt", "value": "hello"},
            ]
        },
        {
            "conversations": [
                {"from": "human", "value": "hi"},
                {"from": "gpt", "value": "hello"},
                {"from": "human", "value": "bye"},
            ]
        },
    ],
)
def test_every_kind_gives_the_same_dialogue(record: Any) -> None:
    assert read_record(record) == HELLO


def test_what_belongs_to_a_question_stays_with_it() -> None:
    assert read_record({"instruction": "Add", "input": "1 and 2", "output": "3"})[0].text == "Add\n\n1 and 2"
    record = {"instruction": "and 3?", "output": "6", "system": "Be brief.", "history": [["1 + 2?", "3"]]}
    assert [(turn.role, turn.text) for turn in read_record(record)] == [
        ("system", "Be brief."),
        ("user", "1 + 2?"),
        ("assistant", "3"),
        ("user", "and 3?"),
        ("assistant", "6"),
    ]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ("hi", "not a JSON object"),
        ({"text": "hi"}, r"no question and answer fields \(found: text\)"),
        ({}, r"\(found: none\)"),
        ({"instruction": "hi", "output": ""}, "no question has an answer"),
        ({"instruction": "", "output": "hello"}, "no question has an answer"),
        ({"instruction": "hi", "output": "\ufeff"}, "no question has an answer"),
        ({"instruction": "hi", "output": 42}, "a text field is not a string"),
        ({"instruction": "hi", "output": "caf\ufffd"}, "contains invalid or lost characters"),
        ({"instruction": "hi", "output": "x", "history": ["a"]}, "`history` is not a list of pairs"),
        ({"messages": []}, "no question has an answer"),
        ({"messages": ["hi"]}, "a message without a role"),
        ({"messages": [{"content": "hi"}]}, "a message without a role"),
        ({"messages": [{"role": "narrator", "content": "hi"}]}, "unknown role 'narrator'"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "contains images, audio or files"),
        ({"messages": [{"role": "assistant", "content": None, "tool_calls": [{}]}]}, "tool calls are not supported"),
        ({"conversations": [{"from": "observation", "value": "12°"}]}, "tool calls are not supported"),
    ],
)
def test_what_cannot_be_used_says_why(record: Any, reason: str) -> None:
    with pytest.raises(UnusableRecord, match=reason):
        read_record(record)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["messages", "conversations", "role", "from", "content", "value", "instruction", "output", "history"]
            )
            | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)
roles = st.sampled_from(["system", "user", "human", "assistant", "gpt"])
turns = st.lists(st.fixed_dictionaries({"role": roles, "content": st.text(max_size=5)}), max_size=8)


@given(anything | turns.map(lambda messages: {"messages": messages}))
def test_a_dialogue_begins_with_a_question_ends_with_an_answer_and_nothing_in_it_is_empty(record: Any) -> None:
    try:
        turns_read = read_record(record)
    except UnusableRecord:
        return
    rest = [turn.role for turn in turns_read]
    while rest[0] == "system":
        del rest[0]
    assert rest[0] == "user"
    assert rest[-1] == "assistant"
    assert all(normalize(turn.text) for turn in turns_read)


def test_bad_records_are_counted_with_their_place(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    lines = [{"prompt": "hi", "completion": "hello"}, {"prompt": "hi"}, {"prompt": "hi", "completion": "hello"}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"prompt":\n')
    bad: list[tuple[str, str]] = []
    dialogues = list(read_instructions(path, lambda position, reason: bad.append((position, reason))))
    assert [(dialogue.position, dialogue.turns) for dialogue in dialogues] == [("line 1", HELLO), ("line 3", HELLO)]
    assert [position for position, _ in bad] == ["line 2", "line 4"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "data: no records"),
        (
            "name,age\nann,3\n",
            r"data: no supported instruction data .*; line 2: no question and answer fields .*name, age",
        ),
        ('{\n "version": 2,\n "data": [\n]\n}\n', r"data: no supported instruction data .*; line 1: "),
        (json.dumps([{"text": "hi"}]), "record 1: no question and answer fields"),
    ],
)
def test_a_file_of_an_unknown_kind_is_one_clear_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "data"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        list(read_instructions(path, lambda *_: None))


def test_a_large_file_of_an_unknown_kind_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_text('{"text": "hi"}\n' * 100_000)
    bad: list[str] = []
    with pytest.raises(UserError):
        list(read_instructions(path, lambda position, _: bad.append(position)))
    assert len(bad) == 1000
