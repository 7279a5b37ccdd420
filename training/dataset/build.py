"""Builds the data set in data/<persona>/: one pass over the archives, then one over the stored messages."""

import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from functools import lru_cache
from operator import itemgetter
from pathlib import Path

import msgspec

from doppel.adapters.habits import write_habits
from doppel.config import Config, PrivateKind
from doppel.errors import UserError
from doppel.i18n import tr
from doppel.system.atomic_folder import atomic_folder
from doppel.transcript import pseudonym
from training.archives.discovery import Discovery, discover, installed_readers
from training.archives.message import Mark, Message
from training.archives.reader import Reader
from training.cleaning.rules import DropReason
from training.dataset.accounting import sum_counts
from training.dataset.contact_cap import sessions_over_cap
from training.dataset.files import SESSIONS_FILE, Session, write_sessions
from training.dataset.habits import HabitsCollector
from training.dataset.intake import BuildProgress, MessageIntake
from training.dataset.joined_chats import JoinedChats
from training.dataset.message_store import MessageStore, RecordFile, StoredChat
from training.dataset.one_sided import lacks_context
from training.dataset.parallel_reader import open_reader
from training.dataset.parent_fetcher import parents_source
from training.dataset.report.build_report import REPORT_FILE, OwnerReport, Report, source_reports
from training.dataset.report.tables import format_reasons
from training.dataset.sessions import (
    SessionMessage,
    ThreadSplitter,
    build_header,
    build_turns,
    estimate_gap,
    join_threads,
    lead_message,
    mark_duplicates,
    session_id,
    split_at_silences,
)
from training.dataset.splits import SessionSummary, content_digest, leaking_sessions, split_by_time
from training.dataset.timing import TimingCollector
from training.dataset.trimming import separate_reactions, split_around, trim_repeats
from training.people.contacts import ContactList, LinkedAccounts
from training.privacy.blocklist import Blocklist
from training.privacy.names import NameFinder, presidio_recognizer
from training.privacy.scrub import Scrubber


class _Draft(msgspec.Struct, array_like=True):
    """A session before its split is known, and the number of its messages by row of the ledger."""

    session: Session
    counts: dict[int, int]
    is_one_sided: bool = False


def build_dataset(config: Config, progress: BuildProgress, readers: Sequence[Reader] | None = None) -> Report:
    """Reads the configured archives and replaces data/<persona>/.

    Args:
        config: the configuration.
        progress: is informed of stages, bytes and messages.
        readers: the available archive readers; None for all installed ones.

    Raises:
        UserError: an archive is missing, empty, broken or of an unknown format; the owner is unknown; nothing is left.
        DoppelError: the data folder cannot be written.
    """
    started = time.monotonic()
    known_readers = installed_readers() if readers is None else readers
    archives = discover(
        config.archives, config.root, config.zone, known_readers, me=config.persona.me, tables=config.tables
    )
    with closing(archives), atomic_folder(config.data_dir, SESSIONS_FILE) as staging:
        archives.sources.extend(parents_source(config.data_dir, config.zone))
        report = _DatasetBuilder(config, archives, progress, staging).run(uses_installed_readers=readers is None)
        report = msgspec.structs.replace(
            report,
            archive_digest=config.archive_digest,
            data=str(config.data_dir),
            seconds=round(time.monotonic() - started, 2),
        )
        (staging / REPORT_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2))
    return report


_chat_pseudonym = lru_cache(maxsize=1 << 10)(pseudonym)


class _DatasetBuilder:
    """The state of one build."""

    def __init__(self, config: Config, archives: Discovery, progress: BuildProgress, staging: Path) -> None:
        self.config = config
        self.archives = archives
        self.progress = progress
        self.staging = staging
        self.habits = HabitsCollector()
        self.timing = TimingCollector()
        self.blocklist = Blocklist(config.data_dir)
        self.accounts = LinkedAccounts(config.people)
        self.contacts = ContactList(self.accounts)
        self.contact_of_session: dict[str, str] = {}
        self.gaps: dict[str, float] = {}
        self.scrubber: Scrubber | None = None
        if config.privacy.scrub:
            names = NameFinder(presidio_recognizer()) if config.privacy.names else None
            self.scrubber = Scrubber(staging, config.data_dir, config.privacy.kinds, names, config.zone)
        self.intake = MessageIntake(config, self.accounts, self.scrubber)
        self.ledger, self.owner, self.repeats = self.intake.ledger, self.intake.owner, self.intake.repeats
        self.joined = JoinedChats()
        self.own_kept = 0
        self.first: datetime | None = None
        self.last: datetime | None = None

    def run(self, *, uses_installed_readers: bool) -> Report:
        """Builds the data set in the staging folder."""
        staging = self.staging
        store = MessageStore(staging / "messages.tmp")
        drafts = RecordFile(staging / "sessions.tmp")
        try:
            self._read_archives(store, uses_installed_readers=uses_installed_readers)
            self.repeats.resolve(self.joined.stored_is_mine(self.owner.is_mine), self.joined.left_out)
            self.intake.writers.resolve(self.owner.is_mine, self.joined)
            self.progress.stage(tr("Splitting chats into sessions"))
            chats = store.chats()
            if self.owner.foreign:
                chats = [part for chat in chats for part in chat.split(self.owner.foreign, self.owner.adopted)]
            summaries = [summary for chat in chats for summary in self._sessions(chat, drafts)]
            store.close()
            sessions_by_split = self._write(staging / SESSIONS_FILE, summaries, drafts)
        finally:
            store.close()
            drafts.close()
            if self.scrubber is not None:
                self.scrubber.close()
        write_habits(staging, self.timing.add_to(self.habits.habits(), self.config.zone))
        self.contacts.write(staging)
        return self._report(sessions_by_split)

    def _read_archives(self, store: MessageStore, *, uses_installed_readers: bool) -> None:
        config, sources = self.config, self.archives.sources
        kinds = frozenset(config.privacy.kinds) if self.scrubber is not None else frozenset[PrivateKind]()
        reader = open_reader(
            config.archives,
            config.root,
            config.zone,
            kinds,
            me=config.persona.me,
            tables=config.tables,
            uses_installed_readers=uses_installed_readers,
        )
        with closing(reader):
            self.intake.read(sources, reader, store, self.progress)
        self.joined = self.intake.join_chats(sources, store)
        self.contacts.use_other_accounts(self.joined.other_accounts)
        self.intake.require_owner(sources)

    def _sessions(self, chat: StoredChat, drafts: RecordFile) -> Iterator[SessionSummary]:
        """Writes the sessions of a chat that contain messages of the owner's to `drafts`."""
        messages = self._messages(chat)
        contact = self._contact(chat)
        if self._is_forgotten_chat(chat, contact):
            self._drop(messages, DropReason.FORGOTTEN)
            return
        if chat.is_public:
            sessions = self._threads(chat)
        else:
            gap = estimate_gap(chat.times())
            self.gaps[f"{chat.platform}:{chat.chat}"] = round(gap, 1)
            sessions = self._conversations(chat, gap)
            sessions = self.intake.writers.posts_instead(sessions, chat, self.owner.is_mine)
            name = pseudonym(chat.platform, contact) if chat.is_direct and contact is not None else None
            sessions = self.timing.watch(sessions, contact=name)
        for session in sessions:
            kept, needless = separate_reactions(session)
            if needless:
                self._drop(needless, DropReason.REACTION)
            for part in self._trimmed_parts(kept):
                if part[0].message.kind in ("dm", "group"):
                    self.habits.add(part)
                yield self._draft(part, contact, drafts)

    def _trimmed_parts(self, session: list[SessionMessage]) -> Iterator[list[SessionMessage]]:
        """The parts of a session to learn from; drops the rest."""
        for stretch in self._stretches(session):
            part = stretch
            if self.repeats.has_repeats:
                part, dropped = trim_repeats(stretch, self._repeat_reason)
                for item, reason in dropped:
                    self._drop([item], reason)
            if any(item.is_mine for item in part):
                yield part
            else:
                self._drop(part, DropReason.NO_OWN_MESSAGE)

    def _repeat_reason(self, item: SessionMessage) -> DropReason | None:
        stored_chat = self.joined.stored_chat(item.source, item.message.platform, item.message.chat)
        return self.repeats.reason_for(item.message, stored_chat)

    def _stretches(self, session: list[SessionMessage]) -> Iterator[list[SessionMessage]]:
        """The session, or the stretches between messages of forgotten people."""
        ids = {item.message.id for item in session if self._is_forgotten_sender(item)}
        if not ids:
            yield session
            return
        stretches = split_around(
            session,
            lambda item: item.message.id in ids or (item.is_mine and item.message.reply_to in ids),
            lambda item: item.is_mine,
        )
        done = 0
        for start, end in stretches:
            self._drop(session[done:start], DropReason.FORGOTTEN)
            yield session[start:end]
            done = end
        self._drop(session[done:], DropReason.FORGOTTEN)

    def _is_forgotten_chat(self, chat: StoredChat, contact: str | None) -> bool:
        """Whether this is a direct chat with a forgotten person, who may never have written in it."""
        if not chat.is_direct:
            return False
        names = [chat.chat, *self.joined.other_chats(chat.platform, chat.chat)]
        if any(self.blocklist.contains(chat.platform, name, "chat") for name in names):
            return True
        if contact is not None:
            return self._is_forgotten(chat.platform, contact)
        return len(chat.accounts) < 2 and self._is_forgotten(chat.platform, chat.chat)

    def _is_forgotten_sender(self, item: SessionMessage) -> bool:
        return not item.is_mine and self._is_forgotten(item.message.platform, item.message.sender)

    def _is_forgotten(self, platform: str, account: str) -> bool:
        """Whether a person is on the list under any account that archives call them by."""
        accounts = [(platform, account), *self.joined.other_accounts((platform, account))]
        return any(self.blocklist.contains(*one) for one in accounts)

    def _drop(self, messages: Iterable[SessionMessage], reason: DropReason) -> None:
        self.ledger.drop(self._counts(messages), reason)

    def _counts(self, messages: Iterable[SessionMessage]) -> dict[int, int]:
        counts: dict[int, int] = {}
        for item in messages:
            number = self.ledger.row_number(item.source, item.message)
            counts[number] = counts.get(number, 0) + 1
        return counts

    def _conversations(self, chat: StoredChat, gap: float) -> Iterator[list[SessionMessage]]:
        if not chat.threads:
            yield from split_at_silences(self._messages(chat), gap)
            return
        threads = ThreadSplitter(chat.threads)
        yield from split_at_silences(threads.without_threads(self._numbered_messages(chat)), gap)
        for numbers in threads.numbers():  # what comes days later still belongs to its thread
            yield from split_at_silences((self._numbered_message(chat, number) for number in numbers), math.inf)

    def _threads(self, chat: StoredChat) -> Iterator[list[SessionMessage]]:
        for thread in join_threads(self._numbered_messages(chat), chat.answered):
            yield [self._numbered_message(chat, number) for number in thread]

    def _messages(self, chat: StoredChat) -> Iterator[SessionMessage]:
        return map(itemgetter(1), self._numbered_messages(chat))

    def _numbered_message(self, chat: StoredChat, number: int) -> SessionMessage:
        return self._session_message(chat.source(number), chat.message(number))

    def _session_message(self, source: int, message: Message) -> SessionMessage:
        is_mine = self.owner.is_mine(message.platform, message.sender, message.is_owner, source)
        return SessionMessage(source, message, is_mine)

    def _numbered_messages(self, chat: StoredChat) -> Iterator[tuple[int, SessionMessage]]:
        """The messages of a chat with their numbers; drops duplicates and reactions of others."""
        for is_duplicate, number, message in mark_duplicates(chat.numbered()):
            source = chat.source(number)
            if is_duplicate:
                self.ledger.drop({self.ledger.row_number(source, message): 1}, DropReason.DUPLICATE)
            else:
                item = self._session_message(source, message)
                if message.mark == Mark.REACTION and not item.is_mine:
                    self._drop([item], DropReason.REACTION)
                else:
                    yield number, item

    def _contact(self, chat: StoredChat) -> str | None:
        """The other account of a chat between two."""
        if chat.is_public:
            return None
        sources = chat.source_numbers()
        others = [account for account in chat.accounts if not self.owner.is_in_chat(sources, chat.platform, account)]
        return others[0] if len(others) == 1 else None

    def _draft(self, messages: list[SessionMessage], contact: str | None, drafts: RecordFile) -> SessionSummary:
        first, last = lead_message(messages).message, messages[-1].message
        identifier = session_id(first)
        header = build_header(messages, self.config.zone, contact, self.accounts.pseudonym)
        is_one_sided = lacks_context(messages)
        others = [item.message for item in messages if not item.is_mine]
        for account in dict.fromkeys((other.platform, other.sender, other.sender_name) for other in others):
            self.contacts.add(*account)
        if contact is not None and header.contact is not None:
            self.contacts.add(first.platform, contact, "", first.chat)
            self.contact_of_session[identifier] = header.contact
        session = Session(
            id=identifier,
            split="train",
            chat=_chat_pseudonym(first.platform, first.chat),
            started_at=first.sent_at,
            header=header,
            turns=build_turns(messages, self.accounts.pseudonym),
            kind=header.kind,
        )
        position = drafts.position
        return SessionSummary(
            ended_at=last.sent_at.timestamp(),
            id=identifier,
            own_messages=sum(item.is_mine for item in messages),
            content_digest=content_digest(session.turns),
            position=position,
            length=drafts.add(_Draft(session, self._counts(messages), is_one_sided)),
        )

    def _write(self, path: Path, summaries: list[SessionSummary], drafts: RecordFile) -> dict[str, int]:
        """Assigns the splits, drops sessions over the contact cap or also in the test split, writes the others.

        Returns:
            The number of sessions by split.
        """
        decode = msgspec.msgpack.Decoder(_Draft).decode
        over_cap = sessions_over_cap(summaries, self.contact_of_session, self.config.cleaning.max_contact_share)
        for summary in summaries:
            if summary.id in over_cap:
                draft = decode(drafts.read(summary.position, summary.length))
                self.ledger.drop(draft.counts, DropReason.CONTACT_CAP)
        splits = split_by_time(summary for summary in summaries if summary.id not in over_cap)
        leaking = leaking_sessions(splits)
        sessions: Counter[str] = Counter({"train": 0, "validation": 0, "test": 0})

        def kept_sessions() -> Iterator[Session]:
            for split, summary in splits:
                draft = decode(drafts.read(summary.position, summary.length))
                if summary.id in leaking:
                    self.ledger.drop(draft.counts, DropReason.IN_TEST)
                    continue
                self.ledger.keep(draft.counts, is_one_sided=draft.is_one_sided)
                sessions[split] += 1
                self.own_kept += summary.own_messages
                self._extend_time_span(draft.session.started_at, summary.ended_at)
                yield msgspec.structs.replace(draft.session, split=split)

        if not write_sessions(path, kept_sessions()):
            reasons = format_reasons(dict(sum_counts(self.ledger.rows).dropped))
            raise UserError(tr("no messages of yours are left to learn from; dropped: {reasons}", reasons=reasons))
        return dict(sessions)

    def _extend_time_span(self, started_at: datetime, ended_at: float) -> None:
        end = datetime.fromtimestamp(ended_at, UTC)
        self.first = min(self.first or started_at, started_at)
        self.last = max(self.last or end, end)

    def _report(self, sessions_by_split: dict[str, int]) -> Report:
        total = sum_counts(self.ledger.rows)
        unread = self.archives.unread()
        return Report(
            read=total.read,
            kept=total.kept,
            dropped=dict(total.dropped),
            one_sided=total.one_sided,
            bad=sum(source.tree.bad_count for source in self.archives.sources),
            sources=source_reports(self.archives.sources, self.ledger.rows),
            unknown_files=unread.files,
            unknown_count=unread.count,
            attachment_count=unread.attachments,
            unknown_hints=unread.hints,
            notes=[note for source in self.archives.sources for note in source.tree.notes],
            archives_without_owner=self.owner.absent,
            sessions=sessions_by_split,
            gaps=self.gaps,
            joined=self.joined.chats,
            scrubbed=dict(self.scrubber.counts) if self.scrubber is not None else {},
            owner=OwnerReport(
                accounts=self.owner.names,
                read=self.owner.messages,
                kept=self.own_kept,
                first=self.first,
                last=self.last,
                notes=self.owner.notes,
            ),
        )
