"""Archives that belong to other people. Their messages give context to the owner's replies and are never trained on.

Some exports mark messages as their owner's. If `people` in config.yaml names that account, the archive is somebody
else's.
"""

import msgspec

from doppel.transcript import pseudonym
from training.archives.message import Message
from training.people.contacts import LinkedAccounts


class OtherOwners:
    """Corrects messages that an archive marks as its owner's, if that owner is somebody else.

    Args:
        accounts: the accounts named in config.yaml; a message must have been added there first.
    """

    def __init__(self, accounts: LinkedAccounts) -> None:
        self._accounts = accounts
        self.sources: set[int] = set()
        """Archives that belong to somebody else."""
        self._is_linked: dict[tuple[str, str], bool] = {}

    def corrected(self, source: int, message: Message) -> Message:
        """The message as the owner's build sees it; `source` is the number of its archive."""
        if message.is_owner and self._belongs_to_contact(message):
            self.sources.add(source)
            return msgspec.structs.replace(message, is_owner=False)
        return message

    def _belongs_to_contact(self, message: Message) -> bool:
        account = message.platform, message.sender
        if account not in self._is_linked:
            self._is_linked[account] = self._accounts.pseudonym(*account) != pseudonym(*account)
        return self._is_linked[account]
