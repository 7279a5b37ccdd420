"""Takes one contact out of a data set that is built: their sessions go, and every later build leaves them out.

A conversation of two goes whole. Of other sessions stay the stretches between the contact's turns, as `trimming`
cuts them. What others wrote about the contact stays, and so does what adapters that were trained before have learned.
"""

import hashlib
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec

from doppel.config import Config
from doppel.errors import UserError
from doppel.i18n import tr
from doppel.reports.html import FILE
from doppel.reports.quiz import QUESTIONS_FILE
from doppel.system.atomic_folder import atomic_folder
from doppel.transcript import pseudonym
from training.dataset.files import SESSIONS, Session, read_sessions, write_sessions
from training.dataset.parents import forget_fetched
from training.dataset.report.figures import REPORT, ChatReport, Report, SourceReport
from training.dataset.trimming import broken_at
from training.people.contacts import CONTACTS, Contact, called, joined_pseudonym, plain, read_contacts, write_contacts
from training.privacy.blocklist import Forgotten

_NAMED = 5
"""Contacts that are named where several are meant."""


class Gone(msgspec.Struct, frozen=True, kw_only=True):
    """What was forgotten: accounts, and how much left the data set because of them."""

    accounts: list[str]
    messages: int
    sessions: int
    path: str


def forget(config: Config, name: str) -> Gone:
    """Removes a contact from data/<persona>/ and writes down that they are forgotten.

    Args:
        config: says where the data set is, and who has several accounts.
        name: an account's id or name, with `platform:` before it or not, a pseudonym, or a person in `people`.

    Raises:
        UserError: there is no data set, nobody or more than one person is called so, or nothing would be left.
        DoppelError: the data folder cannot be written.
    """
    folder = config.data_dir
    if not (folder / SESSIONS).is_file():
        raise UserError(tr("{path}: no data set yet; run `doppel build` first", path=folder))
    contacts = read_contacts(folder)
    theirs = _find(config, contacts, name)
    report = read_report(folder)
    forgotten = Forgotten(folder)
    with atomic_folder(folder, SESSIONS) as staging:
        _copy(folder, staging)
        removal = _Removal(theirs)
        if not write_sessions(staging / SESSIONS, removal.rest(read_sessions(folder))):
            raise UserError(
                tr(
                    "nothing of yours would be left without {name}; to be rid of all of it, remove {path}",
                    name=name,
                    path=folder,
                )
            )
        write_contacts(staging, [one for one in contacts if one not in theirs])
        (staging / REPORT).write_bytes(msgspec.json.format(msgspec.json.encode(removal.amended(report)), indent=2))
        for one in theirs:
            forgotten.add(one.platform, one.account, one.chats)
        forgotten.save()  # before the data set: what is interrupted here can be done again
        forget_fetched(config, forgotten)
    return Gone(
        accounts=[f"{one.platform}:{one.account}" for one in theirs],
        messages=removal.messages.total(),
        sessions=removal.sessions,
        path=str(forgotten.path),
    )


def _find(config: Config, contacts: list[Contact], name: str) -> list[Contact]:
    """All accounts of the one person who is called so."""
    wanted = plain(name)
    persons = {joined_pseudonym(one.name) for one in config.people if plain(one.name) == wanted}
    found = [one for one in contacts if one.is_joined and one.pseudonym in persons] or [
        one
        for one in contacts
        if wanted in called(one.platform, one.account, one.name) or wanted == one.pseudonym.casefold()
    ]
    people = {one.pseudonym if one.is_joined else (one.platform, one.account) for one in found}
    if not people:
        raise UserError(
            tr(
                "{name}: nobody in the data set is called so; take an id, a name or a pseudonym from {path}",
                name=name,
                path=config.data_dir / CONTACTS,
            )
        )
    if len(people) > 1:
        named = ", ".join(f"{one.platform}:{one.account} ({one.name or one.pseudonym})" for one in found[:_NAMED])
        raise UserError(
            tr(
                "{name}: {count} contacts are called so; say which one: {candidates}",
                name=name,
                count=len(people),
                candidates=named if len(found) <= _NAMED else f"{named}, …",
            )
        )
    if not found[0].is_joined:
        return found
    return [one for one in contacts if one.is_joined and one.pseudonym == found[0].pseudonym]


def read_report(folder: Path) -> Report:
    """What the build, or whoever was forgotten since, left of it. Raises UserError when it cannot be read."""
    path = folder / REPORT
    try:
        return msgspec.json.decode(path.read_bytes(), type=Report)
    except (OSError, msgspec.MsgspecError) as error:
        raise UserError(
            tr("{path}: cannot be read: {error}; run `doppel build` again", path=path, error=error)
        ) from None


def _copy(folder: Path, staging: Path) -> None:
    """What of a data set does not depend on who is in it. The page can only be drawn anew, the quiz asked anew."""
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            shutil.copytree(path, staging / path.name)
        elif path.name not in (SESSIONS, REPORT, CONTACTS, FILE, QUESTIONS_FILE):
            shutil.copy2(path, staging / path.name)


class _Removal:
    """Takes a person out of sessions, and counts what went.

    Args:
        contacts: all accounts of the person.
    """

    def __init__(self, contacts: list[Contact]) -> None:
        self.messages: Counter[str] = Counter()
        """That went, by the pseudonym of their chat."""
        self.own = 0
        self.sessions = 0
        self._unsettled: Counter[str] = Counter()
        self._splits: Counter[str] = Counter()
        self._platforms = {one.platform for one in contacts}
        self._chats = {(one.platform, chat) for one in contacts for chat in one.chats}
        self._chat_names = {pseudonym(*chat) for chat in self._chats}
        self._names = {one.pseudonym for one in contacts}
        # By this name goes whoever meets a namesake in a session.
        self._names |= {pseudonym(one.platform, f"{one.account}#2") for one in contacts if not one.is_joined}

    def rest(self, sessions: Iterator[Session]) -> Iterator[Session]:
        """What is left of the sessions."""
        for session in sessions:
            left = list(self._left(session))
            before = sum(len(turn.bubbles) for turn in session.turns)
            gone = before - sum(len(turn.bubbles) for one in left for turn in one.turns)
            if gone:
                self.messages[session.chat] += gone
                self.own += _own(session) - sum(_own(one) for one in left)
                self.sessions += 1
            self._splits.update(one.split for one in left)
            yield from left

    def _left(self, session: Session) -> Iterator[Session]:
        if session.chat in self._chat_names or session.header.contact in self._names:
            return
        turns = session.turns
        if not any(turn.speaker in self._names for turn in turns):
            yield session
            return
        stretches = broken_at(turns, lambda turn: turn.speaker in self._names, lambda turn: turn.is_mine)
        for start, stop in stretches:
            if any(turn.is_mine for turn in turns[start:stop]):
                name = hashlib.sha256(f"{session.id} {start}".encode()).hexdigest()[:16] if start else session.id
                yield msgspec.structs.replace(session, id=name, turns=turns[start:stop])

    def amended(self, report: Report) -> Report:
        """The report on the data set as it is now: what went is dropped, and no chat is named after the person."""
        self._unsettled = self.messages.copy()
        sources = {name: self._source(source) for name, source in report.sources.items()}
        dropped: Counter[str] = Counter()
        for source in sources.values():
            dropped.update(source.dropped)
        own = msgspec.structs.replace(report.owner, kept=report.owner.kept - self.own)
        return msgspec.structs.replace(
            report,
            kept=sum(source.kept for source in sources.values()),
            dropped=dict(dropped),
            sources=sources,
            sessions={split: self._splits[split] for split in report.sessions},
            gaps={key: gap for key, gap in report.gaps.items() if tuple(key.split(":", 1)) not in self._chats},
            owner=own,
        )

    def _source(self, source: SourceReport) -> SourceReport:
        chats = [self._chat(chat) for chat in source.chats]
        dropped: Counter[str] = Counter()
        for chat in chats:
            dropped.update(chat.dropped)
        return msgspec.structs.replace(
            source, kept=sum(chat.kept for chat in chats), dropped=dict(dropped), chats=chats
        )

    def _chat(self, chat: ChatReport) -> ChatReport:
        """The report does not tell a chat's platform, so the chat is found by its pseudonym on any of the person's."""
        for platform in sorted(self._platforms):
            name = pseudonym(platform, chat.chat)
            count = min(chat.kept, self._unsettled[name])
            is_theirs = (platform, chat.chat) in self._chats
            if not count and not is_theirs:
                continue
            # Exports that overlap share a chat: each gives up at most what it gave.
            self._unsettled[name] -= count
            return msgspec.structs.replace(
                chat,
                kept=chat.kept - count,
                dropped=dict(Counter(chat.dropped) + Counter(forgotten=count)),  # without zeros
                **({"chat": name, "name": ""} if is_theirs else {}),
            )
        return chat


def _own(session: Session) -> int:
    return sum(len(turn.bubbles) for turn in session.turns if turn.is_mine)
