"""Reads Signal chats from signal-export: a folder for each chat with data.json, or chat.md in older and merged ones.

Both files have the same messages, so only one is read. "Me" is the owner. A reply quotes a message without its id:
it replies to the last message with that text.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

import msgspec

from doppel.i18n import tr
from doppel.transcript.stickers import is_emoji
from training.archives.formats.archive_records import RECORD_ERRORS, as_object, json_lines
from training.archives.formats.chat_text import MessageIds
from training.archives.formats.local_times import Direction, in_file_order, local_time
from training.archives.formats.reactions import Reaction, reactions_to
from training.archives.formats.sender_names import NameSurvey, SenderNames
from training.archives.formats.text_lines import decode_head, first_lines, multiline_records
from training.archives.message import Kind, Mark, Message
from training.archives.source_tree import SourceTree

_OWNER = "Me"
_NO_SENDER = "No-Sender"
_FILE_NAMES = ("data.json", "chat.md", "index.md")
"""The only files of a folder that are sniffed: folders of other exports have thousands."""

_SNIFFED = 4096
_MAX_QUOTABLE = 1 << 13
"""Number of earlier messages that a quote can refer to."""

_JSON = re.compile(
    r'\s*\{\s*"date":\s*"(?P<date>\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d)[^"]*",\s*"sender":\s*"(?:[^"\\]|\\.)*",\s*"body":'
)
_HEAD = re.compile(r"\[(?P<date>\d{4}-\d\d-\d\d),? (?P<time>\d\d:\d\d(?::\d\d)?)\] (?P<rest>[^\n]{1,200}?:(?: .*)?)$")
_QUOTE = re.compile(r"\A\s*(?:^>.*$\n?)+\n*", re.MULTILINE)
_REACTIONS = re.compile(r"^\(- (.+) -\) *$\n?", re.MULTILINE)
_STICKER = re.compile(r"^\(\( (.+) \)\) *$\n?|\[[^\]\n]*\]\(\.\./exported_stickers/[^)\n]*\) *", re.MULTILINE)
_ATTACHMENT = re.compile(r"!?\[[^\]\n]*\]\(\.?/?media/[^)\n]*\) *")
_RECORD_KEYS = frozenset(("date", "sender", "body", "reactions", "attachments"))
_DELETED = "(This message was deleted)"
_CALL = re.compile(r"(?:Incoming|Outgoing|Missed) (?:(?:voice|video|group) )?call(?: \([^()]*\))?\Z", re.IGNORECASE)


class _Record(msgspec.Struct, frozen=True):
    """One message of either form. While the names in a text are unknown, its sender and text are not separated."""

    number: int
    sent_at: datetime
    sender: str
    text: str
    mark: Mark
    reactions: list[Reaction] = []
    quoted: str = ""


class SignalReader:
    """Reads one chat."""

    name = "signal"
    accepts = "Signal chats from signal-export (its folder)"

    def sniff(self, tree: SourceTree) -> bool:
        """Whether the file, or one of the folder's two files, begins like signal-export's."""
        return _file(tree) is not None

    def read(self, tree: SourceTree) -> Iterator[Message]:
        """Every message and call of the chat."""
        file = _file(tree)
        if file is None:
            return
        tree.opened.update(
            name for name in tree.files() if name in (*_FILE_NAMES, "index.html")
        )  # they repeat the messages
        chat = _chat(tree)
        direction, names = Direction(), NameSurvey(known=(_OWNER, _NO_SENDER, chat), me=tree.me)
        people = set[str]()
        for record in _records(tree.for_survey(), file, None):
            direction.add(record.sent_at)
            if record.sender:
                people.add(record.sender)
            else:
                names.add(record.text)
        senders = SenderNames(names.names())
        people |= senders.names
        kind: Kind = "dm" if len(people - {_OWNER, _NO_SENDER}) <= 1 else "group"
        ids, id_by_text = MessageIds(), dict[str, str]()
        records = in_file_order(
            _records(tree, file, senders), _stamp, tree.zone, is_newest_first=direction.is_newest_first
        )
        for record, written_at, sent_at in records:
            reply_to = id_by_text.get(record.quoted)
            message = Message(
                id=ids.next_id(written_at, record.sender, record.text),
                platform="signal",
                chat=chat,
                kind=kind,
                sender=record.sender,
                sender_name=record.sender,
                sent_at=sent_at,
                text=record.text,
                is_owner=record.sender == _OWNER,
                reply_to=reply_to,
                chat_name=chat,
                mark=record.mark,
                origin=f"{file}:{record.number}",
            )
            if record.text:
                id_by_text.pop(record.text, None)
                id_by_text[record.text] = message.id
                if len(id_by_text) > _MAX_QUOTABLE:
                    del id_by_text[next(iter(id_by_text))]
            yield message
            yield from reactions_to(message, record.reactions, lambda account: account == _OWNER)


def _file(tree: SourceTree) -> str | None:
    """The file to read: data.json, unless chat.md begins earlier, as in an export merged with an earlier one."""
    names = tree.files() if tree.is_file else [name for name in tree.files() if name in _FILE_NAMES]
    json_files = [name for name in names if _begins_json(tree, name)]
    texts = [name for name in names if name not in json_files and is_chat_text(_head(tree, name))]
    if json_files and texts:
        first_json, first_text = _JSON.match(_head(tree, json_files[0])), _HEAD.match(first_lines(tree, texts[0])[0])
        if (
            first_json
            and first_text
            and f"{first_text['date']}T{first_text['time']}" < first_json["date"].replace(" ", "T")
        ):
            return texts[0]
    return next(iter(json_files + texts), None)


def _head(tree: SourceTree, file: str) -> str:
    return decode_head(tree.head(file, _SNIFFED)).removeprefix("\ufeff")


def _begins_json(tree: SourceTree, file: str) -> bool:
    head = _head(tree, file)
    return _JSON.match(head) is not None or (head.lstrip().startswith("{") and _has_json_record(head))


def _has_json_record(head: str) -> bool:
    """Whether one of the first lines, after damaged ones or with keys in another order, is a message."""
    for line in head.splitlines():
        try:
            record = json.loads(line, strict=False)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and record.keys() >= _RECORD_KEYS:
            return True
    return False


def is_chat_text(head: str) -> bool:
    """Whether a text with this head is a chat.md: it begins with a message, and an empty line precedes every other one.

    WhatsApp's stamps look the same where dates begin with the year, but it has no empty lines between messages, and
    its lines do not end in two spaces as Markdown's do.
    """
    lines = head.removeprefix("\ufeff").replace("\r\n", "\n").lstrip("\n").split("\n")
    if not _HEAD.match(lines[0]):
        return False
    other_heads = [number for number in range(1, len(lines)) if _HEAD.match(lines[number])]
    if other_heads:
        return all(not lines[number - 1].strip() for number in other_heads)
    return any(line.endswith("  ") or line.endswith(_DELETED) for line in lines)


def _chat(tree: SourceTree) -> str:
    """The name of the chat, which is that of its folder."""
    parts = [part for part in tree.label.replace("\\", "/").split("/") if part]
    if tree.is_file and len(parts) > 1:
        return parts[-2]
    return parts[-1] if parts else "signal"


def _stamp(record: _Record) -> datetime:
    return record.sent_at


def _records(tree: SourceTree, file: str, senders: SenderNames | None) -> Iterator[_Record]:
    """The messages of a file; `senders` are the names in a text."""
    return _from_json(tree, file) if _begins_json(tree, file) else _from_markdown(tree, file, senders)


def _from_json(tree: SourceTree, file: str) -> Iterator[_Record]:
    for number, record in json_lines(tree, file):
        try:
            yield _json_record(number, record)
        except RECORD_ERRORS as error:
            tree.report_bad(file, tr("record {number}", number=number), error)


def _json_record(number: int, record: Mapping[str, Any]) -> _Record:
    sender, body = str(record["sender"] or _NO_SENDER), str(record["body"] or "").strip()
    sticker = record.get("sticker")
    emoji = as_object(sticker).get("emoji") if isinstance(sticker, dict) else sticker  # older ones: the emoji alone
    if not body and is_emoji(emoji):
        body = str(emoji)
    mark = _mark(sender, body, has_file=bool(record.get("attachments")), has_sticker=bool(sticker))
    if record.get("deleted"):
        mark = Mark.DELETED
    elif record.get("call"):
        mark = Mark.SERVICE
    reactions = [_json_reaction(reaction) for reaction in record.get("reactions") or ()]
    quoted = _unquote(str(record.get("quote") or ""))
    return _Record(number, local_time(str(record["date"])), sender, body, mark, reactions, quoted)


def _json_reaction(reaction: Any) -> Reaction:
    """A reaction, which is an object or a pair of name and emoji."""
    name, emoji = (reaction["name"], reaction["emoji"]) if isinstance(reaction, dict) else reaction
    return str(name), str(name), str(emoji)


def _from_markdown(tree: SourceTree, file: str, senders: SenderNames | None) -> Iterator[_Record]:
    parse_head: Callable[[str], re.Match[str] | None] = _parse_head
    for number, head, lines in multiline_records(tree, file, parse_head):
        try:
            sent_at = local_time(f"{head['date']}T{head['time']}")
        except RECORD_ERRORS as error:
            tree.report_bad(file, tr("line {number}", number=number), error)
            continue
        if senders is None:
            yield _Record(number, sent_at, "", head["rest"], Mark.NONE)
            continue
        sender, first = senders.split(head["rest"]) or (_NO_SENDER, head["rest"])
        text, quoted = "\n".join([first, *lines]), ""
        if not first.strip() and (quote := _QUOTE.match(text)):
            text, quoted = text[quote.end() :], _unquote(quote[0])
        reactions = [_reaction(part) for match in _REACTIONS.finditer(text) for part in match[1].split(", ")]
        text = _REACTIONS.sub("", text)
        text, files = _ATTACHMENT.subn("", text)
        sticker_emoji = [match[1] for match in _STICKER.finditer(text) if is_emoji(match[1])]
        text, stickers = _STICKER.subn("", text)
        text = text.strip() or "".join(sticker_emoji)
        mark = _mark(sender, text, has_file=files > 0, has_sticker=stickers > 0)
        yield _Record(number, sent_at, sender, text, mark, reactions, quoted)


def _unquote(quote: str) -> str:
    """A Markdown quotation without its `>` marks."""
    return "\n".join(line.strip().removeprefix(">").strip() for line in quote.strip().split("\n"))


def _reaction(part: str) -> Reaction:
    """Parses `Tom: 👍`."""
    name, _, emoji = part.rpartition(": ")
    return name.strip(), name.strip(), emoji.strip()


def _parse_head(line: str) -> re.Match[str] | None:
    return _HEAD.match(line.removeprefix("\ufeff"))


def _mark(sender: str, text: str, *, has_file: bool, has_sticker: bool) -> Mark:
    if text == _DELETED:
        return Mark.DELETED
    if _CALL.match(text) or (sender == _NO_SENDER and not text):
        return Mark.SERVICE
    if has_sticker and not text:
        return Mark.STICKER
    return Mark.MEDIA if has_file else Mark.NONE
