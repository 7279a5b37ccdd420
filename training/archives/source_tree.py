"""An archive as readers see it: files in a folder or zip, opened as streams and never extracted.

Zips that are damaged, password-protected or bombs raise a UserError of one line.
"""

import codecs
import errno
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol
from zoneinfo import ZoneInfo

import msgspec

from doppel.errors import UserError
from doppel.i18n import tr
from training.archives.encodings import ByteStream, wide_encoding
from training.archives.unread import is_hidden

MAX_LISTED_BAD_RECORDS = 1000
"""Bad records listed with their position; more are only counted."""

BOMB_RATIO = 200
BOMB_BYTES = 256 << 20
"""A zip member that unpacks to more than this, at a ratio over BOMB_RATIO, is refused. Exports reach about 30."""

_HEAD = 4096
"""Bytes that are read at least when readers ask for the beginning of a file."""

MAX_INNER_ZIP_BYTES = 32 << 30
"""Size of a zip within a zip: it is copied to a temporary file to be read."""


class BadRecord(msgspec.Struct, frozen=True):
    """A record that could not be read: its file, its position there, and the reason."""

    file: str
    position: str
    reason: str


class Container(Protocol):
    """A folder or zip of files. Names are relative paths with `/`; prefixes end in `/` or are empty."""

    def listing(self, prefix: str) -> tuple[list[str], list[str]]:
        """Names of the files and of the folders directly under a prefix, sorted."""
        ...

    def size(self, name: str) -> int:
        """Uncompressed size of a file in bytes."""
        ...

    def open(self, name: str) -> ByteStream:
        """A file as a stream."""
        ...

    def open_seekable(self, name: str) -> Path | IO[bytes]:
        """A file in a form that `zipfile` can read; `open_zip` closes it."""
        ...

    def close(self) -> None:
        """Closes all open files."""
        ...


class SourceTree:
    """One place in an archive: a folder with everything beneath it, or a single file.

    Args:
        container: what holds the files.
        place: the prefix of the folder, or the name of the file.
        label: the place as shown to the user.
        zone: time zone of times that an export writes without one.
        me: names and ids of the owner's, from config.yaml.
    """

    def __init__(self, container: Container, place: str, label: str, zone: ZoneInfo, me: tuple[str, ...] = ()) -> None:
        self.is_file = bool(place) and not place.endswith("/")
        self.label = label
        self.zone = zone
        self.me = me
        self.bad_records: list[BadRecord] = []
        self.bad_count = 0
        self.notes: list[str] = []
        """What the user should know about this place besides its bad records."""
        self.opened: set[str] = set()
        """Names of files here that were read, or that are archives of their own."""
        self.outlines: dict[str, Any] = {}
        """What `json_outline` found while readers were asked about this place."""
        self.heads: dict[str, tuple[bytes, str | None, int]] = {}
        """Of the file that was asked about last: its beginning, its encoding if that is wide, how much was read."""
        self.on_open: Callable[[int], None] = lambda size: None
        self.on_read: Callable[[int], None] = lambda size: None
        self._container = container
        self._place = place

    def files(self, folder: str = "") -> list[str]:
        """Names, relative to this place, of the files directly in a folder (`""` or `data/`)."""
        if self.is_file:
            return [PurePosixPath(self._place).name]
        return [folder + name for name in self._container.listing(self._place + folder)[0]]

    def folders(self, folder: str = "") -> list[str]:
        """Names, relative to this place and ending in `/`, of the folders directly in a folder."""
        if self.is_file:
            return []
        return [f"{folder}{name}/" for name in self._container.listing(self._place + folder)[1]]

    def open(self, name: str) -> "CountingFile":
        """A file as a stream that counts the bytes read; UTF-16 as UTF-8. Raises UserError for a damaged zip."""
        full = self._full(name)
        self.opened.add(name)
        self.on_open(self._container.size(full))
        wide = self._beginning(name)[1]
        return CountingFile(lambda: self._container.open(full), self.on_read, wide)

    def head(self, name: str, size: int = 4096) -> bytes:
        """The first bytes of a file, for sniffing; UTF-16 as UTF-8. Raises UserError for a damaged or locked zip."""
        return self._beginning(name, size)[0][:size]

    def _beginning(self, name: str, size: int = 0) -> tuple[bytes, str | None]:
        """The first bytes of a file, as UTF-8, and the encoding that it has if it is a wide one."""
        if name not in self.heads or len(self.heads[name][0]) == self.heads[name][2] < size:
            wanted = max(size, _HEAD)
            with closing(self._container.open(self._full(name))) as file:
                data = file.read(wanted)
                if (wide := wide_encoding(data)) is not None:
                    text = codecs.getincrementaldecoder(wide)("replace").decode(data + file.read(wanted))
                    data = text.removeprefix("\ufeff").encode("utf-8", "replace")[:wanted]
            self.heads = {name: (data, wide, wanted)}  # readers ask about one file after the other
        return self.heads[name][:2]

    def report_bad(self, file: str, position: str, reason: str | Exception) -> None:
        """Records that part of a file could not be read.

        Args:
            file: its name in this tree.
            position: where in it, for people: `line 3`.
            reason: a text for people, or the exception that parsing raised.
        """
        self.bad_count += 1
        if len(self.bad_records) < MAX_LISTED_BAD_RECORDS:
            name = self.label if self.is_file else f"{self.label}/{file}"
            text = _explain(reason) if isinstance(reason, Exception) else reason
            self.bad_records.append(BadRecord(name, position, text))

    def take_reports(self, other: "SourceTree") -> None:
        """Adds the bad records and notes of another place."""
        self.bad_count += other.bad_count
        self.bad_records += other.bad_records[: MAX_LISTED_BAD_RECORDS - len(self.bad_records)]
        for text in other.notes:
            self.note(text)

    def note(self, text: str) -> None:
        """Records what the user should know about this place: one line, for people. Repeated ones are recorded once."""
        if text not in self.notes and len(self.notes) < MAX_LISTED_BAD_RECORDS:
            self.notes.append(text)

    def for_survey(self) -> "SourceTree":
        """The same place for a first pass: its bytes and bad records are not reported, as the second pass does that."""
        tree = SourceTree(self._container, self._place, self.label, self.zone, self.me)
        tree.opened = self.opened
        return tree

    def unopened(self) -> list[str]:
        """Names, relative to this place, of the files beneath it that are not in `opened`, without hidden files."""
        names: list[str] = []
        folders = [""]
        while folders:
            folder = folders.pop()
            files = (name for name in self.files(folder) if not is_hidden(name.removeprefix(folder)))
            names += (name for name in files if name not in self.opened)
            folders += (name for name in reversed(self.folders(folder)) if not is_hidden(name.removeprefix(folder)))
        return names

    def _full(self, name: str) -> str:
        return self._place if self.is_file else self._place + name


class CountingFile:
    """A binary file that reports how many bytes were read.

    Args:
        reopen: opens the file, now and for whoever needs to look at all of it before reading it.
        on_read: is told the number of bytes.
        encoding: of a text in UTF-16 or UTF-32, which is read as UTF-8; None for any other file.
    """

    def __init__(
        self, reopen: Callable[[], ByteStream], on_read: Callable[[int], None], encoding: str | None = None
    ) -> None:
        self._reopen = reopen
        self._file = reopen()
        self._on_read = on_read
        self._encoding = encoding
        self._decoder = codecs.getincrementaldecoder(encoding)("replace") if encoding is not None else None

    def read(self, size: int = -1, /) -> bytes:
        if self._decoder is None:
            data = self._file.read(size)
            self._on_read(len(data))
            return data
        while True:
            data = self._file.read(size)
            self._on_read(len(data))
            text = self._decoder.decode(data, final=not data).removeprefix("\ufeff")
            if text or not data:
                return text.encode("utf-8", "replace")

    def again(self) -> "CountingFile":
        """The same file from its beginning, without reports."""
        return CountingFile(self._reopen, lambda size: None, self._encoding)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def __enter__(self) -> "CountingFile":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def open_folder(path: Path) -> Container:
    """Opens a folder, or the folder of a single file."""
    return _FolderContainer(path if path.is_dir() else path.parent)


def open_zip(file: Path | IO[bytes], label: str) -> Container:
    """Opens a zip. Raises UserError when it is damaged, incomplete or not a zip."""
    try:
        return _ZipContainer(file, label)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        raise UserError(tr("{path}: damaged or incomplete zip; download it again", path=label)) from None


def _explain(error: Exception) -> str:
    if isinstance(error, KeyError):
        return tr("missing {key}", key=error)
    return tr("invalid value: {error}", error=error)


class _FolderContainer:
    """Files below a folder. Does not follow links to folders, which may form a loop."""

    def __init__(self, root: Path) -> None:
        self._root = root
        # Every reader asks about a folder, which may hold tens of thousands of files.
        self._last: tuple[str, tuple[list[str], list[str]]] | None = None

    def listing(self, prefix: str) -> tuple[list[str], list[str]]:
        if self._last is None or self._last[0] != prefix:
            self._last = prefix, self._list(prefix)
        return self._last[1]

    def _list(self, prefix: str) -> tuple[list[str], list[str]]:
        files, folders = [], []
        try:
            with os.scandir(self._root / prefix) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.name)
                    elif entry.is_file():
                        files.append(entry.name)
        except FileNotFoundError:
            return [], []
        except OSError as error:
            raise UserError(tr("{path}: cannot be read: {error}", path=error.filename, error=error.strerror)) from None
        return sorted(files), sorted(folders)

    def size(self, name: str) -> int:
        return (self._root / name).stat().st_size

    def open(self, name: str) -> ByteStream:
        try:
            return (self._root / name).open("rb")
        except OSError as error:
            raise UserError(tr("{path}: cannot be read: {error}", path=error.filename, error=error.strerror)) from None

    def open_seekable(self, name: str) -> Path | IO[bytes]:
        return self._root / name

    def close(self) -> None:
        """Keeps no files open."""


class _ZipContainer:
    """Members of a zip."""

    def __init__(self, file: Path | IO[bytes], label: str) -> None:
        self._label = label
        with ExitStack() as opened:
            if not isinstance(file, Path):
                opened.callback(file.close)
            self._archive = opened.enter_context(zipfile.ZipFile(file))
            self._opened = opened.pop_all()
        self._members: dict[str, zipfile.ZipInfo] = {}
        self._files: dict[str, list[str]] = {}
        self._folders: dict[str, set[str]] = {}
        for member in self._archive.infolist():
            # Nothing is extracted, so a name with `..` is harmless.
            if not member.is_dir():
                name = member.filename.replace("\\", "/")  # some Windows programs write those
                self._members[name] = member
                self._add(name)

    def listing(self, prefix: str) -> tuple[list[str], list[str]]:
        return sorted(self._files.get(prefix, [])), sorted(self._folders.get(prefix, ()))

    def size(self, name: str) -> int:
        return self._members[name].file_size

    def open(self, name: str) -> ByteStream:
        member = self._members[name]
        if member.flag_bits & 1:
            raise UserError(tr("{path}: password-protected zip; unpack it first", path=self._label))
        if member.file_size > BOMB_BYTES and member.file_size > BOMB_RATIO * max(1, member.compress_size):
            raise UserError(tr("{path}: {name} looks like a zip bomb; refused", path=self._label, name=name))
        with _ZipErrors(self._label):
            return _ZipMember(self._archive.open(member), self._label)

    def open_seekable(self, name: str) -> Path | IO[bytes]:
        if self.size(name) > MAX_INNER_ZIP_BYTES:
            raise UserError(tr("{path}: {name} is too large; unpack it first", path=self._label, name=name))
        with ExitStack() as opened:
            copy = opened.enter_context(tempfile.TemporaryFile())
            with closing(self.open(name)) as member:
                while data := member.read(1 << 20):
                    copy.write(data)
            opened.pop_all()  # stays open as long as the zip that is read from it
            return copy

    def close(self) -> None:
        self._opened.close()

    def _add(self, name: str) -> None:
        folder, _, file = name.rpartition("/")
        self._files.setdefault(f"{folder}/" if folder else "", []).append(file)
        while folder:
            parent, _, name = folder.rpartition("/")
            self._folders.setdefault(f"{parent}/" if parent else "", set()).add(name)
            folder = parent


class _ZipMember:
    """A zip member that raises a UserError for damage found while reading it."""

    def __init__(self, member: IO[bytes], label: str) -> None:
        self._member = member
        self._label = label

    def read(self, size: int = -1, /) -> bytes:
        with _ZipErrors(self._label):
            return self._member.read(size)

    def close(self) -> None:
        self._member.close()


class _ZipErrors:
    """A context that turns the exceptions of a damaged zip into a UserError."""

    def __init__(self, label: str) -> None:
        self._label = label

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        is_damaged = isinstance(error, zipfile.BadZipFile | zlib.error | EOFError | NotImplementedError | RuntimeError)
        # EINVAL: a member whose offset is before the beginning of the file
        if is_damaged or (isinstance(error, OSError) and error.errno == errno.EINVAL):
            raise UserError(tr("{path}: damaged or incomplete zip; download it again", path=self._label)) from None
