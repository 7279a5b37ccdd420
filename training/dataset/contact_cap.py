"""That one contact does not fill the data set: which sessions with a contact go when there are too many of them.

Counted are the owner's messages in conversations of two; groups and posts belong to no contact. The limit is a share
of all of the owner's messages before anything goes, so it never takes more than the rest of that share, however few
messages there are with others.
"""

from collections.abc import Mapping, Sequence

from training.dataset.splits import Summary

FEWEST = 5
"""Contacts from which there is something to balance."""


def over_share(sessions: Sequence[Summary], contacts: Mapping[str, str], share: float) -> set[str]:
    """Ids of the sessions to leave out: the oldest with every contact who has more than the share.

    Args:
        sessions: all of them.
        contacts: whom a session is with, by its id; the others are with nobody in particular.
        share: of the owner's messages, that one contact may have.
    """
    with_contact: dict[str, list[Summary]] = {}
    for session in sessions:
        if (contact := contacts.get(session.id)) is not None:
            with_contact.setdefault(contact, []).append(session)
    if len(with_contact) < FEWEST:
        return set()
    limit = share * sum(session.mine for session in sessions)
    gone: set[str] = set()
    for theirs in with_contact.values():
        left = sum(session.mine for session in theirs)
        for session in sorted(theirs, key=lambda one: (one.ended_at, one.id))[:-1]:
            if left <= limit:
                break
            gone.add(session.id)
            left -= session.mine
    return gone
