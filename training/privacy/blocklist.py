"""The people whom the data set must not contain: salted hashes of their accounts, in a file next to the data set.

Every build reads the file. It can confirm a given account but lists no names. The salt makes two such files
incomparable; it does not stop anyone who has the file from testing a list of accounts against it.
"""

import hashlib
import secrets
from pathlib import Path
from typing import Literal

import msgspec

from doppel.errors import UserError
from doppel.i18n import tr
from doppel.system.atomic_file import write_atomically

_Kind = Literal["account", "chat"]


class _Content(msgspec.Struct):
    """The content of the file."""

    salt: str
    accounts: list[str]


class Blocklist:
    """The accounts to leave out of every build, and their chats.

    Args:
        data_dir: folder of the data set; the file is next to it, so that a new data set does not replace it.

    Raises:
        UserError: the file cannot be read.
    """

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir.with_name(f"{data_dir.name}.forgotten.json")
        try:
            content = msgspec.json.decode(self.path.read_bytes(), type=_Content)
        except FileNotFoundError:
            content = _Content(secrets.token_hex(16), [])
        except (OSError, msgspec.MsgspecError) as error:
            raise UserError(
                tr(
                    "{path}: the list of forgotten people cannot be read: {error}. Restore it from a backup, or remove "
                    "it and run `doppel forget` again for each of them",
                    path=self.path,
                    error=error,
                )
            ) from None
        self._salt = content.salt
        self._hashes = set(content.accounts)
        self._cache: dict[tuple[_Kind, str, str], bool] = {}

    def contains(self, platform: str, name: str, kind: _Kind = "account") -> bool:
        """Whether this account, or this chat, is on the list."""
        if not self._hashes:
            return False
        key = (kind, platform, name)
        is_listed = self._cache.get(key)
        if is_listed is None:
            is_listed = self._cache[key] = self._hash(key) in self._hashes
        return is_listed

    def add(self, platform: str, account: str, chats: list[str]) -> None:
        """Adds an account and its direct chats. Call `save` to keep them."""
        self._hashes.add(self._hash(("account", platform, account)))
        self._hashes |= {self._hash(("chat", platform, chat)) for chat in chats}
        self._cache.clear()

    def save(self) -> None:
        """Writes the file atomically. Raises DoppelError."""
        content = msgspec.json.encode(_Content(self._salt, sorted(self._hashes)))
        write_atomically(self.path, msgspec.json.format(content, indent=1))

    def _hash(self, key: tuple[_Kind, str, str]) -> str:
        return hashlib.sha256("\0".join((self._salt, *key)).encode("utf-8", "surrogatepass")).hexdigest()
