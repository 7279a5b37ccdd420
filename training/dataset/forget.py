"""Removes one contact from a built data set, and keeps them out of every later build.

Direct chats with the contact are removed. Of other sessions, the stretches between the contact's turns stay, as
`trimming` splits them. What others wrote about the contact stays, and so does what existing adapters have learned.
"""

import hashlib
import shutil
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

import msgspec

from doppel.errors import UserError
from doppel.i18n import tr
from doppel.personal_data import Account, Record
from doppel.reports.html import REPORT_PAGE
from doppel.reports.quiz import QUESTIONS_FILE
from doppel.system.atomic_folder import atomic_folder
from doppel.system.private_folder import make_private_folder
from doppel.system.write_errors import translate_write_errors
from doppel.transcript import Turn, pseudonym
from training.dataset.files import SESSIONS_FILE, Session, read_sessions, write_sessions
from training.dataset.parent_fetcher import fetched_posts, forget_in_parents
from training.dataset.report.build_report import REPORT_FILE, ChatReport, Report, SourceReport, read_report
from training.dataset.trimming import split_around
from training.people.contacts import CONTACTS_FILE, Contact, read_contacts, write_contacts
from training.privacy.blocklist import Blocklist
from training.privacy.scrub import SCRUBBED_FILE


class ForgetResult(msgspec.Struct, frozen=True, kw_only=True):
    """What was removed.

    Attributes:
        accounts: of the contact, as `platform:id`.
        messages: number of messages removed.
        sessions: number of sessions shortened or removed.
        path: the blocklist.
    """

    accounts: list[str]
    messages: int
    sessions: int
    path: str


def forget_accounts(folder: Path, name: str, accounts: Collection[Account]) -> ForgetResult:
    """Adds accounts to the blocklist, and removes their users from the data set if there is one.

    Args:
        folder: the data set.
        name: of the person, for messages.
        accounts: all of the person's.

    Raises:
        UserError: nothing would be left, or a file of the data set is damaged.
        DoppelError: the data folder cannot be written.
    """
    blocklist = Blocklist(folder)
    contacts = read_contacts(folder)
    removed = [contact for contact in contacts if Account(contact.platform, contact.account) in accounts]
    for account in accounts:
        blocklist.add(account.platform, account.id, [])
    for contact in removed:
        blocklist.add(contact.platform, contact.account, contact.chats)
    result = ForgetResult(accounts=sorted(map(str, accounts)), messages=0, sessions=0, path=str(blocklist.path))
    if removed and (folder / SESSIONS_FILE).is_file():
        removal = _remove(folder, name, contacts, removed, blocklist)
        return msgspec.structs.replace(result, messages=removal.messages.total(), sessions=removal.sessions)
    with translate_write_errors(blocklist.path):
        make_private_folder(blocklist.path.parent)
    blocklist.save()
    forget_in_parents(folder, blocklist)
    return result


def export_accounts(folder: Path, accounts: Collection[Account]) -> list[Record]:
    """What the data set holds of these accounts: their entries in the list of contacts, their direct chats, their turns
    in other sessions, and what was fetched of them. Raises UserError if a file is damaged.
    """
    contacts = [one for one in read_contacts(folder) if Account(one.platform, one.account) in accounts]
    records: list[Record] = [{"type": "contact", **msgspec.to_builtins(contact)} for contact in contacts]
    if contacts and (folder / SESSIONS_FILE).is_file():
        theirs = _Removal(contacts)
        for session in read_sessions(folder):
            is_whole = theirs.is_direct_chat(session)
            records += [
                {
                    "type": "turn",
                    "session": session.id,
                    "chat": session.chat,
                    "started_at": session.started_at.isoformat(),
                    "by": turn.speaker,
                    "bubbles": list(turn.bubbles),
                }
                for turn in session.turns
                if is_whole or theirs.is_theirs(turn)
            ]
    posts = [record for author, record in fetched_posts(folder) if author in accounts]
    return records + [{"type": "fetched post", **record} for record in posts]


def _remove(
    folder: Path, name: str, contacts: list[Contact], removed: list[Contact], blocklist: Blocklist
) -> "_Removal":
    """Replaces the data set by one without the removed contacts, and saves the blocklist."""
    report = read_report(folder)
    with atomic_folder(folder, SESSIONS_FILE) as staging:
        _copy_unaffected(folder, staging)
        removal = _Removal(removed)
        if not write_sessions(staging / SESSIONS_FILE, removal.remaining(read_sessions(folder))):
            raise UserError(
                tr(
                    "without {name}, no messages of yours would be left. To delete the whole data set, remove {path}",
                    name=name,
                    path=folder,
                )
            )
        write_contacts(staging, [contact for contact in contacts if contact not in removed])
        new_report = removal.updated_report(report)
        (staging / REPORT_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(new_report), indent=2))
        blocklist.save()  # before the data set is replaced: an interrupted removal can be repeated
        forget_in_parents(folder, blocklist)
    return removal


def _copy_unaffected(folder: Path, staging: Path) -> None:
    """Copies files that are the same without the contact. The page and the quiz are made anew later; the log of
    replaced secrets may name files after people.
    """
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            shutil.copytree(path, staging / path.name)
        elif path.name not in (SESSIONS_FILE, REPORT_FILE, CONTACTS_FILE, REPORT_PAGE, QUESTIONS_FILE, SCRUBBED_FILE):
            shutil.copy2(path, staging / path.name)


class _Removal:
    """Removes a person from sessions and counts what was removed.

    Args:
        contacts: all accounts of the person.
    """

    def __init__(self, contacts: list[Contact]) -> None:
        self.messages: Counter[str] = Counter()
        """Removed messages, by pseudonym of their chat."""
        self.own_messages = 0
        self.sessions = 0
        self._unassigned: Counter[str] = Counter()
        self._splits: Counter[str] = Counter()
        self._platforms = {contact.platform for contact in contacts}
        self._chats = {(contact.platform, chat) for contact in contacts for chat in contact.chats}
        self._chat_pseudonyms = {pseudonym(*chat) for chat in self._chats}
        self._names = {contact.pseudonym for contact in contacts}
        # The name of the contact in sessions with somebody of the same pseudonym.
        self._names |= {
            pseudonym(contact.platform, f"{contact.account}#2") for contact in contacts if not contact.is_linked
        }

    def is_direct_chat(self, session: Session) -> bool:
        """Whether the session belongs to the person as a whole."""
        return session.chat in self._chat_pseudonyms or session.header.contact in self._names

    def is_theirs(self, turn: Turn) -> bool:
        """Whether the person wrote it."""
        return turn.speaker in self._names

    def remaining(self, sessions: Iterator[Session]) -> Iterator[Session]:
        """The sessions without the person."""
        for session in sessions:
            parts = list(self._parts(session))
            before = sum(len(turn.bubbles) for turn in session.turns)
            removed = before - sum(len(turn.bubbles) for part in parts for turn in part.turns)
            if removed:
                self.messages[session.chat] += removed
                self.own_messages += _count_own(session) - sum(map(_count_own, parts))
                self.sessions += 1
            self._splits.update(part.split for part in parts)
            yield from parts

    def _parts(self, session: Session) -> Iterator[Session]:
        if self.is_direct_chat(session):
            return
        turns = session.turns
        if not any(map(self.is_theirs, turns)):
            yield session
            return
        stretches = split_around(turns, self.is_theirs, lambda turn: turn.is_mine)
        for start, end in stretches:
            if any(turn.is_mine for turn in turns[start:end]):
                identifier = hashlib.sha256(f"{session.id} {start}".encode()).hexdigest()[:16] if start else session.id
                yield msgspec.structs.replace(session, id=identifier, turns=turns[start:end])

    def updated_report(self, report: Report) -> Report:
        """The report with the removed messages counted as dropped, and the names of the person's chats removed."""
        self._unassigned = self.messages.copy()
        sources = {name: self._updated_source(source) for name, source in report.sources.items()}
        dropped: Counter[str] = Counter()
        for source in sources.values():
            dropped.update(source.dropped)
        owner = msgspec.structs.replace(report.owner, kept=report.owner.kept - self.own_messages)
        return msgspec.structs.replace(
            report,
            kept=sum(source.kept for source in sources.values()),
            dropped=dict(dropped),
            sources=sources,
            sessions={split: self._splits[split] for split in report.sessions},
            joined=[chat for chat in report.joined if (chat.platform, chat.chat) not in self._chats],
            gaps={key: gap for key, gap in report.gaps.items() if tuple(key.split(":", 1)) not in self._chats},
            owner=owner,
        )

    def _updated_source(self, source: SourceReport) -> SourceReport:
        chats = [self._updated_chat(chat) for chat in source.chats]
        dropped: Counter[str] = Counter()
        for chat in chats:
            dropped.update(chat.dropped)
        return msgspec.structs.replace(
            source, kept=sum(chat.kept for chat in chats), dropped=dict(dropped), chats=chats
        )

    def _updated_chat(self, chat: ChatReport) -> ChatReport:
        """The report does not store a chat's platform, so the chat is matched on all platforms of the person."""
        for platform in sorted(self._platforms):
            name = pseudonym(platform, chat.chat)
            count = min(chat.kept, self._unassigned[name])
            is_with_person = (platform, chat.chat) in self._chats
            if not count and not is_with_person:
                continue
            # Overlapping exports share a chat; none loses more messages than it has.
            self._unassigned[name] -= count
            return msgspec.structs.replace(
                chat,
                kept=chat.kept - count,
                dropped=dict(Counter(chat.dropped) + Counter(forgotten=count)),  # without zeros
                **({"chat": name, "name": ""} if is_with_person else {}),
            )
        return chat


def _count_own(session: Session) -> int:
    return sum(len(turn.bubbles) for turn in session.turns if turn.is_mine)
