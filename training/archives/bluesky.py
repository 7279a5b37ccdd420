"""Bluesky's repository export, a CAR file with all that one account posted, answered, quoted and reposted.

Posts of others are not in it, only their addresses; nor are private messages, which no repository holds. The addresses
of the account's own posts are kept in memory, as they stand apart from the posts.
"""

import base64
import re
from collections.abc import Iterator, Mapping
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from doppel.i18n import tr
from training.archives.formats.car import CID, DamagedCAR, decode, looks_like_car, matches_digest, read_blocks
from training.archives.formats.records import as_object, messages_of, to_utc
from training.archives.message import Kind, Mark, Message
from training.archives.source_tree import Tree

PLATFORM = "bluesky"
POSTS = "posts"
"""Chat id of all posts."""

_POST, _REPOST, _PROFILE = "app.bsky.feed.post", "app.bsky.feed.repost", "app.bsky.actor.profile"
_WANTED = tuple(kind.encode() for kind in (_POST, _REPOST))
_NODE, _COMMIT = b"\xa2\x61e", b"\x63did"
_LONGEST_PATH = 1024
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

    def sniff(self, tree: Tree) -> bool:
        """Whether the file is a CAR with a repository's commit, a node of its tree, or a record."""
        if not tree.is_file:
            return False
        file = tree.files()[0]
        if not looks_like_car(tree.head(file)):
            return False
        head = tree.head(file, _SNIFFED)
        return _COMMIT in head or _NODE in head or b"app.bsky." in head

    def read(self, tree: Tree) -> Iterator[Message]:
        """Every post and repost, in the order of the file."""
        file = tree.files()[0]
        repository = _survey(tree.unheard(), file)
        yield from messages_of(tree, file, _records(tree, file, repository), _Converter(repository))


class _Repository(msgspec.Struct):
    """What stands apart from the posts: whose they are, and their addresses, by block."""

    account: str = ""
    name: str = ""
    paths: dict[bytes, list[str]] = {}


class _Record(msgspec.Struct, frozen=True):
    """A record and its path: `app.bsky.feed.post/3k…`."""

    path: str
    content: Mapping[str, Any]


def _survey(tree: Tree, file: str) -> _Repository:
    """A first pass: the commit, the nodes of the tree, and the profile."""
    repository = _Repository()
    for _, _, block in _blocks(tree, file):
        is_profile = _PROFILE.encode() in block
        if not (block.startswith(_NODE) or _COMMIT in block[:8] or is_profile):
            continue
        try:
            value = as_object(decode(block))
        except DamagedCAR:
            continue  # of no use here; what cannot be read of the posts is told when they are
        if isinstance(value.get("e"), list):
            _note_paths(value["e"], repository.paths)
        elif isinstance(value.get("did"), str) and isinstance(value.get("data"), CID):
            repository.account = value["did"]
        elif value.get("$type") == _PROFILE:
            repository.name = str(value.get("displayName") or "")
    return repository


def _note_paths(entries: list[Any], paths: dict[bytes, list[str]]) -> None:
    """Notes where the records of one node are; each of its paths begins like the one before."""
    path = b""
    for entry in map(as_object, entries):
        shared, rest, link = entry.get("p"), entry.get("k"), entry.get("v")
        if not (isinstance(shared, int) and isinstance(rest, bytes) and isinstance(link, CID)):
            return
        if not 0 <= shared <= len(path):
            return
        path = path[:shared] + rest
        if len(path) > _LONGEST_PATH:
            return
        if path.startswith(_WANTED):
            paths.setdefault(bytes(link), []).append(path.decode("utf-8", "replace"))


def _records(tree: Tree, file: str, repository: _Repository) -> Iterator[tuple[int, _Record]]:
    """Block number and record of every post and repost."""
    for number, link, block in _blocks(tree, file):
        paths = repository.paths.get(bytes(link))
        # A damaged block is told whatever it seems to be: it may have been a post, or said where one is.
        if not matches_digest(link, block):
            tree.bad(file, tr("record {number}", number=number), tr("block does not match its digest"))
            continue
        if paths is None and not any(kind in block for kind in _WANTED):
            continue
        try:
            content = as_object(decode(block))
        except DamagedCAR as damage:
            tree.bad(file, tr("record {number}", number=number), str(damage))
            continue
        if paths is None and content.get("$type") in (_POST, _REPOST):
            # A part of a repository may lack the tree: the block's own address then tells a record from others.
            paths = [f"{content['$type']}/{_address(link)}"]
        for path in paths or ():
            yield number, _Record(path, content)
        if paths:
            repository.paths[bytes(link)] = []  # the same block again is no other record


def _blocks(tree: Tree, file: str) -> Iterator[tuple[int, CID, bytes]]:
    def bad(number: int, reason: str) -> None:
        tree.bad(file, tr("record {number}", number=number), reason)

    with tree.open(file) as opened:
        try:
            yield from read_blocks(opened, bad)
        except DamagedCAR as damage:
            tree.bad(file, tr("end of file"), str(damage))


class _Converter:
    """Turns records into messages."""

    def __init__(self, repository: _Repository) -> None:
        self._account = repository.account or "owner"
        self._name = repository.name or self._account

    def __call__(self, record: _Record, origin: str) -> Message:
        post = record.content
        embed = as_object(post.get("embed"))
        answered = as_object(as_object(post.get("reply")).get("parent")).get("uri")
        is_repost = record.path.startswith(_REPOST)
        quoted = _quoted(embed)
        kind: Kind = "reply" if answered else "quote" if quoted else "post"
        mark: Mark = "retweet" if is_repost else "media" if embed.get("$type") in _MEDIA else ""
        return Message(
            id=f"at://{self._account}/{record.path}",
            platform=PLATFORM,
            chat=POSTS,  # so that replies among several people's archives make threads: ids are addresses
            kind=kind,
            sender=self._account,
            sender_name=self._name,
            sent_at=to_utc(post["createdAt"], _ZONE),
            text="" if is_repost else _text(post),
            is_owner=True,
            reply_to=str(answered) if answered else quoted,
            chat_name=self._name,
            mark=mark,
            origin=origin,
        )


def _quoted(embed: Mapping[str, Any]) -> str | None:
    """Address of the post that is embedded; feeds and lists may be too."""
    if embed.get("$type") not in _QUOTES:
        return None
    record = as_object(embed.get("record"))
    address = record.get("uri") or as_object(record.get("record")).get("uri")
    return str(address) if f"/{_POST}/" in str(address) else None


def _text(post: Mapping[str, Any]) -> str:
    """A post's text with the links whole that are shown shortened. Places are counted in bytes."""
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
    """Beginning, end and target of every link that lies within the text and cuts no character."""
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
    """Whether these words are the beginning of the address, and not words that somebody made a link of."""
    beginning = shown.removesuffix("...").removesuffix("…")
    return _SCHEME.sub("", address).lower().startswith(_SCHEME.sub("", beginning).lower())


def _address(link: CID) -> str:
    return "b" + base64.b32encode(link).decode().lower().rstrip("=")
