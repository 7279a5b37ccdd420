"""Reads large archives in a subprocess, so that parsing and sorting run in parallel.

The subprocess reads and cleans the messages, finds the secrets in them, and sends them in the same order in which this
process would read them: the result of a build does not depend on the number of processes. If the subprocess fails,
reading continues in this process, so that errors are reported as usual.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import IO, Protocol
from zoneinfo import ZoneInfo

import msgspec

from doppel.config import ArchiveSettings, PrivateKind
from doppel.i18n import language, set_language
from training.archives.discovery import SAMPLE, Source, discover, installed_readers
from training.archives.message import Message, without_surrogates
from training.archives.source_tree import BadRecord
from training.cleaning.rules import clean_text
from training.dataset.message_store import StoredMessage
from training.privacy.regions import Regions
from training.privacy.secret_span import SecretSpan
from training.privacy.secrets import find_secrets

LARGE_ARCHIVES = 64 << 20
"""Total bytes of the archives from which starting a subprocess pays off."""

_BATCH_SIZE = 400
"""Messages sent at a time: about as many as a pipe holds, so that neither side waits for long."""

_MIN_TELLING = 20
"""Characters of a text that tell its language."""

_MAX_CHATS = 1 << 12
"""Chats whose latest text is remembered; an archive may have as many chats as messages."""

_LENGTH_BYTES = 4
"""Size of the length prefix of a batch."""

CleanedMessage = tuple[Message, str, list[SecretSpan]]
"""A message as read, its cleaned text, and the secrets in that text."""


class MessageReader(Protocol):
    """Reads the archives one after the other, in this process or another."""

    def messages(self, source: Source) -> Iterator[CleanedMessage]:
        """The cleaned messages of an archive."""
        ...

    def close(self) -> None:
        """Stops reading."""
        ...


def clean_messages(
    messages: Iterable[Message], kinds: frozenset[PrivateKind], regions: Regions
) -> Iterator[CleanedMessage]:
    """Cleans messages and finds the secrets of these kinds in them.

    Args:
        messages: of one archive.
        kinds: secrets to find; with none, messages are only cleaned.
        regions: guesses whose phone numbers they contain.
    """
    earlier: dict[str, str] = {}
    """The latest text of each chat that is long enough to tell its language."""
    for message in map(without_surrogates, messages):
        text = clean_text(message.text)
        yield message, text, find_secrets(text, kinds, regions, earlier.get(message.chat, ""))
        if len(text) >= _MIN_TELLING:
            if len(earlier) >= _MAX_CHATS:
                earlier.clear()
            earlier[message.chat] = text


def open_reader(
    archives: Sequence[str],
    root: Path,
    zone: ZoneInfo,
    kinds: frozenset[PrivateKind],
    *,
    me: Sequence[str] = (),
    tables: Mapping[str, ArchiveSettings] = MappingProxyType({}),
    uses_installed_readers: bool,
) -> MessageReader:
    """A reader in a subprocess for large archives on machines with several cores, else in this process.

    Args:
        archives: as in config.yaml.
        root: folder that they are relative to.
        zone: the owner's time zone.
        kinds: secrets to find.
        me: `persona.me`.
        tables: those of the archives that are tables, whose columns the owner names.
        uses_installed_readers: only the installed archive readers are available in a subprocess.
    """
    if uses_installed_readers and _core_count() > 1 and _is_large(archives, root):
        with suppress(OSError):  # no process can be started
            return _SubprocessReader(archives, root, zone, kinds, me=me, tables=tables)
    return _InProcessReader(kinds, zone)


class _InProcessReader:
    """Reads in this process."""

    def __init__(self, kinds: frozenset[PrivateKind], zone: ZoneInfo) -> None:
        self._kinds = kinds
        self._regions = Regions(zone)

    def messages(self, source: Source) -> Iterator[CleanedMessage]:
        """The cleaned messages of an archive."""
        return clean_messages(source.reader.read(source.tree), self._kinds, self._regions)

    def close(self) -> None:
        """Nothing to do."""


class _Request(msgspec.Struct):
    """What the subprocess has to read."""

    archives: list[str]
    root: str
    zone: str
    kinds: frozenset[PrivateKind]
    language: str
    me: list[str] = []
    tables: dict[str, str] = {}
    """Settings of tables in JSON, by path."""


class _Batch(msgspec.Struct, array_like=True):
    """Some messages of one archive.

    Attributes:
        label: of the archive.
        messages: as read.
        texts: cleaned texts that differ from the message's, by index.
        secrets: secrets of the texts that have any, by index.
        opened_bytes, read_bytes: progress since the last batch.
        is_last: whether the archive ends here; only then the fields below are set.
        bad_count, bad_records: unreadable records.
        opened: files that were opened.
        notes: what the user should know.
    """

    label: str
    messages: list[StoredMessage] = []
    texts: dict[int, str] = {}
    secrets: dict[int, list[SecretSpan]] = {}
    opened_bytes: int = 0
    read_bytes: int = 0
    is_last: bool = False
    bad_count: int = 0
    bad_records: list[BadRecord] = []
    opened: list[str] = []
    notes: list[str] = []


class _SubprocessReader:
    """Starts the subprocess and receives its batches."""

    def __init__(
        self,
        archives: Sequence[str],
        root: Path,
        zone: ZoneInfo,
        kinds: frozenset[PrivateKind],
        *,
        me: Sequence[str],
        tables: Mapping[str, ArchiveSettings],
    ) -> None:
        self._kinds = kinds
        self._regions = Regions(zone)
        self._decode = msgspec.msgpack.Decoder(_Batch).decode
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "training.dataset.parallel_reader"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # errors show again when this process reads on
            bufsize=-1,
        )
        settings = {path: table.model_dump_json() for path, table in tables.items()}
        request = _Request(list(archives), str(root), zone.key, kinds, language(), list(me), settings)
        with suppress(BrokenPipeError), self._pipe(self._process.stdin) as stdin:
            stdin.write(msgspec.msgpack.encode(request))

    def messages(self, source: Source) -> Iterator[CleanedMessage]:
        """The cleaned messages of an archive; updates its tree's progress and unreadable records."""
        tree = source.tree
        received = 0
        while (batch := self._next()) is not None and batch.label == tree.label:
            if batch.opened_bytes:
                tree.on_open(batch.opened_bytes)
            tree.on_read(batch.read_bytes)
            for index, message in enumerate(batch.messages):
                yield message, batch.texts.get(index, message.text), batch.secrets.get(index, [])
            received += len(batch.messages)
            if batch.is_last:
                tree.bad_count, tree.bad_records = batch.bad_count, batch.bad_records
                tree.opened.update(batch.opened)
                tree.notes = batch.notes
                return
        self.close()
        if received:  # do not report the same progress twice
            tree.on_open = tree.on_read = lambda size: None
        yield from islice(clean_messages(source.reader.read(tree), self._kinds, self._regions), received, None)

    def close(self) -> None:
        """Ends the subprocess."""
        self._process.kill()
        self._process.wait()
        self._pipe(self._process.stdout).close()

    def _next(self) -> _Batch | None:
        """The next batch; None if there is no complete one."""
        stdout = self._pipe(self._process.stdout)
        if stdout.closed:
            return None
        data = stdout.read(int.from_bytes(stdout.read(_LENGTH_BYTES)))
        try:
            return self._decode(data)
        except msgspec.DecodeError:
            return None

    @staticmethod
    def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
        assert pipe is not None
        return pipe


def _core_count() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _is_large(archives: Sequence[str], root: Path) -> bool:
    """Whether the archives are large together; zip files count with their compressed size."""
    size = 0
    for archive in archives:
        path = root / Path(archive).expanduser()
        if archive == SAMPLE or not path.exists():
            continue
        for folder, _, files in os.walk(path) if path.is_dir() else [(str(path.parent), [], [path.name])]:
            for file in files:
                with suppress(OSError):
                    size += Path(folder, file).stat().st_size
                if size >= LARGE_ARCHIVES:
                    return True
    return False


class _BatchSender:
    """Runs in the subprocess: collects messages and sends them in batches."""

    def __init__(self, stdout: IO[bytes]) -> None:
        self._stdout = stdout
        self._encode = msgspec.msgpack.Encoder().encode

    def send(self, source: Source, kinds: frozenset[PrivateKind], regions: Regions) -> None:
        """Reads an archive and sends all of its messages."""
        tree = source.tree
        batch = _Batch(tree.label)

        def on_open(size: int) -> None:
            batch.opened_bytes += size

        def on_read(size: int) -> None:
            batch.read_bytes += size

        tree.on_open, tree.on_read = on_open, on_read
        messages: list[tuple[object, ...]] = []
        for message, text, secrets in clean_messages(source.reader.read(tree), kinds, regions):
            if text != message.text:
                batch.texts[len(messages)] = text
            if secrets:
                batch.secrets[len(messages)] = secrets
            messages.append(msgspec.structs.astuple(message))
            if len(messages) == _BATCH_SIZE:
                self._write(batch, messages)
                batch.texts, batch.secrets, batch.opened_bytes, batch.read_bytes, messages = {}, {}, 0, 0, []
        batch.is_last, batch.bad_count, batch.bad_records = True, tree.bad_count, tree.bad_records
        batch.opened, batch.notes = sorted(tree.opened), tree.notes
        self._write(batch, messages)

    def _write(self, batch: _Batch, messages: list[tuple[object, ...]]) -> None:
        label, _, *rest = msgspec.structs.astuple(batch)
        data = self._encode((label, messages, *rest))
        self._stdout.write(len(data).to_bytes(_LENGTH_BYTES) + data)
        self._stdout.flush()


def main() -> None:
    """The subprocess: reads a request from stdin, writes batches to stdout."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process decides when to stop
    stdout, sys.stdout = sys.stdout.buffer, sys.stderr
    request = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=_Request)
    set_language(request.language)
    tables = {path: ArchiveSettings.model_validate_json(text) for path, text in request.tables.items()}
    discovery = discover(
        request.archives,
        Path(request.root),
        ZoneInfo(request.zone),
        installed_readers(),
        me=request.me,
        tables=tables,
    )
    sender, regions = _BatchSender(stdout), Regions(ZoneInfo(request.zone))
    with closing(discovery):
        for source in discovery.sources:
            sender.send(source, request.kinds, regions)


if __name__ == "__main__":
    main()
