"""What the persona says: written as whole turns, sent bubble by bubble. Each function is a step of a transaction.

Knows states, not platforms: whether a bubble may be sent again is the caller's knowledge.
"""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

import msgspec
from sqlalchemy import Connection, func, insert, select, update

from bot.store.inbox import resolve
from bot.store.schema import Bubble, TurnKind, chats, inbox, outbox, read

INTERRUPTED = "a new message came before it was sent"
"""Reason of bubbles dropped because the persona thinks again."""

CUT_SHORT = "doppel ended while this was being sent"
"""Error of bubbles whose sending nobody saw the end of."""


RESEND_WINDOW = timedelta(minutes=2)
"""A service that drops a second sending remembers the first for some minutes only."""


class InterruptedSend(msgspec.Struct, frozen=True, kw_only=True):
    """A bubble that was being sent when the daemon ended; `again` tells whether it will be sent again."""

    id: int
    platform: str
    chat: str
    again: bool


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
    """Writes a whole turn as pending bubbles and marks the messages it answers; returns the turn's number."""
    # One writer, so the next number is free; a turn needs no table of its own.
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
                "state": "pending",
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
    resolve(connection, answers, "answered")
    return turn


def next_pending(connection: Connection, chat_id: int) -> Bubble | None:
    """The bubble to send next in a chat."""
    query = select(outbox).where(outbox.c.chat_id == chat_id, outbox.c.state == "pending")
    row = connection.execute(query.order_by(outbox.c.turn, outbox.c.position).limit(1)).one_or_none()
    return None if row is None else read(row, Bubble)


def answered_message_id(connection: Connection, bubble: Bubble) -> str | None:
    """The platform's id of the message a bubble answers."""
    return connection.execute(select(inbox.c.message_id).where(inbox.c.id == bubble.inbox_id)).scalar_one_or_none()


def mark_sending(connection: Connection, bubble_id: int, now: datetime) -> None:
    """Commits that the platform is about to be asked."""
    connection.execute(
        update(outbox)
        .where(outbox.c.id == bubble_id)
        .values(state="sending", attempts=outbox.c.attempts + 1, changed_at=now)
    )


def mark_sent(connection: Connection, bubble_id: int, message_id: str, now: datetime) -> None:
    """The platform has it, under this id."""
    _change(connection, bubble_id, now, state="sent", message_id=message_id, error=None)


def mark_failed(connection: Connection, bubble_id: int, error: str, now: datetime) -> None:
    """It will not be sent."""
    _change(connection, bubble_id, now, state="failed", error=error)


def mark_unknown(connection: Connection, bubble_id: int, error: str, now: datetime) -> None:
    """It may have arrived; sending it again could show it twice."""
    _change(connection, bubble_id, now, state="unknown", error=error)


def schedule_retry(connection: Connection, bubble_id: int, error: str, not_before: datetime, now: datetime) -> None:
    """It did not arrive and is tried again, not before a time."""
    _change(connection, bubble_id, now, state="pending", error=error, not_before=not_before)


def drop_unsent(connection: Connection, chat_id: int, now: datetime) -> int:
    """Gives up the unsent bubbles of a chat's replies (posts stay) and returns how many there were."""
    unsent = (outbox.c.chat_id == chat_id, outbox.c.kind == "reply", outbox.c.state == "pending")
    return connection.execute(
        update(outbox).where(*unsent).values(state="failed", error=INTERRUPTED, changed_at=now)
    ).rowcount


def recover(connection: Connection, resendable: Collection[str], now: datetime) -> list[InterruptedSend]:
    """Sorts out bubbles that were being sent when the daemon ended without knowing the outcome.

    Where the platform drops a second sending (`resendable`) and the first was just now, they wait to be sent again;
    the others become `unknown`.
    """
    rows = connection.execute(
        select(outbox.c.id, outbox.c.changed_at, chats.c.platform, chats.c.chat)
        .join(chats, outbox.c.chat_id == chats.c.id)
        .where(outbox.c.state == "sending")
        .order_by(outbox.c.id)
    ).all()
    unsure = [
        InterruptedSend(
            id=row.id,
            platform=row.platform,
            chat=row.chat,
            again=row.platform in resendable and row.changed_at >= now - RESEND_WINDOW,
        )
        for row in rows
    ]
    for one in unsure:
        state = "pending" if one.again else "unknown"
        connection.execute(update(outbox).where(outbox.c.id == one.id).values(state=state, error=CUT_SHORT))
    return unsure


def _change(connection: Connection, bubble_id: int, now: datetime, **values: object) -> None:
    connection.execute(update(outbox).where(outbox.c.id == bubble_id).values(changed_at=now, **values))
