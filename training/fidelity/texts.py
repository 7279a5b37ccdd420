"""The owner's unseen messages, cut for measuring: situations they answered, what others wrote, and their own past."""

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TypeVar

import msgspec

from doppel.errors import UserError
from doppel.i18n import tr
from doppel.transcript import ME, Header, Transcript, Turn
from training.dataset.files import Session
from training.lora.examples import Example, cut, spread_sample

LEAST_TURNS = 30
"""Turns of the owner's, with something said before, below which no figure means anything."""

Item = TypeVar("Item")
_CONTEXT_TURNS = 6
_CONTEXT_TOKENS = 64


class Situation(msgspec.Struct, frozen=True):
    """A place where somebody answered somebody, as a rule the owner.

    Attributes:
        session: id of the conversation, within which situations are not independent.
        header: of the conversation.
        context: the turns before, oldest first, at least one; the last is somebody else's.
        reply: what was answered.
    """

    session: str
    header: Header
    context: tuple[Turn, ...]
    reply: Turn

    @property
    def text(self) -> str:
        """The reply, a bubble a line."""
        return "\n".join(self.reply.bubbles)


class HeldOut(msgspec.Struct, frozen=True):
    """What an adapter is examined on.

    Attributes:
        past: sessions it was trained on.
        future: sessions it never saw.
        situations: of the future, in order of time.
    """

    past: list[Session]
    future: list[Session]
    situations: list[Situation]


def held_out(sessions: Iterable[Session], transcript: Transcript) -> HeldOut:
    """Sorts a data set by what the adapter knows of it.

    Raises:
        UserError: too little of the owner's is held out to say anything.
    """
    past: list[Session] = []
    future: list[Session] = []
    for session in sessions:
        if session.split == "train":
            past.append(session)
        elif session.split == "test":
            future.append(session)
    found = [situation for session in future for situation in situations(session, transcript)]
    if len(found) < LEAST_TURNS:
        raise UserError(
            tr(
                "only {count} replies of yours are held out, at least {least} are needed to say anything; "
                "give `doppel build` a larger archive",
                count=len(found),
                least=LEAST_TURNS,
            )
        )
    return HeldOut(past, future, found)


def situations(session: Session, transcript: Transcript) -> list[Situation]:
    """Every turn of the owner's that follows somebody else's, with the last turns before it."""
    answers = [
        _situation(session, place, transcript)
        for place in range(1, len(session.turns))
        if session.turns[place].is_mine and not session.turns[place - 1].is_mine
    ]
    return [one for one in answers if one is not None]


def _situation(session: Session, place: int, transcript: Transcript) -> Situation | None:
    """A turn with the last turns before it, as many as fit; None where one does not."""
    context = session.turns[max(0, place - _CONTEXT_TURNS) : place]
    while len(context) > 1 and len(transcript.prompt(session.header, context)) > _CONTEXT_TOKENS:
        context = context[1:]
    if len(transcript.prompt(session.header, context)) > 2 * _CONTEXT_TOKENS:
        return None
    return Situation(session.id, session.header, context, session.turns[place])


def evenly(items: Sequence[Item], count: int) -> list[Item]:
    """At most `count` of them, taken evenly: of what stands in order of time, evenly over time."""
    if len(items) <= count:
        return list(items)
    return [items[place * len(items) // count] for place in range(count)]


def second_speaker(held: HeldOut, transcript: Transcript, count: int) -> list[Situation]:
    """Where one other person answered somebody, at most `count` times, evenly over time: who did so most often.

    Of the future, and of the past too where that is too little; nothing where nobody answered `LEAST_TURNS` times.
    """
    sessions = [*held.past, *held.future]
    places = [
        (session, place)
        for session in sessions
        for place in range(1, len(session.turns))
        if not session.turns[place].is_mine and session.turns[place - 1].speaker != session.turns[place].speaker
    ]
    counts = Counter(session.turns[place].speaker for session, place in places)
    late = {session.id for session in held.future}
    recent = Counter(session.turns[place].speaker for session, place in places if session.id in late)
    speaker = max(counts, key=lambda name: (min(recent[name], count), counts[name]), default="")
    if counts[speaker] < LEAST_TURNS:
        return []
    theirs = [(session, place) for session, place in places if session.turns[place].speaker == speaker]
    found = [one for one in (_situation(*each, transcript) for each in theirs) if one is not None]
    latest = [one for one in found if one.session in late]
    return evenly(latest if len(latest) >= count else found, count)


def texts_of_others(sessions: Iterable[Session]) -> list[str]:
    """What everybody but the owner wrote, a turn each, a bubble a line."""
    return ["\n".join(turn.bubbles) for one in sessions for turn in one.turns if not turn.is_mine]


def texts_of_owner(sessions: Iterable[Session]) -> list[str]:
    """What the owner wrote, a turn each, a bubble a line."""
    return ["\n".join(turn.bubbles) for one in sessions for turn in one.turns if turn.is_mine]


def owner_examples(sessions: Sequence[Session], transcript: Transcript, length: int, tokens: int) -> list[Example]:
    """About `tokens` tokens of the owner's conversations, as they are trained on, evenly over time."""
    return spread_sample([one for session in sessions for one in _pieces(session, transcript, length, ME)], tokens)


def others_examples(sessions: Sequence[Session], transcript: Transcript, length: int, tokens: int) -> list[Example]:
    """The same conversations read for what the most talkative other person of each wrote."""
    pieces = []
    for session in sessions:
        counts = Counter(turn.speaker for turn in session.turns if not turn.is_mine)
        if counts:
            pieces += _pieces(session, transcript, length, counts.most_common(1)[0][0])
    return spread_sample(pieces, tokens)


def few_shot(sessions: Sequence[Session], transcript: Transcript, tokens: int, seed: int = 0) -> list[int]:
    """At most `tokens` tokens of past conversations in which the owner wrote most: a prompt to imitate them by."""
    chosen = sorted(random.Random(seed).sample(sessions, min(40, len(sessions))), key=_share_of_owner, reverse=True)
    ids: list[int] = []
    for session in chosen:
        encoded = transcript.encode(session.header, session.turns)
        ends = [end for end in encoded.turn_ends if end <= tokens - len(ids)]
        if ends:
            ids += encoded.ids[: ends[-1]]
        if len(ids) > 0.8 * tokens:
            break
    return ids


def with_prompt(prompt: Sequence[int], items: Iterable[Example]) -> list[Example]:
    """Examples that begin with a prompt without loss."""
    return [
        Example([*prompt, *item.ids], [0] * (len(prompt) + 1) + item.loss_mask[1:], item.text_bytes) for item in items
    ]


def _pieces(session: Session, transcript: Transcript, length: int, learned: str) -> list[Example]:
    encoded = transcript.encode(session.header, session.turns, learned)
    return [piece for piece in cut(encoded, length) if piece.supervised and piece.text_bytes]


def _share_of_owner(session: Session) -> float:
    mine = sum(len(bubble) for turn in session.turns if turn.is_mine for bubble in turn.bubbles)
    return mine / max(1, sum(len(bubble) for turn in session.turns for bubble in turn.bubbles))
