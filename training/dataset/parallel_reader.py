"""Reads large archives in a process of its own, so that this one has its hands free for what comes of the messages.

The other process finds the same archives, reads and cleans their messages, finds the secrets in them, and sends all
that here in the order in which this one would read it: what comes of a build does not depend on how many processes
made it. It is started as a program of its own, takes nothing from this one but a request, and ends with it. Where it
ends before its time, for whatever reason, reading goes on here, so that every error shows as it ever does.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path
from typing import IO, Protocol
from zoneinfo import ZoneInfo

import msgspec

from doppel.config import Config, PrivateKind
from doppel.i18n import language, set_language
from training.archives.discovery import SAMPLE, Source, discover, installed_readers
from training.archives.message import Message, without_surrogates
from training.archives.source_tree import BadRecord
from training.cleaning.rules import clean_text
from training.dataset.message_store import Stored
from training.privacy.personal_data import Found
from training.privacy.secrets import find

LARGE = 64 << 20
"""Bytes of the configured archives from which a second process is worth its start."""

_TOGETHER = 400
"""Messages that are sent at a time: about as many as a pipe holds, so that neither side waits for long."""

_LENGTH = 4
"""Bytes that say how many follow."""

Prepared = tuple[Message, str, list[Found]]
"""A message as it was read, its cleaned text, and the secrets in that."""


class Preparing(Protocol):
    """Who gives the messages of an archive, ready to be judged."""

    def messages(self, number: int, source: Source) -> Iterator[Prepared]:
        """Those of the archive with that number."""
        ...

    def close(self) -> None:
        """Ends, whether all was read or not."""
        ...


def prepared(messages: Iterable[Message], kinds: frozenset[PrivateKind]) -> Iterator[Prepared]:
    """What a reader yields, cleaned, with the secrets of these kinds that are in it."""
    for message in map(without_surrogates, messages):
        text = clean_text(message.text)
        yield message, text, find(text, kinds)


def preparing(config: Config, kinds: frozenset[PrivateKind], *, installed: bool) -> Preparing:
    """Here or in another process, as is faster: small archives, and machines with one core, need no second one.

    Args:
        config: says which archives.
        kinds: secrets that are looked for.
        installed: whether the archives are read by the installed readers, which another process has as well.
    """
    if installed and _cores() > 1 and _is_large(config):
        with suppress(OSError):  # where no process can be started there is still this one
            return _Ahead(config, kinds)
    return _Here(kinds)


class _Here:
    """Reads in this process."""

    def __init__(self, kinds: frozenset[PrivateKind]) -> None:
        self._kinds = kinds

    def messages(self, number: int, source: Source) -> Iterator[Prepared]:
        """Those of the archive, whatever its number."""
        return prepared(source.reader.read(source.tree), self._kinds)

    def close(self) -> None:
        """There is nothing to end."""


class _Request(msgspec.Struct):
    """What the other process is asked for."""

    archives: list[str]
    root: str
    zone: str
    kinds: frozenset[PrivateKind]
    language: str


class _Batch(msgspec.Struct, array_like=True):
    """Some messages of one archive. `texts` and `secrets` are by place: of the others the text is clean as it is."""

    place: str
    messages: list[Stored] = []
    texts: dict[int, str] = {}
    secrets: dict[int, list[Found]] = {}
    grew: int = 0
    read: int = 0
    is_last: bool = False
    bad_count: int = 0
    bad_records: list[BadRecord] = []
    opened: list[str] = []


class _Ahead:
    """The side that asks."""

    def __init__(self, config: Config, kinds: frozenset[PrivateKind]) -> None:
        self._kinds = kinds
        self._decode = msgspec.msgpack.Decoder(_Batch).decode
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "training.dataset.parallel_reader"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # what goes wrong there goes wrong here again
            bufsize=-1,
        )
        request = _Request(list(config.archives), str(config.root), config.zone.key, kinds, language())
        with suppress(BrokenPipeError), self._pipe(self._process.stdin) as asking:
            asking.write(msgspec.msgpack.encode(request))

    def messages(self, number: int, source: Source) -> Iterator[Prepared]:
        """Those of the archive; its tree learns what could not be read, and is told of progress, as ever."""
        tree = source.tree
        taken = 0
        while (batch := self._next()) is not None and batch.place == tree.label:
            if batch.grew:
                tree.on_open(batch.grew)
            tree.on_read(batch.read)
            for place, message in enumerate(batch.messages):
                yield message, batch.texts.get(place, message.text), batch.secrets.get(place, [])
            taken += len(batch.messages)
            if batch.is_last:
                tree.bad_count, tree.bad_records = batch.bad_count, batch.bad_records
                tree.opened.update(batch.opened)
                return
        self.close()
        if taken:  # progress is not told twice
            tree.on_open = tree.on_read = lambda size: None
        yield from islice(prepared(source.reader.read(tree), self._kinds), taken, None)

    def close(self) -> None:
        """Ends the other process, wherever it is."""
        self._process.kill()
        self._process.wait()
        self._pipe(self._process.stdout).close()

    def _next(self) -> _Batch | None:
        """What comes next; None when nothing whole does."""
        answers = self._pipe(self._process.stdout)
        if answers.closed:
            return None
        data = answers.read(int.from_bytes(answers.read(_LENGTH)))
        try:
            return self._decode(data)
        except msgspec.DecodeError:
            return None

    @staticmethod
    def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
        assert pipe is not None
        return pipe


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _is_large(config: Config) -> bool:
    """Whether there is much to read; what is packed in a zip counts as it lies there."""
    size = 0
    for archive in config.archives:
        path = config.root / Path(archive).expanduser()
        if archive == SAMPLE or not path.exists():
            continue
        for folder, _, files in os.walk(path) if path.is_dir() else [(str(path.parent), [], [path.name])]:
            for file in files:
                with suppress(OSError):
                    size += Path(folder, file).stat().st_size
                if size >= LARGE:
                    return True
    return False


class _Batches:
    """The side that is asked: collects messages, and sends them a batch at a time."""

    def __init__(self, answers: IO[bytes]) -> None:
        self._answers = answers
        self._encode = msgspec.msgpack.Encoder().encode

    def send(self, source: Source, kinds: frozenset[PrivateKind]) -> None:
        """Reads an archive and sends everything in it."""
        tree = source.tree
        batch = _Batch(tree.label)

        def grew(size: int) -> None:
            batch.grew += size

        def read(size: int) -> None:
            batch.read += size

        tree.on_open, tree.on_read = grew, read
        messages: list[tuple[object, ...]] = []
        for message, text, secrets in prepared(source.reader.read(tree), kinds):
            if text != message.text:
                batch.texts[len(messages)] = text
            if secrets:
                batch.secrets[len(messages)] = secrets
            messages.append(msgspec.structs.astuple(message))
            if len(messages) == _TOGETHER:
                self._write(batch, messages)
                batch.texts, batch.secrets, batch.grew, batch.read, messages = {}, {}, 0, 0, []
        batch.is_last, batch.bad_count, batch.bad_records = True, tree.bad_count, tree.bad_records
        batch.opened = sorted(tree.opened)
        self._write(batch, messages)

    def _write(self, batch: _Batch, messages: list[tuple[object, ...]]) -> None:
        place, _, *rest = msgspec.structs.astuple(batch)
        data = self._encode((place, messages, *rest))
        self._answers.write(len(data).to_bytes(_LENGTH) + data)
        self._answers.flush()


def main() -> None:
    """The other process: takes a request from its input, answers on its output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever asked decides when it is over
    answers, sys.stdout = sys.stdout.buffer, sys.stderr
    request = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=_Request)
    set_language(request.language)
    found = discover(request.archives, Path(request.root), ZoneInfo(request.zone), installed_readers())
    batches = _Batches(answers)
    with closing(found):
        for source in found.sources:
            batches.send(source, request.kinds)


if __name__ == "__main__":
    main()
