"""Archives: which reader reads what the user exported, recognised by content and never by name.

A reader is a class in the entry-point group `doppel.archives` and satisfies `Reader`. Discovery walks folders
and zips and asks every reader; it knows no format, and a reader never sees where its archive lies.
"""

from collections.abc import Iterator, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import IO, Protocol
from zoneinfo import ZoneInfo

import msgspec

from doppel.errors import UserError
from doppel.i18n import tr
from training.archives.message import Message
from training.archives.source_tree import Store, Tree, open_folder, open_zip
from training.archives.unread import LISTED, Unread, holds_attachments, is_beside, is_hidden, is_media

SAMPLE = "sample"
ZIP_DEPTH = 3
"""How deep a zip may lie inside zips."""
FOLDER_DEPTH = 64
"""How deep a folder may lie inside folders; what lies deeper is left unread."""


_PAGES = (".html", ".htm")
_PACKED = (".tar", ".gz", ".tgz", ".bz2", ".xz", ".rar", ".7z")


class Reader(Protocol):
    """One export format.

    `sniff` and `read` get a tree that is one folder of an archive with everything beneath it, or one single
    file (`tree.is_file`). A reader answers for that place only: discovery descends into the folders itself.

    Attributes:
        name: the format, lower case, one word.
        accepts: what the user may hand over, in English, for the list of supported archives; empty: unlisted.
    """

    name: str
    accepts: str

    def sniff(self, tree: Tree) -> bool:
        """Whether this very place is an archive of the format, judged by content and quickly."""
        ...

    def read(self, tree: Tree) -> Iterator[Message]:
        """Every record as a message, none dropped; unreadable records go to `tree.bad`."""
        ...


class Source(msgspec.Struct, frozen=True):
    """One recognised archive: where it lies and who reads it."""

    reader: Reader
    tree: Tree


class Discovery(msgspec.Struct, frozen=True):
    """What was found under the configured paths: archives, files that no reader knows, and what holds them.

    `beside`: how many files there are that need not be known, outside of the folders that are an archive as a whole.
    """

    sources: list[Source]
    unknown: list[str]
    stores: list[Store]
    beside: int = 0

    def unread(self) -> Unread:
        """From which files nothing was read; of folders that are an archive this is known when they were read."""
        files, beside = list(self.unknown), self.beside
        for tree in {id(source.tree): source.tree for source in self.sources if not source.tree.is_file}.values():
            unopened = tree.unopened()
            named = [name for name in unopened if not is_beside(name)]
            files += (f"{tree.label}/{name}" for name in named)
            beside += len(unopened) - len(named)
        return Unread(files[:LISTED], len(files), beside)

    def close(self) -> None:
        """Lets go of the zips; nothing can be read afterwards."""
        for store in reversed(self.stores):
            store.close()


def installed_readers() -> list[Reader]:
    """The readers of every installed package, in order of their names."""
    points = sorted(entry_points(group="doppel.archives"), key=lambda point: point.name)
    return [point.load()() for point in points]


class Format(msgspec.Struct, frozen=True):
    """A supported archive format: its name, and in the user's language what to hand over."""

    name: str
    accepts: str


def supported_formats(readers: Sequence[Reader]) -> list[Format]:
    """The formats that a user can be offered, in the order of the readers."""
    return [Format(reader.name, tr(reader.accepts)) for reader in readers if reader.accepts]


def discover(archives: Sequence[str], root: Path, zone: ZoneInfo, readers: Sequence[Reader]) -> Discovery:
    """Finds the archives that the configuration names.

    Args:
        archives: `sample` or paths of files and folders, relative to `root`.
        root: folder of config.yaml.
        zone: the owner's time zone, for exports with local times.
        readers: who is asked.

    Raises:
        UserError: a path is missing, empty or a broken zip, or nothing in it is recognised.
    """
    search = _Search(readers, zone)
    try:
        for archive in archives:
            search.path(sample_path() if archive == SAMPLE else root / Path(archive).expanduser())
    except BaseException:
        search.found().close()
        raise
    return search.found()


def sample_path() -> Path:
    """The sample archive: the data file of the package chitchat-dataset."""
    from importlib.util import find_spec

    spec = find_spec("chitchat_dataset")
    if spec is None or spec.origin is None:
        raise UserError(tr("`archive: sample` needs the package chitchat-dataset; run `pip install chitchat-dataset`"))
    return Path(spec.origin).parent / "dataset.json"


class _Search:
    """A walk over paths that asks every reader at every place."""

    def __init__(self, readers: Sequence[Reader], zone: ZoneInfo) -> None:
        self.readers = readers
        self.zone = zone
        self.sources: list[Source] = []
        self.unknown: list[str] = []
        self.stores: list[Store] = []
        self.beside = 0
        self.refused: UserError | None = None

    def found(self) -> Discovery:
        """What there is so far."""
        return Discovery(self.sources, self.unknown, self.stores, self.beside)

    def path(self, path: Path) -> None:
        """Searches one configured path; it must yield at least one archive."""
        before = len(self.sources)
        if not path.exists():
            raise UserError(tr("{path}: no such file or folder; set `archive` in config.yaml", path=path))
        if path.is_dir():
            self._folder(open_folder(path), "", str(path))
        elif path.suffix.lower() == ".zip":
            self._zip(path, str(path), depth=1)
        else:
            self._file(open_folder(path), path.name, str(path), self.readers)
        if len(self.sources) == before:
            self._refuse(path)

    def _folder(self, store: Store, prefix: str, label: str, *, depth: int = 0, beside: bool = False) -> None:
        """Asks about one folder and its files; descends where the folder as a whole is not an archive.

        Args:
            store: where the folder lies.
            prefix: which it is.
            label: what the user calls it.
            depth: how many zips it lies in.
            beside: whether it holds the attachments of what was recognised above it.
        """
        tree = Tree(store, prefix, label, self.zone)
        whole = self._claims(tree, self.readers)
        # Who claimed the folder reads its files too; others may still know single files that lie in it.
        others = [reader for reader in self.readers if reader not in whole]
        before = len(self.sources)
        files, folders = store.listing(prefix)
        for name in files:
            place = f"{label}/{name}"
            if is_hidden(name) or (whole and is_media(name)):  # of a whole archive it is told later what was not read
                continue
            if is_media(name):
                self.beside += 1
            elif name.lower().endswith(".zip"):
                tree.opened.add(name)
                self._inner_zip(store, prefix + name, place, depth=depth, beside=beside)
            elif self._claims(Tree(store, prefix + name, place, self.zone), others):
                tree.opened.add(name)
            elif not whole:
                self._leave(place, beside=beside or is_beside(name))
        has_messages = bool(whole) or len(self.sources) > before
        if not whole:
            for name in folders:
                if prefix.count("/") >= FOLDER_DEPTH:
                    self._leave(f"{label}/{name}", beside=beside)
                elif not is_hidden(name):
                    attached = beside or (has_messages and holds_attachments(name))
                    self._folder(store, f"{prefix}{name}/", f"{label}/{name}", depth=depth, beside=attached)

    def _inner_zip(self, store: Store, name: str, label: str, *, depth: int, beside: bool) -> None:
        """A zip in a folder or in a zip. Within an archive it may be anything that somebody sent, locked or broken."""
        unknown = len(self.unknown)
        try:
            self._zip(store.open_seekable(name), label, depth=depth + 1)
        except UserError as error:
            if not (depth or beside):
                raise
            self.refused = self.refused or error
            self._leave(label, beside=beside)
        else:
            if beside and self.unknown[unknown:] == [label]:
                del self.unknown[unknown:]
                self.beside += 1

    def _zip(self, file: Path | IO[bytes], label: str, depth: int) -> None:
        store = open_zip(file, label)
        self.stores.append(store)
        if depth > ZIP_DEPTH:
            raise UserError(tr("{path}: too many nested zips; unpack it first", path=label))
        before, unknown_before = len(self.sources), len(self.unknown)
        self._folder(store, "", label, depth=depth)
        if len(self.sources) == before:
            self.unknown[unknown_before:] = [label]

    def _file(self, store: Store, name: str, label: str, readers: Sequence[Reader]) -> None:
        if not self._claims(Tree(store, name, label, self.zone), readers):
            self.unknown.append(label)

    def _leave(self, label: str, *, beside: bool) -> None:
        """Notes a file that no reader knows."""
        if beside:
            self.beside += 1
        else:
            self.unknown.append(label)

    def _claims(self, tree: Tree, readers: Sequence[Reader]) -> list[Reader]:
        claimed = [reader for reader in readers if reader.sniff(tree)]
        self.sources += [Source(reader, tree) for reader in claimed]
        return claimed

    def _refuse(self, path: Path) -> None:
        if self.refused is not None:
            raise self.refused
        if path.is_dir() and not self.unknown:
            raise UserError(
                tr("{path}: no messages found; `doppel build --list-formats` lists the supported formats", path=path)
            )
        first = self.unknown[0] if self.unknown else path
        if str(first).lower().endswith(_PACKED):
            raise UserError(tr("{path}: unsupported compression format; unpack it first", path=first))
        if str(first).lower().endswith(_PAGES):
            raise UserError(tr("{path}: HTML exports are not supported; export again as JSON", path=first))
        raise UserError(
            tr("{path}: unknown archive format; `doppel build --list-formats` lists the supported ones", path=first)
        )
