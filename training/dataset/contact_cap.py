"""Limits the share of one contact, so that no single conversation dominates the data set.

Only the owner's messages in direct chats are counted; groups and posts belong to no contact. The limit is a share of
all of the owner's messages before any are left out.
"""

from collections.abc import Mapping, Sequence

from training.dataset.splits import SessionSummary

MIN_CONTACTS = 5
"""With fewer contacts, nothing is limited."""


def sessions_over_cap(sessions: Sequence[SessionSummary], contacts: Mapping[str, str], share: float) -> set[str]:
    """Ids of the sessions to leave out: the oldest with every contact who exceeds the share.

    Args:
        sessions: all sessions.
        contacts: contact of each session in a direct chat, by session id.
        share: largest share of the owner's messages that may go to one contact.
    """
    by_contact: dict[str, list[SessionSummary]] = {}
    for session in sessions:
        if (contact := contacts.get(session.id)) is not None:
            by_contact.setdefault(contact, []).append(session)
    if len(by_contact) < MIN_CONTACTS:
        return set()
    limit = share * sum(session.own_messages for session in sessions)
    dropped: set[str] = set()
    for contact_sessions in by_contact.values():
        left = sum(session.own_messages for session in contact_sessions)
        for session in sorted(contact_sessions, key=lambda session: (session.ended_at, session.id))[:-1]:
            if left <= limit:
                break
            dropped.add(session.id)
            left -= session.own_messages
    return dropped
