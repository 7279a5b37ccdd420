"""Received messages: committed on arrival, then answered, ignored or failed.

Every function here runs in its caller's transaction.
"""

from collections.abc import Collection, Sequence
from datetime import datetime

import msgspec
from sqlalchemy import Connection, func, insert, literal, null, or_, select, union_all, update

from bot.store.schema import (
    Chat,
    ChatKind,
    IgnoreReason,
    InboxMessage,
    InboxState,
    NewMessage,
    OutboxState,
    TurnKind,
    chats,
    inbox,
    outbox,
    to_struct,
)

VISIBLE = (OutboxState.SENDING, OutboxState.SENT, OutboxState.UNKNOWN)
"""States of bubbles that the other person may have seen."""

IN_PROMPT = (*VISIBLE, OutboxState.PENDING)
"""States of bubbles that belong to a prompt's history: also those that are about to be sent."""


class HistoryMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One message of a chat, received or sent. `at` is UTC by our clock.

    `sender` is None for the persona, whose bubbles have the kind, number and adapter of their turn.
    """

    sender: str | None
    text: str
    at: datetime
    kind: TurnKind | None
    turn: int | None
    adapter: str | None


def get_or_create_chat(
    connection: Connection, platform: str, chat: str, kind: ChatKind | None = None, *, now: datetime
) -> Chat:
    """The chat's row. A new chat whose kind is None (not known yet) is stored as a direct message."""
    is_chat = (chats.c.platform == platform, chats.c.chat == chat)
    row = connection.execute(select(chats).where(*is_chat)).one_or_none()
    if row is None:
        values = {"platform": platform, "chat": chat, "kind": kind or "dm", "created_at": now}
        row = connection.execute(insert(chats).values(values).returning(chats)).one()
    elif kind is not None and row.kind != kind:  # a post was sent there before anybody wrote
        row = connection.execute(update(chats).where(*is_chat).values(kind=kind).returning(chats)).one()
    return to_struct(row, Chat)


def receive(connection: Connection, message: NewMessage, now: datetime) -> Chat | None:
    """Commits a message as `new`, or as `ignored` context if it does not mention the bot.

    Returns its chat, or None if the event is stored already.
    """
    duplicate = select(inbox.c.id).where(inbox.c.platform == message.platform, inbox.c.event_id == message.event_id)
    if connection.execute(duplicate).first() is not None:
        return None
    chat = get_or_create_chat(connection, message.platform, message.chat, message.kind, now=now)
    connection.execute(
        insert(inbox).values(
            chat_id=chat.id,
            platform=message.platform,
            event_id=message.event_id,
            message_id=message.message_id,
            sender=message.sender,
            text=message.text,
            addressed=message.mentions_bot,
            sent_at=message.sent_at,
            received_at=now,
            state=InboxState.NEW if message.mentions_bot else InboxState.IGNORED,
            reason=None if message.mentions_bot else IgnoreReason.NOT_ADDRESSED,
            attempts=0,
        )
    )
    return chat


def pending_messages(connection: Connection, chat_id: int) -> list[InboxMessage]:
    """The chat's messages that still need a reply, oldest first."""
    rows = connection.execute(
        select(inbox).where(inbox.c.chat_id == chat_id, inbox.c.state == InboxState.NEW).order_by(inbox.c.id)
    )
    return [to_struct(row, InboxMessage) for row in rows]


def unfinished_chats(connection: Connection) -> list[Chat]:
    """Chats with a message to answer or a bubble to send."""
    ids = union_all(
        select(inbox.c.chat_id).where(inbox.c.state == InboxState.NEW),
        select(outbox.c.chat_id).where(outbox.c.state == OutboxState.PENDING),
    )
    rows = connection.execute(select(chats).where(chats.c.id.in_(ids)).order_by(chats.c.id))
    return [to_struct(row, Chat) for row in rows]


def resolve(connection: Connection, ids: Sequence[int], state: InboxState, reason: str | None = None) -> None:
    """Gives messages their final state."""
    connection.execute(update(inbox).where(inbox.c.id.in_(ids)).values(state=state, reason=reason))


def record_attempt(connection: Connection, ids: Sequence[int], error: str) -> None:
    """Counts a failed attempt to answer messages that stay pending."""
    connection.execute(update(inbox).where(inbox.c.id.in_(ids)).values(attempts=inbox.c.attempts + 1, reason=error))


def prompt_context(connection: Connection, chat_id: int, limit: int) -> tuple[list[HistoryMessage], list[InboxMessage]]:
    """The chat's history and its pending messages, at most `limit` together.

    A longer chat loses its oldest messages `limit // 4` at a time, so that successive prompts begin with the same
    messages and the engine can reuse its cache of them.
    """
    pending = pending_messages(connection, chat_id)
    size = _history_size(connection, chat_id)
    step = max(1, limit // 4)
    excess = size + len(pending) - limit
    dropped = -(-excess // step) * step if excess > 0 else 0
    return history(connection, chat_id, max(0, min(size - dropped, limit - len(pending)))), pending


def visible_messages(connection: Connection, platform: str, chat: str, limit: int) -> list[HistoryMessage]:
    """The last messages of a chat as its participants see them, oldest first."""
    query = select(chats.c.id).where(chats.c.platform == platform, chats.c.chat == chat)
    chat_id = connection.execute(query).scalar_one_or_none()
    return [] if chat_id is None else history(connection, chat_id, limit, states=VISIBLE, include_pending=True)


def history(
    connection: Connection,
    chat_id: int,
    limit: int,
    *,
    states: Collection[OutboxState] = IN_PROMPT,
    include_pending: bool = False,
) -> list[HistoryMessage]:
    """The last `limit` messages of a chat, oldest first.

    Args:
        connection: in a transaction.
        chat_id: row of the chat.
        limit: maximum number of messages.
        states: include the persona's bubbles in these states.
        include_pending: include messages that still need a reply.
    """
    received = select(
        inbox.c.sender, inbox.c.text, inbox.c.received_at.label("at"), literal(0).label("side"), inbox.c.id,
        null().label("kind"), null().label("turn"), null().label("adapter"),
    ).where(inbox.c.chat_id == chat_id, or_(inbox.c.state != InboxState.NEW, literal(include_pending)))  # fmt: skip
    sent = select(
        null().label("sender"), outbox.c.text, outbox.c.changed_at.label("at"), literal(1).label("side"), outbox.c.id,
        outbox.c.kind, outbox.c.turn, outbox.c.adapter,
    ).where(outbox.c.chat_id == chat_id, outbox.c.state.in_(states))  # fmt: skip
    both = union_all(received, sent).subquery()
    newest_first = select(both).order_by(both.c.at.desc(), both.c.side.desc(), both.c.id.desc()).limit(limit)
    return [to_struct(row, HistoryMessage) for row in reversed(connection.execute(newest_first).all())]


def newest_message_ids(connection: Connection, platform: str) -> dict[str, str]:
    """For each chat of a platform, the platform's id of its last received message, or else of its last sent one."""
    last_received = select(func.max(inbox.c.id)).where(inbox.c.platform == platform).group_by(inbox.c.chat_id)
    last_sent = (
        select(func.max(outbox.c.id))
        .join(chats, chats.c.id == outbox.c.chat_id)
        .where(chats.c.platform == platform, outbox.c.message_id.is_not(None))
        .group_by(outbox.c.chat_id)
    )
    message_ids: dict[str, str] = {}
    for table, last in ((outbox, last_sent), (inbox, last_received)):
        rows = select(chats.c.chat, table.c.message_id).join(chats, chats.c.id == table.c.chat_id)
        message_ids |= {row.chat: row.message_id for row in connection.execute(rows.where(table.c.id.in_(last)))}
    return message_ids


def _history_size(connection: Connection, chat_id: int) -> int:
    """How many messages `history` returns without a limit."""
    received = select(func.count()).where(inbox.c.chat_id == chat_id, inbox.c.state != InboxState.NEW)
    sent = select(func.count()).where(outbox.c.chat_id == chat_id, outbox.c.state.in_(IN_PROMPT))
    return connection.execute(received).scalar_one() + connection.execute(sent).scalar_one()
