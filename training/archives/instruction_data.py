"""Instruction data as an archive: Alpaca, ShareGPT, OpenAI's messages, and tables with question and answer.

The assistant is the owner, and whoever asks is a contact. The data says no times, so each dialogue gets a made-up one:
they only keep the order. What a record means is `training.archives.formats.instructions`' business.
"""

import codecs
import hashlib
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any

from doppel.i18n import tr
from training.archives.formats.instructions import Said, Unusable, read_record
from training.archives.formats.json_stream import DamagedJSON, JsonStream, Readable
from training.archives.formats.records import array_records, csv_rows, json_lines
from training.archives.formats.text_lines import decode_head, encoding_of
from training.archives.message import Message
from training.archives.source_tree import Tree

PLATFORM = "instructions"
ASSISTANT, USER, SYSTEM = "assistant", "user", "system"

_HEAD, _LONG_HEAD = 4096, 1 << 18
_TRIED = 5
"""Records at the beginning of a file of which one must be a dialogue."""

_KEYS = re.compile(
    r'"(?:messages|conversations?|items|instruction|prompt|question|user|query|input)"\s*:', re.IGNORECASE
)
_BEGINNING = datetime(2000, 1, 1, 12, tzinfo=UTC)
_STEP = timedelta(minutes=1)
"""Between two messages: as coarse as no rhythm is learned from it."""


class InstructionDataReader:
    """Reads one file: a JSON array, JSON Lines, or a table with named columns."""

    name = "instructions"
    accepts = (
        "Instruction data: Alpaca, ShareGPT, OpenAI messages (JSON or JSON Lines), or CSV with question and answer"
    )

    def sniff(self, tree: Tree) -> bool:
        """Whether one of the first records is a dialogue, or the columns are those of one."""
        if not tree.is_file:
            return False
        file = tree.files()[0]
        head = _text(tree, file, _HEAD)
        if head.startswith(("[", "{")):
            return bool(_KEYS.search(head)) and any(_is_dialogue(one) for one in _first(_text(tree, file, _LONG_HEAD)))
        names = [name.strip().strip('"') for name in head.replace("\r", "\n").partition("\n")[0].split(",")]
        return len(names) > 1 and _is_dialogue(dict.fromkeys(names, "x"))

    def read(self, tree: Tree) -> Iterator[Message]:
        """Every dialogue, message by message; a system prompt is a service record."""
        file = tree.files()[0]
        for order, (number, record) in enumerate(_records(tree, file)):
            try:
                said = read_record(record)
            except Unusable as error:
                tree.bad(file, tr("record {number}", number=number), str(error))
                continue
            yield from _dialogue(said, _BEGINNING + order * _STEP, f"{file}:{number}")


def _dialogue(said: tuple[Said, ...], at: datetime, origin: str) -> Iterator[Message]:
    """The messages of a dialogue, a chat of its own: the same one again is the same chat."""
    text = "\0".join(f"{one.role}\0{one.text}" for one in said)
    chat = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    for number, one in enumerate(said, 1):
        yield Message(
            id=str(number),
            platform=PLATFORM,
            chat=chat,
            kind="dm",
            sender=one.role,
            sender_name=one.role,
            sent_at=at + number * _STEP,
            text=one.text,
            is_owner=one.role == ASSISTANT,
            chat_name=USER,
            mark="service" if one.role == SYSTEM else "",
            origin=origin,
        )


def _records(tree: Tree, file: str) -> Iterator[tuple[int, Any]]:
    head = _text(tree, file, _HEAD)
    if head.startswith("["):
        with tree.open(file) as opened:
            stream = JsonStream(_AsUtf8(opened, encoding_of(tree.head(file))))
            try:
                yield from array_records(tree, file, stream)
            except DamagedJSON as damage:
                if not stream.lost:
                    tree.bad(file, tr("end of file"), str(damage))
    elif head.startswith("{"):
        yield from json_lines(tree, file)
    else:
        yield from csv_rows(tree, file)


class _AsUtf8:
    """A text in any encoding as the UTF-8 that a stream of JSON is read from."""

    def __init__(self, file: Readable, encoding: str) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder(encoding)("replace")

    def read(self, size: int = -1) -> bytes:
        """About `size` bytes, none only at the end."""
        while True:
            data = self._file.read(size)
            text = self._decoder.decode(data, final=not data)
            if text or not data:
                return text.encode("utf-8", "replace")


def _text(tree: Tree, file: str, size: int) -> str:
    return decode_head(tree.head(file, size)).lstrip("\ufeff \t\r\n")


def _first(text: str) -> Iterator[Any]:
    """The first records that are whole in the beginning of a file."""
    if text.startswith("["):
        stream = JsonStream(BytesIO(text.encode("utf-8", "replace")))
        try:
            for _, (_, record) in zip(range(_TRIED), stream.records(lambda *_: None), strict=False):
                yield record
        except DamagedJSON:
            return
        return
    for line in [one for one in text.split("\n", 4 * _TRIED) if one.strip()][:_TRIED]:
        try:
            yield json.loads(line, strict=False)
        except (ValueError, RecursionError):
            continue


def _is_dialogue(record: Any) -> bool:
    try:
        return bool(read_record(record))
    except Unusable:
        return False
