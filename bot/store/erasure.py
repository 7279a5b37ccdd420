"""Erases a person from the database, and exports what it holds of them.

A direct chat is the person's as a whole. In groups, their messages and the persona's replies to them are; what others
wrote, and posts, stay. Every function here runs in its caller's transaction. Chats of all personas count.
"""

from collections.abc import Collection, Iterator
from datetime import datetime
from typing import TypeVar

import msgspec
from sqlalchemy import ColumnElement, Connection, and_, delete, false, or_, select, update

from bot.store.inbox import VISIBLE
from bot.store.schema import InboxState, OutboxState, chats, inbox, outbox
from doppel.personal_data import Account, Record

ERASED_TURN = 0
"""Takes the place of the number of a turn that was erased; real ones begin at 1."""

HANDLED_TABLES = {
    "chats": "erased: the row of a direct chat with the person; those of groups hold no id of a person",
    "inbox": "erased: the person's messages, and all messages of a direct chat with them",
    "outbox": "erased: all of a direct chat with the person; in groups the replies to their messages, and unsent ones",
    "slots": "nothing personal: when a schedule posted",
    "cursors": "erased: that the person was sent `stranger_reply` (bot.store.strangers); triggers of schedules stay",
    "leases": "nothing personal: which daemon works on what",
}
"""What becomes of each table when a person is forgotten, and why that is enough."""

_CHUNK = 500
"""Values in one statement; databases limit them."""

T = TypeVar("T")


class ErasedMessages(msgspec.Struct, frozen=True):
    """How many messages of the person and bubbles of the persona were removed, and from how many chats.

    `stranger_replies` counts what was remembered of sending them `stranger_reply`.
    """

    messages: int = 0
    bubbles: int = 0
    chats: int = 0
    stranger_replies: int = 0

    def __add__(self, other: "ErasedMessages") -> "ErasedMessages":
        return ErasedMessages(
            self.messages + other.messages,
            self.bubbles + other.bubbles,
            self.chats + other.chats,
            self.stranger_replies + other.stranger_replies,
        )


def stored_accounts(connection: Connection) -> list[Account]:
    """Everybody who has written, and the direct chats in which only the persona has."""
    senders = connection.execute(select(inbox.c.platform, inbox.c.sender).distinct()).all()
    unanswered = select(chats.c.platform, chats.c.chat).where(
        chats.c.kind == "dm", chats.c.id.not_in(select(inbox.c.chat_id))
    )
    return sorted({Account(platform, name) for platform, name in [*senders, *connection.execute(unanswered)]})


def chats_of(connection: Connection, accounts: Collection[Account]) -> list[int]:
    """Rows of the chats with something to erase."""
    wrote = chats.c.id.in_(select(inbox.c.chat_id).where(_by(accounts)))
    query = select(chats.c.id).where(or_(wrote, _is_direct_chat_with(accounts)))
    return list(connection.execute(query.order_by(chats.c.id)).scalars())


def erase_chat(connection: Connection, chat_id: int, accounts: Collection[Account]) -> ErasedMessages:
    """Erases the person from one chat."""
    if connection.execute(select(chats.c.kind).where(chats.c.id == chat_id)).scalar_one_or_none() == "dm":
        bubbles = connection.execute(delete(outbox).where(outbox.c.chat_id == chat_id)).rowcount
        messages = connection.execute(delete(inbox).where(inbox.c.chat_id == chat_id)).rowcount
        connection.execute(delete(chats).where(chats.c.id == chat_id))
        return ErasedMessages(messages, bubbles, 1)
    turns = _turns_answering(connection, chat_id, accounts)
    messages = connection.execute(delete(inbox).where(inbox.c.chat_id == chat_id, _by(accounts))).rowcount
    bubbles = 0
    for some in _chunks(sorted(turns)):
        _release_others(connection, some)
        bubbles += connection.execute(delete(outbox).where(outbox.c.turn.in_(some))).rowcount
    return ErasedMessages(messages, bubbles, 1)


def export_chat(connection: Connection, chat_id: int, accounts: Collection[Account]) -> list[Record]:
    """What `erase_chat` would erase, in the order in which it was seen; what was never sent comes last."""
    chat = connection.execute(select(chats).where(chats.c.id == chat_id)).one()
    received = select(inbox).where(inbox.c.chat_id == chat_id)
    sent = select(outbox).where(outbox.c.chat_id == chat_id)
    if chat.kind != "dm":
        received = received.where(_by(accounts))
    bubbles = connection.execute(sent.order_by(outbox.c.turn, outbox.c.position)).all()
    if chat.kind != "dm":
        turns = _turns_answering(connection, chat_id, accounts)
        bubbles = [row for row in bubbles if row.turn in turns]
    where = {"platform": chat.platform, "chat": chat.chat, "kind": chat.kind, "persona": chat.persona}
    positioned: list[tuple[float, Record]] = [
        (
            row.chat_position,
            {**where, "by": row.sender, "text": row.text, "at": _iso(row.sent_at), "state": row.state},
        )
        for row in connection.execute(received.order_by(inbox.c.id))
    ]
    positioned += [
        (
            float("inf") if row.chat_position is None else row.chat_position,
            {**where, "by": "persona", "text": row.text, "at": _iso(row.changed_at), "state": row.state},
        )
        for row in bubbles
    ]
    return [record for _, record in sorted(positioned, key=lambda pair: pair[0])]


def _turns_answering(connection: Connection, chat_id: int, accounts: Collection[Account]) -> set[int]:
    """Turns of a group that answer the person's messages, and replies that were written and never sent."""
    rows = connection.execute(
        select(inbox.c.id, inbox.c.turn, inbox.c.state).where(inbox.c.chat_id == chat_id, _by(accounts))
    ).all()
    turns = {row.turn for row in rows if row.turn} - {None, ERASED_TURN}
    replies = connection.execute(
        select(outbox.c.turn, outbox.c.inbox_id, outbox.c.state)
        .where(outbox.c.chat_id == chat_id, outbox.c.kind == "reply")
        .order_by(outbox.c.turn)
    ).all()
    ids = {row.id for row in rows}
    turns |= {reply.turn for reply in replies if reply.inbox_id in ids}
    # Databases of earlier versions name only the last message that a turn answers.
    for row in rows:
        if row.turn is None and row.state == InboxState.ANSWERED:
            later = (reply for reply in replies if reply.inbox_id is not None and reply.inbox_id >= row.id)
            turns |= {reply.turn for reply in [min(later, key=lambda reply: reply.inbox_id, default=None)] if reply}
    # An unsent reply no longer says which messages it was written for.
    states: dict[int, set[str]] = {}
    for reply in replies:
        states.setdefault(reply.turn, set()).add(reply.state)
    return turns | {turn for turn, those in states.items() if those == {OutboxState.FAILED}}


def _release_others(connection: Connection, turns: Collection[int]) -> None:
    """Messages of others that these turns answer: answered if somebody may have seen a part of the reply, else to be
    answered again.
    """
    seen = select(outbox.c.turn).where(outbox.c.turn.in_(turns), outbox.c.state.in_(VISIBLE))
    replying = (inbox.c.turn.in_(turns), inbox.c.state == InboxState.REPLYING)
    connection.execute(update(inbox).where(*replying, inbox.c.turn.in_(seen)).values(state=InboxState.ANSWERED))
    connection.execute(update(inbox).where(*replying).values(state=InboxState.NEW, turn=None))
    connection.execute(update(inbox).where(inbox.c.turn.in_(turns)).values(turn=ERASED_TURN))


def _by(accounts: Collection[Account]) -> ColumnElement[bool]:
    return or_(
        false(), *(and_(inbox.c.platform == account.platform, inbox.c.sender == account.id) for account in accounts)
    )


def _is_direct_chat_with(accounts: Collection[Account]) -> ColumnElement[bool]:
    return and_(
        chats.c.kind == "dm",
        or_(false(), *(and_(chats.c.platform == one.platform, chats.c.chat == one.id) for one in accounts)),
    )


def _chunks(values: list[T]) -> Iterator[list[T]]:
    return (values[start : start + _CHUNK] for start in range(0, len(values), _CHUNK))


def _iso(at: datetime) -> str:
    return at.isoformat(timespec="seconds")
