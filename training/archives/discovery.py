"""Finds the archives under the configured paths and which reader reads each, by content and never by file name.

Discovery walks folders and zips and asks every installed reader at every place. Readers are classes in the entry-point
group `doppel.archives` that satisfy the `Reader` protocol.
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
from training.archives.source_tree import Container, SourceTree, open_folder, open_zip
from training.archives.unread import MAX_LISTED, Unread, is_attachment, is_attachment_folder, is_hidden, is_media

SAMPLE = "sample"
MAX_ZIP_DEPTH = 3
"""Zips within zips."""
MAX_FOLDER_DEPTH = 64
"""Folders within folders; deeper ones are left unread."""

_WEB_PAGES = (".html", ".htm")
_COMPRESSED = (".tar", ".gz", ".tgz", ".bz2", ".xz", ".rar", ".7z")


class Reader(Protocol):
    """Reads one export format. Everything a new reader has to do is in this docstring.

    A reader is a class without arguments, registered as an entry point:

        [project.entry-points."doppel.archives"]
        myformat = "my_package.reader:MyReader"

    Discovery calls `sniff` for every folder and every single file under the configured paths, including those inside
    zips, and `read` for those that `sniff` accepted. Both get a SourceTree: one folder with everything beneath it, or
    one file (`tree.is_file`; its name is `tree.files()[0]`). A reader only judges the place it is given: discovery
    itself descends into subfolders. `tree.head(name)` returns the first bytes of a file, `tree.open(name)` the whole
    file as a binary stream, and `tree.zone` is the owner's time zone, for times that an export writes without one.
    What comes first in a file is chance (a deleted message, keys in another order): for JSON, `json_outline.outline`
    shows its keys and first items.

    What `read` must do:
    - Yield one `Message` for every record, in the order of the file, and decide nothing: a forward, a notice or a
      deleted message is yielded too, with its `mark`.
    - Never hold a whole file in memory, and never raise for a damaged record: report it with
      `tree.report_bad(file, position, error)` and go on with the next.
    - Use ids that a later export of the same chat repeats: overlapping exports are merged by (platform, chat, id).
    - Set `is_owner` to None where the export does not say who the owner is.

    `training.archives.formats` has what most readers need. For JSON, JSON Lines and CSV, `archive_records` reads the
    records one by one and turns them into messages with a function of yours:

        def read(self, tree):
            file = tree.files()[0]
            yield from messages_of(tree, file, json_lines(tree, file), _message)

    Attributes:
        name: the format: lower case, unique, without spaces.
        accepts: what the user can hand over, in English, as `doppel build --list-formats` shows it; empty to hide it.
    """

    name: str
    accepts: str

    def sniff(self, tree: SourceTree) -> bool:
        """Whether this place is an archive of the format. Must be fast and strict."""
        ...

    def read(self, tree: SourceTree) -> Iterator[Message]:
        """Yields every record as a message; reports unreadable records to `tree.report_bad`."""
        ...


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
    """

    sources: list[Source]
    unknown: list[str]
    containers: list[Container]
    attachments: int = 0

    def unread(self) -> Unread:
        """The files from which nothing was read. Complete only after all sources were read."""
        files, attachments = list(self.unknown), self.attachments
        for tree in {id(source.tree): source.tree for source in self.sources if not source.tree.is_file}.values():
            unopened = tree.unopened()
            unknown = [name for name in unopened if not is_attachment(name)]
            files += (f"{tree.label}/{name}" for name in unknown)
            attachments += len(unopened) - len(unknown)
        return Unread(files[:MAX_LISTED], len(files), attachments)

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
    archives: Sequence[str], root: Path, zone: ZoneInfo, readers: Sequence[Reader], me: Sequence[str] = ()
) -> Discovery:
    """Finds the archives that the configuration names.

    Args:
        archives: `sample`, or paths of files and folders, relative to `root`.
        root: folder of config.yaml.
        zone: the owner's time zone, for exports with local times.
        readers: the readers to ask.
        me: `persona.me`, for readers that must know names.

    Raises:
        UserError: a path is missing, empty or a damaged zip, or nothing in it is recognized.
    """
    search = _Search(readers, zone, me)
    try:
        for archive in archives:
            search.add_path(sample_path() if archive == SAMPLE else root / Path(archive).expanduser())
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

    def result(self) -> Discovery:
        """Everything found so far."""
        return Discovery(self.sources, self.unknown, self.containers, self.attachments)

    def add_path(self, path: Path) -> None:
        """Searches one configured path; it must contain at least one archive."""
        sources_before = len(self.sources)
        if not path.exists():
            raise UserError(tr("{path}: no such file or folder; set `archive` in config.yaml", path=path))
        if path.is_dir():
            self._search_folder(open_folder(path), "", str(path))
        elif path.suffix.lower() == ".zip":
            self._search_zip(path, str(path), depth=1)
        elif not self._recognize(self._tree(open_folder(path), path.name, str(path)), self.readers):
            self.unknown.append(str(path))
        if len(self.sources) == sources_before:
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
            elif self._recognize(self._tree(container, prefix + name, place), others):
                tree.opened.add(name)
            elif not whole:
                self._add_unread(place, is_attachment=in_attachments or is_attachment(name))
        has_messages = bool(whole) or len(self.sources) > sources_before
        if whole:
            return
        for name in folders:
            if prefix.count("/") >= MAX_FOLDER_DEPTH:
                self._add_unread(f"{label}/{name}", is_attachment=in_attachments)
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
            self._add_unread(label, is_attachment=in_attachments)
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

    def _recognize(self, tree: SourceTree, readers: Sequence[Reader]) -> list[Reader]:
        """The readers that recognize this place, which becomes a source for each."""
        recognized = [reader for reader in readers if reader.sniff(tree)]
        tree.outlines.clear()
        self.sources += [Source(reader, tree) for reader in recognized]
        return recognized

    def _add_unread(self, label: str, *, is_attachment: bool) -> None:
        if is_attachment:
            self.attachments += 1
        else:
            self.unknown.append(label)

    def _nothing_found(self, path: Path) -> UserError:
        if self.zip_error is not None:
            return self.zip_error
        if path.is_dir() and not self.unknown:
            return UserError(
                tr("{path}: no messages found; `doppel build --list-formats` lists the supported formats", path=path)
            )
        first = self.unknown[0] if self.unknown else path
        if str(first).lower().endswith(_COMPRESSED):
            return UserError(tr("{path}: unsupported compression format; unpack it first", path=first))
        if str(first).lower().endswith(_WEB_PAGES):
            return UserError(tr("{path}: HTML exports are not supported; export again as JSON", path=first))
        return UserError(
            tr("{path}: unknown archive format; `doppel build --list-formats` lists the supported ones", path=first)
        )
