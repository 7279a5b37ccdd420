"""The contacts: accounts that belong to one person, and the list of everybody in a data set (contacts.json).

`people` in config.yaml links several accounts to one person, who then has one pseudonym. The list is stored next to
the sessions so that a person can be found by name; no real name in it reaches the model.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from doppel.config import PersonSettings
from doppel.errors import UserError
from doppel.i18n import tr
from doppel.personal_data import names_of_account, normalized_name, person_pseudonym
from doppel.transcript import pseudonym
from training.archives.message import Message

CONTACTS_FILE = "contacts.json"


class LinkedAccounts:
    """Maps accounts to pseudonyms, with one pseudonym for all accounts of a person in config.yaml.

    Args:
        people: `people` in config.yaml. An account may be given by id or name, with or without its platform.
    """

    def __init__(self, people: Sequence[PersonSettings]) -> None:
        self._person_of = {normalized_name(account): person.name for person in people for account in person.accounts}
        self._pseudonyms: dict[tuple[str, str], str] = {}
        self._seen: set[tuple[str, str, str]] = set()

    def add(self, message: Message) -> None:
        """Records the message's sender and the name it goes by."""
        if not self._person_of:
            return
        key = (message.platform, message.sender, message.sender_name)
        if key in self._seen:
            return
        self._seen.add(key)
        for name in names_of_account(*key):
            if (person := self._person_of.get(name)) is not None:
                self._pseudonyms[key[:2]] = person_pseudonym(person)

    def link(self, account: tuple[str, str], main: tuple[str, str]) -> None:
        """Gives an account, of which archives showed that it is the same person's as another one, that one's name.

        If config.yaml names only one of them, its person has both.
        """
        if main not in self._pseudonyms and account in self._pseudonyms:
            self._pseudonyms[main] = self._pseudonyms[account]
        self._pseudonyms[account] = self.pseudonym(*main)

    def pseudonym(self, platform: str, account: str) -> str:
        """The made-up name by which the model knows the account's user."""
        return self._pseudonyms.get((platform, account)) or pseudonym(platform, account)


class Contact(msgspec.Struct, kw_only=True):
    """One account of somebody in the data set.

    Attributes:
        platform: the account's platform.
        account: its id there.
        name: its latest name.
        pseudonym: the name by which the model knows its user.
        chats: ids of the direct chats with this account.
        other_accounts: what other archives call the same person, who has this account after they were joined.
    """

    platform: str
    account: str
    name: str
    pseudonym: str
    chats: list[str] = []
    other_accounts: list[str] = []

    @property
    def is_linked(self) -> bool:
        """Whether the pseudonym is that of a person with several accounts."""
        return self.pseudonym != pseudonym(self.platform, self.account)


class ContactList:
    """Collects everybody who wrote, or has a direct chat, in the data set."""

    def __init__(self, accounts: LinkedAccounts) -> None:
        self._accounts = accounts
        self._other_accounts: Callable[[tuple[str, str]], list[tuple[str, str]]] = lambda account: []
        self._contacts: dict[tuple[str, str], Contact] = {}

    def use_other_accounts(self, other_accounts: Callable[[tuple[str, str]], list[tuple[str, str]]]) -> None:
        """Sets how to find what archives also call a person; to be called before `add`."""
        self._other_accounts = other_accounts

    def add(self, platform: str, account: str, name: str, chat: str | None = None) -> None:
        """Records an account; `chat` is a direct chat with it."""
        contact = self._contacts.get((platform, account))
        if contact is None:
            contact = Contact(
                platform=platform,
                account=account,
                name=name,
                pseudonym=self._accounts.pseudonym(platform, account),
                other_accounts=sorted(other for _, other in self._other_accounts((platform, account))),
            )
            self._contacts[platform, account] = contact
        contact.name = name or contact.name
        if chat is not None and chat not in contact.chats:
            contact.chats.append(chat)

    def write(self, folder: Path) -> None:
        """Writes contacts.json into a data folder; no file if the list is empty."""
        write_contacts(folder, self._contacts.values())


def write_contacts(folder: Path, contacts: Iterable[Contact]) -> None:
    """Writes contacts.json into a data folder; no file if there are no contacts."""
    ordered = sorted(contacts, key=lambda contact: (contact.platform, contact.account))
    path = folder / CONTACTS_FILE
    path.unlink(missing_ok=True)
    if ordered:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(ordered), indent=1))


def read_contacts(folder: Path) -> list[Contact]:
    """Everybody in the data set; empty if there is no list. Raises UserError if it is damaged."""
    path = folder / CONTACTS_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Contact])
    except FileNotFoundError:
        return []
    except (OSError, msgspec.MsgspecError) as error:
        raise UserError(
            tr("{path}: cannot be read: {error}; run `doppel build` again", path=path, error=error)
        ) from None
