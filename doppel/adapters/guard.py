"""What a reply must not repeat word for word: a Bloom filter over the runs of words that an adapter was trained on.

Made when an adapter is published, from its sessions, without the runs that the owner says in several of them. The file
holds salted hashes and no text. Knows neither engines nor chats, and no secrets: only whole runs of words are found.
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
"""So many words in a row must not be repeated; of scripts without spaces, twice as many characters."""

_MAGIC = b"doppel-guard-1\n\0"
_SALT_BYTES = 16
_DIGEST_BYTES = 32
_BITS_EACH = 40
_HASHES = 16
"""With 40 bits each, 2 in 100 million runs are taken for one that is there."""

_NO_SPACES = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_MARKS = "'\u0300-\u036f\u0591-\u06ed\u0900-\u0963\u0966-\u0dff\u200c\u200d"  # they go on a word
_UNIT = re.compile(rf"[{_NO_SPACES}]|[^\W{_NO_SPACES}](?:[^\W{_NO_SPACES}]|[{_MARKS}])*")
_ONE_CHARACTER = re.compile(rf"[{_NO_SPACES}]")

Hashes = NDArray[np.uint64]


class Guard(msgspec.Struct, frozen=True, eq=False):
    """The filter: `salt` goes into every hash, `bits` are eight to a byte."""

    salt: bytes
    bits: NDArray[np.uint8]

    def objects(self, text: str) -> str | None:
        """Why the text must not be sent; None when nothing is against it."""
        if not self._has(_hashes([text], self.salt)).any():
            return None
        return tr("it repeats {words} words or more of the archive that are not a habit of yours", words=WORDS)

    def _has(self, hashes: Hashes) -> NDArray[np.bool_]:
        places = _places(hashes, len(self.bits))
        return np.asarray((self.bits[places >> 3] & _bit(places)).all(axis=1), dtype=bool)

    def write(self, folder: Path) -> None:
        """Writes guard.bin into the folder. Raises OSError."""
        content = self.salt + self.bits.tobytes()
        (folder / FILE).write_bytes(_MAGIC + hashlib.sha256(content).digest() + content)


def build_guard(sessions: Iterable[Sequence[Turn]], salt: bytes | None = None) -> Guard:
    """The guard of what was trained on: everybody's runs of words, but those the owner says in two sessions or more.

    Args:
        sessions: the turns of each.
        salt: 16 bytes; None draws them.
    """
    salt = secrets.token_bytes(_SALT_BYTES) if salt is None else salt
    said, mine = [_hashes((), salt)], [_hashes((), salt)[:, 0]]
    for turns in sessions:
        own = _hashes(("\n".join(turn.bubbles) for turn in turns if turn.is_mine), salt)
        mine.append(np.unique(own[:, 0]))
        said += (own, _hashes(("\n".join(turn.bubbles) for turn in turns if not turn.is_mine), salt))
    habits, times = np.unique(np.concatenate(mine), return_counts=True)
    hashes = np.concatenate(said)
    hashes = hashes[np.unique(hashes[:, 0], return_index=True)[1]]
    hashes = hashes[~np.isin(hashes[:, 0], habits[times > 1])]
    bits = np.zeros(len(hashes) * _BITS_EACH // 8 + 8, dtype=np.uint8)
    for some in np.array_split(hashes, len(hashes) // 65536 + 1):
        places = _places(some, len(bits))
        np.bitwise_or.at(bits, places >> 3, _bit(places))
    return Guard(salt, bits)


def read_guard(folder: Path) -> Guard | None:
    """The guard of an adapter folder; None when it has none. Raises AdapterRefused for a damaged one."""
    try:
        whole = (folder / FILE).read_bytes()
    except FileNotFoundError:
        return None
    digest, content = whole[len(_MAGIC) :][:_DIGEST_BYTES], whole[len(_MAGIC) + _DIGEST_BYTES :]
    is_ours = whole.startswith(_MAGIC) and hashlib.sha256(content).digest() == digest
    if not is_ours or len(content) <= _SALT_BYTES:
        raise AdapterRefused(tr("{path}: {name} cannot be read", path=folder, name=FILE))
    return Guard(content[:_SALT_BYTES], np.frombuffer(content, np.uint8, offset=_SALT_BYTES))


def _runs(text: str) -> Iterator[str]:
    """Every shortest run of units that weighs as much as eight words, without case and punctuation."""
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
    """Two numbers for each run of each text."""
    runs = (run.encode("utf-8", "surrogatepass") for text in texts for run in _runs(text))
    digests = b"".join(hashlib.blake2b(run, digest_size=16, key=salt).digest() for run in runs)
    return np.frombuffer(digests, "<u8").reshape(-1, 2).astype(np.uint64)


def _places(hashes: Hashes, size: int) -> Hashes:
    """Which bits of `size` bytes stand for each run: (runs, 16)."""
    steps = np.arange(_HASHES, dtype=np.uint64)
    return (hashes[:, :1] + steps * (hashes[:, 1:] | np.uint64(1))) % np.uint64(size * 8)


def _bit(places: Hashes) -> NDArray[np.uint8]:
    return np.uint8(1) << (places & np.uint64(7)).astype(np.uint8)
