"""Who is meant by a name, over all stores, and stores of packages beside doppel."""

from collections.abc import Iterable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from doppel import personal_data
from doppel.config import Config, parse_config
from doppel.errors import DoppelError, UserError
from doppel.personal_data import (
    Account,
    Erased,
    KnownAccount,
    Person,
    Record,
    find_person,
    installed_stores,
    person_pseudonym,
)
from doppel.transcript import pseudonym


class Fixed:
    """A store that holds data of these accounts."""

    holds_names = False

    def __init__(self, *accounts: KnownAccount) -> None:
        self._accounts = accounts

    def accounts(self) -> Iterable[KnownAccount]:
        return self._accounts

    def erase(self, person: Person) -> Erased:
        return Erased(records=0)

    def export(self, person: Person) -> list[Record]:
        return []


class Named(Fixed):
    """A store by whose names people are found."""

    holds_names = True

    def __init__(self, config: Config) -> None:
        super().__init__()


class Unnamed(Fixed):
    def __init__(self, config: Config) -> None:
        super().__init__()


class Broken(Fixed):
    def __init__(self, config: Config) -> None:
        raise ValueError("no such table")


TELEGRAM, DISCORD = Account("telegram", "7"), Account("discord", "7")
NAMED = Fixed(KnownAccount(account=TELEGRAM, name="Ana B"))
LIVE = Fixed(KnownAccount(account=TELEGRAM), KnownAccount(account=DISCORD))


def config(**content: object) -> Config:
    return parse_config(content, Path("config.yaml"))


@pytest.mark.parametrize("name", ["Ana B", "telegram: ana b", "telegram:7", pseudonym("telegram", "7")])
def test_a_name_of_one_store_is_an_account_in_all(name: str) -> None:
    person = find_person(config(), [LIVE, NAMED], name)
    assert person.accounts == {TELEGRAM}
    assert {"ana b", "7"} <= person.names


def test_an_id_on_two_platforms_is_ambiguous_unless_they_are_one_person() -> None:
    with pytest.raises(UserError, match=r"7: matches 2 contacts\. Choose one: telegram:7 \(Ana B\), discord:7 \("):
        find_person(config(), [NAMED, LIVE], "7")
    people = [{"name": "Ana Maria", "accounts": ["Ana B", "discord:7"]}]
    for name in ("7", "ana maria", "Ana B", "discord:7", person_pseudonym("Ana Maria")):
        assert find_person(config(people=people), [LIVE, NAMED], name).accounts == {TELEGRAM, DISCORD}


def install(monkeypatch: pytest.MonkeyPatch, **stores: str) -> None:
    points = [EntryPoint(name, f"{__name__}:{value}", personal_data.GROUP) for name, value in stores.items()]
    monkeypatch.setattr(personal_data, "entry_points", lambda group: points)


def test_the_store_that_holds_the_names_comes_last(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, a="Named", b="Unnamed", c="Unnamed")
    assert list(installed_stores(config())) == ["b", "c", "a"]


def test_a_store_that_cannot_be_loaded_stops_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, a="Unnamed", b="Broken")
    with pytest.raises(DoppelError, match=r"Broken: this store .* nothing was done: no such table"):
        installed_stores(config())


def test_the_stores_of_this_repository_are_installed() -> None:
    assert list(installed_stores(config())) == ["messages", "quiz-results", "dataset"]
