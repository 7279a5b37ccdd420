"""The pass over the archives: counts, cleans and scrubs every message, and stores or drops it."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Protocol

import msgspec

from doppel.config import Config
from doppel.errors import UserError
from doppel.i18n import tr
from training.archives.discovery import Source
from training.archives.message import Mark, Message
from training.cleaning.repeats import RepeatDetector
from training.cleaning.rules import DropReason, drop_reason
from training.dataset.accounting import ChatCounts, Ledger, sum_counts
from training.dataset.chat_joining import join_same_chats
from training.dataset.joined_chats import JoinedChats
from training.dataset.late_exclusion import LateExclusion
from training.dataset.message_store import MessageStore, StoredChat
from training.dataset.one_sided import ChatWriters
from training.dataset.parallel_reader import CleanedMessage, MessageReader
from training.people.authors import Author
from training.people.contacts import LinkedAccounts
from training.people.other_owners import OtherOwners
from training.people.owner import OwnerAccounts
from training.privacy.exclusion import ExclusionFilter
from training.privacy.scrub import Scrubber

PROGRESS_INTERVAL = 2000
"""Messages between two progress reports."""

_MAX_LABELS = 5
"""Archives named in an error."""

_MAX_CHAT_AUTHORS = 1 << 16
"""Size of the cache of `_ChatAuthor`: an archive may have as many chats as messages."""


class BuildProgress(Protocol):
    """Receives the progress of a build."""

    def stage(self, text: str) -> None:
        """A stage begins."""
        ...

    def add_bytes_total(self, size: int) -> None:
        """More bytes are to be read."""
        ...

    def add_bytes_read(self, size: int) -> None:
        """More bytes were read."""
        ...

    def add_messages(self, count: int) -> None:
        """More messages were read."""
        ...


class _ChatAuthor(msgspec.Struct, gc=False):
    """Where messages with the same chat, author, kind and mark are counted and stored."""

    counts: ChatCounts
    author: Author
    chat: StoredChat | None = None


class MessageIntake:
    """Reads the archives and collects what is known about all messages.

    Args:
        config: says who the owner is, and what to leave out.
        accounts: accounts that belong to one person.
        scrubber: replaces secrets; None leaves them.
    """

    def __init__(self, config: Config, accounts: LinkedAccounts, scrubber: Scrubber | None) -> None:
        self.ledger = Ledger()
        self.owner = OwnerAccounts(config.persona.me)
        self.writers = ChatWriters()
        self.repeats = RepeatDetector(config.cleaning)
        self._accounts = accounts
        self._has_linked_accounts = bool(config.people)
        self._other_owners = OtherOwners(accounts)
        self._exclusion = ExclusionFilter(config.exclude, config.zone)
        self._scrubber = scrubber
        self._late_exclusion: LateExclusion | None = None

    def read(
        self, sources: Sequence[Source], reader: MessageReader, store: MessageStore, progress: BuildProgress
    ) -> None:
        """Reads the archives one after the other.

        Args:
            sources: the archives.
            reader: reads and cleans their messages.
            store: receives the messages that are kept.
            progress: is informed.
        """
        # With several archives, somebody may have another name in the next one.
        self._late_exclusion = LateExclusion() if len(sources) > 1 and not self._exclusion.is_empty else None
        for number, source in enumerate(sources):
            progress.stage(tr("Reading {name}", name=source.reader.name))
            source.tree.on_open, source.tree.on_read = progress.add_bytes_total, progress.add_bytes_read
            self._take(number, _with_progress(reader.messages(source), progress), store)

    def _take(self, source: int, messages: Iterator[CleanedMessage], store: MessageStore) -> None:
        """Processes all messages of archive number `source`."""
        chat_authors: dict[tuple[object, ...], _ChatAuthor] = {}
        for read_message, cleaned_text, secrets in messages:
            message, text = (
                (self._corrected(source, read_message) if self._has_linked_accounts else read_message),
                cleaned_text,
            )
            key = (
                *(message.platform, message.chat, message.sender, message.sender_name),
                *(message.is_owner, message.kind, message.mark == Mark.SERVICE),
            )
            if (chat_author := chat_authors.get(key)) is None:
                if len(chat_authors) >= _MAX_CHAT_AUTHORS:
                    chat_authors.clear()
                counts = self.ledger.rows[self.ledger.row_number(source, message)]
                self.writers.add(source, message)
                chat_author = chat_authors[key] = _ChatAuthor(counts, self.owner.author_of(source, message))
            chat_author.counts.read += 1
            chat_author.author.messages += 1
            if (reason := self._drop_reason(source, message, text)) is not None:
                chat_author.counts.dropped[reason] += 1
                continue
            if self._scrubber is not None and (secrets or self._scrubber.names is not None):
                text = self._scrubber.replace_secrets(text, secrets, message.origin)
            kept = message if text == message.text else msgspec.structs.replace(message, text=text)
            if kept.is_owner is not False:
                self.repeats.add(kept)
            if chat_author.chat is None:
                chat_author.chat = store.add(source, kept)
            else:
                chat_author.chat.add(source, kept)

    def _corrected(self, source: int, message: Message) -> Message:
        self._accounts.add(message)
        return self._other_owners.corrected(source, message)

    def _drop_reason(self, source: int, message: Message, text: str) -> DropReason | None:
        if not self._exclusion.is_empty and self._is_excluded(source, message):
            return DropReason.EXCLUDED
        return drop_reason(message, text)

    def _is_excluded(self, source: int, message: Message) -> bool:
        """Whether the message is left out now; a conversation's writer and chat may also be left out later."""
        exclusion, later = self._exclusion, self._late_exclusion
        if later is None or message.kind not in ("dm", "group"):
            return exclusion.excludes(message)
        if exclusion.excludes_content(message):
            return True
        if exclusion.excludes_writer(message):
            later.add_writer(source, message)
        if exclusion.excludes_chat(message):
            later.add_chat(source, message)
        return False

    def join_chats(self, sources: Sequence[Source], store: MessageStore) -> JoinedChats:
        """Joins chats that several archives have, so that all that follows sees every message once.

        People and chats that are excluded are so under all of their names.
        """
        labels = [source.tree.label for source in sources]
        joined = join_same_chats(store, self.ledger, self.owner, labels, self._other_owners.sources)
        for account, main in joined.renamed.items():
            self._accounts.link(account, main)
        if self._late_exclusion is not None:
            self._late_exclusion.apply(store, self.ledger, joined)
        return joined

    def require_owner(self, sources: Sequence[Source]) -> None:
        """Determines the owner's accounts. Raises UserError if there are no messages, or none of the owner's."""
        labels = [source.tree.label for source in sources]
        if not sum_counts(self.ledger.rows).read:
            bad_record = next((record for source in sources for record in source.tree.bad_records), None)
            if bad_record is not None:
                raise UserError(
                    tr(
                        "{file}, {position}: {reason}; no message could be read",
                        file=bad_record.file,
                        position=bad_record.position,
                        reason=bad_record.reason,
                    )
                )
            raise UserError(tr("{path}: contains no messages", path=_few(labels)))
        self.owner.resolve(labels, self._other_owners.sources)
        if not self.owner.messages:
            raise UserError(tr("{path}: contains no messages of yours", path=_few(labels)))


def _few(labels: Sequence[str]) -> str:
    """The first of many archives."""
    return ", ".join(labels[:_MAX_LABELS]) + (" …" if len(labels) > _MAX_LABELS else "")


def _with_progress(messages: Iterator[CleanedMessage], progress: BuildProgress) -> Iterator[CleanedMessage]:
    while batch := list(islice(messages, PROGRESS_INTERVAL)):
        yield from batch
        progress.add_messages(len(batch))
