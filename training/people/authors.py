"""Who writes in an archive."""

import msgspec

Account = tuple[str, str]
"""Platform and id of an account."""

AuthorKey = tuple[int, str, str, bool | None]
"""Archive, platform, account, and what the export says about its owner."""


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
