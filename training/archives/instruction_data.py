"""Reads instruction data as an archive: Alpaca, ShareGPT, OpenAI's messages, and CSV with question and answer.

The assistant is the owner, the user a contact. The data has no times, so every message gets a made-up one that keeps
the order.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any

from doppel.i18n import tr
from training.archives.formats.archive_records import json_array, json_lines
from training.archives.formats.csv_files import csv_columns, csv_rows
from training.archives.formats.instructions import DialogueTurn, UnusableRecord, read_record
from training.archives.formats.json_stream import DamagedJSON, JsonStream
from training.archives.formats.text_lines import decode_head
from training.archives.message import Mark, Message
from training.archives.source_tree import SourceTree

PLATFORM = "instructions"
ASSISTANT, USER, SYSTEM = "assistant", "user", "system"

_HEAD, _LONG_HEAD = 4096, 1 << 18
_SNIFFED_RECORDS = 5
"""One of the first records of a file must be a dialogue."""

_KEYS = re.compile(
    r'"(?:messages|conversations?|items|instruction|prompt|question|user|query|input)"\s*:', re.IGNORECASE
)
_FIRST_TIME = datetime(2000, 1, 1, 12, tzinfo=UTC)
_STEP = timedelta(minutes=1)
"""Time between two messages: so coarse that no rhythm is learned from it."""


class InstructionDataReader:
    """Reads one file: a JSON array, JSON Lines, or CSV with a header."""

    name = "instructions"
    accepts = (
        "Instruction data: Alpaca, ShareGPT, OpenAI messages (JSON or JSON Lines), or CSV with question and answer"
    )

    def sniff(self, tree: SourceTree) -> bool:
        """Whether one of the first records, or the CSV columns, are those of a dialogue."""
        if not tree.is_file:
            return False
        file = tree.files()[0]
        head = _text(tree, file, _HEAD)
        if head.startswith(("[", "{")):
            return bool(_KEYS.search(head)) and any(
                _is_dialogue(record) for record in _first_records(_text(tree, file, _LONG_HEAD))
            )
        names = csv_columns(tree, file)
        return len(names) > 1 and _is_dialogue(dict.fromkeys(names, "x"))

    def read(self, tree: SourceTree) -> Iterator[Message]:
        """Every dialogue, message by message; a system prompt is a service message."""
        file = tree.files()[0]
        for order, (number, record) in enumerate(_records(tree, file)):
            try:
                turns = read_record(record)
            except UnusableRecord as error:
                tree.report_bad(file, tr("record {number}", number=number), str(error))
                continue
            yield from _dialogue(turns, _FIRST_TIME + order * _STEP, f"{file}:{number}")


def _dialogue(turns: tuple[DialogueTurn, ...], at: datetime, origin: str) -> Iterator[Message]:
    """The messages of a dialogue, which is a chat of its own; an identical dialogue is the same chat."""
    text = "\0".join(f"{turn.role}\0{turn.text}" for turn in turns)
    chat = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    for number, turn in enumerate(turns, 1):
        yield Message(
            id=str(number),
            platform=PLATFORM,
            chat=chat,
            kind="dm",
            sender=turn.role,
            sender_name=turn.role,
            sent_at=at + number * _STEP,
            text=turn.text,
            is_owner=turn.role == ASSISTANT,
            chat_name=USER,
            mark=Mark.SERVICE if turn.role == SYSTEM else Mark.NONE,
            origin=origin,
        )


def _records(tree: SourceTree, file: str) -> Iterator[tuple[int, Any]]:
    head = _text(tree, file, _HEAD)
    if head.startswith("["):
        yield from json_array(tree, file)
    elif head.startswith("{"):
        yield from json_lines(tree, file)
    else:
        yield from csv_rows(tree, file)


def _text(tree: SourceTree, file: str, size: int) -> str:
    return decode_head(tree.head(file, size)).lstrip("\ufeff \t\r\n")


def _first_records(text: str) -> Iterator[Any]:
    """The first complete records in the head of a file."""
    if text.startswith("["):
        stream = JsonStream(BytesIO(text.encode("utf-8", "replace")))
        try:
            for _, (_, record) in zip(range(_SNIFFED_RECORDS), stream.records(lambda *_: None), strict=False):
                yield record
        except DamagedJSON:
            return
        return
    for line in [line for line in text.split("\n", 4 * _SNIFFED_RECORDS) if line.strip()][:_SNIFFED_RECORDS]:
        try:
            yield json.loads(line, strict=False)
        except (ValueError, RecursionError):
            continue


def _is_dialogue(record: Any) -> bool:
    try:
        return bool(read_record(record))
    except UnusableRecord:
        return False
