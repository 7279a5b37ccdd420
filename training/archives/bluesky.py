"""Reads Bluesky's repository export: a CAR file with the posts, replies, quotes and reposts of one account.

It has no private messages, and only the addresses of other people's posts. The addresses of the account's own posts
are kept in memory, because they are stored apart from the posts.
"""

import base64
import re
from collections.abc import Iterator, Mapping
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from doppel.i18n import tr
from training.archives.formats.archive_records import as_object, messages_of
from training.archives.formats.car import CID, DamagedCAR, decode, looks_like_car, matches_digest, read_blocks
from training.archives.formats.mentions import begins_with_mention
from training.archives.formats.timestamps import to_utc
from training.archives.message import Kind, Mark, Message
from training.archives.source_tree import SourceTree

PLATFORM = "bluesky"
POSTS = "posts"
"""Chat id of all posts."""

_POST, _REPOST, _PROFILE = "app.bsky.feed.post", "app.bsky.feed.repost", "app.bsky.actor.profile"
_READ_TYPES = tuple(kind.encode() for kind in (_POST, _REPOST))
_NODE_START, _COMMIT_START = b"\xa2\x61e", b"\x63did"
_MAX_PATH_LENGTH = 1024
_SNIFFED = 1 << 16
_LINK_FACET = "app.bsky.richtext.facet#link"
_QUOTES = ("app.bsky.embed.record", "app.bsky.embed.recordWithMedia")
_MEDIA = ("app.bsky.embed.images", "app.bsky.embed.video", "app.bsky.embed.recordWithMedia")
_SCHEME = re.compile(r"^\w+://")
_ZONE = ZoneInfo("UTC")


class BlueskyReader:
    """Reads one repository."""

    name = "bluesky"
    accepts = "Bluesky repository export (repo.car)"

    def sniff(self, tree: SourceTree) -> bool:
        """Whether the file is a CAR file with a repository's commit, a node of its tree, or a record."""
        if not tree.is_file:
            return False
        file = tree.files()[0]
        if not looks_like_car(tree.head(file)):
            return False
        head = tree.head(file, _SNIFFED)
        return _COMMIT_START in head or _NODE_START in head or b"app.bsky." in head

    def read(self, tree: SourceTree) -> Iterator[Message]:
        """Every post and repost, in the order of the file."""
        file = tree.files()[0]
        repository = _survey(tree.for_survey(), file)
        yield from messages_of(tree, file, _records(tree, file, repository), _Converter(repository))


class _Repository(msgspec.Struct):
    """What is stored apart from the posts: the account, and the paths of the records by block."""

    account: str = ""
    name: str = ""
    paths: dict[bytes, list[str]] = {}


class _Record(msgspec.Struct, frozen=True):
    """A record and its path: `app.bsky.feed.post/3k…`."""

    path: str
    content: Mapping[str, Any]


def _survey(tree: SourceTree, file: str) -> _Repository:
    """The first pass: the commit, the nodes of the tree, and the profile."""
    repository = _Repository()
    for _, _, block in _blocks(tree, file):
        is_profile = _PROFILE.encode() in block
        if not (block.startswith(_NODE_START) or _COMMIT_START in block[:8] or is_profile):
            continue
        try:
            value = as_object(decode(block))
        except DamagedCAR:
            continue  # damaged posts are reported by the second pass
        if isinstance(value.get("e"), list):
            _add_paths(value["e"], repository.paths)
        elif isinstance(value.get("did"), str) and isinstance(value.get("data"), CID):
            repository.account = value["did"]
        elif value.get("$type") == _PROFILE:
            repository.name = str(value.get("displayName") or "")
    return repository


def _add_paths(entries: list[Any], paths: dict[bytes, list[str]]) -> None:
    """Adds the paths of one node's records. Each path is stored without the part it shares with the one before."""
    path = b""
    for entry in map(as_object, entries):
        shared, rest, link = entry.get("p"), entry.get("k"), entry.get("v")
        if not (isinstance(shared, int) and isinstance(rest, bytes) and isinstance(link, CID)):
            return
        if not 0 <= shared <= len(path):
            return
        path = path[:shared] + rest
        if len(path) > _MAX_PATH_LENGTH:
            return
        if path.startswith(_READ_TYPES):
            paths.setdefault(bytes(link), []).append(path.decode("utf-8", "replace"))


def _records(tree: SourceTree, file: str, repository: _Repository) -> Iterator[tuple[int, _Record]]:
    """Block number and record of every post and repost."""
    for number, link, block in _blocks(tree, file):
        paths = repository.paths.get(bytes(link))
        # A damaged block is reported whatever it contains: it may have been a post, or the path of one.
        if not matches_digest(link, block):
            tree.report_bad(file, tr("record {number}", number=number), tr("block does not match its digest"))
            continue
        if paths is None and not any(kind in block for kind in _READ_TYPES):
            continue
        try:
            content = as_object(decode(block))
        except DamagedCAR as damage:
            tree.report_bad(file, tr("record {number}", number=number), str(damage))
            continue
        if paths is None and content.get("$type") in (_POST, _REPOST):
            # A partial repository may lack the tree: then the block's own address identifies the record.
            paths = [f"{content['$type']}/{_text_address(link)}"]
        for path in paths or ():
            yield number, _Record(path, content)
        if paths:
            repository.paths[bytes(link)] = []  # a repeated block is not another record


def _blocks(tree: SourceTree, file: str) -> Iterator[tuple[int, CID, bytes]]:
    def report_bad(number: int, reason: str) -> None:
        tree.report_bad(file, tr("record {number}", number=number), reason)

    with tree.open(file) as opened:
        try:
            yield from read_blocks(opened, report_bad)
        except DamagedCAR as damage:
            tree.report_bad(file, tr("end of file"), str(damage))


class _Converter:
    """Turns records into messages."""

    def __init__(self, repository: _Repository) -> None:
        self._account = repository.account or "owner"
        self._name = repository.name or self._account

    def __call__(self, record: _Record, origin: str) -> Message:
        post = record.content
        embed = as_object(post.get("embed"))
        replied_to = as_object(as_object(post.get("reply")).get("parent")).get("uri")
        is_repost = record.path.startswith(_REPOST)
        quoted = _quoted(embed)
        text = "" if is_repost else _text(post)
        is_addressed = not quoted and begins_with_mention(text)
        kind: Kind = "reply" if replied_to or is_addressed else "quote" if quoted else "post"
        mark: Mark = Mark.RETWEET if is_repost else Mark.MEDIA if embed.get("$type") in _MEDIA else Mark.NONE
        return Message(
            id=f"at://{self._account}/{record.path}",
            platform=PLATFORM,
            chat=POSTS,  # ids are addresses, so replies between several people's archives make threads
            kind=kind,
            sender=self._account,
            sender_name=self._name,
            sent_at=to_utc(post["createdAt"], _ZONE),
            text=text,
            is_owner=True,
            reply_to=str(replied_to) if replied_to else quoted,
            chat_name=self._name,
            mark=mark,
            origin=origin,
        )


def _quoted(embed: Mapping[str, Any]) -> str | None:
    """Address of the embedded post; feeds and lists can also be embedded."""
    if embed.get("$type") not in _QUOTES:
        return None
    record = as_object(embed.get("record"))
    address = record.get("uri") or as_object(record.get("record")).get("uri")
    return str(address) if f"/{_POST}/" in str(address) else None


def _text(post: Mapping[str, Any]) -> str:
    """A post's text with shortened links written out. Facet positions count bytes."""
    text = str(post["text"])
    facets = post.get("facets")
    if not isinstance(facets, list) or not facets:
        return text
    raw = text.encode()
    pieces, at = [], 0
    for begin, end, address in sorted(_links(facets, raw)):
        if begin >= at and _is_shortened(raw[begin:end].decode(), address):
            pieces += [raw[at:begin], address.encode("utf-8", "replace")]
            at = end
    return b"".join([*pieces, raw[at:]]).decode()


def _links(facets: list[Any], raw: bytes) -> Iterator[tuple[int, int, str]]:
    """Start, end and target of every link within the text that does not cut a character."""
    for facet in map(as_object, facets):
        index, features = as_object(facet.get("index")), facet.get("features")
        begin, end = index.get("byteStart"), index.get("byteEnd")
        if not (isinstance(begin, int) and isinstance(end, int) and isinstance(features, list)):
            continue
        if not (0 <= begin < end <= len(raw) and _is_boundary(raw, begin) and _is_boundary(raw, end)):
            continue
        for feature in map(as_object, features):
            if feature.get("$type") == _LINK_FACET and isinstance(feature.get("uri"), str):
                yield begin, end, feature["uri"]


def _is_boundary(raw: bytes, at: int) -> bool:
    return at == len(raw) or raw[at] & 0xC0 != 0x80


def _is_shortened(shown: str, address: str) -> bool:
    """Whether the shown text is the beginning of the address, and not words with a link."""
    beginning = shown.removesuffix("...").removesuffix("…")
    return _SCHEME.sub("", address).lower().startswith(_SCHEME.sub("", beginning).lower())


def _text_address(cid: CID) -> str:
    """A CID in base32."""
    return "b" + base64.b32encode(cid).decode().lower().rstrip("=")
