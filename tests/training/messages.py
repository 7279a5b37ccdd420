"""Made-up messages for tests of cleaning, owners, sessions and builds."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from training.archives.message import Message
from training.archives.source_tree import SourceTree
from training.dataset.sessions import SessionMessage

START = datetime(2020, 6, 1, 9, 0, tzinfo=UTC)


def message(number: int, text: str = "hello", *, at: float | None = None, **more: Any) -> Message:
    """Message `number` of a private chat of `ana` and `me`; `at` is minutes after START, by default one a message."""
    fields: dict[str, Any] = {
        "id": str(number),
        "platform": "test",
        "chat": "chat",
        "kind": "dm",
        "sender": "me",
        "sender_name": "Me",
        "sent_at": START + timedelta(minutes=number if at is None else at),
        "text": text,
        **more,
    }
    return Message(**{"is_owner": fields["sender"] == "me", **fields})


def line(number: int, text: str = "hello", **more: Any) -> SessionMessage:
    """The same as a line of a session."""
    sent = message(number, text, **more)
    return SessionMessage(0, sent, bool(sent.is_owner))


class FixedReader:
    """A reader of given messages: recognises any file."""

    accepts = ""

    def __init__(self, messages: Sequence[Message], name: str = "fixed") -> None:
        self.name = name
        self._messages = messages

    def sniff(self, tree: SourceTree) -> bool:
        """Any single file will do."""
        return tree.is_file

    def read(self, tree: SourceTree) -> Iterator[Message]:
        """The messages given."""
        yield from self._messages
