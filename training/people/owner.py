"""Determines which accounts are the owner's: from the exports, from `persona.me`, or by asking the user."""

import re
from collections import Counter
from collections.abc import Callable, Iterable

import msgspec

from doppel.errors import UserError
from doppel.i18n import tr
from doppel.personal_data import names_of_account, normalized_name
from training.archives.message import Mark, Message

_MAX_NAMED = 5
_PLAIN = re.compile(r"\w[\w .\-]*")
"""Names that need no escaping in a quoted YAML string."""


class Author(msgspec.Struct):
    """One account in one archive.

    Attributes:
        source: number of the archive.
        platform: the account's platform.
        account: its id there.
        name: its first name seen.
        is_owner: what the export says; None if it says nothing.
        messages: number of messages.
        names: other names it went by.
        chats: where it wrote; only recorded while `is_owner` is None.
    """

    source: int
    platform: str
    account: str
    name: str
    is_owner: bool | None
    messages: int = 0
    names: set[str] = msgspec.field(default_factory=set)
    chats: set[str] = msgspec.field(default_factory=set)


class OwnerCandidate(msgspec.Struct, kw_only=True):
    """An account that may be the owner's, summed over all archives whose owner is unknown."""

    platform: str
    account: str
    name: str
    messages: int = 0
    chats: int = 0


class UnknownOwner(UserError):
    """It is not known which account is the owner's. `candidates`: the possible ones, the likeliest first."""

    def __init__(self, text: str, candidates: list[OwnerCandidate]) -> None:
        super().__init__(text)
        self.candidates = candidates


class OwnerAccounts:
    """Collects the authors of all messages, then determines which accounts are the owner's.

    Args:
        me: `persona.me`: ids or names of accounts, with or without `platform:` before them.
    """

    def __init__(self, me: Iterable[str]) -> None:
        self._me = {normalized_name(name) for name in me}
        self._authors: dict[tuple[int, str, str, bool | None], Author] = {}
        self._direct_chats: dict[tuple[int, str, str], set[tuple[str, bool | None]]] = {}
        """(account, is_owner) of everybody in a direct chat, by (source, platform, chat)."""
        self.accounts: set[tuple[str, str]] = set()
        """(platform, account) of the owner; filled by `resolve`."""
        self.absent: dict[str, list[str]] = {}
        """Archives without any message of the owner's, and the names of the people in them; filled by `resolve`."""

    def add(self, source: int, message: Message) -> None:
        """Counts a message for its author."""
        self.author_of(source, message).messages += 1

    def author_of(self, source: int, message: Message) -> Author:
        """Records the author of a message without counting the message.

        Messages of the same archive, chat, sender, name, kind and mark always have the same author.
        """
        key = (source, message.platform, message.sender, message.is_owner)
        author = self._authors.get(key)
        if author is None:
            author = Author(source, message.platform, message.sender, message.sender_name, message.is_owner)
            self._authors[key] = author
        elif message.sender_name != author.name:
            author.names.add(message.sender_name)
        if message.is_owner is None:
            author.chats.add(message.chat)
        if message.kind == "dm" and message.mark != Mark.SERVICE:
            self._direct_chats.setdefault((source, message.platform, message.chat), set()).add(key[2:])
        return author

    def resolve(self, sources: list[str]) -> None:
        """Determines the owner's accounts.

        If `persona.me` matches an account on a platform, other archives of that platform may lack the owner, such as
        message requests that were never answered. They are listed in `absent`.

        Args:
            sources: names of the archives, by number.

        Raises:
            UnknownOwner: the owner of an archive is unknown; the message names the first such archive.
        """
        authors = self._authors.values()
        self.accounts = {(author.platform, author.account) for author in authors if author.is_owner is True}
        unmarked = [author for author in authors if author.is_owner is None]
        named = {(author.platform, author.account) for author in unmarked if self._is_me(author)}
        self.accounts |= named
        self.accounts |= set(self._other_side_of_contacts())
        unresolved: list[tuple[str, list[Author]]] = []
        platforms = {platform for platform, _ in named}
        by_source: dict[int, list[Author]] = {}
        for author in authors:
            by_source.setdefault(author.source, []).append(author)
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
        if not unresolved:
            return
        source, first_authors = unresolved[0]
        candidates = _candidates([author for _, unknown in unresolved for author in unknown])
        in_first = {(author.platform, author.account) for author in first_authors}
        likely = [candidate for candidate in candidates if (candidate.platform, candidate.account) in in_first]
        raise UnknownOwner(self._question(source, likely), candidates)

    def is_named(self, platform: str, account: str, names: Iterable[str]) -> bool:
        """Whether `persona.me` names an account, by its id or one of its names."""
        return any(not self._me.isdisjoint(names_of_account(platform, account, name)) for name in names)

    def rename(
        self,
        main_account: Callable[[int, tuple[str, str]], tuple[str, str]],
        owner_flag: Callable[[int, tuple[str, str], bool | None], bool | None],
    ) -> None:
        """Applies what was learned from copies of chats; to be called before `resolve`.

        Args:
            main_account: the account by which a person is known, given an archive and the account in it.
            owner_flag: whether that is the owner's, given also what the archive says.
        """
        authors, self._authors = self._authors, {}
        for author in authors.values():
            account = author.platform, author.account
            main = main_account(author.source, account)
            if main[0] != author.platform:  # other chats there keep the platform, and with it the account
                self._authors[author.source, *account, author.is_owner] = msgspec.structs.replace(author, messages=0)
            is_owner = owner_flag(author.source, account, author.is_owner)
            renamed = msgspec.structs.replace(
                author, platform=main[0], account=main[1], is_owner=is_owner, names={*author.names, author.account}
            )
            known = self._authors.setdefault((author.source, *main, is_owner), renamed)
            if known is not renamed:
                known.messages += renamed.messages
                known.names |= {renamed.name, *renamed.names}
                known.chats |= renamed.chats
        for (source, platform, chat), people in self._direct_chats.items():
            self._direct_chats[source, platform, chat] = {
                (main_account(source, (platform, account))[1], owner_flag(source, (platform, account), is_owner))
                for account, is_owner in people
            }

    def is_author(self, author: Author) -> bool:
        """Whether this author is the owner."""
        return self.is_mine(author.platform, author.account, author.is_owner)

    def is_mine(self, platform: str, account: str, is_owner: bool | None) -> bool:
        """Whether messages of this account are the owner's; `is_owner` is what the export says."""
        return (platform, account) in self.accounts if is_owner is None else is_owner

    @property
    def messages(self) -> int:
        """How many messages of the owner's were read."""
        return sum(author.messages for author in self._authors.values() if self.is_author(author))

    @property
    def names(self) -> list[str]:
        """The owner's accounts as shown to the user, those with most messages first."""
        counts: Counter[str] = Counter()
        for author in self._authors.values():
            if self.is_author(author):
                counts[f"{author.platform}: {author.name or author.account}"] += author.messages
        return [name for name, _ in counts.most_common()]

    def _is_me(self, author: Author) -> bool:
        return self.is_named(author.platform, author.account, (author.name, *author.names))

    def _other_side_of_contacts(self) -> Iterable[tuple[str, str]]:
        """Accounts in a direct chat with a known contact: they must be the owner's."""
        for (_, platform, _), people in self._direct_chats.items():
            unknown = [account for account, is_owner in people if is_owner is None]
            if len(people) == 2 and len(unknown) == 1 and any(is_owner is False for _, is_owner in people):
                yield platform, unknown[0]

    def _question(self, source: str, likely: list[OwnerCandidate]) -> str:
        candidates = ", ".join(
            tr(
                "{name} ({account}, {count} messages)",
                name=" ".join(candidate.name.split()) or "?",
                account=candidate.account,
                count=f"{candidate.messages:,}",
            )
            for candidate in likely[:_MAX_NAMED]
        )
        first = likely[0]
        names = [normalized_name(candidate.name) for candidate in likely]
        is_unique = _PLAIN.fullmatch(first.name) and names.count(normalized_name(first.name)) == 1
        example = first.name if is_unique else first.account
        if self._me:
            return tr(
                "{source}: has no messages from {me}. Set `persona.me` in config.yaml to one of these people, for "
                'example `persona: {{me: ["{example}"]}}`: {candidates}',
                source=source,
                me=", ".join(sorted(self._me)),
                example=example,
                candidates=candidates,
            )
        return tr(
            "{source}: does not say which messages are yours. Set `persona.me` in config.yaml to one of these people, "
            'for example `persona: {{me: ["{example}"]}}`: {candidates}',
            source=source,
            example=example,
            candidates=candidates,
        )


def _candidates(authors: list[Author]) -> list[OwnerCandidate]:
    """Authors in the most chats first, as the owner writes in all of theirs; then by messages."""
    candidates: dict[tuple[str, str], OwnerCandidate] = {}
    chats: dict[tuple[str, str], set[tuple[int, str]]] = {}
    for author in authors:
        key = (author.platform, author.account)
        candidate = candidates.setdefault(
            key, OwnerCandidate(platform=author.platform, account=author.account, name=author.name)
        )
        candidate.messages += author.messages
        chats.setdefault(key, set()).update((author.source, chat) for chat in author.chats)
    for key, candidate in candidates.items():
        candidate.chats = len(chats[key])
    return sorted(candidates.values(), key=lambda one: (-one.chats, -one.messages, one.platform, one.account))
