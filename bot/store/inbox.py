"""What was written to the persona: committed, waiting, answered. Each function is one step of a transaction.

Knows no platform and no engine; the caller says whether a message deserves an answer.
"""

from collections.abc import Sequence
from datetime import datetime

import msgspec
from sqlalchemy import Connection, func, insert, literal, null, or_, select, union_all, update

from bot.store.schema import (
    Chat,
    ChatKind,
    InboxMessage,
    InboxState,
    NewMessage,
    OutboxState,
    TurnKind,
    chats,
    inbox,
    outbox,
    read,
)

NOT_ADDRESSED = "not addressed"
"""Reason of messages in groups that are kept as context only."""

SHOWN: tuple[OutboxState, ...] = ("sending", "sent", "unknown")
"""States of bubbles that a reader of the chat may have seen."""


class HistoryMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One message of a chat, whoever wrote it; `sender` is None for the persona. `at` is UTC, by our clock."""

    sender: str | None
    text: str
    at: datetime
    kind: TurnKind | None
    adapter: str | None


def get_or_create_chat(
    connection: Connection, platform: str, chat: str, kind: ChatKind | None = None, *, now: datetime
) -> Chat:
    """The row of a conversation, made when it is new. A kind of None stands for "whatever it is"."""
    mine = (chats.c.platform == platform, chats.c.chat == chat)
    row = connection.execute(select(chats).where(*mine)).one_or_none()
    if row is None:
        values = {"platform": platform, "chat": chat, "kind": kind or "dm", "created_at": now}
        row = connection.execute(insert(chats).values(values).returning(chats)).one()
    elif kind is not None and row.kind != kind:  # a post was sent there before anybody wrote
        row = connection.execute(update(chats).where(*mine).values(kind=kind).returning(chats)).one()
    return read(row, Chat)


def receive(connection: Connection, message: NewMessage, now: datetime) -> Chat | None:
    """Commits a message as `new`, or as `ignored` context when the persona is not addressed.

    Returns its chat, or None when the event is known already.
    """
    seen = select(inbox.c.id).where(inbox.c.platform == message.platform, inbox.c.event_id == message.event_id)
    if connection.execute(seen).first() is not None:
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
            state="new" if message.mentions_bot else "ignored",
            reason=None if message.mentions_bot else NOT_ADDRESSED,
            attempts=0,
        )
    )
    return chat


def newest(connection: Connection, platform: str) -> dict[str, str]:
    """The platform's id of the last message of each of its chats: somebody's, or else the persona's own."""
    theirs = select(func.max(inbox.c.id)).where(inbox.c.platform == platform).group_by(inbox.c.chat_id)
    mine = (
        select(func.max(outbox.c.id))
        .join(chats, chats.c.id == outbox.c.chat_id)
        .where(chats.c.platform == platform, outbox.c.message_id.is_not(None))
        .group_by(outbox.c.chat_id)
    )
    known: dict[str, str] = {}
    for table, last in ((outbox, mine), (inbox, theirs)):
        rows = select(chats.c.chat, table.c.message_id).join(chats, chats.c.id == table.c.chat_id)
        known |= {row.chat: row.message_id for row in connection.execute(rows.where(table.c.id.in_(last)))}
    return known


def pending_messages(connection: Connection, chat_id: int) -> list[InboxMessage]:
    """The chat's messages that still need an answer, oldest first."""
    rows = connection.execute(
        select(inbox).where(inbox.c.chat_id == chat_id, inbox.c.state == "new").order_by(inbox.c.id)
    )
    return [read(row, InboxMessage) for row in rows]


def visible_messages(connection: Connection, platform: str, chat: str, limit: int) -> list[HistoryMessage]:
    """The last messages of a chat as somebody in it sees them, oldest first."""
    query = select(chats.c.id).where(chats.c.platform == platform, chats.c.chat == chat)
    chat_id = connection.execute(query).scalar_one_or_none()
    return [] if chat_id is None else history(connection, chat_id, limit, states=SHOWN, new=True)


def prompt_context(connection: Connection, chat_id: int, limit: int) -> tuple[list[HistoryMessage], list[InboxMessage]]:
    """What was said before in a chat, and what waits for an answer; the last ones, at most `limit` together.

    A chat that is longer loses its oldest messages a quarter of `limit` at a time: in between the beginning stays the
    same, so that an engine need not read all of it anew for each reply.
    """
    asked = pending_messages(connection, chat_id)
    said = _count(connection, chat_id)
    step = max(1, limit // 4)
    over = said + len(asked) - limit
    dropped = -(-over // step) * step if over > 0 else 0
    return history(connection, chat_id, max(0, min(said - dropped, limit - len(asked)))), asked


def unfinished_chats(connection: Connection) -> list[Chat]:
    """Chats with a message to answer or a bubble to send."""
    ids = union_all(
        select(inbox.c.chat_id).where(inbox.c.state == "new"),
        select(outbox.c.chat_id).where(outbox.c.state == "pending"),
    )
    rows = connection.execute(select(chats).where(chats.c.id.in_(ids)).order_by(chats.c.id))
    return [read(row, Chat) for row in rows]


def resolve(connection: Connection, ids: Sequence[int], state: InboxState, reason: str | None = None) -> None:
    """Ends the waiting of messages."""
    connection.execute(update(inbox).where(inbox.c.id.in_(ids)).values(state=state, reason=reason))


def count_attempt(connection: Connection, ids: Sequence[int], reason: str) -> None:
    """Notes that an answer was tried and why it failed; the messages keep waiting."""
    connection.execute(update(inbox).where(inbox.c.id.in_(ids)).values(attempts=inbox.c.attempts + 1, reason=reason))


def _count(connection: Connection, chat_id: int) -> int:
    """How many messages `history` would find without a limit."""
    theirs = select(func.count()).where(inbox.c.chat_id == chat_id, inbox.c.state != "new")
    mine = select(func.count()).where(outbox.c.chat_id == chat_id, outbox.c.state.in_((*SHOWN, "pending")))
    return connection.execute(theirs).scalar_one() + connection.execute(mine).scalar_one()


def history(
    connection: Connection, chat_id: int, limit: int, *, states: Sequence[str] = (*SHOWN, "pending"), new: bool = False
) -> list[HistoryMessage]:
    """The last `limit` messages of a chat, oldest first.

    Args:
        connection: in a transaction.
        chat_id: row of the chat.
        limit: at most so many messages.
        states: bubbles of the persona in these states count.
        new: whether messages that still wait for an answer count.
    """
    theirs = select(
        inbox.c.sender, inbox.c.text, inbox.c.received_at.label("at"), literal(0).label("side"), inbox.c.id,
        null().label("kind"), null().label("adapter"),
    ).where(inbox.c.chat_id == chat_id, or_(inbox.c.state != "new", literal(new)))  # fmt: skip
    mine = select(
        null().label("sender"), outbox.c.text, outbox.c.changed_at.label("at"), literal(1).label("side"), outbox.c.id,
        outbox.c.kind, outbox.c.adapter,
    ).where(outbox.c.chat_id == chat_id, outbox.c.state.in_(states))  # fmt: skip
    both = union_all(theirs, mine).subquery()
    newest = select(both).order_by(both.c.at.desc(), both.c.side.desc(), both.c.id.desc()).limit(limit)
    return [read(row, HistoryMessage) for row in reversed(connection.execute(newest).all())]
