"""Builds the data set: archives in, data/<persona>/ out. One pass over the archives, then one over their messages.

Puts the parts together; each of them does its one job elsewhere. Prints nothing: progress goes to `Watcher`.
"""

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
from doppel.config import Config
from doppel.errors import UserError
from doppel.i18n import tr
from doppel.system.atomic_folder import atomic_folder
from doppel.transcript import pseudonym
from training.archives.discovery import Discovery, Reader, discover, installed_readers
from training.archives.message import Message
from training.cleaning.rules import Reason
from training.dataset.accounting import total
from training.dataset.contact_cap import over_share
from training.dataset.files import SESSIONS, Session, write_sessions
from training.dataset.habits import Rhythm
from training.dataset.intake import Intake, Watcher
from training.dataset.message_store import Conversation, Records, Spool
from training.dataset.parents import fetched_source
from training.dataset.reactions import without_needless
from training.dataset.report.figures import REPORT, OwnerReport, Report, source_reports
from training.dataset.sessions import (
    Line,
    cut_at_silences,
    fit_gap,
    header_of,
    join_threads,
    lead_of,
    session_id,
    thin_header,
    turns_of,
    without_repeats,
)
from training.dataset.splits import Summary, leaks, likeness, split_by_time
from training.dataset.trimming import broken_at, trimmed
from training.people.contacts import Contacts, People
from training.privacy.blocklist import Forgotten
from training.privacy.names import Names, presidio
from training.privacy.scrub import Scrubber


class _Draft(msgspec.Struct, array_like=True):
    """A session before its split is known, and how many of its messages belong to which row of the ledger."""

    session: Session
    counts: dict[int, int]


def build_dataset(config: Config, watcher: Watcher, readers: Sequence[Reader] | None = None) -> Report:
    """Reads the configured archives and replaces data/<persona>/.

    Args:
        config: says which archives, who the owner is and where the data goes.
        watcher: is told how far it is.
        readers: who can read archives; None for every installed one.

    Raises:
        UserError: an archive is missing, empty, broken or unknown; the owner cannot be told; nothing is left.
        DoppelError: the data folder cannot be written.
    """
    started = time.monotonic()
    found = discover(config.archives, config.root, config.zone, installed_readers() if readers is None else readers)
    with closing(found), atomic_folder(config.data_dir, SESSIONS) as staging:
        found.sources.extend(fetched_source(config))
        report = _Build(config, found, watcher, staging).run(installed=readers is None)
        report = msgspec.structs.replace(
            report,
            archive_digest=config.archive_digest,
            data=str(config.data_dir),
            seconds=round(time.monotonic() - started, 2),
        )
        (staging / REPORT).write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2))
    return report


_chat_pseudonym = lru_cache(maxsize=1 << 10)(pseudonym)


class _Build:
    """The state of one build."""

    def __init__(self, config: Config, found: Discovery, watcher: Watcher, staging: Path) -> None:
        self.config = config
        self.found = found
        self.watcher = watcher
        self.staging = staging
        self.rhythm = Rhythm()
        self.forgotten = Forgotten(config.data_dir)
        self.people = People(config.people)
        self.contacts = Contacts(self.people)
        self.with_whom: dict[str, str] = {}
        self.gaps: dict[str, float] = {}
        self.scrubber: Scrubber | None = None
        if config.privacy.scrub:
            names = Names(presidio()) if config.privacy.names else None
            self.scrubber = Scrubber(staging, config.data_dir, config.privacy.kinds, names)
        self.intake = Intake(config, self.people, self.scrubber)
        self.ledger, self.owner, self.repeats = self.intake.ledger, self.intake.owner, self.intake.repeats
        self.own_kept = 0
        self.first: datetime | None = None
        self.last: datetime | None = None

    def run(self, *, installed: bool) -> Report:
        staging = self.staging
        spool = Spool(staging / "messages.tmp")
        drafts = Records(staging / "sessions.tmp")
        try:
            self.intake.read(self.found.sources, spool, self.watcher, installed=installed)
            self.intake.require_owner(self.found.sources)
            self.repeats.settle(self.owner.is_mine)
            self.watcher.stage(tr("Making sessions"))
            summaries = [summary for one in spool.conversations() for summary in self._sessions(one, drafts)]
            spool.close()
            counts = self._write(staging / SESSIONS, summaries, drafts)
        finally:
            spool.close()
            drafts.close()
            if self.scrubber is not None:
                self.scrubber.close()
        write_habits(staging, self.rhythm.habits())
        self.contacts.write(staging)
        return self._report(counts)

    def _sessions(self, conversation: Conversation, drafts: Records) -> Iterator[Summary]:
        """The sessions of one conversation that hold words of the owner's, put among the drafts."""
        lines = self._lines(conversation)
        contact = self._contact(conversation)
        if self._is_forgotten(conversation, contact):
            self._drop(lines, "forgotten")
            return
        if conversation.is_public:
            sessions = self._threads(conversation)
        else:
            gap = fit_gap(conversation.times())
            self.gaps[f"{conversation.platform}:{conversation.chat}"] = round(gap, 1)
            sessions = cut_at_silences(lines, gap)
        for session in sessions:
            said, needless = without_needless(session)
            if needless:
                self._drop(needless, "reaction")
            for part in self._parts(said):
                if not conversation.is_public:
                    self.rhythm.listen(part)
                yield self._draft(part, contact, drafts)

    def _parts(self, session: list[Line]) -> Iterator[list[Line]]:
        """What of a session is to be learned from; the rest is dropped."""
        for stretch in self._stretches(session):
            part = stretch
            if self.repeats.found:
                part, gone = trimmed(stretch, lambda line: self.repeats.verdict(line.message))
                for line, reason in gone:
                    self._drop([line], reason)
            if any(line.is_mine for line in part):
                yield part
            else:
                self._drop(part, "no turn of yours")

    def _stretches(self, session: list[Line]) -> Iterator[list[Line]]:
        """The session, or what the messages of those who are forgotten leave of it."""
        ids = {line.message.id for line in session if self._is_of_forgotten(line)}
        if not ids:
            yield session
            return
        stretches = broken_at(
            session,
            lambda line: line.message.id in ids or (line.is_mine and line.message.reply_to in ids),
            lambda line: line.is_mine,
        )
        done = 0
        for start, stop in stretches:
            self._drop(session[done:start], "forgotten")
            yield session[start:stop]
            done = stop
        self._drop(session[done:], "forgotten")

    def _is_forgotten(self, conversation: Conversation, contact: str | None) -> bool:
        """Whether a conversation is with somebody who is forgotten, who may never have written in it."""
        platform, chat = conversation.platform, conversation.chat
        if not conversation.is_of_two:
            return False  # a group or a feed has other people in it, though only one of them may have written
        if self.forgotten.covers(platform, chat, "chat"):
            return True
        if contact is not None:
            return self.forgotten.covers(platform, contact)
        return len(conversation.accounts) < 2 and self.forgotten.covers(platform, chat)

    def _is_of_forgotten(self, line: Line) -> bool:
        return not line.is_mine and self.forgotten.covers(line.message.platform, line.message.sender)

    def _drop(self, lines: Iterable[Line], reason: Reason) -> None:
        self.ledger.drop(self._counts(lines), reason)

    def _counts(self, lines: Iterable[Line]) -> dict[int, int]:
        counts: dict[int, int] = {}
        for line in lines:
            number = self.ledger.number(line.source, line.message)
            counts[number] = counts.get(number, 0) + 1
        return counts

    def _threads(self, conversation: Conversation) -> Iterator[list[Line]]:
        for thread in join_threads(self._numbered(conversation), conversation.answered):
            yield [self._line(conversation.source(number), conversation.message(number)) for number in thread]

    def _lines(self, conversation: Conversation) -> Iterator[Line]:
        return map(itemgetter(1), self._numbered(conversation))

    def _line(self, source: int, message: Message) -> Line:
        return Line(source, message, self.owner.is_mine(message.platform, message.sender, message.is_owner))

    def _numbered(self, conversation: Conversation) -> Iterator[tuple[int, Line]]:
        """The messages of a conversation, each once, with their numbers in it."""
        for is_repeat, number, message in without_repeats(conversation.numbered()):
            source = conversation.source(number)
            if is_repeat:
                self.ledger.drop({self.ledger.number(source, message): 1}, "duplicate")
            else:
                line = self._line(source, message)
                if message.mark == "reaction" and not line.is_mine:
                    self._drop([line], "reaction")
                else:
                    yield number, line

    def _contact(self, conversation: Conversation) -> str | None:
        """The other account of a conversation of two."""
        if conversation.is_public:
            return None
        others = [
            account for account in conversation.accounts if (conversation.platform, account) not in self.owner.accounts
        ]
        return others[0] if len(others) == 1 else None

    def _draft(self, lines: list[Line], contact: str | None, drafts: Records) -> Summary:
        first, last = lead_of(lines).message, lines[-1].message
        name = session_id(first)
        header = header_of(lines, self.config.zone, contact, self.people.pseudonym)
        others = [line.message for line in lines if not line.is_mine]
        for one in dict.fromkeys((other.platform, other.sender, other.sender_name) for other in others):
            self.contacts.saw(*one)
        if contact is not None and header.contact is not None:
            self.contacts.saw(first.platform, contact, "", first.chat)
            self.with_whom[name] = header.contact
        session = Session(
            id=name,
            split="train",
            chat=_chat_pseudonym(first.platform, first.chat),
            started_at=first.sent_at,
            header=thin_header(header, name),
            turns=turns_of(lines, self.people.pseudonym),
            kind=header.kind,
        )
        position = drafts.position
        return Summary(
            ended_at=last.sent_at.timestamp(),
            id=name,
            mine=sum(line.is_mine for line in lines),
            likeness=likeness(session.turns),
            position=position,
            length=drafts.add(_Draft(session, self._counts(lines))),
        )

    def _write(self, path: Path, summaries: list[Summary], drafts: Records) -> dict[str, int]:
        """Splits, drops what would leak into the test, writes the rest; returns sessions by split."""
        decode = msgspec.msgpack.Decoder(_Draft).decode
        too_many = over_share(summaries, self.with_whom, self.config.cleaning.max_contact_share)
        for summary in summaries:
            if summary.id in too_many:
                self.ledger.drop(decode(drafts.read(summary.position, summary.length)).counts, "contact cap")
        splits = split_by_time(summary for summary in summaries if summary.id not in too_many)
        leaking = leaks(splits)
        sessions: Counter[str] = Counter({"train": 0, "validation": 0, "test": 0})

        def kept() -> Iterator[Session]:
            for split, summary in splits:
                draft = decode(drafts.read(summary.position, summary.length))
                if summary.id in leaking:
                    self.ledger.drop(draft.counts, "also in test")
                    continue
                self.ledger.keep(draft.counts)
                sessions[split] += 1
                self.own_kept += summary.mine
                self._stretch(draft.session.started_at, summary.ended_at)
                yield msgspec.structs.replace(draft.session, split=split)

        if not write_sessions(path, kept()):
            dropped = total(self.ledger.rows).dropped
            reasons = ", ".join(f"{reason} {count:,}" for reason, count in dropped.most_common())
            raise UserError(tr("nothing of yours is left to learn from; dropped: {reasons}", reasons=reasons))
        return dict(sessions)

    def _stretch(self, started_at: datetime, ended_at: float) -> None:
        end = datetime.fromtimestamp(ended_at, UTC)
        self.first = min(self.first or started_at, started_at)
        self.last = max(self.last or end, end)

    def _report(self, sessions: dict[str, int]) -> Report:
        sums = total(self.ledger.rows)
        unread = self.found.unread()
        return Report(
            read=sums.read,
            kept=sums.kept,
            dropped=dict(sums.dropped),
            bad=sum(source.tree.bad_count for source in self.found.sources),
            sources=source_reports(self.found.sources, self.ledger.rows),
            unknown=unread.files,
            unknown_count=unread.count,
            beside=unread.attachments,
            absent=self.owner.absent,
            sessions=sessions,
            gaps=self.gaps,
            scrubbed=dict(self.scrubber.counts) if self.scrubber is not None else {},
            owner=OwnerReport(
                accounts=self.owner.names,
                read=self.owner.messages,
                kept=self.own_kept,
                first=self.first,
                last=self.last,
            ),
        )
