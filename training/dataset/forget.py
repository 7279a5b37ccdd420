"""Removes one contact from a built data set, and keeps them out of every later build.

Direct chats with the contact are removed. Of other sessions, the stretches between the contact's turns stay, as
`trimming` splits them. What others wrote about the contact stays, and so does what existing adapters have learned.
"""

import hashlib
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from doppel.config import PersonSettings
from doppel.errors import UserError
from doppel.i18n import tr
from doppel.reports.html import REPORT_PAGE
from doppel.reports.quiz import QUESTIONS_FILE
from doppel.system.atomic_folder import atomic_folder
from doppel.transcript import pseudonym
from training.dataset.files import SESSIONS_FILE, Session, read_sessions, write_sessions
from training.dataset.parent_fetcher import forget_in_parents
from training.dataset.report.build_report import REPORT_FILE, ChatReport, Report, SourceReport, read_report
from training.dataset.trimming import split_around
from training.people.contacts import (
    CONTACTS_FILE,
    Contact,
    names_of_account,
    normalized_name,
    person_pseudonym,
    read_contacts,
    write_contacts,
)
from training.privacy.blocklist import Blocklist

_MAX_NAMED = 5
"""Contacts listed when a name is ambiguous."""


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


def forget_contact(folder: Path, people: Sequence[PersonSettings], name: str) -> ForgetResult:
    """Removes a contact from a data set and adds them to the blocklist.

    Args:
        folder: the data set.
        people: persons with several accounts, as in config.yaml.
        name: id or name of an account, with or without `platform:`; a pseudonym; or the name of a person in `people`.

    Raises:
        UserError: there is no data set, the name matches nobody or several contacts, or nothing would be left.
        DoppelError: the data folder cannot be written.
    """
    if not (folder / SESSIONS_FILE).is_file():
        raise UserError(tr("{path}: no data set yet; run `doppel build` first", path=folder))
    contacts = read_contacts(folder)
    removed = _find(contacts, people, name, folder / CONTACTS_FILE)
    report = read_report(folder)
    blocklist = Blocklist(folder)
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
        for contact in removed:
            blocklist.add(contact.platform, contact.account, contact.chats)
        blocklist.save()  # before the data set is replaced: an interrupted removal can be repeated
        forget_in_parents(folder, blocklist)
    return ForgetResult(
        accounts=[f"{contact.platform}:{contact.account}" for contact in removed],
        messages=removal.messages.total(),
        sessions=removal.sessions,
        path=str(blocklist.path),
    )


def _find(contacts: list[Contact], people: Sequence[PersonSettings], name: str, path: Path) -> list[Contact]:
    """All accounts of the one person with this name; `path` is the list of contacts, for error messages."""
    wanted = normalized_name(name)
    persons = {person_pseudonym(person.name) for person in people if normalized_name(person.name) == wanted}
    matches = [contact for contact in contacts if contact.is_linked and contact.pseudonym in persons] or [
        contact
        for contact in contacts
        if wanted in names_of_account(contact.platform, contact.account, contact.name)
        or wanted == contact.pseudonym.casefold()
    ]
    identities = {
        contact.pseudonym if contact.is_linked else (contact.platform, contact.account) for contact in matches
    }
    if not identities:
        raise UserError(
            tr("{name}: no such contact. Use an id, name or pseudonym listed in {path}", name=name, path=path)
        )
    if len(identities) > 1:
        named = ", ".join(
            f"{contact.platform}:{contact.account} ({contact.name or contact.pseudonym})"
            for contact in matches[:_MAX_NAMED]
        )
        raise UserError(
            tr(
                "{name}: matches {count} contacts. Choose one: {candidates}",
                name=name,
                count=len(identities),
                candidates=named if len(matches) <= _MAX_NAMED else f"{named}, …",
            )
        )
    if not matches[0].is_linked:
        return matches
    return [contact for contact in contacts if contact.is_linked and contact.pseudonym == matches[0].pseudonym]


def _copy_unaffected(folder: Path, staging: Path) -> None:
    """Copies files that are the same without the contact. The page and the quiz are made anew later."""
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            shutil.copytree(path, staging / path.name)
        elif path.name not in (SESSIONS_FILE, REPORT_FILE, CONTACTS_FILE, REPORT_PAGE, QUESTIONS_FILE):
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
        if session.chat in self._chat_pseudonyms or session.header.contact in self._names:
            return
        turns = session.turns
        if not any(turn.speaker in self._names for turn in turns):
            yield session
            return
        stretches = split_around(turns, lambda turn: turn.speaker in self._names, lambda turn: turn.is_mine)
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
