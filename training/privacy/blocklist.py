"""Whom the data set must not know again: salted hashes of accounts, in a file beside it, that every build reads.

The file says of a given account whether it is meant, and names nobody. The salt keeps two such files from being
compared; it does not keep somebody who has the file and a list of accounts from trying them.
"""

import hashlib
import os
import secrets
from pathlib import Path
from typing import Literal

import msgspec

from doppel.errors import UserError
from doppel.i18n import tr
from doppel.system.write_errors import translate_write_errors

_What = Literal["account", "chat"]


class _Entries(msgspec.Struct):
    """The file."""

    salt: str
    accounts: list[str]


class Forgotten:
    """The accounts to forget, and their chats.

    Args:
        data_dir: the data set's folder; the file is beside it, so that a new data set does not replace it.

    Raises:
        UserError: the file cannot be read, so that nobody knows who is to be forgotten.
    """

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir.with_name(f"{data_dir.name}.forgotten.json")
        try:
            entries = msgspec.json.decode(self.path.read_bytes(), type=_Entries)
        except FileNotFoundError:
            entries = _Entries(secrets.token_hex(16), [])
        except (OSError, msgspec.MsgspecError) as error:
            raise UserError(
                tr(
                    "{path}: cannot be read: {error}; it holds whom to forget; bring it back from a backup, or "
                    "remove it and run `doppel forget` for each of them again",
                    path=self.path,
                    error=error,
                )
            ) from None
        self._salt = entries.salt
        self._hashes = set(entries.accounts)
        self._known: dict[tuple[_What, str, str], bool] = {}

    def covers(self, platform: str, name: str, what: _What = "account") -> bool:
        """Whether this account, or this chat, is to be forgotten."""
        if not self._hashes:
            return False
        key = (what, platform, name)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._hash(key) in self._hashes
        return known

    def add(self, platform: str, account: str, chats: list[str]) -> None:
        """Has an account forgotten from the next `save` on, and its conversations of two."""
        self._hashes.add(self._hash(("account", platform, account)))
        self._hashes |= {self._hash(("chat", platform, chat)) for chat in chats}
        self._known.clear()

    def save(self) -> None:
        """Writes the file, whole or not at all. Raises DoppelError."""
        content = msgspec.json.encode(_Entries(self._salt, sorted(self._hashes)))
        part = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        with translate_write_errors(self.path):
            try:
                with part.open("wb") as file:
                    file.write(msgspec.json.format(content, indent=1))
                    file.flush()
                    os.fsync(file.fileno())
                part.replace(self.path)
            finally:
                part.unlink(missing_ok=True)

    def _hash(self, key: tuple[_What, str, str]) -> str:
        return hashlib.sha256("\0".join((self._salt, *key)).encode("utf-8", "surrogatepass")).hexdigest()
