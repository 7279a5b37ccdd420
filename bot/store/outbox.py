"""The persona's messages: stored as whole turns, sent bubble by bubble.

A message is answered when a reply that was written for it was delivered. Until then it is `replying`, and a turn of
which nothing was delivered makes its messages pending again. Every function here runs in its caller's transaction.
"""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

import msgspec
from sqlalchemy import ColumnElement, Connection, bindparam, exists, func, insert, or_, select, update

from bot.store.inbox import MAX_ATTEMPTS, next_position, resolve
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
    turn_numbers,
)

RESEND_WINDOW = timedelta(minutes=2)
"""Services that drop a duplicate message remember the first one only for some minutes."""

IN_DOUBT = "it is not certain that the reply was delivered"
"""Reason of an answered message."""

_NOT_COUNTED = (OutboxError.SUPERSEDED, OutboxError.STALE, OutboxError.INCOMPLETE, OutboxError.NOT_ALLOWED)
"""Errors of bubbles that say nothing about whether another reply would be delivered."""


# Built once, as in `bot.store.inbox`.
_LAST_TURN = select(func.coalesce(func.max(outbox.c.turn), 0))
_INSERT_BUBBLES = insert(outbox)
_PENDING = (
    select(*(outbox.c[name] for name in OutboxMessage.__struct_fields__))
    .where(outbox.c.chat_id == bindparam("chat_row"), outbox.c.state == OutboxState.PENDING)
    .order_by(outbox.c.turn, outbox.c.position)
)
_BUBBLE = outbox.c.id == bindparam("bubble_id")
_MARK_SENDING = (
    update(outbox)
    .where(_BUBBLE, outbox.c.state == OutboxState.PENDING)
    .values(
        state=OutboxState.SENDING,
        attempts=outbox.c.attempts + 1,
        chat_position=bindparam("new_position"),
        changed_at=bindparam("now"),
    )
)
_MARK_SENT = (
    update(outbox)
    .where(_BUBBLE)
    .values(state=OutboxState.SENT, message_id=bindparam("new_message_id"), error=None, changed_at=bindparam("now"))
)
_TURN_STATES = select(outbox.c.state, outbox.c.error).where(outbox.c.turn == bindparam("turn_number"))
_ANSWERS = (inbox.c.turn == bindparam("turn_number"), inbox.c.state == InboxState.REPLYING)
_MARK_ANSWERED = update(inbox).where(*_ANSWERS).values(state=InboxState.ANSWERED, reason=bindparam("new_reason"))
_IS_UNSENT = or_(outbox.c.state == OutboxState.PENDING, outbox.c.state == OutboxState.SENDING)
_MARK_ANSWERED_IF_SENT = (
    update(inbox)
    .where(*_ANSWERS, ~exists().where(outbox.c.turn == bindparam("turn_number"), _IS_UNSENT))
    .values(state=InboxState.ANSWERED, reason=None)
)


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
    answers_up_to: int | None = None,
    slot_id: int | None = None,
) -> int:
    """Stores a whole turn as pending bubbles; returns the turn's number.

    A reply answers the chat's pending messages up to inbox row `answers_up_to`; they become `replying`.
    """
    turn = _next_turn(connection)
    connection.execute(
        _INSERT_BUBBLES,
        [
            {
                "chat_id": chat_id,
                "kind": kind,
                "turn": turn,
                "position": position,
                "text": text,
                "state": OutboxState.PENDING,
                "adapter": adapter,
                "inbox_id": answers_up_to,
                "slot_id": slot_id,
                "attempts": 0,
                "created_at": now,
                "changed_at": now,
            }
            for position, text in enumerate(texts)
        ],
    )
    if answers_up_to is not None:
        resolve(connection, chat_id, answers_up_to, InboxState.REPLYING, turn=turn)
    return turn


def _next_turn(connection: Connection) -> int:
    """A number that no turn has had. SQLite has one writer and no sequences, so there the next number is free."""
    if connection.dialect.supports_sequences:
        return int(connection.execute(turn_numbers.next_value().select()).scalar_one())
    return int(connection.execute(_LAST_TURN).scalar_one()) + 1


def pending_bubbles(connection: Connection, chat_id: int) -> list[OutboxMessage]:
    """The bubbles of a chat that are to be sent, in their order."""
    return [to_struct(row, OutboxMessage) for row in connection.execute(_PENDING, {"chat_row": chat_id})]


def answered_message_id(connection: Connection, bubble: OutboxMessage) -> str | None:
    """The platform's id of the message that a bubble answers."""
    return connection.execute(select(inbox.c.message_id).where(inbox.c.id == bubble.inbox_id)).scalar_one_or_none()


def mark_sending(connection: Connection, bubble: OutboxMessage, now: datetime) -> bool:
    """The platform is about to be called. From here on the bubble has its place among what was seen in the chat.

    False: it is no longer to be sent.
    """
    position = next_position(connection, bubble.chat_id)
    values = {"bubble_id": bubble.id, "new_position": position, "now": now}
    return connection.execute(_MARK_SENDING, values).rowcount == 1


def mark_sent(connection: Connection, bubble: OutboxMessage, message_id: str, now: datetime) -> None:
    """The platform has accepted the bubble under this id."""
    connection.execute(_MARK_SENT, {"bubble_id": bubble.id, "new_message_id": message_id, "now": now})
    connection.execute(_MARK_ANSWERED_IF_SENT, {"turn_number": bubble.turn})


def mark_failed(connection: Connection, bubble: OutboxMessage, error: str, now: datetime) -> None:
    """The bubble will not be sent, nor the rest of its turn: it would make no sense without it."""
    _end_turn_at(connection, bubble, OutboxState.FAILED, error, now)


def mark_unknown(connection: Connection, bubble: OutboxMessage, error: str, now: datetime) -> None:
    """The bubble may have arrived; sending it again could show it twice. The rest of its turn is not sent: the reader
    might see the end of a reply without its beginning.
    """
    _end_turn_at(connection, bubble, OutboxState.UNKNOWN, error, now)


def schedule_retry(
    connection: Connection, bubble: OutboxMessage, error: str, not_before: datetime, now: datetime
) -> None:
    """The bubble did not arrive and is sent again, not before the given time."""
    _update(connection, bubble, now, state=OutboxState.PENDING, error=error, not_before=not_before)


def drop_replies(connection: Connection, chat_id: int, error: OutboxError, now: datetime) -> int:
    """Drops the unsent bubbles of a chat's replies, not of its posts; returns their number."""
    return _drop(connection, outbox.c.chat_id == chat_id, outbox.c.kind == "reply", error=error, now=now)


def expire(connection: Connection, chat_id: int, created_before: datetime, now: datetime) -> int:
    """Drops unsent bubbles of replies and posts that were written too long ago; returns their number."""
    old = (outbox.c.chat_id == chat_id, outbox.c.created_at < created_before)
    return _drop(connection, *old, error=OutboxError.STALE, now=now)


def recover_interrupted_sends(
    connection: Connection, persona: str, resend_safe: Collection[str], now: datetime, *, chat_id: int | None = None
) -> list[InterruptedSend]:
    """Resolves the persona's bubbles whose sending was interrupted when the daemon stopped, and returns them.

    None of them may be in the process of being sent. `chat_id`: only those of one chat.

    On platforms that drop duplicates (`resend_safe`) and within `RESEND_WINDOW` they become `pending` again; the others
    become `unknown`.
    """
    sending = (
        select(outbox, chats.c.platform, chats.c.chat)
        .join(chats, outbox.c.chat_id == chats.c.id)
        .where(outbox.c.state == OutboxState.SENDING, chats.c.persona == persona)
        .order_by(outbox.c.id)
    )
    if chat_id is not None:
        sending = sending.where(outbox.c.chat_id == chat_id)
    interrupted = []
    for row in connection.execute(sending).all():
        is_resent = row.platform in resend_safe and row.changed_at >= now - RESEND_WINDOW
        interrupted.append(InterruptedSend(id=row.id, platform=row.platform, chat=row.chat, is_resent=is_resent))
        bubble = to_struct(row, OutboxMessage)
        began_at = row.changed_at  # kept: the window counts from the first send
        if is_resent:
            _update(connection, bubble, began_at, state=OutboxState.PENDING, error=OutboxError.INTERRUPTED)
        else:
            mark_unknown(connection, bubble, OutboxError.INTERRUPTED, began_at)
    return interrupted


def _update(connection: Connection, bubble: OutboxMessage, now: datetime, **values: object) -> None:
    connection.execute(update(outbox).where(outbox.c.id == bubble.id).values(changed_at=now, **values))


def _end_turn_at(connection: Connection, bubble: OutboxMessage, state: OutboxState, error: str, now: datetime) -> None:
    """Gives a bubble its last state and drops the rest of its turn."""
    _update(connection, bubble, now, state=state, error=error)
    if not _drop(connection, outbox.c.turn == bubble.turn, error=OutboxError.INCOMPLETE, now=now):
        _close_turn(connection, bubble.turn)


def _drop(connection: Connection, *which: ColumnElement[bool], error: OutboxError, now: datetime) -> int:
    """Marks pending bubbles as failed and closes their turns; returns the bubbles' number."""
    values = {"state": OutboxState.FAILED, "error": error, "changed_at": now}
    pending = update(outbox).where(outbox.c.state == OutboxState.PENDING, *which)
    turns = connection.execute(pending.values(values).returning(outbox.c.turn)).scalars().all()
    for turn in set(turns):
        _close_turn(connection, turn)
    return len(turns)


def _close_turn(connection: Connection, turn: int) -> None:
    """Once nothing of a turn is left to send: says what became of the messages that it answers."""
    rows = connection.execute(_TURN_STATES, {"turn_number": turn}).all()
    states = {row.state for row in rows}
    if states & {OutboxState.PENDING, OutboxState.SENDING}:
        return
    if states & {OutboxState.SENT, OutboxState.UNKNOWN}:
        reason = None if OutboxState.SENT in states else IN_DOUBT
        connection.execute(_MARK_ANSWERED, {"turn_number": turn, "new_reason": reason})
    else:
        error = next((row.error for row in rows if row.error not in _NOT_COUNTED), None)
        attempts = inbox.c.attempts + (0 if error is None else 1)
        answered = update(inbox).where(inbox.c.turn == turn, inbox.c.state == InboxState.REPLYING)
        connection.execute(answered.values(state=InboxState.NEW, attempts=attempts, reason=error))
        reopened = (inbox.c.turn == turn, inbox.c.state == InboxState.NEW)
        given_up = update(inbox).where(*reopened, inbox.c.attempts >= MAX_ATTEMPTS)
        connection.execute(given_up.values(state=InboxState.FAILED))
        connection.execute(update(inbox).where(*reopened).values(turn=None))
