"""Erases a person from the database, and exports what it holds of them.

A direct chat is the person's as a whole. In groups, their messages and the persona's replies to them are; what others
wrote, and posts, stay, but without what it shows of an erased message because it answers that. Every function here runs
in its caller's transaction. Chats of all personas count.
"""

from collections.abc import Collection, Iterator
from datetime import datetime
from typing import Any, TypeVar

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, and_, delete, false, not_, or_, select, update

from bot.store.inbox import VISIBLE
from bot.store.schema import InboxState, OutboxState, chats, inbox, outbox
from doppel.personal_data import Account, Record

ERASED_TURN = 0
"""Takes the place of the number of a turn that was erased; real ones begin at 1."""

HANDLED_TABLES = {
    "chats": "erased: the row of a direct chat with the person; those of groups hold no id of a person",
    "inbox": "erased: the person's messages, all of a direct chat with them, and what others' messages quote of these",
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

    `quotes` counts messages of others that no longer show what they answer. `stranger_replies` counts what was
    remembered of sending them `stranger_reply`.
    """

    messages: int = 0
    bubbles: int = 0
    chats: int = 0
    quotes: int = 0
    stranger_replies: int = 0

    def __add__(self, other: "ErasedMessages") -> "ErasedMessages":
        return ErasedMessages(
            self.messages + other.messages,
            self.bubbles + other.bubbles,
            self.chats + other.chats,
            self.quotes + other.quotes,
            self.stranger_replies + other.stranger_replies,
        )


def stored_accounts(connection: Connection) -> list[Account]:
    """Everybody who has written or was quoted, and the direct chats in which only the persona has written."""
    senders = connection.execute(select(inbox.c.platform, inbox.c.sender).distinct()).all()
    quoted = connection.execute(
        select(inbox.c.platform, inbox.c.answers_sender).where(inbox.c.answers_sender != "").distinct()
    ).all()
    unanswered = select(chats.c.platform, chats.c.chat).where(
        chats.c.kind == "dm", chats.c.id.not_in(select(inbox.c.chat_id))
    )
    return sorted({Account(platform, name) for platform, name in [*senders, *quoted, *connection.execute(unanswered)]})


def chats_of(connection: Connection, accounts: Collection[Account]) -> list[int]:
    """Rows of the chats with something to erase."""
    wrote = chats.c.id.in_(select(inbox.c.chat_id).where(or_(_by(accounts), _quotes(accounts))))
    query = select(chats.c.id).where(or_(wrote, _is_direct_chat_with(accounts)))
    return list(connection.execute(query.order_by(chats.c.id)).scalars())


def erase_chat(connection: Connection, chat_id: int, accounts: Collection[Account]) -> ErasedMessages:
    """Erases the person from one chat, and from other chats what is quoted there of this one."""
    chat = connection.execute(select(chats).where(chats.c.id == chat_id)).one_or_none()
    if chat is None:
        return ErasedMessages()
    quotes = [row.id for row in _quotes_of_erased(connection, chat, accounts)]
    for some in _chunks(quotes):
        unquoted = dict.fromkeys(("answers_sender", "answers_text", "answers_message_id"))
        connection.execute(update(inbox).where(inbox.c.id.in_(some)).values(unquoted))
    if _is_theirs(connection, chat, accounts):
        bubbles = connection.execute(delete(outbox).where(outbox.c.chat_id == chat_id)).rowcount
        messages = connection.execute(delete(inbox).where(inbox.c.chat_id == chat_id)).rowcount
        connection.execute(delete(chats).where(chats.c.id == chat_id))
        return ErasedMessages(messages, bubbles, 1, len(quotes))
    turns = _turns_answering(connection, chat_id, accounts)
    messages = connection.execute(delete(inbox).where(inbox.c.chat_id == chat_id, _by(accounts))).rowcount
    bubbles = 0
    for some in _chunks(sorted(turns)):
        _release_others(connection, some)
        bubbles += connection.execute(delete(outbox).where(outbox.c.turn.in_(some))).rowcount
    return ErasedMessages(messages, bubbles, 1, len(quotes))


def export_chat(connection: Connection, chat_id: int, accounts: Collection[Account]) -> list[Record]:
    """What `erase_chat` would erase, in the order in which it was seen; what was never sent comes last."""
    chat = connection.execute(select(chats).where(chats.c.id == chat_id)).one()
    received = select(inbox).where(inbox.c.chat_id == chat_id)
    sent = select(outbox).where(outbox.c.chat_id == chat_id)
    is_theirs = _is_theirs(connection, chat, accounts)
    if not is_theirs:
        received = received.where(_by(accounts))
    bubbles = connection.execute(sent.order_by(outbox.c.turn, outbox.c.position)).all()
    if not is_theirs:
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
    positioned += [
        (
            row.chat_position,
            # Not who quoted it, nor what they wrote about it: that is theirs.
            {
                **where,
                "by": "persona" if row.answers_sender is None else row.answers_sender,
                "text": row.answers_text,
                "at": _iso(row.sent_at),
                "state": "quoted",
            },
        )
        for row in _quotes_of_erased(connection, chat, accounts)
    ]
    return [record for _, record in sorted(positioned, key=lambda pair: pair[0])]


def _is_theirs(connection: Connection, chat: Row[Any], accounts: Collection[Account]) -> bool:
    """Whether a chat is a direct chat with the person, and not one in which somebody else quotes them."""
    if chat.kind != "dm":
        return False
    if Account(chat.platform, chat.chat) in accounts:
        return True
    return connection.execute(select(inbox.c.id).where(inbox.c.chat_id == chat.id, _by(accounts))).first() is not None


def _quotes_of_erased(connection: Connection, chat: Row[Any], accounts: Collection[Account]) -> list[Row[Any]]:
    """Messages of others that show something of the person's in a chat as what they answer.

    That is what the person wrote, and what the persona replied to them. In other chats, services do not tell which
    message it was, or even whose: there it is found by its text.
    """
    bubbles = connection.execute(select(outbox).where(outbox.c.chat_id == chat.id)).all()
    messages = select(inbox.c.text).where(inbox.c.chat_id == chat.id)
    erased = bubbles
    if not _is_theirs(connection, chat, accounts):
        messages = messages.where(_by(accounts))
        turns = _turns_answering(connection, chat.id, accounts)
        erased = [row for row in bubbles if row.turn in turns]
    texts = {*(row.text for row in erased), *connection.execute(messages).scalars()}
    erased_ids = {row.message_id for row in erased}
    other_ids = {row.message_id for row in bubbles} - erased_ids
    here = inbox.c.chat_id == chat.id
    by_persona = and_(inbox.c.answers_text.is_not(None), inbox.c.answers_sender.is_(None))
    candidates = select(inbox).where(
        inbox.c.platform == chat.platform,
        not_(_by(accounts)),
        or_(
            and_(here, _quotes(accounts)),
            and_(here, by_persona),
            and_(by_persona, inbox.c.answers_message_id.is_(None)),
            inbox.c.answers_sender == "",
        ),
    )

    def is_erased(row: Row[Any]) -> bool:
        if row.answers_sender or (row.answers_message_id is not None and row.answers_message_id in erased_ids):
            return True
        if row.answers_message_id is not None and row.answers_message_id in other_ids:
            return False
        # Its id is not known: it is in another chat, or it was sent without the service's confirmation.
        return any(row.answers_text in text for text in texts)

    return [row for row in connection.execute(candidates.order_by(inbox.c.id)) if is_erased(row)]


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


def _quotes(accounts: Collection[Account]) -> ColumnElement[bool]:
    return or_(
        false(),
        *(and_(inbox.c.platform == account.platform, inbox.c.answers_sender == account.id) for account in accounts),
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
