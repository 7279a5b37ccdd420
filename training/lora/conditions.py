"""What a model is told of a session besides its words: drawn anew in every epoch, as far as serving cannot know it.

Every field of the header may be missing when serving, and a contact may have a name that the training never saw. So
fields are dropped and contacts renamed at random, and the language is the one that serving would find.
"""

import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from doppel.transcript import Header, Turn, header_language, pseudonym
from training.dataset.files import CHAT_KINDS, Session, kind_of

_DROPPED_SHARE = 0.15
"""Of the headers lose fields: half of these all of them, the others each with probability 1/2."""
_RENAMED_SHARE = 0.15
"""Of the sessions have others under new names."""

_MAX_HEADER_VALUES = 1000
_MIN_LANGUAGE_SHARE = 0.03
"""Of the sessions whose language is known; a rarer one is more likely mistaken than spoken."""


def header_vocabulary(headers: Iterable[Header]) -> dict[str, list[str]]:
    """The values of each header field in training, most frequent first; training and serving use no others."""
    known = list(headers)
    vocabulary = {}
    for field in Header.__struct_fields__:
        counts = Counter(value for header in known if (value := getattr(header, field)) is not None)
        fewest = counts.total() * _MIN_LANGUAGE_SHARE if field == "language" else 0
        vocabulary[field] = [value for value, count in counts.most_common(_MAX_HEADER_VALUES) if count >= fewest]
    return vocabulary


def vary(session: Session, languages: Sequence[str], draw: random.Random) -> Session:
    """The session with the header of this epoch, and in some epochs with other names for everybody but the owner.

    Args:
        session: with its complete header.
        languages: that the owner writes in.
        draw: decides.
    """
    header = msgspec.structs.replace(
        session.header, language=header_language(languages, kind_of(session), session.turns)
    )
    varied = msgspec.structs.replace(session, header=header)
    if draw.random() < _RENAMED_SHARE:
        varied = rename(varied, draw)
    if draw.random() < _DROPPED_SHARE:
        header = drop_fields(varied.header, draw)
        if lacks_others(session) and kind_of(session) not in CHAT_KINDS:
            # without the kind, a reply whose question is missing would look like the opening of a conversation
            header = msgspec.structs.replace(header, kind=kind_of(session))
        varied = msgspec.structs.replace(varied, header=header)
    return varied


def drop_fields(header: Header, draw: random.Random) -> Header:
    """The header without any field, or without each with probability 1/2."""
    if draw.random() < 0.5:
        return Header()
    kept = {name: getattr(header, name) for name in header.__struct_fields__ if draw.random() < 0.5}
    return Header(**kept)


def rename(session: Session, draw: random.Random) -> Session:
    """The session with new pseudonyms for everybody but the owner, in the header, before the turns and in them."""
    speakers = {turn.speaker for turn in session.turns if not turn.is_mine}
    names = sorted(speakers.union(filter(None, [session.header.contact])))
    if not names:
        return session
    new_names: dict[str, str] = {}
    while len(new_names) < len(names):
        candidate = pseudonym("", str(draw.getrandbits(64)))
        if candidate not in names and candidate not in new_names.values():
            new_names[names[len(new_names)]] = candidate
    # ASCII: no blank stands between a name and Chinese or Japanese, whose characters are letters to \b otherwise
    pattern = re.compile(rf"\b(?:{'|'.join(map(re.escape, names))})\b", re.ASCII)

    def renamed(text: str) -> str:
        return pattern.sub(lambda match: new_names[match[0]], text)

    turns = tuple(
        Turn(turn.speaker if turn.is_mine else new_names[turn.speaker], tuple(map(renamed, turn.bubbles)))
        for turn in session.turns
    )
    header = msgspec.structs.replace(session.header, contact=new_names.get(session.header.contact or ""))
    return msgspec.structs.replace(session, turns=turns, header=header)


def without_unanswered(sessions: Sequence[Session]) -> list[Session]:
    """The sessions without those of a chat in which nobody but the owner wrote, if others are left.

    Somebody who waits for an answer repeats himself, and a model would learn to do so at every occasion.
    """
    answered = [session for session in sessions if kind_of(session) not in CHAT_KINDS or not lacks_others(session)]
    return answered or list(sessions)


def lacks_others(session: Session) -> bool:
    """Whether only the owner wrote."""
    return all(turn.is_mine for turn in session.turns)


def favour_recent(sessions: Sequence[Session], draw: random.Random) -> list[Session]:
    """All the sessions in a random order in which newer ones tend to come first.

    If less than an epoch fits, what is learned is then mostly how the owner writes now. The weight of a session halves
    with every quarter of the archive's time that it is old (weighted sampling without replacement: Efraimidis and
    Spirakis, 2006).
    """
    if not sessions:
        return []
    times = [session.started_at.timestamp() for session in sessions]
    newest = max(times)
    quarter = max(1.0, (newest - min(times)) / 4)
    keys = [draw.random() ** (2 ** ((newest - time) / quarter)) for time in times]
    order = sorted(range(len(sessions)), key=lambda number: -keys[number])
    return [sessions[number] for number in order]
