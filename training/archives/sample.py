"""Reads the sample archive: the chats of one speaker of the public chitchat dataset, for a first try.

Two strangers typed these conversations into a web page, so their platform is `web`: the persona then writes in the
local web chat as the sample's speaker did.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from doppel.i18n import tr
from doppel.transcript import pseudonym
from training.archives.formats.archive_records import RECORD_ERRORS, open_json
from training.archives.message import Message
from training.archives.source_tree import SourceTree

SPEAKER = "31267496-e50f-4f91-a197-c5b1bfde803b"
"""The speaker with the most messages: 25,272 in 777 chats."""

PLATFORM = "web"

_HEAD = re.compile(rb'(?:\xef\xbb\xbf)?\{"[0-9a-f-]{36}": \{"messages": \[\[\{"text": ')


class SampleReader:
    """Reads chitchat's `dataset.json`: {chat id: {messages: [turn: [{text, timestamp, sender}, ...], ...]}}."""

    name = "sample"
    accepts = ""

    def sniff(self, tree: SourceTree) -> bool:
        """Whether the file begins like the dataset."""
        if not tree.is_file:
            return False
        return bool(_HEAD.match(tree.head(tree.files()[0])))

    def read(self, tree: SourceTree) -> Iterator[Message]:
        """The messages of the speaker's chats, chat by chat."""
        name = tree.files()[0]
        with open_json(tree, name) as stream:
            for chat in stream.members():
                content = stream.value()
                try:
                    yield from _chat(chat, content, name)
                except RECORD_ERRORS as error:
                    tree.report_bad(name, chat, error)


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
