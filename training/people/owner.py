"""Determines which accounts are the owner's: from `persona.me`, from the exports, or by asking the user.

`persona.me` comes first. An archive of somebody else's marks that person as its owner, and the file of a private chat
is named after whoever its exporter talks to: where `persona.me` says otherwise, these claims are void.
"""

from collections import Counter
from collections.abc import Iterable

import msgspec

from doppel.i18n import tr
from training.archives.message import EXPORTER_NAMES, Mark, Message
from training.people.authors import Account, Author, AuthorKey, MainAccount, OwnerFlag, renamed_authors
from training.people.names import OwnerNames
from training.people.owner_question import unknown_owner

_MAX_NOTED = 3
"""Accounts named in a note."""


class OwnerAccounts:
    """Collects the authors of all messages, then determines which accounts are the owner's.

    Args:
        me: `persona.me`: ids or names of accounts, with or without `platform:` before them.
    """

    def __init__(self, me: Iterable[str]) -> None:
        self._me = OwnerNames(me)
        self._authors: dict[AuthorKey, Author] = {}
        self._notices: dict[AuthorKey, Author] = {}
        """The same for what apps wrote in somebody's name, or in that of a group: no sign of a person."""
        self._direct_chats: dict[tuple[int, str, str], set[tuple[str, bool | None]]] = {}
        """(account, is_owner) of everybody in a direct chat, by (source, platform, chat)."""
        self._mine: set[AuthorKey] = set()
        self._mine_anywhere: set[tuple[str, str, bool | None]] = set()
        self.accounts: set[Account] = set()
        """(platform, account) of the owner; filled by `resolve`."""
        self.absent: dict[str, list[str]] = {}
        """Archives without any message of the owner's, and the names of the people in them; filled by `resolve`."""
        self._ambiguous_chats: set[tuple[str, str]] = set()
        self.foreign: set[int] = set()
        """Archives that somebody else exported; filled by `resolve`."""
        self.notes: list[str] = []
        """What the user should know about how the owner was found, in one line each; filled by `resolve`."""

    def add(self, source: int, message: Message) -> None:
        """Counts a message for its author."""
        self.author_of(source, message).messages += 1

    def author_of(self, source: int, message: Message) -> Author:
        """Records the author of a message without counting the message.

        Messages of the same archive, chat, sender, name, kind, mark and `is_owner` always have the same author.
        """
        key = (source, message.platform, message.sender, message.is_owner)
        is_notice = message.mark == Mark.SERVICE
        authors = self._notices if is_notice else self._authors
        author = authors.get(key)
        if author is None:
            author = Author(source, message.platform, message.sender, message.sender_name, message.is_owner)
            authors[key] = author
        elif message.sender_name != author.name:
            author.names.add(message.sender_name)
        if message.is_owner is None or message.kind in ("dm", "group"):
            author.chats.add(message.chat)
        if message.kind == "dm" and not is_notice:
            self._direct_chats.setdefault((source, message.platform, message.chat), set()).add(key[2:])
        return author

    def resolve(self, sources: list[str], foreign: Iterable[int] = ()) -> None:
        """Determines the owner's accounts.

        If `persona.me` matches an account on a platform, other archives of that platform may lack the owner, such as
        message requests that were never answered. They are listed in `absent`.

        Args:
            sources: names of the archives, by number.
            foreign: archives that are known to be somebody else's.

        Raises:
            UnknownOwner: the owner of an archive is unknown; the message names the first such archive.
        """
        self.foreign.update(foreign)
        by_source: dict[int, list[Author]] = {}
        for author in self._authors.values():
            by_source.setdefault(author.source, []).append(author)
        named = self._named(by_source, sources)
        platforms = {author.platform for author in named}
        self.accounts = {author.key for author in named}
        self._find_foreign(by_source, named, sources)
        if self.foreign:
            self._find_ambiguous_chats()
        self.accounts |= {
            author.key
            for author in self._authors.values()
            if author.is_owner and author.source not in self.foreign and not _is_anonymous(author)
        }
        if not self._me or named:
            self._guess_by_contacts(platforms, sources)
        self._mark_mine(by_source, named)
        self._require_all(by_source, platforms, sources)

    def is_named(self, platform: str, account: str, names: Iterable[str]) -> bool:
        """Whether `persona.me` names an account, by its id or one of its names."""
        return bool(self._me) and bool(self._me.match(platform, account, tuple(names)))

    def rename(
        self,
        main_account: MainAccount,
        owner_flag: OwnerFlag,
    ) -> None:
        """Applies what was learned from copies of chats; to be called before `resolve`.

        Args:
            main_account: the account by which a person is known, given an archive and the account in it.
            owner_flag: whether that is the owner's, given also what the archive says.
        """
        self._authors = renamed_authors(self._authors, main_account, owner_flag)
        self._notices = renamed_authors(self._notices, main_account, owner_flag)
        for (source, platform, chat), people in self._direct_chats.items():
            self._direct_chats[source, platform, chat] = {
                (main_account(source, (platform, account))[1], owner_flag(source, (platform, account), is_owner))
                for account, is_owner in people
            }

    def is_author(self, author: Author) -> bool:
        """Whether this author is the owner."""
        return self.is_mine(author.platform, author.account, author.is_owner, author.source)

    def is_mine(self, platform: str, account: str, is_owner: bool | None, source: int | None = None) -> bool:
        """Whether messages of this account are the owner's.

        Args:
            platform: the account's platform.
            account: its id there.
            is_owner: what the export says.
            source: number of the archive; None for any.
        """
        if source is None:
            return (platform, account, is_owner) in self._mine_anywhere
        return (source, platform, account, is_owner) in self._mine

    def is_in_chat(self, sources: Iterable[int], platform: str, account: str) -> bool:
        """Whether an account in a chat of these archives is the owner's."""
        return any(
            (source, platform, account, is_owner) in self._mine
            for source in sources
            for is_owner in (True, None, False)
        )

    def adopted(self, source: int, message: Message) -> Message:
        """A message of somebody else's archive with the sender and the chat that it has beside the owner's archives.

        Some exports write the same word for their exporter, whoever that is. In some a private chat has the id of the
        other person, so that its id means another chat in every archive.
        """
        if source not in self.foreign:
            return message
        sender, chat = self._known_as(source, message.sender), message.chat
        if (message.platform, chat) in self._ambiguous_chats:
            chat = f"{chat} (archive {source + 1})"
        return msgspec.structs.replace(message, sender=sender, chat=chat)

    def _known_as(self, source: int, account: str) -> str:
        is_other = source in self.foreign and account in EXPORTER_NAMES
        return f"{account} (archive {source + 1})" if is_other else account

    def _find_ambiguous_chats(self) -> None:
        """Finds ids of direct chats between different people."""
        people_of: dict[tuple[str, str], set[str]] = {}
        for (source, platform, chat), people in self._direct_chats.items():
            accounts = {self._known_as(source, account) for account, _ in people}
            if people_of.setdefault((platform, chat), accounts) != accounts:
                self._ambiguous_chats.add((platform, chat))

    @property
    def messages(self) -> int:
        """How many messages of the owner's were read."""
        return sum(author.messages for author in self._all_authors() if self.is_author(author))

    @property
    def names(self) -> list[str]:
        """The owner's accounts as shown to the user, those with most messages first."""
        counts: Counter[str] = Counter()
        for author in self._all_authors():
            if self.is_author(author):
                counts[f"{author.platform}: {author.name or author.account}"] += author.messages
        return [name for name, _ in counts.most_common()]

    def _all_authors(self) -> Iterable[Author]:
        yield from self._authors.values()
        yield from self._notices.values()

    def _named(self, by_source: dict[int, list[Author]], sources: list[str]) -> list[Author]:
        """The authors that `persona.me` names, without people who only share the owner's name."""
        if not self._me:
            return []
        self._me.allow_without_accents(
            (author.platform, author.account, name)
            for author in self._authors.values()
            for name in (author.name, *author.names)
        )
        named: list[Author] = []
        all_matches: list[Author] = []
        for _, authors in sorted(by_source.items()):
            matches = [
                (author, match)
                for author in authors
                if (match := self._me.match(author.platform, author.account, (author.name, *author.names)))
            ]
            is_own = any(author.is_owner for author, _ in matches)
            namesakes = [
                author
                for author, match in matches
                if author.is_owner is False and match == "name" and (is_own or not _is_everywhere(author, authors))
            ]
            found = [author for author, _ in matches if author not in namesakes]
            rivals = [author for author, match in matches if match == "name" and author.is_owner is None]
            others = [author for author in rivals if any(_precedes(rival, author) for rival in rivals)]
            found = [author for author in found if author not in others]
            named += found
            all_matches += [author for author, _ in matches]
        self._note_namesakes(all_matches, {author.key for author in named}, sources)
        return named

    def _note_namesakes(self, matches: list[Author], found: set[Account], sources: list[str]) -> None:
        """Notes that several accounts have the owner's name."""
        by_name: dict[tuple[str, str], list[Author]] = {}
        for author in matches:
            by_name.setdefault((author.platform, author.name), []).append(author)
        for (_, name), authors in by_name.items():
            mine = sorted({":".join(author.key) for author in authors if author.key in found})
            others = sorted({":".join(author.key) for author in authors} - set(mine))
            source, shown = sources[authors[0].source], " ".join(name.split())
            if others:
                self.notes.append(
                    tr(
                        "{source}: somebody else is called {name}, too: {accounts}. If that is you, add the id to "
                        "`persona.me`",
                        source=source,
                        name=shown,
                        accounts=", ".join(others[:_MAX_NOTED]),
                    )
                )
            if len(mine) > 1:
                self.notes.append(
                    tr(
                        "{source}: {count} accounts are called {name} and are taken for you: {accounts}. If one is "
                        "not, name yours in `persona.me` by the id",
                        source=source,
                        count=len(mine),
                        name=shown,
                        accounts=", ".join(mine[:_MAX_NOTED]),
                    )
                )

    def _find_foreign(self, by_source: dict[int, list[Author]], named: list[Author], sources: list[str]) -> None:
        """Finds archives whose exporter is not the owner, although the owner is in them."""
        keys = {author.key for author in named if not _is_anonymous(author)}
        named_in = {(author.source, *author.key) for author in named}
        for source, authors in sorted(by_source.items()):
            exporters = [author for author in authors if author.is_owner]
            known = [author for author in authors if author.key in keys or (source, *author.key) in named_in]
            if source in self.foreign or not exporters or any(author.is_owner for author in known):
                continue
            if any(author.is_owner is False for author in known):
                self.foreign.add(source)
                self.notes.append(_foreign_note(sources[source], exporters[0]))

    def _guess_by_contacts(self, platforms: set[str], sources: list[str]) -> None:
        """Takes the other side of direct chats with known contacts for the owner.

        A file is named after whoever its exporter talks to, but a friend's file is named after the owner: of people
        who are both in some file, whoever is the exporter of most files is the owner.

        Args:
            platforms: where `persona.me` names an account; nothing is guessed there.
            sources: names of the archives.
        """
        exported = Counter[Account]()
        guesses: list[tuple[int, Account, Account]] = []
        for (source, platform, _), people in self._direct_chats.items():
            unknown = [account for account, is_owner in people if is_owner is None]
            contacts = [account for account, is_owner in people if is_owner is False]
            if platform in platforms or source in self.foreign or len(unknown) != 1 or len(contacts) != 1:
                continue
            guess, contact = (platform, unknown[0]), (platform, contacts[0])
            exported[guess] += 1
            guesses.append((source, guess, contact))
        rivals: dict[Account, set[Account]] = {}
        for _, guess, contact in guesses:
            if contact in exported:
                rivals.setdefault(guess, set()).add(contact)
                rivals.setdefault(contact, set()).add(guess)
        known = set(self.accounts)
        for source, guess, contact in guesses:
            is_outnumbered = any(exported[rival] >= exported[guess] for rival in rivals.get(guess, ()))
            if guess in self.accounts or contact in known or is_outnumbered:
                continue
            self.accounts.add(guess)
            if self._me:
                self.notes.append(
                    tr(
                        "{source}: {name} is taken for you, because the chat is with {contact}. If that is wrong, "
                        "correct `persona.me`",
                        source=sources[source],
                        name=guess[1],
                        contact=contact[1],
                    )
                )

    def _mark_mine(self, by_source: dict[int, list[Author]], named: list[Author]) -> None:
        """Decides for every author of every archive."""
        named_in = {(author.source, *author.key) for author in named}
        direct = {
            (source, platform, account)
            for (source, platform, _), people in self._direct_chats.items()
            for account, _ in people
        }
        marked = {source for source, authors in by_source.items() if any(author.is_owner for author in authors)}
        for author in self._all_authors():
            is_known = author.key in self.accounts
            if (author.source, *author.key) in named_in:
                is_mine = True
            elif author.source in self.foreign:
                is_mine = is_known and not _is_anonymous(author)
            elif author.is_owner is None:
                is_mine = is_known
            elif author.is_owner is False:  # the title of a file says so
                is_mine = is_known and author.source not in marked and (author.source, *author.key) in direct
            else:
                is_mine = True
            if is_mine:
                self._mine.add((author.source, *author.key, author.is_owner))
                self._mine_anywhere.add((*author.key, author.is_owner))
                self.accounts.add(author.key)

    def _require_all(self, by_source: dict[int, list[Author]], platforms: set[str], sources: list[str]) -> None:
        """Lists the archives without the owner in `absent`. Raises UnknownOwner for those that must be answered for."""
        unresolved: list[tuple[str, list[Author]]] = []
        for number, source in enumerate(sources):
            in_source = by_source.get(number, [])
            unknown = [author for author in in_source if author.is_owner is None]
            # An archive that marks its owner may hold none of their messages; that is no reason to ask.
            if not unknown or any(self.is_author(author) for author in in_source):
                continue
            if all(author.platform in platforms for author in unknown):
                self.absent[source] = sorted({author.name or author.account for author in unknown})
            else:
                unresolved.append((source, unknown))
        if unresolved:
            raise unknown_owner(unresolved, self._me.as_written)


def _is_anonymous(author: Author) -> bool:
    """Whether the export has a word for its owner instead of an account."""
    return author.account in EXPORTER_NAMES


def _is_everywhere(author: Author, authors: list[Author]) -> bool:
    """Whether somebody is in at least half of an archive's chats, as the owner is in what a friend exported."""
    chats = set[str]().union(*(other.chats for other in authors))
    return len(author.chats) * 2 >= len(chats)


def _precedes(rival: Author, author: Author) -> bool:
    """Whether another account of the same name, which writes to this one, is at least as likely to be the owner's."""
    return (
        rival.account != author.account
        and rival.platform == author.platform
        and not rival.chats.isdisjoint(author.chats)
        and len(rival.chats) >= len(author.chats)
    )


def _foreign_note(source: str, exporter: Author) -> str:
    """Tells the user that an archive is somebody else's."""
    if _is_anonymous(exporter):
        return tr(
            "{source}: exported by somebody else, as `persona.me` names another person in it. Only what you wrote in "
            "it is learned. If that is wrong, correct `persona.me`",
            source=source,
        )
    return tr(
        "{source}: exported by {name}, who is not you according to `persona.me`. Only what you wrote in it is learned. "
        "If {name} is you, add that name",
        source=source,
        name=" ".join((exporter.name or exporter.account).split()),
    )
