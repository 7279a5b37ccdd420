"""Who works on what, where several daemons share a database: each chat, schedule and receiver has one daemon at a time.

A daemon renews its leases while it lives; those of one that was killed or cut off expire, and another one takes over.
One that was only stopped for a while must not go on as if nothing had happened: what it writes for a chat is committed
only if the lease is still its own, checked in the same transaction. Time is the server's, so that clocks may differ.

A SQLite file belongs to one daemon, which has every lease without asking.
"""

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import ColumnElement, Connection, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from bot.clock import Clock
from bot.store import Store, outbox
from bot.store.outbox import InterruptedSend
from bot.store.schema import leases
from doppel.errors import DoppelError
from doppel.i18n import tr

LEASE = timedelta(seconds=15)
"""How long a daemon that was killed keeps the others from its chats."""

RENEW_SECONDS = 5.0

P = ParamSpec("P")
R = TypeVar("R")

log = logging.getLogger(__name__)


class LeaseLost(DoppelError):
    """Another daemon works on the chat now. Nothing was changed."""


class Leases:
    """The leases of one daemon.

    Args:
        store: the database.
        clock: for the time between two renewals.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self.store = store
        self._clock = clock
        self._owner = f"{socket.gethostname()[:40]}:{os.getpid()}:{secrets.token_hex(4)}"
        self._held: dict[str, asyncio.Event] = {}

    async def acquire(self, name: str) -> bool:
        """Takes a lease that is free or expired; returns whether this daemon has it. Raises DoppelError."""
        if not self.store.is_shared or name in self._held:
            return True
        if not await self.store.run(_acquire, name, self._owner):
            return False
        self._held[name] = asyncio.Event()
        return True

    async def acquire_chat(self, chat_id: int, resend_safe: Collection[str]) -> tuple[bool, list[InterruptedSend]]:
        """As `acquire`, for a chat; what its last daemon was sending is resolved by `outbox.recover_interrupted_sends`.

        Returns whether this daemon has the chat, and what was resolved.
        """
        name = _name_of(chat_id)
        if not self.store.is_shared or name in self._held:
            return True, []
        owner, persona, now = self._owner, self.store.persona, self._clock.now()

        def take(connection: Connection) -> list[InterruptedSend] | None:
            if not _acquire(connection, name, owner):
                return None
            return outbox.recover_interrupted_sends(connection, persona, resend_safe, now, chat_id=chat_id)

        interrupted = await self.store.run(take)
        if interrupted is None:
            return False, []
        self._held[name] = asyncio.Event()
        return True, interrupted

    async def run_for_chat(
        self, chat_id: int, work: Callable[Concatenate[Connection, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Runs `work(connection, ...)` as `Store.run` does, if this daemon has the chat.

        Raises:
            LeaseLost: it does not have it any more.
            DoppelError: the database fails.
        """
        if not self.store.is_shared:
            return await self.store.run(work, *args, **kwargs)
        name, owner = _name_of(chat_id), self._owner

        def checked(connection: Connection) -> R:
            _check(connection, name, owner)
            return work(connection, *args, **kwargs)

        try:
            return await self.store.run(checked)
        except LeaseLost:
            self._lose(name)
            raise

    async def release(self, name: str) -> None:
        """Lets other daemons have it at once, instead of when it expires. Never raises."""
        if self._held.pop(name, None) is None:
            return
        try:
            await self.store.run(_release, [name], self._owner)
        except DoppelError as error:
            log.debug("lease %s: %s", name, error)

    async def release_chats(self, chat_ids: Collection[int]) -> None:
        """As `release`, for chats."""
        for chat_id in chat_ids:
            await self.release(_name_of(chat_id))

    @asynccontextmanager
    async def holding(self, name: str, *, poll_seconds: float = RENEW_SECONDS) -> AsyncIterator[asyncio.Event]:
        """Waits until this daemon has the lease, and has it while the block runs. The event is set when it is lost."""
        while True:
            try:
                if await self.acquire(name):
                    break
            except DoppelError as error:  # the database is away
                log.debug("lease %s: %s", name, error)
            await self._clock.sleep(poll_seconds)
        try:
            yield self._held.get(name) or asyncio.Event()
        finally:
            await self.release(name)

    async def run(self) -> None:
        """Renews all leases until cancelled."""
        while True:
            await self._clock.sleep(RENEW_SECONDS)
            if not self._held:
                continue
            try:
                await self.renew()
            except DoppelError as error:
                log.warning(tr("cannot renew the leases of this daemon: {error}", error=error))

    async def renew(self) -> None:
        """Renews all leases once. Raises DoppelError."""
        names = list(self._held)
        renewed = await self.store.run(_renew, names, self._owner)
        for name in set(names) - renewed:
            self._lose(name)

    async def close(self) -> None:
        """Releases all leases. Never raises."""
        self._held = {}
        try:
            if self.store.is_shared:  # whatever is held: a task may have been cancelled while it acquired one
                await self.store.run(_release, None, self._owner)
        except DoppelError as error:
            log.debug("leases: %s", error)

    def _lose(self, name: str) -> None:
        if (lost := self._held.pop(name, None)) is not None:
            log.warning(tr("another daemon has taken over {name}", name=name))
            lost.set()


def _name_of(chat_id: int) -> str:
    return f"chat:{chat_id}"


def _now() -> ColumnElement[object]:
    """UTC by the server's clock, also late in a transaction."""
    return func.timezone("UTC", func.clock_timestamp())


def _acquire(connection: Connection, name: str, owner: str) -> bool:
    expires_at = _now() + LEASE
    lease = insert(leases).values(name=name, owner=owner, expires_at=expires_at)
    taken = lease.on_conflict_do_update(
        index_elements=[leases.c.name],
        set_={"owner": owner, "expires_at": expires_at},
        where=(leases.c.expires_at < _now()) | (leases.c.owner == owner),
    )
    return connection.execute(taken.returning(leases.c.name)).first() is not None


def _check(connection: Connection, name: str, owner: str) -> None:
    """Raises LeaseLost; otherwise nobody can take the lease before the transaction ends."""
    mine = select(leases.c.name).where(leases.c.name == name, leases.c.owner == owner, leases.c.expires_at > _now())
    if connection.execute(mine.with_for_update()).first() is None:
        raise LeaseLost(tr("another daemon works on this chat"))


def _renew(connection: Connection, names: Collection[str], owner: str) -> set[str]:
    """Returns those that are still this daemon's. One that has expired and that nobody wanted still is."""
    mine = update(leases).where(leases.c.name.in_(names), leases.c.owner == owner)
    return set(connection.execute(mine.values(expires_at=_now() + LEASE).returning(leases.c.name)).scalars())


def _release(connection: Connection, names: Collection[str] | None, owner: str) -> None:
    """Releases these of the owner's leases, or all of them."""
    mine = delete(leases).where(leases.c.owner == owner)
    connection.execute(mine if names is None else mine.where(leases.c.name.in_(names)))
