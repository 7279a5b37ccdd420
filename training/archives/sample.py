"""The sample archive: one speaker of the public chitchat dataset, so that everything can be tried at once.

Its conversations were typed into a web page by two strangers, so they come as platform `web`: the local web
chat then talks just as the sample's speaker did. Reads only the chats in which that speaker wrote.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from doppel.i18n import tr
from doppel.transcript import pseudonym
from training.archives.formats.json_stream import DamagedJSON, JsonStream
from training.archives.message import Message
from training.archives.source_tree import Tree

SPEAKER = "31267496-e50f-4f91-a197-c5b1bfde803b"
"""The speaker with the most messages: 25,272 in 777 chats."""

PLATFORM = "web"

_BEGINNING = re.compile(rb'(?:\xef\xbb\xbf)?\{"[0-9a-f-]{36}": \{"messages": \[\[\{"text": ')


class SampleReader:
    """Reads chitchat's `dataset.json`: {chat id: {messages: [[{text, timestamp, sender}, ...] a turn]}}."""

    name = "sample"
    accepts = ""

    def sniff(self, tree: Tree) -> bool:
        """Whether the file begins like the dataset."""
        if not tree.is_file:
            return False
        return bool(_BEGINNING.match(tree.head(tree.files()[0])))

    def read(self, tree: Tree) -> Iterator[Message]:
        """The messages of the speaker's chats, chat by chat."""
        name = tree.files()[0]
        with tree.open(name) as file:
            stream = JsonStream(file)
            try:
                for chat in stream.members():
                    content = stream.value()
                    try:
                        yield from _chat(chat, content, name)
                    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
                        tree.bad(name, chat, error)
            except DamagedJSON as damage:
                tree.bad(name, tr("end of file"), str(damage))


def _chat(chat: str, content: dict[str, Any], file: str) -> Iterator[Message]:
    bubbles = [bubble for turn in content["messages"] for bubble in turn]
    if not all(isinstance(bubble[key], str) for bubble in bubbles for key in ("sender", "text", "timestamp")):
        raise ValueError(tr("a text field is not a string"))
    if not any(bubble["sender"] == SPEAKER for bubble in bubbles):
        return
    names = {account: pseudonym(PLATFORM, account) for account in {bubble["sender"] for bubble in bubbles}}
    others = " ".join(sorted(name for account, name in names.items() if account != SPEAKER))
    for number, bubble in enumerate(bubbles, 1):
        sent_at = datetime.fromisoformat(bubble["timestamp"])
        yield Message(
            id=str(number),
            platform=PLATFORM,
            chat=chat,
            kind="dm",
            sender=bubble["sender"],
            sender_name=names[bubble["sender"]],
            sent_at=sent_at.astimezone(UTC) if sent_at.tzinfo else sent_at.replace(tzinfo=UTC),
            text=bubble["text"],
            is_owner=bubble["sender"] == SPEAKER,
            chat_name=others or "-",
            origin=f"{file}:{chat}:{number}",
        )
