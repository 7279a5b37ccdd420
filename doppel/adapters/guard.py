"""Blocks replies that quote the archive: a Bloom filter over the runs of words that an adapter was trained on.

It is built from the training sessions when an adapter is published, and leaves out runs that the owner writes in
several sessions. The file holds salted hashes and no text. It finds runs of words, not single secrets such as a number.
"""

import hashlib
import re
import secrets
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from doppel.adapters.versions import AdapterRefused
from doppel.i18n import tr
from doppel.transcript import Turn

FILE = "guard.bin"

WORDS = 8
"""Length of a run in words; in scripts without spaces, a word counts as two characters."""

_MAGIC = b"doppel-guard-1\n\0"
_SALT_BYTES = 16
_DIGEST_BYTES = 32
_BITS_PER_RUN = 40
_HASHES = 16
"""With 40 bits per run, the false positive rate is 2 in 100 million."""

_NO_SPACES = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_JOINERS = "'\u0300-\u036f\u0591-\u06ed\u0900-\u0963\u0966-\u0dff\u200c\u200d"  # part of a word
_UNIT = re.compile(rf"[{_NO_SPACES}]|[^\W{_NO_SPACES}](?:[^\W{_NO_SPACES}]|[{_JOINERS}])*")
_ONE_CHARACTER = re.compile(rf"[{_NO_SPACES}]")

Hashes = NDArray[np.uint64]


class Guard(msgspec.Struct, frozen=True, eq=False):
    """The filter.

    Attributes:
        salt: key of every hash.
        bits: packed, eight to a byte.
    """

    salt: bytes
    bits: NDArray[np.uint8]

    def objects(self, text: str) -> str | None:
        """Why the text must not be sent; None if it may be."""
        if not self._contains(_hashes([text], self.salt)).any():
            return None
        return tr("it quotes {words}+ words of your archive", words=WORDS)

    def _contains(self, hashes: Hashes) -> NDArray[np.bool_]:
        positions = _bit_positions(hashes, len(self.bits))
        return np.asarray((self.bits[positions >> 3] & _bit_mask(positions)).all(axis=1), dtype=bool)

    def write(self, folder: Path) -> None:
        """Writes guard.bin into the folder. Raises OSError."""
        content = self.salt + self.bits.tobytes()
        (folder / FILE).write_bytes(_MAGIC + hashlib.sha256(content).digest() + content)


def build_guard(sessions: Iterable[Sequence[Turn]], salt: bytes | None = None) -> Guard:
    """Builds the filter from everybody's runs of words, except those that the owner writes in two or more sessions.

    Args:
        sessions: the turns of each session.
        salt: 16 bytes; None: random.
    """
    salt = secrets.token_bytes(_SALT_BYTES) if salt is None else salt
    all_runs, owner_runs = [_hashes((), salt)], [_hashes((), salt)[:, 0]]
    for turns in sessions:
        by_owner = _hashes(("\n".join(turn.bubbles) for turn in turns if turn.is_mine), salt)
        by_others = _hashes(("\n".join(turn.bubbles) for turn in turns if not turn.is_mine), salt)
        owner_runs.append(np.unique(by_owner[:, 0]))
        all_runs += (by_owner, by_others)
    owner_unique, session_counts = np.unique(np.concatenate(owner_runs), return_counts=True)
    hashes = np.concatenate(all_runs)
    hashes = hashes[np.unique(hashes[:, 0], return_index=True)[1]]
    hashes = hashes[~np.isin(hashes[:, 0], owner_unique[session_counts > 1])]
    bits = np.zeros(len(hashes) * _BITS_PER_RUN // 8 + 8, dtype=np.uint8)
    for chunk in np.array_split(hashes, len(hashes) // 65536 + 1):
        positions = _bit_positions(chunk, len(bits))
        np.bitwise_or.at(bits, positions >> 3, _bit_mask(positions))
    return Guard(salt, bits)


def read_guard(folder: Path) -> Guard | None:
    """The guard of an adapter folder; None if it has none. Raises AdapterRefused if the file is damaged."""
    try:
        file = (folder / FILE).read_bytes()
    except FileNotFoundError:
        return None
    digest, content = file[len(_MAGIC) :][:_DIGEST_BYTES], file[len(_MAGIC) + _DIGEST_BYTES :]
    is_intact = file.startswith(_MAGIC) and hashlib.sha256(content).digest() == digest
    if not is_intact or len(content) <= _SALT_BYTES:
        raise AdapterRefused(tr("{path}: {name} cannot be read", path=folder, name=FILE))
    return Guard(content[:_SALT_BYTES], np.frombuffer(content, np.uint8, offset=_SALT_BYTES))


def _runs(text: str) -> Iterator[str]:
    """Every run of eight words, or of as many characters as count for eight, in lower case, without punctuation."""
    units = _UNIT.findall(unicodedata.normalize("NFKC", text).casefold().replace("\u2019", "'"))
    end = weight = 0
    for start, unit in enumerate(units):
        while weight < 2 * WORDS:
            if end == len(units):
                return
            weight += _weight(units[end])
            end += 1
        yield " ".join(units[start:end])
        weight -= _weight(unit)


def _weight(unit: str) -> int:
    return 1 if _ONE_CHARACTER.match(unit) else 2


def _hashes(texts: Iterable[str], salt: bytes) -> Hashes:
    """Two 64-bit hashes of each run of the texts: shape (runs, 2)."""
    runs = (run.encode("utf-8", "surrogatepass") for text in texts for run in _runs(text))
    digests = b"".join(hashlib.blake2b(run, digest_size=16, key=salt).digest() for run in runs)
    return np.frombuffer(digests, "<u8").reshape(-1, 2).astype(np.uint64)


def _bit_positions(hashes: Hashes, size: int) -> Hashes:
    """The bits of each run in a filter of `size` bytes, by double hashing: shape (runs, 16)."""
    steps = np.arange(_HASHES, dtype=np.uint64)
    return (hashes[:, :1] + steps * (hashes[:, 1:] | np.uint64(1))) % np.uint64(size * 8)


def _bit_mask(positions: Hashes) -> NDArray[np.uint8]:
    return np.uint8(1) << (positions & np.uint64(7)).astype(np.uint8)
