"""The question to the user which of the people in an archive they are."""

import re
from collections.abc import Sequence

import msgspec

from doppel.errors import UserError
from doppel.i18n import tr
from doppel.personal_data import normalized_name
from training.people.authors import Account, Author

_MAX_NAMED = 5
_PLAIN = re.compile(r"\w[\w .\-]*")
"""Names that need no escaping in a quoted YAML string."""


class OwnerCandidate(msgspec.Struct, kw_only=True):
    """An account that may be the owner's, summed over all archives whose owner is unknown."""

    platform: str
    account: str
    name: str
    messages: int = 0
    chats: int = 0


class UnknownOwner(UserError):
    """It is not known which account is the owner's. `candidates`: the possible ones, the likeliest first."""

    def __init__(self, text: str, candidates: list[OwnerCandidate]) -> None:
        super().__init__(text)
        self.candidates = candidates


def unknown_owner(unresolved: Sequence[tuple[str, Sequence[Author]]], me: Sequence[str]) -> UnknownOwner:
    """The error that asks for `persona.me`. It names the people of the first archive.

    Args:
        unresolved: the archives whose owner is unknown, and the people in them.
        me: `persona.me` as the user wrote it.
    """
    source, first_authors = unresolved[0]
    candidates = _candidates([author for _, authors in unresolved for author in authors])
    in_first = {author.key for author in first_authors}
    likely = [candidate for candidate in candidates if (candidate.platform, candidate.account) in in_first]
    named = ", ".join(
        tr(
            "{name} ({account}, {count} messages)",
            name=" ".join(candidate.name.split()) or "?",
            account=candidate.account,
            count=f"{candidate.messages:,}",
        )
        for candidate in likely[:_MAX_NAMED]
    )
    first = likely[0]
    names = [normalized_name(candidate.name) for candidate in likely]
    is_unique = _PLAIN.fullmatch(first.name) and names.count(normalized_name(first.name)) == 1
    example = first.name if is_unique else first.account
    if me and not {normalized_name(name) for name in me}.isdisjoint(names):
        text = tr(
            "{source}: several people who write to each other are called {me}. Set `persona.me` in config.yaml to the "
            'id of your account, for example `persona: {{me: ["{platform}:{example}"]}}`: {candidates}',
            source=source,
            me=", ".join(me),
            platform=first.platform,
            example=first.account,
            candidates=named,
        )
    elif me:
        text = tr(
            "{source}: has no messages from {me}. Set `persona.me` in config.yaml to one of these people, for "
            'example `persona: {{me: ["{example}"]}}`: {candidates}',
            source=source,
            me=", ".join(me),
            example=example,
            candidates=named,
        )
    else:
        text = tr(
            "{source}: does not say which messages are yours. Set `persona.me` in config.yaml to one of these people, "
            'for example `persona: {{me: ["{example}"]}}`: {candidates}',
            source=source,
            example=example,
            candidates=named,
        )
    return UnknownOwner(text, candidates)


def _candidates(authors: Sequence[Author]) -> list[OwnerCandidate]:
    """Authors in the most chats first, as the owner writes in all of theirs; then by messages."""
    candidates: dict[Account, OwnerCandidate] = {}
    chats: dict[Account, set[tuple[int, str]]] = {}
    for author in authors:
        candidate = candidates.setdefault(
            author.key, OwnerCandidate(platform=author.platform, account=author.account, name=author.name)
        )
        candidate.messages += author.messages
        chats.setdefault(author.key, set()).update((author.source, chat) for chat in author.chats)
    for key, candidate in candidates.items():
        candidate.chats = len(chats[key])
    return sorted(candidates.values(), key=lambda one: (-one.chats, -one.messages, one.platform, one.account))
