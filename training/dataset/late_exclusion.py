"""Leaves out people and chats that `exclude` in config.yaml names, also where another archive calls them differently.

That is known only after chats were joined, so until then their messages are stored like others.
"""

from training.archives.message import Message
from training.cleaning.rules import DropReason
from training.dataset.accounting import Ledger
from training.dataset.joined_chats import JoinedChats
from training.dataset.message_store import MessageStore, StoredChat
from training.dataset.timeline import Account


class LateExclusion:
    """Collects whom and which chats to leave out, as the archives call them."""

    def __init__(self) -> None:
        self._accounts: set[tuple[int, Account]] = set()
        self._chats: set[tuple[int, str, str]] = set()

    def add_writer(self, source: int, message: Message) -> None:
        """Leaves out the writer of a message of archive number `source`."""
        self._accounts.add((source, (message.platform, message.sender)))

    def add_chat(self, source: int, message: Message) -> None:
        """Leaves out the chat of a message."""
        self._chats.add((source, message.platform, message.chat))

    def apply(self, store: MessageStore, ledger: Ledger, joined: JoinedChats) -> None:
        """Removes from the store what is left out, and counts it."""
        accounts = {joined.account(source, account) for source, account in self._accounts}
        chats = {joined.chat(*chat) for chat in self._chats}
        if not (accounts or chats):
            return
        replacements: dict[StoredChat, list[StoredChat]] = {}
        for chat in store.conversations():
            is_whole = (chat.platform, chat.chat) in chats
            if not (is_whole or accounts):
                continue
            excluded = set[int]()
            writers = set[str]()
            for number in range(len(chat)):
                message = chat.message(number)
                if is_whole or (message.platform, message.sender) in accounts:
                    excluded.add(number)
                    ledger.drop({ledger.row_number(chat.source(number), message): 1}, DropReason.EXCLUDED)
                elif len(writers) < 3:
                    writers.add(message.sender)
            if len(excluded) == len(chat):
                replacements[chat] = []
            elif excluded:
                chat.remove(excluded)
                chat.accounts = writers
        if replacements:
            store.replace(replacements)
