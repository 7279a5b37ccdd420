"""Cuts messages that must not be learned from out of a session: repeats, needless reactions, forgotten people.

Removing a message from the middle would place a reply after a question that it does not answer. So what is kept of a
session are one or more uninterrupted stretches, each with messages of the owner's:

- Repeats are cut where they are at the beginning or the end: own turns before the first that says something new, with
  the messages before them, and own turns after the last, with the messages after them. A repeat in between stays,
  since it is context for later turns. A session whose own turns are all repeats is dropped. The cap on repeats
  therefore limits what may be cut, not what stays.
- Messages of a forgotten person are cut everywhere. They break the session, and the owner's messages right after them,
  which may be replies, are cut as well.
- Reactions are no messages of their own, so leaving one out breaks nothing. The owner's are kept where they are the
  whole reply to a message.
"""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import TypeVar

from training.archives.message import Mark
from training.cleaning.rules import DropReason
from training.dataset.sessions import SessionMessage

Item = TypeVar("Item")


def trim_repeats(
    session: list[SessionMessage], repeat_reason: Callable[[SessionMessage], DropReason | None]
) -> tuple[list[SessionMessage], list[tuple[SessionMessage, DropReason]]]:
    """Cuts the repeats at both ends of a session.

    Args:
        session: the messages.
        repeat_reason: why one of the owner's messages is a repeat; None if it is not.

    Returns:
        The remaining messages, none if every own turn is a repeat; and the dropped ones with their reasons.
    """
    own_turns: list[tuple[int, int, bool]] = []  # (start, end, whether it says something new)
    start = 0
    for is_mine, group in groupby(session, key=lambda message: message.is_mine):
        turn = list(group)
        if is_mine:
            own_turns.append((start, start + len(turn), any(repeat_reason(message) is None for message in turn)))
        start += len(turn)
    if all(is_new for _, _, is_new in own_turns):
        return session, []
    new_turns = [number for number, (_, _, is_new) in enumerate(own_turns) if is_new]
    if not new_turns:
        first = last = 0
    else:
        first = own_turns[new_turns[0] - 1][1] if new_turns[0] else 0
        last = own_turns[new_turns[-1] + 1][0] if new_turns[-1] + 1 < len(own_turns) else len(session)
    dropped = [
        (message, (repeat_reason(message) if message.is_mine else None) or DropReason.NO_OWN_MESSAGE)
        for message in (*session[:first], *session[last:])
    ]
    return session[first:last], dropped


def split_around(
    items: Sequence[Item], is_removed: Callable[[Item], bool], is_mine: Callable[[Item], bool]
) -> list[tuple[int, int]]:
    """The (start, end) of the stretches between removed items, without the owner's items right after a removed one."""
    stretches: list[tuple[int, int]] = []
    start = 0
    is_after_removed = False
    for index, item in enumerate(items):
        if is_removed(item) or (is_after_removed and is_mine(item)):
            if start < index:
                stretches.append((start, index))
            start = index + 1
            is_after_removed = True
        else:
            is_after_removed = False
    if start < len(items):
        stretches.append((start, len(items)))
    return stretches


def separate_reactions(session: Sequence[SessionMessage]) -> tuple[list[SessionMessage], list[SessionMessage]]:
    """Separates needless reactions from a session.

    A reaction of the owner's is kept if it refers to the message right before it, of somebody else, and no words of
    the owner's follow: next to words it says little, and it may have been made after them.

    Returns:
        The session without needless reactions, and those reactions.
    """
    kept: list[SessionMessage] = []
    needless: list[SessionMessage] = []
    for index, message in enumerate(session):
        if message.message.mark != Mark.REACTION:
            kept.append(message)
            continue
        before = kept[-1] if kept else None
        is_reply = before is not None and not before.is_mine and before.message.id == message.message.reply_to
        after = next((later for later in session[index + 1 :] if later.message.mark != Mark.REACTION), None)
        is_whole_reply = after is None or not after.is_mine
        (kept if message.is_mine and is_reply and is_whole_reply else needless).append(message)
    return kept, needless
