"""Finds the archives under the configured paths and which reader reads each, by content and never by file name.

Discovery walks folders and zips and asks every installed reader at every place. Readers are classes in the entry-point
group `doppel.archives` that satisfy the `Reader` protocol.
"""

from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from types import MappingProxyType
from typing import IO
from zoneinfo import ZoneInfo

import msgspec

from doppel.config import ArchiveSettings
from doppel.errors import UserError
from doppel.i18n import tr
from training.archives.file_groups import FileGroup, GroupReader, files_alike, name_without_date
from training.archives.message_table import NamedTableReader
from training.archives.reader import Reader
from training.archives.source_tree import Container, SourceTree, open_folder, open_zip
from training.archives.unread import (
    MAX_LISTED,
    Unread,
    is_attachment,
    is_attachment_folder,
    is_hidden,
    is_media,
    misnamed,
)

SAMPLE = "sample"
MAX_ZIP_DEPTH = 3
"""Zips within zips."""
MAX_FOLDER_DEPTH = 64
"""Folders within folders; deeper ones are left unread."""

_NO_TABLES = (".js", ".txt", ".md", ".html", ".htm", ".xml", ".log")
"""Names of files that are not suggested as tables."""
_WEB_PAGES = (".html", ".htm")
_COMPRESSED = (".tar", ".gz", ".tgz", ".bz2", ".xz", ".rar", ".7z")


class Source(msgspec.Struct, frozen=True):
    """One recognized archive: where it is, and its reader."""

    reader: Reader
    tree: SourceTree


class Discovery(msgspec.Struct, frozen=True):
    """What is under the configured paths.

    Attributes:
        sources: the recognized archives.
        unknown: files in no known format.
        containers: the folders and zips that hold them.
        attachments: number of media files and attachments outside the folders that are an archive as a whole.
        hints: what some of the unknown files are, and what to do about them.
    """

    sources: list[Source]
    unknown: list[str]
    containers: list[Container]
    attachments: int = 0
    hints: dict[str, str] = {}

    def unread(self) -> Unread:
        """The files from which nothing was read. Complete only after all sources were read."""
        files, attachments = list(self.unknown), self.attachments
        for tree in {id(source.tree): source.tree for source in self.sources if not source.tree.is_file}.values():
            unopened = tree.unopened()
            unknown = [name for name in unopened if not is_attachment(name)]
            files += (f"{tree.label}/{name}" for name in unknown)
            attachments += len(unopened) - len(unknown)
        return Unread(files[:MAX_LISTED], len(files), attachments, self.hints)

    def close(self) -> None:
        """Closes the zips; nothing can be read afterwards."""
        for container in reversed(self.containers):
            container.close()


class Format(msgspec.Struct, frozen=True):
    """A supported format: its name, and what the user can hand over, in the user's language."""

    name: str
    accepts: str


def installed_readers() -> list[Reader]:
    """The readers of all installed packages, ordered by name."""
    points = sorted(entry_points(group="doppel.archives"), key=lambda point: point.name)
    return [point.load()() for point in points]


def supported_formats(readers: Sequence[Reader]) -> list[Format]:
    """The formats to show to the user, in the order of the readers."""
    return [Format(reader.name, tr(reader.accepts)) for reader in readers if reader.accepts]


def discover(
    archives: Sequence[str],
    root: Path,
    zone: ZoneInfo,
    readers: Sequence[Reader],
    *,
    me: Sequence[str] = (),
    tables: Mapping[str, ArchiveSettings] = MappingProxyType({}),
) -> Discovery:
    """Finds the archives that the configuration names.

    Args:
        archives: `sample`, or paths of files and folders, relative to `root`.
        root: folder of config.yaml.
        zone: the owner's time zone, for exports with local times.
        readers: the readers to ask.
        me: `persona.me`, for readers that must know names.
        tables: those of the archives that are tables, whose columns the owner names.

    Raises:
        UserError: a path is missing, empty or a damaged zip, or nothing in it is recognized.
    """
    search = _Search(readers, zone, me)
    try:
        for archive in archives:
            path = sample_path() if archive == SAMPLE else root / Path(archive).expanduser()
            if (table := tables.get(archive)) is not None:
                search.add_table(path, table)
            else:
                search.add_path(path)
    except BaseException:
        search.result().close()
        raise
    return search.result()


def sample_path() -> Path:
    """Path of the sample archive: the data file of the package chitchat-dataset."""
    from importlib.util import find_spec

    spec = find_spec("chitchat_dataset")
    if spec is None or spec.origin is None:
        raise UserError(tr("`archive: sample` needs the package chitchat-dataset; run `pip install chitchat-dataset`"))
    return Path(spec.origin).parent / "dataset.json"


def _guesses(reader: Reader) -> bool:
    """Whether a reader reads what no other one knows, and is asked last."""
    return bool(getattr(reader, "is_last_resort", False))


def _hint(reader: Reader, tree: SourceTree) -> str:
    hint = getattr(reader, "hint", None)
    return str(hint(tree)) if hint is not None else ""


class _Search:
    """Walks over paths and asks every reader at every place."""

    def __init__(self, readers: Sequence[Reader], zone: ZoneInfo, me: Sequence[str]) -> None:
        self.readers = readers
        self.zone = zone
        self.me = tuple(me)
        self.sources: list[Source] = []
        self.unknown: list[str] = []
        self.containers: list[Container] = []
        self.attachments = 0
        self.zip_error: UserError | None = None
        self.hints: dict[str, str] = {}

    def result(self) -> Discovery:
        """Everything found so far."""
        return Discovery(self.sources, self.unknown, self.containers, self.attachments, self.hints)

    def add_path(self, path: Path) -> None:
        """Searches one configured path; it must contain at least one archive."""
        sources_before = len(self.sources)
        if not path.exists():
            raise UserError(tr("{path}: no such file or folder; set `archive` in config.yaml", path=path))
        if path.is_dir():
            self._search_folder(open_folder(path), "", str(path))
        elif path.suffix.lower() == ".zip":
            self._search_zip(path, str(path), depth=1)
        else:
            tree = self._tree(open_folder(path), path.name, str(path))
            if not self._recognize(tree, self.readers, last_resort=True):
                self._add_unread(str(path), tree)
        if len(self.sources) == sources_before:
            raise self._nothing_found(path)

    def add_table(self, path: Path, table: ArchiveSettings) -> None:
        """Takes a file, or all files directly in a folder, as tables with these columns."""
        if not path.exists():
            raise UserError(tr("{path}: no such file or folder; set `archive` in config.yaml", path=path))
        if path.suffix.lower() == ".zip":
            raise UserError(tr("{path}: a table in a zip; unpack it first", path=path))
        container = open_folder(path)
        names = [name for name in container.listing("")[0] if not is_hidden(name)] if path.is_dir() else [path.name]
        reader = NamedTableReader(table.path, table.named_columns, table.platform or "", table.kind)
        for name in names:
            tree = self._tree(container, name, str(path / name if path.is_dir() else path))
            if hint := misnamed(tree.head(name), name):
                raise UserError(f"{tree.label}: {hint}")
            self._recognize(tree, [reader])
        if not names:
            raise self._nothing_found(path)

    def _tree(self, container: Container, place: str, label: str) -> SourceTree:
        return SourceTree(container, place, label, self.zone, self.me)

    def _search_folder(
        self, container: Container, prefix: str, label: str, *, depth: int = 0, in_attachments: bool = False
    ) -> None:
        """Asks about one folder and its files; descends unless the folder as a whole is an archive.

        Args:
            container: what holds the folder.
            prefix: the folder's path in it.
            label: the folder as shown to the user.
            depth: number of zips around it.
            in_attachments: whether it holds the attachments of an archive recognized above it.
        """
        tree = self._tree(container, prefix, label)
        whole = self._recognize(tree, self.readers)
        # A reader that reads the whole folder reads its files too; others may still know single files in it.
        others = [reader for reader in self.readers if reader not in whole]
        sources_before = len(self.sources)
        siblings: dict[str, list[Reader]] = {}
        files, folders = container.listing(prefix)
        for name in files:
            place = f"{label}/{name}"
            # The media of a whole archive is counted by `Discovery.unread`.
            if is_hidden(name) or (whole and is_media(name)):
                continue
            if is_media(name):
                self.attachments += 1
            elif name.lower().endswith(".zip"):
                tree.opened.add(name)
                self._search_inner_zip(container, prefix + name, place, depth=depth, in_attachments=in_attachments)
            else:
                file = self._tree(container, prefix + name, place)
                # Files that differ by a date, of which there may be tens of thousands, are of one format.
                alike = siblings.get(pattern := name_without_date(name), [])
                found = self._recognize(file, alike) or self._recognize(file, others, last_resort=not whole)
                if found:
                    tree.opened.add(name)
                elif not whole:
                    self._add_unread(place, file, is_attachment=in_attachments or is_attachment(name))
                if pattern and len(found) == 1:
                    siblings[pattern] = found
        self._group(sources_before, container, prefix, label)
        has_messages = bool(whole) or len(self.sources) > sources_before
        if whole:
            return
        for name in folders:
            if prefix.count("/") >= MAX_FOLDER_DEPTH:
                self._add_unread(f"{label}/{name}", None, is_attachment=in_attachments)
            elif not is_hidden(name):
                inside = in_attachments or (has_messages and is_attachment_folder(name))
                self._search_folder(
                    container, f"{prefix}{name}/", f"{label}/{name}", depth=depth, in_attachments=inside
                )

    def _search_inner_zip(
        self, container: Container, name: str, label: str, *, depth: int, in_attachments: bool
    ) -> None:
        """A zip in a folder or zip. Within an archive it may be a file that somebody sent, locked or damaged."""
        unknown_before = len(self.unknown)
        try:
            self._search_zip(container.open_seekable(name), label, depth=depth + 1)
        except UserError as error:
            if not (depth or in_attachments):
                raise
            self.zip_error = self.zip_error or error
            self._add_unread(label, None, is_attachment=in_attachments)
        else:
            if in_attachments and self.unknown[unknown_before:] == [label]:
                del self.unknown[unknown_before:]
                self.attachments += 1

    def _search_zip(self, file: Path | IO[bytes], label: str, depth: int) -> None:
        container = open_zip(file, label)
        self.containers.append(container)
        if depth > MAX_ZIP_DEPTH:
            raise UserError(tr("{path}: too many nested zips; unpack it first", path=label))
        sources_before, unknown_before = len(self.sources), len(self.unknown)
        self._search_folder(container, "", label, depth=depth)
        if len(self.sources) == sources_before:
            self.unknown[unknown_before:] = [label]

    def _group(self, first: int, container: Container, prefix: str, label: str) -> None:
        """Makes one source of files in a folder that are one archive, such as the log of a channel by days.

        Args:
            first: number of the first source in this folder, which may also be the folder itself.
            container, prefix, label: the folder.
        """
        found = self.sources[first:]
        is_inside = [source.tree.is_file and "/" not in source.tree.label.removeprefix(f"{label}/") for source in found]
        files = {at: source for at, (source, inside) in enumerate(zip(found, is_inside, strict=True)) if inside}
        names = {at: source.tree.files()[0] for at, source in files.items()}
        for pattern, members in files_alike({at: (source.reader.name, names[at]) for at, source in files.items()}):
            tree = FileGroup(
                container, prefix, [names[at] for at in members], f"{label}/{pattern}", zone=self.zone, me=self.me
            )
            found[members[0]] = Source(GroupReader(found[members[0]].reader), tree)
            for at in members[1:]:
                del files[at]
        self.sources[first:] = [source for at, source in enumerate(found) if not is_inside[at] or at in files]

    def _recognize(self, tree: SourceTree, readers: Sequence[Reader], *, last_resort: bool = False) -> list[Reader]:
        """The readers that recognize this place, which becomes a source for each.

        Args:
            tree: the place.
            readers: those to ask.
            last_resort: whether those that guess are asked too, if no other reader knows the place.
        """
        recognized = [reader for reader in readers if not _guesses(reader) and reader.sniff(tree)]
        if last_resort and not recognized:
            recognized = [reader for reader in readers if _guesses(reader) and reader.sniff(tree)][:1]
        tree.outlines.clear()
        tree.heads.clear()
        self.sources += [Source(reader, tree) for reader in recognized]
        return recognized

    def _add_unread(self, label: str, tree: SourceTree | None = None, *, is_attachment: bool = False) -> None:
        if is_attachment:
            self.attachments += 1
            return
        self.unknown.append(label)
        if tree is not None and len(self.hints) < MAX_LISTED:
            name = tree.files()[0]
            hint = misnamed(tree.head(name), name)
            if not hint and not name.lower().endswith(_NO_TABLES):
                hint = next((hint for reader in self.readers if (hint := _hint(reader, tree))), "")
            if hint:
                self.hints[label] = hint

    def _nothing_found(self, path: Path) -> UserError:
        if self.zip_error is not None:
            return self.zip_error
        if path.is_dir() and not self.unknown:
            return UserError(
                tr("{path}: no messages found; `doppel build --list-formats` lists the supported formats", path=path)
            )
        first = self.unknown[0] if self.unknown else path
        if str(first) in self.hints:
            return UserError(f"{first}: {self.hints[str(first)]}")
        if str(first).lower().endswith(_COMPRESSED):
            return UserError(tr("{path}: unsupported compression format; unpack it first", path=first))
        if str(first).lower().endswith(_WEB_PAGES):
            return UserError(tr("{path}: HTML exports are not supported; export again as JSON", path=first))
        return UserError(
            tr("{path}: unknown archive format; `doppel build --list-formats` lists the supported ones", path=first)
        )
