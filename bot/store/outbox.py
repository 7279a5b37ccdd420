"""The persona's messages: stored as whole turns, sent bubble by bubble.

Every function here runs in its caller's transaction.
"""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

import msgspec
from sqlalchemy import Connection, func, insert, select, update

from bot.store.inbox import resolve
from bot.store.schema import (
    InboxState,
    OutboxError,
    OutboxMessage,
    OutboxState,
    TurnKind,
    chats,
    inbox,
    outbox,
    to_struct,
)

RESEND_WINDOW = timedelta(minutes=2)
"""Services that drop a duplicate message remember the first one only for some minutes."""


class InterruptedSend(msgspec.Struct, frozen=True, kw_only=True):
    """A bubble that was being sent when the daemon stopped; `is_resent` if it will be sent again."""

    id: int
    platform: str
    chat: str
    is_resent: bool


def add_turn(
    connection: Connection,
    chat_id: int,
    kind: TurnKind,
    texts: Sequence[str],
    *,
    adapter: str | None,
    now: datetime,
    answers: Sequence[int] = (),
    slot_id: int | None = None,
) -> int:
    """Stores a whole turn as pending bubbles and marks the messages it answers; returns the turn's number."""
    # There is only one writer, so the next number is free and turns need no table of their own.
    turn: int = connection.execute(select(func.coalesce(func.max(outbox.c.turn), 0))).scalar_one() + 1
    connection.execute(
        insert(outbox),
        [
            {
                "chat_id": chat_id,
                "kind": kind,
                "turn": turn,
                "position": position,
                "text": text,
                "state": OutboxState.PENDING,
                "adapter": adapter,
                "inbox_id": answers[-1] if answers else None,
                "slot_id": slot_id,
                "attempts": 0,
                "created_at": now,
                "changed_at": now,
            }
            for position, text in enumerate(texts)
        ],
    )
    resolve(connection, answers, InboxState.ANSWERED)
    return turn


def next_pending(connection: Connection, chat_id: int) -> OutboxMessage | None:
    """The bubble of a chat to send next."""
    query = select(outbox).where(outbox.c.chat_id == chat_id, outbox.c.state == OutboxState.PENDING)
    row = connection.execute(query.order_by(outbox.c.turn, outbox.c.position).limit(1)).one_or_none()
    return None if row is None else to_struct(row, OutboxMessage)


def answered_message_id(connection: Connection, bubble: OutboxMessage) -> str | None:
    """The platform's id of the message that a bubble answers."""
    return connection.execute(select(inbox.c.message_id).where(inbox.c.id == bubble.inbox_id)).scalar_one_or_none()


def mark_sending(connection: Connection, bubble_id: int, now: datetime) -> None:
    """The platform is about to be called."""
    _update(connection, bubble_id, now, state=OutboxState.SENDING, attempts=outbox.c.attempts + 1)


def mark_sent(connection: Connection, bubble_id: int, message_id: str, now: datetime) -> None:
    """The platform has accepted the bubble under this id."""
    _update(connection, bubble_id, now, state=OutboxState.SENT, message_id=message_id, error=None)


def mark_failed(connection: Connection, bubble_id: int, error: str, now: datetime) -> None:
    """The bubble will not be sent."""
    _update(connection, bubble_id, now, state=OutboxState.FAILED, error=error)


def mark_unknown(connection: Connection, bubble_id: int, error: str, now: datetime) -> None:
    """The bubble may have arrived; sending it again could show it twice."""
    _update(connection, bubble_id, now, state=OutboxState.UNKNOWN, error=error)


def schedule_retry(connection: Connection, bubble_id: int, error: str, not_before: datetime, now: datetime) -> None:
    """The bubble did not arrive and is sent again, not before the given time."""
    _update(connection, bubble_id, now, state=OutboxState.PENDING, error=error, not_before=not_before)


def drop_unsent(connection: Connection, chat_id: int, now: datetime) -> int:
    """Drops the unsent bubbles of a chat's replies, not of its posts; returns their number."""
    unsent = (outbox.c.chat_id == chat_id, outbox.c.kind == "reply", outbox.c.state == OutboxState.PENDING)
    values = {"state": OutboxState.FAILED, "error": OutboxError.SUPERSEDED, "changed_at": now}
    return connection.execute(update(outbox).where(*unsent).values(values)).rowcount


def recover_interrupted_sends(
    connection: Connection, resend_safe: Collection[str], now: datetime
) -> list[InterruptedSend]:
    """Resolves bubbles whose sending was interrupted when the daemon stopped, and returns them.

    On platforms that drop duplicates (`resend_safe`) and within `RESEND_WINDOW` they become `pending` again; the others
    become `unknown`.
    """
    rows = connection.execute(
        select(outbox.c.id, outbox.c.changed_at, chats.c.platform, chats.c.chat)
        .join(chats, outbox.c.chat_id == chats.c.id)
        .where(outbox.c.state == OutboxState.SENDING)
        .order_by(outbox.c.id)
    ).all()
    interrupted = [
        InterruptedSend(
            id=row.id,
            platform=row.platform,
            chat=row.chat,
            is_resent=row.platform in resend_safe and row.changed_at >= now - RESEND_WINDOW,
        )
        for row in rows
    ]
    for send in interrupted:
        # `changed_at` stays: it says when the first send began.
        values = {
            "state": OutboxState.PENDING if send.is_resent else OutboxState.UNKNOWN,
            "error": OutboxError.INTERRUPTED,
        }
        connection.execute(update(outbox).where(outbox.c.id == send.id).values(values))
    return interrupted


def _update(connection: Connection, bubble_id: int, now: datetime, **values: object) -> None:
    connection.execute(update(outbox).where(outbox.c.id == bubble_id).values(changed_at=now, **values))
