"""Who is who among the contacts: several accounts of one person, and the list of everybody in a data set.

`people` in config.yaml joins accounts; whoever is joined has a pseudonym of the person's, not of an account's. The
list stands beside the sessions, so that a person can be found again by name; no name in it reaches the model.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from doppel.config import PersonSettings
from doppel.errors import UserError
from doppel.i18n import tr
from doppel.transcript import pseudonym
from training.archives.message import Message

CONTACTS = "contacts.json"

_JOINED = "person"
"""Stands for the platform in the pseudonym of somebody with accounts on several."""


def joined_pseudonym(name: str) -> str:
    """Of a person in config.yaml, whatever the accounts are."""
    return pseudonym(_JOINED, name.casefold())


class People:
    """Which accounts are one person's.

    Args:
        people: as written in config.yaml; an account may be an id or a name, with its platform before it or not.
    """

    def __init__(self, people: Sequence[PersonSettings]) -> None:
        self._people = {plain(account): person.name for person in people for account in person.accounts}
        self._joined: dict[tuple[str, str], str] = {}
        self._seen: set[tuple[str, str, str]] = set()

    def saw(self, message: Message) -> None:
        """Takes note of an account and the name it goes by."""
        if not self._people:
            return
        key = (message.platform, message.sender, message.sender_name)
        if key in self._seen:
            return
        self._seen.add(key)
        for name in called(*key):
            if (person := self._people.get(name)) is not None:
                self._joined[key[:2]] = joined_pseudonym(person)

    def pseudonym(self, platform: str, account: str) -> str:
        """The made-up name by which the model knows the account's owner."""
        return self._joined.get((platform, account)) or pseudonym(platform, account)


class Contact(msgspec.Struct, kw_only=True):
    """One account of somebody in the data set.

    Attributes:
        platform: where.
        account: its id there.
        name: what it was called last.
        pseudonym: by which the model knows whose it is.
        chats: conversations of two with this account.
    """

    platform: str
    account: str
    name: str
    pseudonym: str
    chats: list[str] = []

    @property
    def is_joined(self) -> bool:
        """Whether the pseudonym is that of a person with several accounts."""
        return self.pseudonym != pseudonym(self.platform, self.account)


class Contacts:
    """Collects everybody whose messages, or conversations with whom, come into the data set."""

    def __init__(self, people: People) -> None:
        self._people = people
        self._contacts: dict[tuple[str, str], Contact] = {}

    def saw(self, platform: str, account: str, name: str, chat: str | None = None) -> None:
        """Takes note of an account; `chat` is a conversation of two with it."""
        contact = self._contacts.get((platform, account))
        if contact is None:
            theirs = self._people.pseudonym(platform, account)
            contact = Contact(platform=platform, account=account, name=name, pseudonym=theirs)
            self._contacts[platform, account] = contact
        contact.name = name or contact.name
        if chat is not None and chat not in contact.chats:
            contact.chats.append(chat)

    def write(self, folder: Path) -> None:
        """Puts the list into a data folder, unless nobody is on it."""
        write_contacts(folder, self._contacts.values())


def write_contacts(folder: Path, contacts: Iterable[Contact]) -> None:
    """Puts a list of contacts into a data folder; none where nobody is on it."""
    listed = sorted(contacts, key=lambda one: (one.platform, one.account))
    path = folder / CONTACTS
    path.unlink(missing_ok=True)
    if listed:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(listed), indent=1))


def read_contacts(folder: Path) -> list[Contact]:
    """Everybody in the data set. Raises UserError when the list is damaged; it is empty where there is none."""
    path = folder / CONTACTS
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Contact])
    except FileNotFoundError:
        return []
    except (OSError, msgspec.MsgspecError) as error:
        raise UserError(
            tr("{path}: cannot be read: {error}; run `doppel build` again", path=path, error=error)
        ) from None


def called(platform: str, account: str, name: str) -> set[str]:
    """Everything that an account can be called, as `plain` writes it."""
    names = {plain(account), plain(name)} - {""}
    return names | {f"{platform}:{one}" for one in names}


def plain(name: str) -> str:
    """A name without case and without the `@` before it; the same with a platform before the name or not."""
    return ":".join(part.strip().removeprefix("@") for part in name.casefold().split(":"))
