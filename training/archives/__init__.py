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
from doppel.message import Message
from training.archives.tree import Store, Tree, open_folder, open_zip

SAMPLE = "sample"
ZIP_DEPTH = 3
"""How deep a zip may lie inside zips."""

# What lies beside every export and is never one itself: sniffing it costs time and reporting it is noise.
_MEDIA = (
    *(".jpg", ".jpeg", ".png", ".gif", ".webp", ".heic", ".avif", ".svg", ".ico", ".bmp", ".tgs", ".pdf"),
    *(".mp4", ".mov", ".webm", ".mkv", ".avi", ".m4v"),
    *(".mp3", ".m4a", ".ogg", ".oga", ".opus", ".wav", ".aac", ".flac"),
    *(".css", ".woff", ".woff2", ".ttf", ".otf", ".eot", ".map", ".apk", ".exe", ".dmg", ".iso"),
    *(".doc", ".docx", ".xls", ".xlsx", ".ppt", ".pptx", ".vcf"),
)


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
    """What was found under the configured paths: archives, files that no reader knows, and what holds them."""

    sources: list[Source]
    unknown: list[str]
    stores: list[Store]

    def close(self) -> None:
        """Lets go of the zips; nothing can be read afterwards."""
        for store in reversed(self.stores):
            store.close()


def installed_readers() -> list[Reader]:
    """The readers of every installed package, in order of their names."""
    points = sorted(entry_points(group="doppel.archives"), key=lambda point: point.name)
    return [point.load()() for point in points]


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
    found = Discovery(search.sources, search.unknown, search.stores)
    try:
        for archive in archives:
            search.path(sample_path() if archive == SAMPLE else root / Path(archive).expanduser())
    except BaseException:
        found.close()
        raise
    return found


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

    def path(self, path: Path) -> None:
        """Searches one configured path; it must yield at least one archive."""
        before = len(self.sources)
        if not path.exists():
            raise UserError(tr("{path}: no such file or folder; set `archive` in config.yaml", path=path))
        if path.is_dir():
            self._folder(open_folder(path), "", str(path), is_root=True)
        elif path.suffix.lower() == ".zip":
            self._zip(path, str(path), depth=1)
        else:
            self._file(open_folder(path), path.name, str(path), self.readers)
        if len(self.sources) == before:
            self._refuse(path)

    def _folder(self, store: Store, prefix: str, label: str, *, is_root: bool = False, depth: int = 0) -> None:
        """Asks about one folder and its files; descends where the folder as a whole is not an archive."""
        tree = Tree(store, prefix, label, self.zone)
        whole = self._claims(tree, self.readers)
        # Who claimed the folder reads its files too; others may still know single files that lie in it.
        others = [reader for reader in self.readers if reader not in whole]
        before = len(self.sources)
        unknown_before = len(self.unknown)
        files, folders = store.listing(prefix)
        for name in files:
            if name.lower().endswith(".zip"):
                self._zip(store.open_seekable(prefix + name), f"{label}/{name}", depth=depth + 1)
            elif not name.lower().endswith(_MEDIA) and not name.startswith("."):
                self._file(store, prefix + name, f"{label}/{name}", others)
        # Files beside a recognised one in a folder of its own (attachments, pages) are part of that export.
        own_folder = bool(whole) or (not is_root and len(self.sources) > before)
        if not whole:
            for name in folders:
                if not name.startswith((".", "__MACOSX")):
                    self._folder(store, f"{prefix}{name}/", f"{label}/{name}", depth=depth)
        if own_folder:
            del self.unknown[unknown_before:]

    def _zip(self, file: Path | IO[bytes], label: str, depth: int) -> None:
        store = open_zip(file, label)
        self.stores.append(store)
        if depth > ZIP_DEPTH:
            raise UserError(tr("{path}: zips inside zips inside zips; unpack it first", path=label))
        before, unknown_before = len(self.sources), len(self.unknown)
        self._folder(store, "", label, depth=depth)
        del self.unknown[unknown_before:]
        if len(self.sources) == before:
            self.unknown.append(label)

    def _file(self, store: Store, name: str, label: str, readers: Sequence[Reader]) -> None:
        if not self._claims(Tree(store, name, label, self.zone), readers):
            self.unknown.append(label)

    def _claims(self, tree: Tree, readers: Sequence[Reader]) -> list[Reader]:
        claimed = [reader for reader in readers if reader.sniff(tree)]
        self.sources += [Source(reader, tree) for reader in claimed]
        return claimed

    def _refuse(self, path: Path) -> None:
        supported = "; ".join(tr(reader.accepts) for reader in self.readers if reader.accepts)
        if path.is_dir() and not self.unknown:
            raise UserError(tr("{path}: nothing to read there; supported: {supported}", path=path, supported=supported))
        first = self.unknown[0] if self.unknown else path
        raise UserError(tr("{path}: not an archive I know; supported: {supported}", path=first, supported=supported))
