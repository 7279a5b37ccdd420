"""The pass over the archives: every message is counted, cleaned, and spooled or dropped. Makes no sessions."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import Protocol

import msgspec

from doppel.config import Config, PrivateKind
from doppel.errors import UserError
from doppel.i18n import tr
from training.archives.discovery import Source
from training.archives.message import Message
from training.cleaning.repeats import Repeats
from training.cleaning.rules import Reason, drop_reason
from training.dataset.accounting import Ledger, Row, total
from training.dataset.message_store import Conversation, Spool
from training.dataset.parallel_reader import Prepared, preparing
from training.people.contacts import People
from training.people.other_owners import Whose
from training.people.owner import Owner, Writer
from training.privacy.scrub import Exclusion, Scrubber

STEP = 2000
"""Messages between two signs of life."""

_MOST_VOICES = 1 << 16
"""Voices that are remembered at a time: an archive may have as many chats as messages."""


class Watcher(Protocol):
    """Who is told how far the build is."""

    def stage(self, text: str) -> None:
        """What is being done from now on."""
        ...

    def grew(self, size: int) -> None:
        """So many bytes more are to be read."""
        ...

    def read(self, size: int) -> None:
        """So many bytes were read."""
        ...

    def messages(self, count: int) -> None:
        """So many messages more came of them."""
        ...


class _Voice(msgspec.Struct, gc=False):
    """Somebody in some chat: their messages are counted in the same places, and go to the same one."""

    row: Row
    writer: Writer
    conversation: Conversation | None = None


class Intake:
    """What is known of all messages once they are read.

    Args:
        config: says who the owner is, and what to leave out.
        people: who is who.
        scrubber: replaces secrets; None leaves them.
    """

    def __init__(self, config: Config, people: People, scrubber: Scrubber | None) -> None:
        self.ledger = Ledger()
        self.owner = Owner(config.persona.me)
        self.repeats = Repeats(config.cleaning)
        self._config = config
        self._people = people
        self._whose = Whose(people)
        self._exclusion = Exclusion(config.exclude, config.zone)
        self._scrubber = scrubber

    def read(self, sources: Sequence[Source], spool: Spool, watcher: Watcher, *, installed: bool) -> None:
        """Reads the archives one after the other.

        Args:
            sources: which.
            spool: takes what is kept.
            watcher: is told how far it is.
            installed: whether their readers are the installed ones.
        """
        kinds = frozenset(self._config.privacy.kinds) if self._scrubber is not None else frozenset[PrivateKind]()
        with closing(preparing(self._config, kinds, installed=installed)) as archives:
            for number, source in enumerate(sources):
                watcher.stage(tr("Reading {name}", name=source.reader.name))
                source.tree.on_open, source.tree.on_read = watcher.grew, watcher.read
                self._take(number, _told(archives.messages(number, source), watcher), spool)

    def _take(self, number: int, messages: Iterator[Prepared], spool: Spool) -> None:
        """All messages of the archive with that number."""
        is_anybody_joined = bool(self._config.people)
        voices: dict[tuple[object, ...], _Voice] = {}
        for read, cleaned, secrets in messages:
            message, text = (self._corrected(number, read) if is_anybody_joined else read), cleaned
            key = (
                *(message.platform, message.chat, message.sender, message.sender_name),
                *(message.is_owner, message.kind, message.mark == "service"),
            )
            if (voice := voices.get(key)) is None:
                if len(voices) >= _MOST_VOICES:
                    voices.clear()
                row = self.ledger.rows[self.ledger.number(number, message)]
                voice = voices[key] = _Voice(row, self.owner.writer_of(number, message))
            voice.row.read += 1
            voice.writer.messages += 1
            if (reason := self._drop_reason(message, text)) is not None:
                voice.row.dropped[reason] += 1
                continue
            if self._scrubber is not None and (secrets or self._scrubber.names is not None):
                text = self._scrubber.replaced(text, secrets, message.origin)
            kept = message if text == message.text else msgspec.structs.replace(message, text=text)
            if kept.is_owner is not False:
                self.repeats.saw(kept)
            if voice.conversation is None:
                voice.conversation = spool.add(number, kept)
            else:
                voice.conversation.add(number, kept)

    def _corrected(self, number: int, message: Message) -> Message:
        self._people.saw(message)
        return self._whose(number, message)

    def _drop_reason(self, message: Message, text: str) -> Reason | None:
        if not self._exclusion.is_empty and self._exclusion.covers(message):
            return "excluded"
        return drop_reason(message, text)

    def require_owner(self, sources: Sequence[Source]) -> None:
        """Settles who the owner is. Raises UserError where nothing was read, or nothing of theirs."""
        labels = [source.tree.label for source in sources]
        if not total(self.ledger.rows).read:
            broken = next((bad for source in sources for bad in source.tree.bad_records), None)
            if broken is not None:
                raise UserError(
                    tr(
                        "{file}, {position}: {reason}; not one message could be read",
                        file=broken.file,
                        position=broken.position,
                        reason=broken.reason,
                    )
                )
            raise UserError(tr("{path}: no messages in it", path=", ".join(labels)))
        self.owner.settle(labels)
        if not self.owner.messages:
            raise UserError(tr("{path}: none of the messages in it are yours", path=", ".join(labels)))


def _told(messages: Iterator[Prepared], watcher: Watcher) -> Iterator[Prepared]:
    """The messages; the watcher is told of them now and then."""
    while batch := list(islice(messages, STEP)):
        yield from batch
        watcher.messages(len(batch))
