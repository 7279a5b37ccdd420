"""Received messages: committed on arrival, then answered, ignored or failed.

Every function here runs in its caller's transaction.
"""

from collections.abc import Collection
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, insert, select, union_all, update

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

MAX_ATTEMPTS = 3
"""Failed attempts to answer a message, in writing or in delivering the reply, before it is given up."""

VISIBLE = (OutboxState.SENDING, OutboxState.SENT, OutboxState.UNKNOWN)
"""States of bubbles that the other person may have seen."""


class HistoryMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One message of a chat, received or sent. `at` is UTC by our clock.

    `sender` is None for the persona, whose bubbles have the kind, number and adapter of their turn.
    """

    sender: str | None
    text: str
    at: datetime
    kind: TurnKind | None = None
    turn: int | None = None
    adapter: str | None = None


def get_or_create_chat(
    connection: Connection,
    persona: str,
    platform: str,
    chat: str,
    kind: ChatKind | None = None,
    *,
    allow_ids: Collection[str] | None = None,
    now: datetime,
) -> Chat:
    """The persona's row of a chat. A new chat whose kind is None (not known yet) is stored as a direct message."""
    is_chat = (chats.c.persona == persona, chats.c.platform == platform, chats.c.chat == chat)
    row = connection.execute(select(chats).where(*is_chat)).one_or_none()
    if row is None:
        values = {"persona": persona, "platform": platform, "chat": chat, "kind": kind or "dm", "created_at": now}
        row = connection.execute(insert(chats).values(values).returning(chats)).one()
    changed: dict[str, object] = {}
    if kind is not None and row.kind != kind:  # a post was sent there before anybody wrote
        changed["kind"] = kind
    if allow_ids is not None and row.allow_ids != list(allow_ids):
        changed["allow_ids"] = list(allow_ids)
    if changed:
        row = connection.execute(update(chats).where(*is_chat).values(changed).returning(chats)).one()
    return to_struct(row, Chat)


def next_position(connection: Connection, chat_id: int) -> int:
    """The position of the next message that is seen in a chat, from 1."""
    following = update(chats).where(chats.c.id == chat_id).values(last_position=chats.c.last_position + 1)
    position: int = connection.execute(following.returning(chats.c.last_position)).scalar_one()
    return position


def receive(connection: Connection, persona: str, message: NewMessage, now: datetime) -> Chat | None:
    """Commits a message as `new`, or as `ignored` context if it does not mention the bot.

    Returns its chat, or None if the event is stored already.
    """
    duplicate = select(inbox.c.id).where(inbox.c.platform == message.platform, inbox.c.event_id == message.event_id)
    if connection.execute(duplicate).first() is not None:
        return None
    chat = get_or_create_chat(
        connection, persona, message.platform, message.chat, message.kind, allow_ids=message.allow_ids, now=now
    )
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
            chat_position=next_position(connection, chat.id),
        )
    )
    return chat


def pending_messages(connection: Connection, chat_id: int, limit: int) -> list[InboxMessage]:
    """The last `limit` of the chat's messages that still need a reply, oldest first."""
    newest_first = select(inbox).where(*_is_pending(chat_id)).order_by(inbox.c.id.desc()).limit(limit)
    return [to_struct(row, InboxMessage) for row in reversed(connection.execute(newest_first).all())]


def unfinished_chats(connection: Connection, persona: str) -> list[Chat]:
    """The persona's chats with a message to answer or a bubble to send."""
    ids = union_all(
        select(inbox.c.chat_id).where(inbox.c.state == InboxState.NEW),
        select(outbox.c.chat_id).where(outbox.c.state == OutboxState.PENDING),
    )
    query = select(chats).where(chats.c.id.in_(ids), chats.c.persona == persona)
    return [to_struct(row, Chat) for row in connection.execute(query.order_by(chats.c.id))]


def resolve(
    connection: Connection,
    chat_id: int,
    last_id: int,
    state: InboxState,
    reason: str | None = None,
    *,
    turn: int | None = None,
) -> int:
    """Gives a chat's pending messages up to row `last_id` another state; returns their number.

    `turn` is the turn that answers them.
    """
    pending = (*_is_pending(chat_id), inbox.c.id <= last_id)
    return connection.execute(update(inbox).where(*pending).values(state=state, reason=reason, turn=turn)).rowcount


def expire(connection: Connection, chat_id: int, written_before: datetime) -> int:
    """Ignores pending messages that were written too long ago; returns their number."""
    old = (*_is_pending(chat_id), inbox.c.sent_at < written_before)
    values = {"state": InboxState.IGNORED, "reason": IgnoreReason.STALE}
    return connection.execute(update(inbox).where(*old).values(values)).rowcount


def ignore_all(connection: Connection, chat_id: int, reason: IgnoreReason) -> None:
    """Ignores all pending messages of a chat."""
    ignored = update(inbox).where(*_is_pending(chat_id))
    connection.execute(ignored.values(state=InboxState.IGNORED, reason=reason))


def record_failure(connection: Connection, chat_id: int, last_id: int, error: str) -> int:
    """Counts a failed attempt to answer a chat's pending messages up to row `last_id`; returns how many stay pending.

    Those that have had `MAX_ATTEMPTS` become `failed`.
    """
    pending = (*_is_pending(chat_id), inbox.c.id <= last_id)
    counted = {"attempts": inbox.c.attempts + 1, "reason": error}
    left = connection.execute(update(inbox).where(*pending).values(counted)).rowcount
    given_up = update(inbox).where(*pending, inbox.c.attempts >= MAX_ATTEMPTS)
    return left - connection.execute(given_up.values(state=InboxState.FAILED)).rowcount


def prompt_context(connection: Connection, chat_id: int, limit: int) -> tuple[list[HistoryMessage], list[InboxMessage]]:
    """The chat's history and its pending messages, at most `limit` together.

    A longer chat loses its oldest messages `limit // 4` at a time, so that successive prompts begin with the same
    messages and the engine can reuse its cache of them. Reads by index, however long the chat is.
    """
    pending = pending_messages(connection, chat_id, limit)
    room = limit - len(pending)
    if room <= 0:
        return [], pending
    last = connection.execute(select(chats.c.last_position).where(chats.c.id == chat_id)).scalar_one()
    step = max(1, limit // 4)
    dropped = -(-max(0, last - limit) // step) * step
    # What failed is left out: if it was the message that made the engine fail, so would every later prompt.
    left_out = (InboxState.NEW, InboxState.FAILED)
    seen = _seen(connection, chat_id, room, left_out=left_out, after=dropped)
    unsent = select(outbox).where(outbox.c.chat_id == chat_id, outbox.c.state == OutboxState.PENDING)
    about_to_be_sent = connection.execute(unsent.order_by(outbox.c.turn, outbox.c.position)).all()
    return [*seen, *(_sent_message(row) for row in about_to_be_sent)][-room:], pending


def visible_messages(
    connection: Connection, persona: str, platform: str, chat: str, limit: int
) -> list[HistoryMessage]:
    """The last messages of a chat as its participants see them, oldest first."""
    is_chat = (chats.c.persona == persona, chats.c.platform == platform, chats.c.chat == chat)
    chat_id = connection.execute(select(chats.c.id).where(*is_chat)).scalar_one_or_none()
    return [] if chat_id is None else _seen(connection, chat_id, limit)


def newest_message_ids(connection: Connection, persona: str, platform: str) -> dict[str, str]:
    """For each chat of a platform, the platform's id of its last received message, or else of its last sent one."""
    received, sent = (
        select(table.c.message_id)
        .where(table.c.chat_id == chats.c.id, table.c.message_id.is_not(None))
        .order_by(table.c.chat_position.desc())
        .limit(1)
        .correlate(chats)
        .scalar_subquery()
        for table in (inbox, outbox)
    )
    query = select(chats.c.chat, received.label("received"), sent.label("sent"))
    rows = connection.execute(query.where(chats.c.persona == persona, chats.c.platform == platform)).all()
    return {row.chat: row.received or row.sent for row in rows if row.received or row.sent}


def _is_pending(chat_id: int) -> tuple[ColumnElement[bool], ...]:
    return inbox.c.chat_id == chat_id, inbox.c.state == InboxState.NEW


def _seen(
    connection: Connection,
    chat_id: int,
    limit: int,
    *,
    left_out: Collection[InboxState] = (),
    after: int = 0,
) -> list[HistoryMessage]:
    """The last `limit` messages that were seen in a chat after position `after`, oldest first."""
    received = select(inbox).where(inbox.c.chat_id == chat_id, inbox.c.chat_position > after)
    if left_out:
        received = received.where(inbox.c.state.not_in(left_out))
    sent = select(outbox).where(
        outbox.c.chat_id == chat_id, outbox.c.chat_position > after, outbox.c.state.in_(VISIBLE)
    )
    # One query a table: the newest rows of a union would be found by reading the whole chat.
    positioned = [
        (row.chat_position, HistoryMessage(sender=row.sender, text=row.text, at=row.received_at))
        for row in connection.execute(received.order_by(inbox.c.chat_position.desc()).limit(limit))
    ]
    positioned += [
        (row.chat_position, _sent_message(row))
        for row in connection.execute(sent.order_by(outbox.c.chat_position.desc()).limit(limit))
    ]
    positioned.sort(key=lambda pair: pair[0])
    return [message for _, message in positioned[-limit:]]


def _sent_message(row: Row[*tuple[Any, ...]]) -> HistoryMessage:
    return HistoryMessage(
        sender=None, text=row.text, at=row.changed_at, kind=row.kind, turn=row.turn, adapter=row.adapter
    )
