"""Signal, as signal-export writes it: a folder for every chat, with data.json, or older and merged ones with chat.md.

Both files hold the same messages, so one of them is read. "Me" is the owner. What a message answers is quoted in the
export, but not named: it is the last message of these words.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

import msgspec

from doppel.i18n import tr
from training.archives.formats.chat_logs import MessageIds, first_lines, log_records
from training.archives.formats.reactions import Reaction, is_emoji, reactions_to
from training.archives.formats.records import MALFORMED, as_object, json_lines, to_utc
from training.archives.formats.text_lines import decode_head
from training.archives.message import Kind, Mark, Message
from training.archives.source_tree import Tree

_OWNER = "Me"
_NOBODY = "No-Sender"
_NAMES = ("data.json", "chat.md", "index.md")
"""The only files of a folder that are looked into: other exports have folders of thousands."""

_SNIFFED = 4096
_REMEMBERED = 1 << 13
"""Messages back to which what an answer quotes is looked for."""

_JSON = re.compile(
    r'\s*\{\s*"date":\s*"(?P<date>\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d)[^"]*",\s*"sender":\s*"(?:[^"\\]|\\.)*",\s*"body":'
)
_HEAD = re.compile(
    r"\[(?P<date>\d{4}-\d\d-\d\d),? (?P<time>\d\d:\d\d(?::\d\d)?)\] (?P<name>[^:\n]{1,200}):(?: (?P<text>.*))?$"
)
_QUOTE = re.compile(r"\A\s*(?:^>.*$\n?)+\n*", re.MULTILINE)
_REACTIONS = re.compile(r"^\(- (.+) -\) *$\n?", re.MULTILINE)
_STICKER = re.compile(r"^\(\( (.+) \)\) *$\n?|\[[^\]\n]*\]\(\.\./exported_stickers/[^)\n]*\) *", re.MULTILINE)
_ATTACHMENT = re.compile(r"!?\[[^\]\n]*\]\(\.?/?media/[^)\n]*\) *")
_DELETED = "(This message was deleted)"
_CALL = re.compile(r"(?:Incoming|Outgoing|Missed) (?:(?:voice|video|group) )?call(?: \([^()]*\))?\Z", re.IGNORECASE)


class _Record(msgspec.Struct, frozen=True):
    """One message in whichever form."""

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

    def sniff(self, tree: Tree) -> bool:
        """Whether the file, or one of the folder's two files, begins as signal-export writes it."""
        return _file(tree) is not None

    def read(self, tree: Tree) -> Iterator[Message]:
        """Every message and call of the chat."""
        file = _file(tree)
        if file is None:
            return
        tree.opened.update(name for name in tree.files() if name in (*_NAMES, "index.html"))  # the same messages again
        records = _from_json if _begins_json(tree, file) else _from_markdown
        senders = {record.sender for record in records(tree.unheard(), file)}
        kind: Kind = "dm" if len(senders - {_OWNER, _NOBODY}) <= 1 else "group"
        chat = _chat(tree)
        ids, said = MessageIds(), dict[str, str]()
        for record in records(tree, file):
            answered = said.get(record.quoted)
            message = Message(
                id=ids.of(record.sent_at, record.sender, record.text),
                platform="signal",
                chat=chat,
                kind=kind,
                sender=record.sender,
                sender_name=record.sender,
                sent_at=record.sent_at,
                text=record.text,
                is_owner=record.sender == _OWNER,
                reply_to=answered,
                chat_name=chat,
                mark=record.mark,
                origin=f"{file}:{record.number}",
            )
            if record.text:
                said.pop(record.text, None)
                said[record.text] = message.id
                if len(said) > _REMEMBERED:
                    del said[next(iter(said))]
            yield message
            yield from reactions_to(message, record.reactions, lambda account: account == _OWNER)


def _file(tree: Tree) -> str | None:
    """The file to read.

    An export that was merged with an earlier one has the earlier messages in chat.md only: they come first there.
    """
    names = tree.files() if tree.is_file else [name for name in tree.files() if name in _NAMES]
    tables = [name for name in names if _begins_json(tree, name)]
    texts = [name for name in names if name not in tables and is_chat_text(_head(tree, name))]
    if tables and texts:
        table, text = _JSON.match(_head(tree, tables[0])), _HEAD.match(first_lines(tree, texts[0])[0])
        if table and text and f"{text['date']}T{text['time']}" < table["date"].replace(" ", "T"):
            return texts[0]
    return next(iter(tables + texts), None)


def _head(tree: Tree, file: str) -> str:
    return decode_head(tree.head(file, _SNIFFED)).removeprefix("\ufeff")


def _begins_json(tree: Tree, file: str) -> bool:
    return _JSON.match(_head(tree, file)) is not None


def is_chat_text(head: str) -> bool:
    """Whether a text that begins so is a chat.md: a message first, and an empty line above every further one.

    WhatsApp's stamps look the same where dates are written with the year first, but its messages follow each other
    directly; and a text ends in two blanks here, as Markdown ends a line.
    """
    lines = head.removeprefix("\ufeff").replace("\r\n", "\n").lstrip("\n").split("\n")
    if not _HEAD.match(lines[0]):
        return False
    further = [number for number in range(1, len(lines)) if _HEAD.match(lines[number])]
    if further:
        return all(not lines[number - 1].strip() for number in further)
    return any(line.endswith("  ") or line.endswith(_DELETED) for line in lines)


def _chat(tree: Tree) -> str:
    """The name of the chat is that of its folder."""
    parts = [part for part in tree.label.replace("\\", "/").split("/") if part]
    if tree.is_file and len(parts) > 1:
        return parts[-2]
    return parts[-1] if parts else "signal"


def _from_json(tree: Tree, file: str) -> Iterator[_Record]:
    for number, record in json_lines(tree, file):
        try:
            yield _json_record(number, record, tree)
        except MALFORMED as error:
            tree.bad(file, tr("record {number}", number=number), error)


def _json_record(number: int, record: Mapping[str, Any], tree: Tree) -> _Record:
    sender, body = str(record["sender"] or _NOBODY), str(record["body"] or "").strip()
    sticker = record.get("sticker")
    shown = as_object(sticker).get("emoji") if isinstance(sticker, dict) else sticker  # older ones: the emoji alone
    if not body and is_emoji(shown):
        body = str(shown)
    mark = _mark(sender, body, has_file=bool(record.get("attachments")), has_sticker=bool(sticker))
    if record.get("deleted"):
        mark = "deleted"
    elif record.get("call"):
        mark = "service"
    reactions = [_json_reaction(one) for one in record.get("reactions") or ()]
    quoted = _unquoted(str(record.get("quote") or ""))
    return _Record(number, to_utc(str(record["date"]), tree.zone), sender, body, mark, reactions, quoted)


def _json_reaction(one: Any) -> Reaction:
    """Name and emoji, as a pair or by their names."""
    name, emoji = (one["name"], one["emoji"]) if isinstance(one, dict) else one
    return str(name), str(name), str(emoji)


def _from_markdown(tree: Tree, file: str) -> Iterator[_Record]:
    begin: Callable[[str], re.Match[str] | None] = _begin
    for number, head, lines in log_records(tree, file, begin):
        try:
            sent_at = to_utc(f"{head['date']}T{head['time']}", tree.zone)
        except MALFORMED as error:
            tree.bad(file, tr("line {number}", number=number), error)
            continue
        text, quoted = "\n".join([head["text"] or "", *lines]), ""
        if not (head["text"] or "").strip() and (quote := _QUOTE.match(text)):
            text, quoted = text[quote.end() :], _unquoted(quote[0])
        reactions = [_reaction(part) for found in _REACTIONS.finditer(text) for part in found[1].split(", ")]
        text = _REACTIONS.sub("", text)
        text, files = _ATTACHMENT.subn("", text)
        shown = [found[1] for found in _STICKER.finditer(text) if is_emoji(found[1])]
        text, stickers = _STICKER.subn("", text)
        text = text.strip() or "".join(shown)
        mark = _mark(head["name"], text, has_file=files > 0, has_sticker=stickers > 0)
        yield _Record(number, sent_at, head["name"], text, mark, reactions, quoted)


def _unquoted(quote: str) -> str:
    """What stands behind the marks of a quotation."""
    return "\n".join(line.strip().removeprefix(">").strip() for line in quote.strip().split("\n"))


def _reaction(part: str) -> Reaction:
    """`Tom: 👍`."""
    name, _, emoji = part.rpartition(": ")
    return name.strip(), name.strip(), emoji.strip()


def _begin(line: str) -> re.Match[str] | None:
    return _HEAD.match(line.removeprefix("\ufeff"))


def _mark(sender: str, text: str, *, has_file: bool, has_sticker: bool) -> Mark:
    if text == _DELETED:
        return "deleted"
    if _CALL.match(text) or (sender == _NOBODY and not text):
        return "service"
    if has_sticker and not text:
        return "sticker"
    return "media" if has_file else ""
