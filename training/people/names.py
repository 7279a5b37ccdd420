"""Compares `persona.me` with the names and ids of accounts: exactly first, then without accents."""

import unicodedata
from collections.abc import Iterable
from typing import Literal

from doppel.personal_data import names_of_account, normalized_name

Match = Literal["account", "name"]
"""Whether an account's id is in `persona.me`, or only its name."""

_FIRST_ACCENT, _LAST_ACCENT = "\u0300", "\u036f"


class OwnerNames:
    """`persona.me`.

    Args:
        me: ids or names of accounts, with or without `platform:` before them.
    """

    def __init__(self, me: Iterable[str]) -> None:
        self.as_written = [name for name in me if name.strip()]
        self._names = {normalized_name(name) for name in self.as_written} - {""}
        self._plain_names: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._names)

    def allow_without_accents(self, known: Iterable[tuple[str, str, str]]) -> None:
        """Lets names that no account has match accounts whose names differ by accents only.

        Args:
            known: (platform, account, name) of all accounts.
        """
        missing = set(self._names)
        for account in known:
            missing -= names_of_account(*account)
        self._plain_names = {_without_accents(name) for name in missing}

    def match(self, platform: str, account: str, names: Iterable[str]) -> Match | None:
        """Whether an account with these names is the owner's."""
        if self._has(names_of_account(platform, account, "")):
            return "account"
        if any(self._has(names_of_account(platform, "", name)) for name in names):
            return "name"
        return None

    def _has(self, names: set[str]) -> bool:
        if not self._names.isdisjoint(names):
            return True
        return bool(self._plain_names) and not self._plain_names.isdisjoint(map(_without_accents, names))


def _without_accents(name: str) -> str:
    parts = unicodedata.normalize("NFD", name)
    return unicodedata.normalize("NFC", "".join(part for part in parts if not _FIRST_ACCENT <= part <= _LAST_ACCENT))
