"""Received messages: committed on arrival, then answered, ignored or failed.

Every function here runs in its caller's transaction.
"""

from collections.abc import Collection
from datetime import datetime

import msgspec
from sqlalchemy import BindParameter, Connection, bindparam, cast, insert, null, or_, select, union_all, update

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
from doppel.transcript import messages_left_out

MAX_ATTEMPTS = 3
"""Failed attempts to answer a message, in writing or in delivering the reply, before it is given up."""

VISIBLE = (OutboxState.SENDING, OutboxState.SENT, OutboxState.UNKNOWN)
"""States of bubbles that the other person may have seen."""


class PromptMessage(msgspec.Struct, frozen=True):
    """One message of a prompt's history; `sender` is None for the persona. See `bot.store.schema.inbox`.

    `message_id` is None for a bubble that the service has not confirmed.
    """

    sender: str | None
    text: str
    message_id: str | None = None
    addressed: bool | None = None
    answers_sender: str | None = None
    answers_text: str | None = None
    answers_message_id: str | None = None


_PROMPT_COLUMNS = PromptMessage.__struct_fields__

# Statements of the way of every message, built once: building them takes longer than SQLite takes to run them.
_CHAT: BindParameter[int] = bindparam("chat_row")
_LAST: BindParameter[int] = bindparam("last_id")
_IS_PENDING = (inbox.c.chat_id == _CHAT, inbox.c.state == InboxState.NEW)
_FIND_CHAT = select(chats).where(
    chats.c.persona == bindparam("persona"),
    chats.c.platform == bindparam("platform"),
    chats.c.chat == bindparam("chat"),
)
_FIND_EVENT = select(inbox.c.id).where(inbox.c.chat_id == _CHAT, inbox.c.event_id == bindparam("event_id"))
_INSERT_MESSAGE = insert(inbox)
_NEXT_POSITION = (
    update(chats)
    .where(chats.c.id == _CHAT)
    .values(last_position=chats.c.last_position + 1)
    .returning(chats.c.last_position)
)
_PENDING = (
    select(*(inbox.c[name] for name in InboxMessage.__struct_fields__), chats.c.last_position)
    .join(chats, inbox.c.chat_id == chats.c.id)
    .where(*_IS_PENDING)
    .order_by(inbox.c.id.desc())
    .limit(bindparam("max_rows"))
)
_RESOLVE = (
    update(inbox)
    .where(*_IS_PENDING, inbox.c.id <= _LAST)
    .values(state=bindparam("new_state"), reason=bindparam("new_reason"), turn=bindparam("new_turn"))
)
_AFTER: BindParameter[int] = bindparam("after")
_LIMIT: BindParameter[int] = bindparam("max_rows")
_RECEIVED = (
    select(inbox.c.chat_position, inbox.c.sender, inbox.c.text, inbox.c.received_at)
    .where(inbox.c.chat_id == _CHAT, inbox.c.chat_position > _AFTER)
    .order_by(inbox.c.chat_position.desc())
    .limit(_LIMIT)
)
_SENT = (
    select(outbox.c.chat_position, outbox.c.text, outbox.c.changed_at, outbox.c.kind, outbox.c.turn, outbox.c.adapter)
    # Not `in_`, which is written out anew for each execution.
    .where(
        outbox.c.chat_id == _CHAT, outbox.c.chat_position > _AFTER, or_(*(outbox.c.state == state for state in VISIBLE))
    )
    .order_by(outbox.c.chat_position.desc())
    .limit(_LIMIT)
)
# What failed is left out: if it was the message that made the engine fail, so would every later prompt.
_RECEIVED_FOR_PROMPT = (
    _RECEIVED.with_only_columns(inbox.c.chat_position, *(inbox.c[name] for name in _PROMPT_COLUMNS))
    .where(inbox.c.state != InboxState.NEW, inbox.c.state != InboxState.FAILED)
    .subquery()
)
_SENT_FOR_PROMPT = _SENT.with_only_columns(
    outbox.c.chat_position,
    *(
        outbox.c[name] if name in ("text", "message_id") else cast(null(), inbox.c[name].type).label(name)
        for name in _PROMPT_COLUMNS
    ),
).subquery()
# Each half has its own limit: the newest rows of a mere union would be found by reading the whole chat.
_FOR_PROMPT = union_all(select(_RECEIVED_FOR_PROMPT), select(_SENT_FOR_PROMPT)).order_by("chat_position")


_UNFINISHED = union_all(
    select(inbox.c.chat_id).where(inbox.c.state == InboxState.NEW),
    select(outbox.c.chat_id).where(outbox.c.state.in_((OutboxState.PENDING, OutboxState.SENDING))),
)
"""Rows of chats."""


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
    key = {"persona": persona, "platform": platform, "chat": chat}
    row = connection.execute(_FIND_CHAT, key).one_or_none()
    if row is None:
        row = connection.execute(insert(chats).values(**key, kind=kind or "dm", created_at=now).returning(chats)).one()
    changed: dict[str, object] = {}
    if kind is not None and row.kind != kind:  # a post was sent there before anybody wrote
        changed["kind"] = kind
    if allow_ids is not None and row.allow_ids != list(allow_ids):
        changed["allow_ids"] = list(allow_ids)
    if changed:
        row = connection.execute(update(chats).where(chats.c.id == row.id).values(changed).returning(chats)).one()
    return to_struct(row, Chat)


def next_position(connection: Connection, chat_id: int) -> int:
    """The position of the next message that is seen in a chat, from 1."""
    position: int = connection.execute(_NEXT_POSITION, {"chat_row": chat_id}).scalar_one()
    return position


def receive(connection: Connection, persona: str, message: NewMessage, now: datetime) -> Chat | None:
    """Commits a message as `new`, or as `ignored` context if it does not mention the bot.

    Returns its chat, or None if the event is stored already.
    """
    chat = get_or_create_chat(
        connection, persona, message.platform, message.chat, message.kind, allow_ids=message.allow_ids, now=now
    )
    if connection.execute(_FIND_EVENT, {"chat_row": chat.id, "event_id": message.event_id}).first() is not None:
        return None
    connection.execute(
        _INSERT_MESSAGE,
        {
            "chat_id": chat.id,
            "platform": message.platform,
            "event_id": message.event_id,
            "message_id": message.message_id,
            "sender": message.sender,
            "text": message.text,
            "addressed": message.mentions_bot,
            "sent_at": message.sent_at,
            "received_at": now,
            "state": InboxState.NEW if message.mentions_bot else InboxState.IGNORED,
            "reason": None if message.mentions_bot else IgnoreReason.NOT_ADDRESSED,
            "attempts": 0,
            "chat_position": next_position(connection, chat.id),
            "answers_sender": message.answers_sender,
            "answers_text": message.answers_text,
            "answers_message_id": message.answers_message_id,
        },
    )
    return chat


def pending_messages(connection: Connection, chat_id: int, limit: int) -> list[InboxMessage]:
    """The last `limit` of the chat's messages that still need a reply, oldest first."""
    newest_first = connection.execute(_PENDING, {"chat_row": chat_id, "max_rows": limit}).all()
    return [to_struct(row, InboxMessage) for row in reversed(newest_first)]


def unfinished_chats(connection: Connection, persona: str) -> list[Chat]:
    """The persona's chats with a message to answer or a bubble to send, or one whose sending was interrupted."""
    query = select(chats).where(chats.c.id.in_(_UNFINISHED), chats.c.persona == persona)
    return [to_struct(row, Chat) for row in connection.execute(query.order_by(chats.c.id))]


def is_unfinished(connection: Connection, chat_id: int) -> bool:
    """Whether a chat is one of the `unfinished_chats`."""
    unfinished = _UNFINISHED.subquery()
    return connection.execute(select(unfinished).where(unfinished.c.chat_id == chat_id).limit(1)).first() is not None


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
    values = {"chat_row": chat_id, "last_id": last_id, "new_state": state, "new_reason": reason, "new_turn": turn}
    return connection.execute(_RESOLVE, values).rowcount


def expire(connection: Connection, chat_id: int, written_before: datetime) -> int:
    """Ignores pending messages that were written too long ago; returns their number."""
    old = update(inbox).where(*_IS_PENDING, inbox.c.sent_at < written_before)
    stale = old.values(state=InboxState.IGNORED, reason=IgnoreReason.STALE)
    return connection.execute(stale, {"chat_row": chat_id}).rowcount


def ignore_all(connection: Connection, chat_id: int, reason: IgnoreReason) -> None:
    """Ignores all pending messages of a chat."""
    ignored = update(inbox).where(*_IS_PENDING).values(state=InboxState.IGNORED, reason=reason)
    connection.execute(ignored, {"chat_row": chat_id})


def record_failure(connection: Connection, chat_id: int, last_id: int, error: str) -> int:
    """Counts a failed attempt to answer a chat's pending messages up to row `last_id`; returns how many stay pending.

    Those that have had `MAX_ATTEMPTS` become `failed`.
    """
    values, pending = {"chat_row": chat_id, "last_id": last_id}, (*_IS_PENDING, inbox.c.id <= _LAST)
    counted = update(inbox).where(*pending).values(attempts=inbox.c.attempts + 1, reason=error)
    given_up = update(inbox).where(*pending, inbox.c.attempts >= MAX_ATTEMPTS).values(state=InboxState.FAILED)
    left = connection.execute(counted, values).rowcount
    return left - connection.execute(given_up, values).rowcount


def prompt_context(connection: Connection, chat_id: int, limit: int) -> tuple[list[PromptMessage], list[InboxMessage]]:
    """The chat's history and its pending messages, at most `limit` together; no history if nothing is pending.

    Of a longer chat the oldest messages are left out as `messages_left_out` says. Reads by index, however long the
    chat is.
    """
    newest_first = connection.execute(_PENDING, {"chat_row": chat_id, "max_rows": limit}).all()
    pending = [to_struct(row, InboxMessage) for row in reversed(newest_first)]
    room = limit - len(pending)
    if not pending or room <= 0:
        return [], pending
    left_out = messages_left_out(newest_first[0].last_position, limit)
    values = {"chat_row": chat_id, "after": left_out, "max_rows": room}
    rows = connection.execute(_FOR_PROMPT, values).all()
    return [PromptMessage(*values) for _, *values in rows[-room:]], pending


def visible_messages(
    connection: Connection, persona: str, platform: str, chat: str, limit: int
) -> list[HistoryMessage]:
    """The last messages of a chat as its participants see them, oldest first."""
    row = connection.execute(_FIND_CHAT, {"persona": persona, "platform": platform, "chat": chat}).one_or_none()
    return [] if row is None else _seen(connection, row.id, limit)


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


def _seen(connection: Connection, chat_id: int, limit: int) -> list[HistoryMessage]:
    """The last `limit` messages that were seen in a chat, oldest first."""
    values = {"chat_row": chat_id, "after": 0, "max_rows": limit}
    positioned = [
        (row.chat_position, HistoryMessage(sender=row.sender, text=row.text, at=row.received_at))
        for row in connection.execute(_RECEIVED, values)
    ]
    positioned += [
        (
            row.chat_position,
            HistoryMessage(
                sender=None, text=row.text, at=row.changed_at, kind=row.kind, turn=row.turn, adapter=row.adapter
            ),
        )
        for row in connection.execute(_SENT, values)
    ]
    positioned.sort(key=lambda pair: pair[0])
    return [message for _, message in positioned[-limit:]]
