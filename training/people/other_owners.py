"""Archives of other people beside the owner's: what they wrote is context for the owner's replies, and never learned.

An archive of tweets says that it is its owner's. It is somebody else's where `people` in config.yaml names that
account. Their private conversations are theirs: none of them is joined with the owner's own.
"""

import msgspec

from doppel.transcript import pseudonym
from training.archives.message import Message
from training.people.contacts import People


class Whose:
    """Corrects whose a message is.

    Args:
        people: who is named in config.yaml; it must have seen a message before that is corrected.
    """

    def __init__(self, people: People) -> None:
        self._people = people
        self._theirs: set[int] = set()
        self._named: dict[tuple[str, str], bool] = {}

    def __call__(self, source: int, message: Message) -> Message:
        """A message of the archive with that number, as the owner's build is to take it."""
        if message.is_owner and self._is_named(message):
            self._theirs.add(source)
            message = msgspec.structs.replace(message, is_owner=False)
        if source in self._theirs and message.kind in ("dm", "group"):
            message = msgspec.structs.replace(message, chat=f"{message.chat} (archive {source + 1})")
        return message

    def _is_named(self, message: Message) -> bool:
        account = message.platform, message.sender
        if account not in self._named:
            self._named[account] = self._people.pseudonym(*account) != pseudonym(*account)
        return self._named[account]
