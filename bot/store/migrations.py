"""Numbered migrations from an empty database to the current tables: append-only, applied and recorded at start.

Each step has its own copy of the tables it creates, so later changes of `schema` cannot change what it does.
"""

from collections.abc import Callable
from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Connection,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Sequence,
    String,
    Table,
    Text,
    UniqueConstraint,
    func,
    insert,
    inspect,
    select,
    text,
)
from sqlalchemy.schema import CreateSequence

from doppel.errors import UserError
from doppel.i18n import tr

Step = Callable[[Connection, str], None]
"""Takes a connection and the name of the persona that the configuration names."""

_applied = Table(
    "migrations",
    MetaData(),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("name", String(64), nullable=False),
    Column("applied_at", DateTime, nullable=False),
)


_LOCK_NUMBER = 0x646F7070656C
"""Of migrations, among the advisory locks of a PostgreSQL server."""


def migrate(connection: Connection, path: str, persona: str) -> None:
    """Applies the missing steps within the caller's transaction.

    Args:
        connection: in a transaction that covers DDL; on SQLite with `foreign_keys` off, since a step may replace a
            table that others refer to.
        path: the database in messages.
        persona: chats from before chats belonged to a persona become this one's.

    Raises:
        UserError: the database was written by a newer doppel.
    """
    if connection.dialect.name == "postgresql":  # several daemons may start at once
        connection.execute(select(func.pg_advisory_xact_lock(_LOCK_NUMBER)))
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
        step(connection, persona)
        now = datetime.now(UTC).replace(tzinfo=None)
        connection.execute(insert(_applied).values(number=number, name=step.__name__, applied_at=now))


def applied_version(connection: Connection) -> int:
    """Number of the last applied step; 0 for an empty database."""
    if not inspect(connection).has_table(_applied.name):
        return 0
    last: int = connection.execute(select(func.coalesce(func.max(_applied.c.number), 0))).scalar_one()
    return last


def inbox_and_outbox(connection: Connection, _persona: str) -> None:
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


def personas_and_positions(connection: Connection, persona: str) -> None:
    """Step 2: chats belong to a persona; messages know the order in which they were seen, and the turn that answers
    them. Everything that is stored keeps its order: by the time it was received or sent.
    """
    from alembic.migration import MigrationContext
    from alembic.operations import Operations

    alter = Operations(MigrationContext.configure(connection))
    alter.add_column("inbox", Column("chat_position", Integer, nullable=False, server_default="0"))
    alter.add_column("inbox", Column("turn", Integer))
    alter.add_column("outbox", Column("chat_position", Integer))
    for table in ("inbox", "outbox"):
        alter.drop_index(f"{table}_by_chat", table)
        alter.create_index(f"{table}_by_position", table, ["chat_id", "chat_position"])
    alter.create_index("inbox_by_turn", "inbox", ["turn"])
    with alter.batch_alter_table("chats", recreate="auto") as chats:
        chats.add_column(Column("persona", String(255), nullable=False, server_default=persona))
        chats.add_column(Column("allow_ids", JSON))
        chats.add_column(Column("last_position", Integer, nullable=False, server_default="0"))
        chats.drop_constraint("one_row_a_chat", type_="unique")
        chats.create_unique_constraint("one_row_a_chat", ["persona", "platform", "chat"])
    with alter.batch_alter_table("chats", recreate="auto") as chats:
        chats.alter_column("persona", server_default=None)
    connection.execute(
        text("""
        create temporary table seen_order as
        select side, id, chat_id, row_number() over (partition by chat_id order by at, side, id) as chat_position
        from (
            select 0 as side, id, chat_id, received_at as at from inbox
            union all
            select 1, id, chat_id, changed_at from outbox where state in ('sending', 'sent', 'unknown')
        ) as seen
        """)
    )
    connection.execute(text("create index seen_by_id on seen_order (side, id)"))
    for side, table in enumerate(("inbox", "outbox")):
        position = f"(select chat_position from seen_order where side = {side} and seen_order.id = {table}.id)"  # noqa: S608
        where = f"where id in (select id from seen_order where side = {side})"  # noqa: S608
        connection.execute(text(f"update {table} set chat_position = {position} {where}"))  # noqa: S608
    # The outbox named the last message that a turn answers; it was marked as answered when the reply was written.
    connection.execute(
        text("""
        update inbox set state = 'replying', turn = (select min(turn) from outbox where outbox.inbox_id = inbox.id)
        where id in (select inbox_id from outbox where state in ('pending', 'sending'))
        """)
    )
    last = "select max(chat_position) from seen_order where seen_order.chat_id = chats.id"
    connection.execute(text(f"update chats set last_position = coalesce(({last}), 0)"))  # noqa: S608
    connection.execute(text("drop table seen_order"))


def shared_databases(connection: Connection, persona: str) -> None:
    """Step 3: schedules and events belong to a persona, as chats do; what several daemons on one server need."""
    from alembic.migration import MigrationContext
    from alembic.operations import Operations

    alter = Operations(MigrationContext.configure(connection))
    with alter.batch_alter_table("inbox", recreate="auto") as inbox:
        inbox.drop_constraint("one_row_an_event", type_="unique")
        inbox.create_unique_constraint("one_row_an_event", ["chat_id", "event_id"])
    with alter.batch_alter_table("slots", recreate="auto") as slots:
        slots.add_column(Column("persona", String(255), nullable=False, server_default=persona))
        slots.drop_constraint("one_row_a_slot", type_="unique")
        slots.create_unique_constraint("one_row_a_slot", ["persona", "schedule", "due"])
    with alter.batch_alter_table("slots", recreate="auto") as slots:
        slots.alter_column("persona", server_default=None)
    tables = MetaData()
    alter.rename_table("cursors", "old_cursors")
    cursors = Table(
        "cursors",
        tables,
        Column("persona", String(255), primary_key=True),
        Column("name", String(255), primary_key=True),
        Column("value", Text, nullable=False),
        Column("changed_at", DateTime, nullable=False),
    )
    Table(
        "leases",
        tables,
        Column("name", String(255), primary_key=True),
        Column("owner", String(64), nullable=False),
        Column("expires_at", DateTime, nullable=False),
    )
    if connection.dialect.name == "postgresql":  # names of indexes belong to the whole database there
        connection.execute(text("alter index cursors_pkey rename to old_cursors_pkey"))
        last_turn = connection.execute(text("select coalesce(max(turn), 0) from outbox")).scalar_one()
        connection.execute(CreateSequence(Sequence("turn_numbers", start=last_turn + 1)))
    tables.create_all(connection, checkfirst=False)
    old = text("select name, value, changed_at from old_cursors").columns(
        Column("name", String), Column("value", Text), Column("changed_at", DateTime)
    )
    rows = [{"persona": persona, **row._mapping} for row in connection.execute(old)]
    if rows:
        connection.execute(insert(cursors), rows)
    alter.drop_table("old_cursors")


def references_by_index(connection: Connection, _persona: str) -> None:
    """Step 4: what refers to a message or a slot is found by index, as it is for each one that is deleted."""
    connection.execute(text("create index outbox_by_message on outbox (inbox_id)"))
    connection.execute(text("create index outbox_by_slot on outbox (slot_id)"))


def answered_messages(connection: Connection, _persona: str) -> None:
    """Step 5: a message has what it answers."""
    from alembic.migration import MigrationContext
    from alembic.operations import Operations

    alter = Operations(MigrationContext.configure(connection))
    alter.add_column("inbox", Column("answers_sender", String(255)))
    alter.add_column("inbox", Column("answers_text", Text))
    alter.add_column("inbox", Column("answers_message_id", String(255)))


STEPS: tuple[Step, ...] = (
    inbox_and_outbox,
    personas_and_positions,
    shared_databases,
    references_by_index,
    answered_messages,
)
"""All steps in order. Never edit or remove one; append."""
