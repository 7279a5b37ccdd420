"""Deletes what was finished long ago, once a day (`store.keep` in config.yaml).

Only whole, finished things go: what is still to be answered or sent stays however old it is, and so do rows of chats,
whose positions go on counting. Freed pages are overwritten with zeros and used again by later messages, so the file
stops growing and need not be written anew.
"""

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

import msgspec
from sqlalchemy import ColumnElement, Connection, Table, and_, delete, func, select

from bot.clock import Clock
from bot.store import Store
from bot.store.schema import InboxState, OutboxState, chats, inbox, outbox, slots
from doppel.errors import DoppelError
from doppel.i18n import tr

BATCH = 300
"""Rows that one transaction looks at: deleting them takes about as long as any commit to disk."""

PERIOD = timedelta(days=1)
CHECK_SECONDS = 3600.0
"""How often the wall clock is looked at: a wait of a day would not count the time that a laptop sleeps."""

log = logging.getLogger(__name__)


class Deleted(msgspec.Struct, frozen=True):
    """How many rows were deleted."""

    messages: int = 0
    bubbles: int = 0
    slots: int = 0


class Retention:
    """Deletes from the persona's chats and schedules what was finished more than `keep` ago.

    Args:
        store: the database.
        keep: longer than services may take to deliver a message again, as its row tells that it came before.
        clock: time.
    """

    def __init__(self, store: Store, keep: timedelta, clock: Clock) -> None:
        self._store = store
        self._keep = keep
        self._clock = clock

    async def run(self) -> None:
        """Deletes at once and then daily, until cancelled. After a failure it is tried again in an hour."""
        last: datetime | None = None
        while True:
            now = self._clock.now()
            if last is None or not timedelta() <= now - last < PERIOD:
                try:
                    await self.delete_old()
                    last = now
                except DoppelError as error:
                    log.warning(tr("cannot delete old messages: {error}", error=error))
            await self._clock.sleep(CHECK_SECONDS)

    async def delete_old(self) -> Deleted:
        """Deletes what is old enough now, in small transactions; DoppelError leaves those before it deleted."""
        before = self._clock.now() - self._keep
        # Bubbles first: each of them would be changed when the message that it answers is deleted.
        bubbles = await self._delete_all(_delete_bubbles, before)
        messages = await self._delete_all(_delete_messages, before)
        deleted = Deleted(messages, bubbles, await self._delete_all(_delete_slots, before))
        if deleted.messages or deleted.bubbles:
            values = {"messages": f"{deleted.messages:,}", "bubbles": f"{deleted.bubbles:,}"}
            log.info(tr("store.keep: deleted {messages} old messages and {bubbles} old replies and posts", **values))
        return deleted

    async def _delete_all(
        self, delete_page: Callable[[Connection, str, datetime, int], tuple[int, int | None]], before: datetime
    ) -> int:
        deleted, after = 0, 0
        while True:
            count, last = await self._store.run(delete_page, self._store.persona, before, after)
            deleted += count
            if last is None:
                return deleted
            after = last


def _delete_messages(connection: Connection, persona: str, before: datetime, after: int) -> tuple[int, int | None]:
    finished = (InboxState.ANSWERED, InboxState.IGNORED, InboxState.FAILED)
    is_finished = and_(inbox.c.state.in_(finished), _is_of(persona, inbox))
    return _delete_page(connection, inbox, inbox.c.received_at, is_finished, before=before, after=after)


def _delete_bubbles(connection: Connection, persona: str, before: datetime, after: int) -> tuple[int, int | None]:
    is_finished = and_(
        # What was sent of a turn decides what becomes of its messages when the rest fails.
        outbox.c.turn.not_in(select(outbox.c.turn).where(outbox.c.state.in_(_UNFINISHED))),
        # The number of the next turn follows from it; a number that was used before could still stand in the inbox.
        outbox.c.turn != select(func.max(outbox.c.turn)).scalar_subquery(),
        _is_of(persona, outbox),
    )
    return _delete_page(connection, outbox, outbox.c.changed_at, is_finished, before=before, after=after)


def _delete_slots(connection: Connection, persona: str, before: datetime, after: int) -> tuple[int, int | None]:
    later = slots.alias()
    is_of_schedule = (later.c.persona == slots.c.persona, later.c.schedule == slots.c.schedule)
    is_finished = and_(
        # From the newest one follows what was missed since.
        slots.c.persona == persona,
        slots.c.due < select(func.max(later.c.due)).where(*is_of_schedule).scalar_subquery(),
        slots.c.id.not_in(
            select(outbox.c.slot_id).where(outbox.c.state.in_(_UNFINISHED), outbox.c.slot_id.is_not(None))
        ),
    )
    return _delete_page(connection, slots, slots.c.due, is_finished, before=before, after=after)


_UNFINISHED = (OutboxState.PENDING, OutboxState.SENDING)


def _is_of(persona: str, table: Table) -> ColumnElement[bool]:
    return table.c.chat_id.in_(select(chats.c.id).where(chats.c.persona == persona))


def _delete_page(
    connection: Connection,
    table: Table,
    at: ColumnElement[datetime],
    is_finished: ColumnElement[bool],
    *,
    before: datetime,
    after: int,
) -> tuple[int, int | None]:
    """Deletes what is finished and old among the next rows after row `after`.

    Returns the number of deleted rows, and the last row that was looked at; None if no old ones are left. Rows are
    looked at in the order in which they were made, so nothing needs an index and no transaction reads the whole table.
    """
    page = select(table.c.id, at.label("at"), is_finished.label("is_finished")).where(table.c.id > after)
    rows = connection.execute(page.order_by(table.c.id).limit(BATCH)).all()
    old = [row for row in rows if row.at < before]
    finished = [row.id for row in old if row.is_finished]
    if finished:
        connection.execute(delete(table).where(table.c.id.in_(finished)))
    return len(finished), rows[-1].id if old else None
