"""Numbered migrations from an empty database to the current tables: append-only, applied and recorded at start.

Each step has its own copy of the tables it creates, so later changes of `schema` cannot change what it does.
"""

from collections.abc import Callable
from datetime import UTC, datetime

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    func,
    insert,
    inspect,
    select,
)

from doppel.errors import UserError
from doppel.i18n import tr

Step = Callable[[Connection], None]

_applied = Table(
    "migrations",
    MetaData(),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("name", String(64), nullable=False),
    Column("applied_at", DateTime, nullable=False),
)


def migrate(connection: Connection, path: str) -> None:
    """Applies the missing steps within the caller's transaction.

    Args:
        connection: in a transaction that covers DDL.
        path: the database in messages.

    Raises:
        UserError: the database was written by a newer doppel.
    """
    version = applied_version(connection)
    if version > len(STEPS):
        raise UserError(
            tr(
                "{path}: written by a newer doppel (schema {theirs}, this version supports {ours}); update doppel",
                path=path,
                theirs=version,
                ours=len(STEPS),
            )
        )
    _applied.create(connection, checkfirst=True)
    for number, step in enumerate(STEPS[version:], start=version + 1):
        step(connection)
        now = datetime.now(UTC).replace(tzinfo=None)
        connection.execute(insert(_applied).values(number=number, name=step.__name__, applied_at=now))


def applied_version(connection: Connection) -> int:
    """Number of the last applied step; 0 for an empty database."""
    if not inspect(connection).has_table(_applied.name):
        return 0
    last: int = connection.execute(select(func.coalesce(func.max(_applied.c.number), 0))).scalar_one()
    return last


def inbox_and_outbox(connection: Connection) -> None:
    """Step 1: chats, inbox, slots, outbox, cursors."""
    tables = MetaData()
    Table(
        "chats",
        tables,
        Column("id", Integer, primary_key=True),
        Column("platform", String(64), nullable=False),
        Column("chat", String(255), nullable=False),
        Column("kind", String(16), nullable=False),
        Column("created_at", DateTime, nullable=False),
        UniqueConstraint("platform", "chat", name="one_row_a_chat"),
    )
    Table(
        "inbox",
        tables,
        Column("id", Integer, primary_key=True),
        Column("chat_id", ForeignKey("chats.id", ondelete="CASCADE"), nullable=False),
        Column("platform", String(64), nullable=False),
        Column("event_id", String(255), nullable=False),
        Column("message_id", String(255), nullable=False),
        Column("sender", String(255), nullable=False),
        Column("text", Text, nullable=False),
        Column("addressed", Boolean, nullable=False),
        Column("sent_at", DateTime, nullable=False),
        Column("received_at", DateTime, nullable=False),
        Column("state", String(16), nullable=False),
        Column("reason", Text),
        Column("attempts", Integer, nullable=False),
        UniqueConstraint("platform", "event_id", name="one_row_an_event"),
        Index("inbox_by_chat", "chat_id", "received_at"),
        Index("inbox_by_state", "state", "chat_id"),
    )
    Table(
        "slots",
        tables,
        Column("id", Integer, primary_key=True),
        Column("schedule", String(64), nullable=False),
        Column("due", DateTime, nullable=False),
        Column("claimed_at", DateTime, nullable=False),
        Column("state", String(16), nullable=False),
        Column("reason", Text),
        UniqueConstraint("schedule", "due", name="one_row_a_slot"),
    )
    Table(
        "outbox",
        tables,
        Column("id", Integer, primary_key=True),
        Column("chat_id", ForeignKey("chats.id", ondelete="CASCADE"), nullable=False),
        Column("kind", String(16), nullable=False),
        Column("turn", Integer, nullable=False),
        Column("position", Integer, nullable=False),
        Column("text", Text, nullable=False),
        Column("state", String(16), nullable=False),
        Column("adapter", String(64)),
        Column("inbox_id", ForeignKey("inbox.id", ondelete="SET NULL")),
        Column("slot_id", ForeignKey("slots.id", ondelete="SET NULL")),
        Column("attempts", Integer, nullable=False),
        Column("not_before", DateTime),
        Column("message_id", String(255)),
        Column("error", Text),
        Column("created_at", DateTime, nullable=False),
        Column("changed_at", DateTime, nullable=False),
        UniqueConstraint("turn", "position", name="one_row_a_bubble"),
        Index("outbox_by_chat", "chat_id", "changed_at"),
        Index("outbox_by_state", "state", "chat_id"),
    )
    Table(
        "cursors",
        tables,
        Column("name", String(255), primary_key=True),
        Column("value", Text, nullable=False),
        Column("changed_at", DateTime, nullable=False),
    )
    tables.create_all(connection, checkfirst=False)


STEPS: tuple[Step, ...] = (inbox_and_outbox,)
"""All steps in order. Never edit or remove one; append."""
