"""What chats and people are called after the copies of each conversation that several archives have were joined."""

from collections.abc import Callable, Iterable

import msgspec
import numpy as np
from numpy.typing import NDArray

from training.archives.message import Kind, Message
from training.dataset.timeline import Account

IsMine = Callable[[str, str, bool | None], bool]
"""Whether a writer is the owner, given platform, account and what the export says."""


class ChatCorrection(msgspec.Struct, frozen=True):
    """Gives the messages of one archive in a chat their new chat and writers.

    Attributes:
        chat: platform and id of the chat; None leaves them.
        kind: of the chat; None leaves it.
        accounts: the new account of each writer.
        owners: whether a writer is the owner, where it is not what the archive says.
    """

    chat: tuple[str, str] | None
    kind: Kind | None
    accounts: dict[Account, Account]
    owners: dict[Account, bool | None] = {}

    def __call__(self, message: Message) -> Message:
        account = message.platform, message.sender
        platform, chat = self.chat or (message.platform, message.chat)
        return msgspec.structs.replace(
            message,
            platform=platform,
            chat=chat,
            kind=self.kind or message.kind,
            sender=self.accounts.get(account, account)[1],
            is_owner=self.owners.get(account, message.is_owner),
        )


class JoinedChat(msgspec.Struct, frozen=True, kw_only=True):
    """One conversation that several archives have.

    Attributes:
        platform: its platform.
        chat: its id.
        names: what the archives call it.
        archives: the archives.
        copies: messages left out because another archive has them, too.
        shifts: hours by which the times in an archive were ahead, by archive, where they were.
    """

    platform: str
    chat: str
    names: list[str]
    archives: list[str]
    copies: int
    shifts: dict[str, float] = {}


class JoinedChats:
    """What was joined: the new names of chats and accounts. Without any, everything is called as it is stored."""

    def __init__(self) -> None:
        self.chats: list[JoinedChat] = []
        """Those of which messages were left out, or that have several names."""
        self.left_out: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        """Hashes of the messages that were left out and whose copies are called differently."""
        self.renamed: dict[Account, Account] = {}
        """The account of a person by every other account of theirs."""
        self._chats: dict[tuple[int, str, str], tuple[str, str]] = {}
        self._stored: dict[tuple[int, str, str], tuple[str, str]] = {}
        self._local: dict[tuple[int, Account], Account] = {}
        self._owners: dict[tuple[int, Account], bool | None] = {}
        self._other_chats: dict[tuple[str, str], dict[str, None]] = {}
        self._other_accounts: dict[Account, dict[Account, None]] = {}
        self._mains: dict[Account, set[Account]] = {}
        self._flags: dict[Account, set[bool | None]] = {}

    def add_account(self, account: Account, main: Account, source: int | None = None) -> None:
        """Records that an account, if a source is given only there, is another one's person."""
        if source is None:
            self.renamed[account] = main
        else:
            self._local[source, account] = main
        self._other_accounts.setdefault(main, {})[account] = None
        self._mains.setdefault(account, set()).add(main)

    def add_owner(self, source: int, account: Account, is_owner: bool | None) -> None:
        """Records whether an account, as an archive calls it, is the owner's."""
        self._owners[source, account] = is_owner
        self._flags.setdefault(account, set()).add(is_owner)

    def add_chat(self, source: int, stored: tuple[str, str], chat: tuple[str, str]) -> None:
        """Records what a chat, as an archive calls it, is called now."""
        if stored != chat:
            self._chats[source, *stored] = chat
            self._stored[source, *chat] = stored
            self._other_chats.setdefault(chat, {})[stored[1]] = None

    def chat(self, source: int, platform: str, chat: str) -> tuple[str, str]:
        """Platform and id of a chat that an archive calls so."""
        return self._chats.get((source, platform, chat), (platform, chat))

    def stored_chat(self, source: int, platform: str, chat: str) -> tuple[str, str]:
        """What an archive calls a chat."""
        return self._stored.get((source, platform, chat), (platform, chat))

    def account(self, source: int, account: Account) -> Account:
        """The account of the person whom an archive calls so."""
        return self._local.get((source, account)) or self.renamed.get(account, account)

    def owner_flag(self, source: int, account: Account, is_owner: bool | None) -> bool | None:
        """Whether an account, as an archive calls it, is the owner's; `is_owner` is what that archive says."""
        return self._owners.get((source, account), is_owner)

    def stored_is_mine(self, is_mine: IsMine) -> IsMine:
        """The same for an account as archives call it as `is_mine` is for one as it is called now."""

        def is_mine_somewhere(platform: str, account: str, is_owner: bool | None) -> bool:
            stored = platform, account
            mains = self._mains.get(stored, {stored})
            flags = self._flags.get(stored, set[bool | None]()) | {is_owner}
            return any(is_mine(*main, flag) for main in mains for flag in flags)

        return is_mine_somewhere

    def owners_in(self, source: int, accounts: Iterable[Account]) -> dict[Account, bool | None]:
        """Which of some accounts, as an archive calls them, are the owner's or not, where it does not say so itself."""
        return {account: self._owners[source, account] for account in accounts if (source, account) in self._owners}

    def other_accounts(self, account: Account) -> list[Account]:
        """What archives also call a person."""
        return list(self._other_accounts.get(account, ()))

    def other_chats(self, platform: str, chat: str) -> list[str]:
        """What archives also call a chat."""
        return list(self._other_chats.get((platform, chat), ()))
