"""What every store of personal data has to offer: to list whom it holds data of, to erase a person, to export them.

A store is installed by an entry point in the group `doppel.personal_data` that names a class, which is called with the
configuration. So `doppel forget` and `doppel mydata` reach the stores of training, the bot and plug-ins alike.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from importlib.metadata import entry_points
from typing import Any, ClassVar, Protocol

import msgspec

from doppel.config import Config, PersonSettings
from doppel.errors import DoppelError, UserError
from doppel.i18n import tr
from doppel.transcript import pseudonym

GROUP = "doppel.personal_data"

_PERSON_PLATFORM = "person"
"""Takes the place of the platform in the pseudonym of a person with several accounts."""

_INVISIBLE = dict.fromkeys((*range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x206A), 0xFE0F, 0xFEFF))
"""Direction marks and other characters without width."""

_MAX_NAMED = 5
"""Accounts listed when a name is ambiguous."""


class Account(msgspec.Struct, frozen=True, order=True):
    """An account on a platform, by its id there."""

    platform: str
    id: str

    def __str__(self) -> str:
        return f"{self.platform}:{self.id}"


class KnownAccount(msgspec.Struct, frozen=True, kw_only=True):
    """An account that a store holds data of.

    Attributes:
        account: platform and id.
        name: its display name; empty where the store has none.
        person: pseudonym of the person whose accounts are linked in config.yaml, if it is one of those.
    """

    account: Account
    name: str = ""
    person: str | None = None


class Person(msgspec.Struct, frozen=True, kw_only=True):
    """Whom to erase or export.

    Attributes:
        name: as it was typed.
        accounts: all accounts of the person.
        names: everything that may refer to them, normalized by `normalized_name`.
    """

    name: str
    accounts: frozenset[Account]
    names: frozenset[str]


class Erased(msgspec.Struct, frozen=True, kw_only=True):
    """What a store has removed.

    Attributes:
        records: their number; 0 if it held nothing.
        lines: what the user should read about it.
        details: for programs.
    """

    records: int
    lines: tuple[str, ...] = ()
    details: dict[str, Any] = {}


Record = dict[str, Any]
"""One piece of exported data, as JSON takes it."""


class PersonalData(Protocol):
    """One kind of store; see the module."""

    holds_names: ClassVar[bool]
    """Whether people are found by the names in this store: it is erased last, so that an interrupted `doppel forget`
    can be repeated with the same name.
    """

    def __init__(self, config: Config) -> None: ...

    def accounts(self) -> Iterable[KnownAccount]:
        """Every account that the store holds data of. Raises DoppelError if the store cannot be read."""

    def erase(self, person: Person) -> Erased:
        """Removes what the store holds of the person. Raises DoppelError; then it can be repeated."""

    def export(self, person: Person) -> list[Record]:
        """What the store holds of the person, oldest first. Raises DoppelError if the store cannot be read."""


def installed_stores(config: Config) -> dict[str, PersonalData]:
    """Every installed store by the name of its entry point, in the order in which they are to be erased.

    Raises DoppelError if one cannot be loaded: what it holds would be passed over.
    """
    stores: dict[str, PersonalData] = {}
    for point in sorted(entry_points(group=GROUP)):
        try:
            stores[point.name] = point.load()(config)
        except Exception as error:
            raise DoppelError(
                tr(
                    "{name}: this store of personal data cannot be loaded, so nothing was done: {error}",
                    name=point.value,
                    error=error,
                )
            ) from error
    return dict(sorted(stores.items(), key=lambda item: (item[1].holds_names, item[0])))


def find_person(config: Config, stores: Iterable[PersonalData], name: str) -> Person:
    """The one person whom a name means.

    Args:
        config: names the persons with several accounts (`people`).
        stores: where to look for them.
        name: id or name of an account, with or without `platform:`; a pseudonym; or the name of a person in `people`.

    Raises:
        UserError: the name matches nobody, or several people.
    """
    known = _merged(config.people, (account for store in stores for account in store.accounts()))
    wanted = normalized_name(name)
    persons = {person_pseudonym(person.name) for person in config.people if normalized_name(person.name) == wanted}
    matches = [one for one in known if one.person in persons] or [one for one in known if wanted in _names(one)]
    identities = {one.person or one.account for one in matches}
    if not identities:
        raise UserError(
            tr(
                "{name}: no such contact. Use an id, name or pseudonym listed in {path}, or the id of an account that "
                "has written to the bot",
                name=name,
                path=config.data_dir / "contacts.json",
            )
        )
    if len(identities) > 1:
        named = ", ".join(
            f"{one.account} ({one.name or pseudonym(one.account.platform, one.account.id)})"
            for one in matches[:_MAX_NAMED]
        )
        raise UserError(
            tr(
                "{name}: matches {count} contacts. Choose one: {candidates}",
                name=name,
                count=len(identities),
                candidates=named if len(matches) <= _MAX_NAMED else f"{named}, …",
            )
        )
    person = matches[0].person
    if person is not None:
        matches = [one for one in known if one.person == person]
    return Person(
        name=name,
        accounts=frozenset(one.account for one in matches),
        names=frozenset({wanted}.union(*(names_of_account("", one.account.id, one.name) for one in matches))),
    )


def person_pseudonym(name: str) -> str:
    """The pseudonym of a person named in config.yaml, whatever their accounts are."""
    return pseudonym(_PERSON_PLATFORM, name.casefold())


def names_of_account(platform: str, account: str, name: str) -> set[str]:
    """Everything that may refer to an account: id and name, with and without the platform; normalized."""
    names = {normalized_name(account), normalized_name(name)} - {""}
    return names | {f"{platform}:{name}" for name in names}


def normalized_name(name: str) -> str:
    """A name, with or without `platform:` before it, in the form in which names are compared.

    It is in lower case and Unicode's form NFKC, with single spaces, without direction marks, and without the `@` or `~`
    that apps put before names.
    """
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name.translate(_INVISIBLE)).casefold())
    return ":".join(" ".join(part.strip().lstrip("@~").split()) for part in text.split(":"))


def _merged(people: Sequence[PersonSettings], accounts: Iterable[KnownAccount]) -> list[KnownAccount]:
    """One entry for each account, with the name and the person that any of the stores or config.yaml has for it."""
    person_of = {
        normalized_name(account): person_pseudonym(person.name) for person in people for account in person.accounts
    }
    merged: dict[Account, KnownAccount] = {}
    for one in accounts:
        before = merged.get(one.account, one)
        name = one.name or before.name
        named = names_of_account(one.account.platform, one.account.id, name)
        linked = next((person_of[alias] for alias in sorted(named) if alias in person_of), None)
        merged[one.account] = KnownAccount(account=one.account, name=name, person=one.person or before.person or linked)
    return list(merged.values())


def _names(one: KnownAccount) -> set[str]:
    """Everything that may refer to an account, also the pseudonyms that the model has for it."""
    platform, account = one.account.platform, one.account.id
    pseudonyms = {pseudonym(platform, account).casefold()} | ({one.person.casefold()} if one.person else set())
    return names_of_account(platform, account, one.name) | pseudonyms
