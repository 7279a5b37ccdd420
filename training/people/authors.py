"""Who writes in an archive."""

from collections.abc import Callable

import msgspec

Account = tuple[str, str]
"""Platform and id of an account."""

AuthorKey = tuple[int, str, str, bool | None]
"""Archive, platform, account, and what the export says about its owner."""

MainAccount = Callable[[int, Account], Account]
"""The account by which a person is known, given an archive and the account in it."""

OwnerFlag = Callable[[int, Account, bool | None], bool | None]
"""Whether an account in an archive is the owner's, given also what the archive says."""


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
        chats: the conversations in which it wrote, and all places where it did while `is_owner` is None.
    """

    source: int
    platform: str
    account: str
    name: str
    is_owner: bool | None
    messages: int = 0
    names: set[str] = msgspec.field(default_factory=set)
    chats: set[str] = msgspec.field(default_factory=set)

    @property
    def key(self) -> Account:
        """Platform and account."""
        return self.platform, self.account


def renamed_authors(
    authors: dict[AuthorKey, Author], main_account: MainAccount, owner_flag: OwnerFlag
) -> dict[AuthorKey, Author]:
    """Authors under the accounts and with the owner that copies of chats have shown."""
    found: dict[AuthorKey, Author] = {}
    for author in authors.values():
        account = author.platform, author.account
        main = main_account(author.source, account)
        if main[0] != author.platform:  # other chats there keep the platform, and with it the account
            found[author.source, *account, author.is_owner] = msgspec.structs.replace(author, messages=0)
        is_owner = owner_flag(author.source, account, author.is_owner)
        renamed = msgspec.structs.replace(
            author, platform=main[0], account=main[1], is_owner=is_owner, names={*author.names, author.account}
        )
        known = found.setdefault((author.source, *main, is_owner), renamed)
        if known is not renamed:
            known.messages += renamed.messages
            known.names |= {renamed.name, *renamed.names}
            known.chats |= renamed.chats
    return found
