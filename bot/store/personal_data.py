"""The bot's database as a store of personal data: what people wrote to the persona, and what it replied."""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import ClassVar, TypeVar

import msgspec
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from bot.store import Store, StoreInUse
from bot.store.backup import backups_folder
from bot.store.connect import open_engine
from bot.store.erasure import chats_of, export_chat, stored_accounts
from bot.store.forget_requests import Answer, erase_from, request_erasure
from bot.store.integrity import sqlite_file
from bot.store.strangers import export_strangers, stored_strangers
from doppel.config import Config
from doppel.errors import DoppelError
from doppel.i18n import tr
from doppel.personal_data import Account, Erased, KnownAccount, Person, Record

R = TypeVar("R")


class LiveMessages:
    """The database that config.yaml names; a missing one holds nothing and is not created."""

    holds_names: ClassVar[bool] = False

    def __init__(self, config: Config) -> None:
        self._url = config.store_url
        self._persona = config.persona.name
        self._file = sqlite_file(self._url)
        self._backups = backups_folder(config)

    def accounts(self) -> Iterable[KnownAccount]:
        """Everybody with messages in the database; it has ids only, no names."""

        def read(connection: Connection) -> set[Account]:
            return {*stored_accounts(connection), *stored_strangers(connection)}

        return [KnownAccount(account=account) for account in sorted(self._read(read) or ())]

    def erase(self, person: Person) -> Erased:
        """Erases the person; through the daemon if it is running."""

        def holds_something(connection: Connection) -> bool:
            return bool(chats_of(connection, person.accounts) or export_strangers(connection, person.accounts))

        if not self._read(holds_something):
            return Erased(records=0, lines=self._backup_lines())
        try:
            with closing(Store(self._url, self._persona)) as store:
                answer = asyncio.run(_erase_and_compact(store, person.accounts))
            if self._file is None:  # a server has no lock that would tell whether a daemon is running
                answer = msgspec.structs.replace(answer, is_cache_cleared=False)
        except StoreInUse:
            assert self._file is not None
            answer = request_erasure(self._file, person.accounts)
        erased = _erased(person, answer)
        return msgspec.structs.replace(erased, lines=(*erased.lines, *self._backup_lines()))

    def export(self, person: Person) -> list[Record]:
        """What `erase` would remove, chat by chat."""

        def read(connection: Connection) -> list[Record]:
            chats = chats_of(connection, person.accounts)
            records = [record for chat in chats for record in export_chat(connection, chat, person.accounts)]
            return [*records, *export_strangers(connection, person.accounts)]

        return self._read(read) or []

    def _backup_lines(self) -> tuple[str, ...]:
        """Names the backups, since what they hold of the person stays in them."""
        count = sum(1 for _ in self._backups.glob("*.db"))
        if not count:
            return ()
        text = tr(
            "{path}: {count} backups of the bot's database may still hold messages "
            "of this person; delete them, and make a new one",
            path=self._backups,
            count=count,
        )
        return (text,)

    def _read(self, work: Callable[[Connection], R]) -> R | None:
        """Runs a function that only reads, also while the daemon has the database open; None without a database."""
        if self._file is not None and not self._file.is_file():
            return None
        try:
            with closing(Store(self._url, self._persona)) as store:  # migrates what an earlier version wrote
                return asyncio.run(store.run(work))
        except StoreInUse:
            pass
        engine = open_engine(self._url)
        try:
            with engine.connect() as connection:
                return work(connection)
        except DBAPIError as error:
            raise DoppelError(tr("{path}: database error: {error}", path=self._file, error=error.orig)) from error
        finally:
            engine.dispose()


async def _erase_and_compact(store: Store, accounts: Iterable[Account]) -> Answer:
    erased = await erase_from(store, frozenset(accounts))
    try:
        await store.compact()
    except DoppelError as error:
        return Answer(erased=erased, warning=str(error))
    return Answer(erased=erased)


def _erased(person: Person, answer: Answer) -> Erased:
    erased = answer.erased
    lines = [
        tr(
            "{name}: removed {messages} messages and {bubbles} of the persona's from {chats} chats of the bot",
            name=person.name,
            messages=f"{erased.messages:,}",
            bubbles=f"{erased.bubbles:,}",
            chats=f"{erased.chats:,}",
        )
    ]
    if erased.quotes:
        lines.append(
            tr(
                "{name}: removed what {count} messages of others showed of theirs",
                name=person.name,
                count=f"{erased.quotes:,}",
            )
        )
    if erased.stranger_replies:
        lines.append(tr("{name}: removed the note that they were sent `stranger_reply`", name=person.name))
    if not answer.is_cache_cleared:
        lines.append(
            tr(
                "The engine may still have the conversation in its memory. Restart it (with engine.backend openai: the "
                "model server; else `doppel run`)"
            )
        )
    if answer.warning is not None:
        lines.append(tr("The rows are deleted, but the file was not cleaned up: {reason}", reason=answer.warning))
    lines.append(
        tr(
            "What they write to the bot from now on is stored again, and so is what a service delivers again (Discord: "
            "up to a day after a restart). To prevent that, add {accounts} to `block` in "
            "config.yaml",
            accounts=", ".join(map(str, sorted(person.accounts))),
        )
    )
    details = {"messages": erased.messages, "bubbles": erased.bubbles, "chats": erased.chats}
    if erased.quotes:
        details["quotes"] = erased.quotes
    if erased.stranger_replies:
        details["stranger_replies"] = erased.stranger_replies
    records = erased.messages + erased.bubbles + erased.quotes + erased.stranger_replies
    return Erased(records=records, lines=tuple(lines), details=details)
