"""An archive as a reader sees it: files in a folder or inside a zip, opened as streams, never extracted.

Turns every way a zip can be broken, locked or a bomb into one line for the user. Knows no export format.
"""

import errno
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path, PurePosixPath
from typing import IO, Protocol
from zoneinfo import ZoneInfo

import msgspec

from doppel.errors import UserError
from doppel.i18n import tr
from training.archives.unread import is_hidden

LISTED_BAD_RECORDS = 1000
"""Bad records kept with their place; more are only counted."""

BOMB_RATIO = 200
BOMB_BYTES = 256 << 20
"""A zip member that unpacks to more than this, at more than BOMB_RATIO, is refused. Exports reach about 30."""

INNER_ZIP_BYTES = 32 << 30
"""A zip inside a zip is copied to a temporary file to be read; not one larger than this."""


class BadRecord(msgspec.Struct, frozen=True):
    """A record that could not be read: in which file, where in it, and why."""

    file: str
    position: str
    reason: str


class ByteStream(Protocol):
    """The part of a binary file that reading needs."""

    def read(self, size: int = -1, /) -> bytes: ...

    def close(self) -> None: ...


class Store(Protocol):
    """Where an archive's files lie. Names are relative, with `/`; prefixes end in `/` or are empty."""

    def listing(self, prefix: str) -> tuple[list[str], list[str]]:
        """Names of the files and of the folders directly under a prefix, sorted."""
        ...

    def size(self, name: str) -> int:
        """Bytes a file unpacks to."""
        ...

    def open(self, name: str) -> ByteStream:
        """A file as a stream."""
        ...

    def open_seekable(self, name: str) -> Path | IO[bytes]:
        """A file as something that `zipfile` can read; `open_zip` closes it."""
        ...

    def close(self) -> None:
        """Lets go of files kept open."""
        ...


class Tree:
    """One place in an archive: a folder with all beneath it, or a single file.

    Args:
        store: where the files lie.
        place: the prefix of the folder, or the name of the file.
        label: what the user calls this place, for messages.
        zone: time zone of times that an export gives without one.
    """

    def __init__(self, store: Store, place: str, label: str, zone: ZoneInfo) -> None:
        self.is_file = bool(place) and not place.endswith("/")
        self.label = label
        self.zone = zone
        self.bad_records: list[BadRecord] = []
        self.bad_count = 0
        self.opened: set[str] = set()
        """Names of files here that were read from, or that are archives of their own."""
        self.on_open: Callable[[int], None] = lambda size: None
        self.on_read: Callable[[int], None] = lambda size: None
        self._store = store
        self._place = place

    def files(self, folder: str = "") -> list[str]:
        """Names, relative to this place, of the files directly in one of its folders (`""` or `data/`)."""
        if self.is_file:
            return [PurePosixPath(self._place).name]
        return [folder + name for name in self._store.listing(self._place + folder)[0]]

    def folders(self, folder: str = "") -> list[str]:
        """Names, relative to this place and ending in `/`, of the folders directly in one of its folders."""
        if self.is_file:
            return []
        return [f"{folder}{name}/" for name in self._store.listing(self._place + folder)[1]]

    def open(self, name: str) -> "CountedFile":
        """A file as a stream that reports how many bytes were read. Raises UserError for a broken zip."""
        full = self._full(name)
        self.opened.add(name)
        self.on_open(self._store.size(full))
        return CountedFile(self._store.open(full), self.on_read)

    def head(self, name: str, size: int = 4096) -> bytes:
        """The first bytes of a file, for sniffing. Raises UserError for a broken or locked zip."""
        with closing(self._store.open(self._full(name))) as file:
            return file.read(size)

    def bad(self, file: str, position: str, reason: str | Exception) -> None:
        """Notes a record that could not be read: where it is, and why or what it raised."""
        self.bad_count += 1
        if len(self.bad_records) < LISTED_BAD_RECORDS:
            name = self.label if self.is_file else f"{self.label}/{file}"
            text = _explain(reason) if isinstance(reason, Exception) else reason
            self.bad_records.append(BadRecord(name, position, text))

    def unheard(self) -> "Tree":
        """The same place for a pass before the real one: bytes read and bad records are told only once."""
        unheard = Tree(self._store, self._place, self.label, self.zone)
        unheard.opened = self.opened
        return unheard

    def unopened(self) -> list[str]:
        """Names, relative to this place, of the files beneath it that are not `opened`, without the system's own."""
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


class CountedFile:
    """The `read` side of a binary file; tells how many bytes went through."""

    def __init__(self, file: ByteStream, on_read: Callable[[int], None]) -> None:
        self._file = file
        self._on_read = on_read

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._on_read(len(data))
        return data

    def __enter__(self) -> "CountedFile":
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()


def open_folder(path: Path) -> Store:
    """A folder, or the folder of a single file."""
    return _Folder(path if path.is_dir() else path.parent)


def open_zip(file: Path | IO[bytes], label: str) -> Store:
    """A zip. Raises UserError when it is broken, incomplete or not a zip."""
    try:
        return _Zip(file, label)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        raise UserError(tr("{path}: damaged or incomplete zip; download it again", path=label)) from None


def _explain(error: Exception) -> str:
    if isinstance(error, KeyError):
        return tr("missing {key}", key=error)
    return tr("invalid value: {error}", error=error)


class _Folder:
    """Files below a folder. Linked folders are not entered, so a loop of links ends."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def listing(self, prefix: str) -> tuple[list[str], list[str]]:
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
        """Nothing is kept open."""


class _Zip:
    """Members of a zip, listed once."""

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
            # Nothing is ever extracted, so a name with `..` is just an odd name.
            if not member.is_dir():
                name = member.filename.replace("\\", "/")  # as some programs for Windows write it
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
            raise UserError(
                tr("{path}: {name} looks like a zip bomb; refused", path=self._label, name=name)
            )
        with _BrokenZip(self._label):
            return _ZipMember(self._archive.open(member), self._label)

    def open_seekable(self, name: str) -> Path | IO[bytes]:
        if self.size(name) > INNER_ZIP_BYTES:
            raise UserError(tr("{path}: {name} is too large; unpack it first", path=self._label, name=name))
        with ExitStack() as opened:
            copy = opened.enter_context(tempfile.TemporaryFile())
            with closing(self.open(name)) as member:
                while data := member.read(1 << 20):
                    copy.write(data)
            opened.pop_all()  # it lives as long as the zip that is read from it
            return copy

    def close(self) -> None:
        self._opened.close()

    def _add(self, name: str) -> None:
        folder, _, file = name.rpartition("/")
        self._files.setdefault(f"{folder}/" if folder else "", []).append(file)
        while folder:
            above, _, last = folder.rpartition("/")
            self._folders.setdefault(f"{above}/" if above else "", set()).add(last)
            folder = above


class _ZipMember:
    """A member whose damage shows as a UserError, while it is being read as much as when it is opened."""

    def __init__(self, member: IO[bytes], label: str) -> None:
        self._member = member
        self._label = label

    def read(self, size: int = -1, /) -> bytes:
        with _BrokenZip(self._label):
            return self._member.read(size)

    def close(self) -> None:
        self._member.close()


class _BrokenZip:
    """Turns the exceptions of a damaged zip into one line."""

    def __init__(self, label: str) -> None:
        self._label = label

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        broken = isinstance(error, zipfile.BadZipFile | zlib.error | EOFError | NotImplementedError | RuntimeError)
        # a member that is said to begin before the file does
        if broken or (isinstance(error, OSError) and error.errno == errno.EINVAL):
            raise UserError(tr("{path}: damaged or incomplete zip; download it again", path=self._label)) from None
