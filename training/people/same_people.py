"""Accounts that turn out to be one person's because two exports of a chat call the person differently.

A contact is renamed, a second phone knows somebody by another name, an exporter writes names where another one writes
ids. All of them get one account id. Two accounts that occur beside each other in a chat are never taken for one.
"""

import re
from collections.abc import Callable, Hashable, Iterable

import msgspec

Account = tuple[str, str]
"""Platform and id."""

_PLACEHOLDERS = frozenset(("me", "you", "owner", "我", "회원님", "?", "unknown"))
"""What exporters write instead of a name."""
_NUMBER = re.compile(r"\+?[\d\s()./\-\u2010-\u2015\u2066-\u2069\u202a-\u202c]{6,}")


class _Person(msgspec.Struct):
    """What is known of an account: where it occurs, and since when."""

    places: set[Hashable]
    since: float


class SamePeople:
    """Groups accounts by person.

    Args:
        is_service_account: whether an account is an id of the service's, which is better than a name.
    """

    def __init__(self, is_service_account: Callable[[Account], bool]) -> None:
        self._is_service_account = is_service_account
        self._people: dict[Account, _Person] = {}
        self._same: dict[Account, Account] = {}
        self._accounts: dict[Account, list[Account]] = {}

    def add(self, account: Account, place: Hashable, since: float) -> None:
        """Records that an account occurs in a place, a copy of a chat, whose first message is of this time."""
        person = self._people.get(account)
        if person is None:
            self._people[account] = _Person({place}, since)
            return
        person.places.add(place)
        person.since = min(person.since, since)

    def join(self, accounts: Iterable[Account]) -> None:
        """Takes accounts for one person's, except where two of them occur in one place."""
        first, *others = dict.fromkeys(map(self._root, accounts))
        for other in others:
            if self._people[first].places.isdisjoint(self._people[other].places):
                self._people[first].places |= self._people[other].places
                self._accounts[first] = [*self.all_of(first), *self.all_of(other)]
                self._same[other] = first
                self._accounts.pop(other, None)

    def all_of(self, account: Account) -> list[Account]:
        """All accounts of the person whose account this is."""
        root = self._root(account)
        return self._accounts.get(root, [root])

    def main_account(self, account: Account) -> Account:
        """The account by which the person is known: an id rather than a name, a name rather than a number; then the
        one of the oldest messages, so that it stays when archives are added.
        """
        accounts = self.all_of(account)
        return account if len(accounts) == 1 else self.best(accounts)

    def best(self, accounts: Iterable[Account]) -> Account:
        """The one of several accounts to call a person by; see `main_account`."""

        def rank(account: Account) -> tuple[bool, bool, bool, float, Account]:
            name = account[1]
            return (
                not self._is_service_account(account),
                name.casefold() in _PLACEHOLDERS,
                _NUMBER.fullmatch(name) is not None,
                self._people[account].since,
                account,
            )

        return min(accounts, key=rank)

    def renamed(self) -> dict[Account, Account]:
        """The main account of every account that is not one."""
        groups = self._accounts.items()
        mains = {account: self.main_account(root) for root, accounts in groups for account in accounts}
        return {account: main for account, main in mains.items() if account != main}

    def _root(self, account: Account) -> Account:
        while (parent := self._same.get(account)) is not None:
            account = parent
        return account
