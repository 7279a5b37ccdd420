"""The current tables, the values of their state columns, and the structs their rows are read into.

A change here needs a new step in `bot.store.migrations`; a test compares the two.
"""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal, TypeVar

import msgspec
from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Row,
    Sequence,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

S = TypeVar("S", bound=msgspec.Struct)


class InboxState(StrEnum):
    """What has become of a received message."""

    NEW = "new"
    """Needs a reply."""
    REPLYING = "replying"
    """A reply is in the outbox and not delivered yet."""
    ANSWERED = "answered"
    """A reply that was written for it was delivered; `reason` says so if that is not certain."""
    IGNORED = "ignored"
    """Kept as context only; see `IgnoreReason`."""
    FAILED = "failed"
    """Could not be answered; `reason` holds the error."""


class IgnoreReason(StrEnum):
    """Why a message got no reply, or a scheduled post was not made."""

    NOT_ADDRESSED = "not addressed"
    """A group message that does not mention the bot."""
    SILENT = "the persona had nothing to say"
    BLOCKED = "the guard kept the reply back"
    STALE = "too old to answer"
    NOT_ALLOWED = "its sender is no longer allowed"


class OutboxState(StrEnum):
    """What has become of a bubble."""

    PENDING = "pending"
    SENDING = "sending"
    """Committed before the platform is called."""
    SENT = "sent"
    FAILED = "failed"
    """Will not be sent; `error` says why."""
    UNKNOWN = "unknown"
    """May or may not have arrived."""


class OutboxError(StrEnum):
    """Errors that do not come from a platform."""

    SUPERSEDED = "a new message came before it was sent"
    INTERRUPTED = "doppel ended while this was being sent"
    INCOMPLETE = "an earlier part of the reply was not delivered"
    STALE = "too old to send"
    NOT_ALLOWED = "the chat is no longer allowed"


class SlotState(StrEnum):
    """What has become of a slot of a schedule."""

    POSTED = "posted"
    SKIPPED = "skipped"
    FAILED = "failed"


ChatKind = Literal["dm", "group"]

TurnKind = Literal["reply", "post"]


class UtcTime(TypeDecorator[datetime]):
    """An aware time in UTC; stored without a zone, which every database supports."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


metadata = MetaData()

chats = Table(
    "chats",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("platform", String(64), nullable=False),
    Column("chat", String(255), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("persona", String(255), nullable=False),
    Column("allow_ids", JSON),
    Column("last_position", Integer, nullable=False, server_default="0"),
    UniqueConstraint("persona", "platform", "chat", name="one_row_a_chat"),
)
"""`last_position` counts what was seen in the chat: each message when it was received, each bubble when it was sent."""

inbox = Table(
    "inbox",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("chat_id", ForeignKey("chats.id", ondelete="CASCADE"), nullable=False),
    Column("platform", String(64), nullable=False),
    Column("event_id", String(255), nullable=False),
    Column("message_id", String(255), nullable=False),
    Column("sender", String(255), nullable=False),
    Column("text", Text, nullable=False),
    Column("addressed", Boolean, nullable=False),
    Column("sent_at", UtcTime, nullable=False),
    Column("received_at", UtcTime, nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text),
    Column("attempts", Integer, nullable=False),
    Column("chat_position", Integer, nullable=False, server_default="0"),
    Column("turn", Integer),
    Column("answers_sender", String(255)),
    Column("answers_text", Text),
    Column("answers_message_id", String(255)),
    UniqueConstraint("chat_id", "event_id", name="one_row_an_event"),
    Index("inbox_by_position", "chat_id", "chat_position"),
    Index("inbox_by_state", "state", "chat_id"),
    Index("inbox_by_turn", "turn"),
)
"""`answers_text` is what the message answers, as the service showed it; NULL if it answers nothing that has words. Its
`answers_sender` is NULL for the persona, and empty if the service does not tell.
"""

slots = Table(
    "slots",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("schedule", String(64), nullable=False),
    Column("due", UtcTime, nullable=False),
    Column("claimed_at", UtcTime, nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text),
    Column("persona", String(255), nullable=False),
    UniqueConstraint("persona", "schedule", "due", name="one_row_a_slot"),
)

outbox = Table(
    "outbox",
    metadata,
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
    Column("not_before", UtcTime),
    Column("message_id", String(255)),
    Column("error", Text),
    Column("created_at", UtcTime, nullable=False),
    Column("changed_at", UtcTime, nullable=False),
    Column("chat_position", Integer),
    UniqueConstraint("turn", "position", name="one_row_a_bubble"),
    Index("outbox_by_position", "chat_id", "chat_position"),
    Index("outbox_by_state", "state", "chat_id"),
    Index("outbox_by_message", "inbox_id"),
    Index("outbox_by_slot", "slot_id"),
)

turn_numbers = Sequence("turn_numbers", metadata=metadata)
"""Where several daemons write at once; see `bot.store.outbox.add_turn`."""

cursors = Table(
    "cursors",
    metadata,
    Column("persona", String(255), primary_key=True),
    Column("name", String(255), primary_key=True),
    Column("value", Text, nullable=False),
    Column("changed_at", UtcTime, nullable=False),
)


leases = Table(
    "leases",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("owner", String(64), nullable=False),
    Column("expires_at", UtcTime, nullable=False),
)
"""Which of the daemons that share the database works on what; see `bot.store.leases`."""


class Chat(msgspec.Struct, frozen=True, kw_only=True):
    """A chat: `chat` is the platform's id of it, `id` is its row.

    `allow_ids` are those of its last message (see `bot.platforms.Incoming`); None before the first one.
    """

    id: int
    platform: str
    chat: str
    kind: ChatKind
    allow_ids: tuple[str, ...] | None = None


class NewMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message to add to the inbox; its fields are those of `bot.platforms.Incoming`, and of its `answers`."""

    platform: str
    event_id: str
    chat: str
    kind: ChatKind
    sender: str
    text: str
    message_id: str
    mentions_bot: bool
    sent_at: datetime
    allow_ids: tuple[str, ...] = ()
    answers_sender: str | None = None
    answers_text: str | None = None
    answers_message_id: str | None = None


class InboxMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the inbox. `attempts` counts failed attempts to answer it."""

    id: int
    chat_id: int
    sender: str
    text: str
    message_id: str
    sent_at: datetime
    received_at: datetime
    state: InboxState
    attempts: int
    addressed: bool
    answers_sender: str | None = None
    answers_text: str | None = None
    answers_message_id: str | None = None


class OutboxMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the outbox: one bubble. `turn` numbers the persona's turns, `position` the bubbles of a turn, from 0."""

    id: int
    chat_id: int
    kind: TurnKind
    turn: int
    position: int
    text: str
    state: OutboxState
    adapter: str | None
    inbox_id: int | None
    slot_id: int | None
    attempts: int
    not_before: datetime | None
    message_id: str | None
    error: str | None
    created_at: datetime
    changed_at: datetime


def to_struct(row: Row[*tuple[Any, ...]], struct: type[S]) -> S:
    """Converts a row to one of the structs above; columns that the struct does not have are ignored."""
    values = row._mapping
    return msgspec.convert({name: values[name] for name in struct.__struct_fields__}, struct)
