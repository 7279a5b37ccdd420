"""Selects the texts an adapter is examined on: exchanges it was not trained on, other people's, and earlier ones."""

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TypeVar

import msgspec

from doppel.errors import UserError
from doppel.i18n import tr
from doppel.transcript import ME, NO_LOSS, Header, Transcript, Turn
from training.dataset.files import Session
from training.lora.examples import Example, cut, spread_sample

MIN_EXCHANGES = 30
"""Replies of the owner in the test split below which no metric is reliable."""

Item = TypeVar("Item")
_MAX_CONTEXT_TURNS = 6
_MAX_CONTEXT_TOKENS = 64
_FEW_SHOT_SESSIONS = 40


class Exchange(msgspec.Struct, frozen=True):
    """A turn that answers another person's, with its context. Usually the owner's.

    Attributes:
        session_id: of the conversation; exchanges of one conversation are not independent.
        header: of the conversation.
        context: the turns before, oldest first, at least one; the last is another person's.
        reply: the turn that answers them.
    """

    session_id: str = msgspec.field(name="session")
    header: Header
    context: tuple[Turn, ...]
    reply: Turn

    @property
    def text(self) -> str:
        """The reply, one bubble per line."""
        return "\n".join(self.reply.bubbles)


class EvaluationData(msgspec.Struct, frozen=True):
    """What an adapter is examined on.

    Attributes:
        train: sessions it was trained on, which are earlier.
        test: sessions it was not trained on, which are later.
        exchanges: the owner's replies in `test`, in order of time.
    """

    train: list[Session]
    test: list[Session]
    exchanges: list[Exchange]


def select_evaluation_data(sessions: Iterable[Session], transcript: Transcript) -> EvaluationData:
    """Sorts a data set by its splits and finds the owner's replies in the test split.

    Raises:
        UserError: the test split has too few replies of the owner.
    """
    train: list[Session] = []
    test: list[Session] = []
    for session in sessions:
        if session.split == "train":
            train.append(session)
        elif session.split == "test":
            test.append(session)
    exchanges = [exchange for session in test for exchange in owner_exchanges(session, transcript)]
    if len(exchanges) < MIN_EXCHANGES:
        raise UserError(
            tr(
                "only {count} of your replies are held out for evaluation; at least {minimum} are needed: "
                "give `doppel build` a larger archive",
                count=len(exchanges),
                minimum=MIN_EXCHANGES,
            )
        )
    return EvaluationData(train, test, exchanges)


def owner_exchanges(session: Session, transcript: Transcript) -> list[Exchange]:
    """Every turn of the owner that follows another person's, with the turns before it."""
    exchanges = [
        _exchange_at(session, index, transcript)
        for index in range(1, len(session.turns))
        if session.turns[index].is_mine and not session.turns[index - 1].is_mine
    ]
    return [exchange for exchange in exchanges if exchange is not None]


def _exchange_at(session: Session, index: int, transcript: Transcript) -> Exchange | None:
    """A turn with as many of the turns before it as fit; None if not even one does."""
    context = session.turns[max(0, index - _MAX_CONTEXT_TURNS) : index]
    while len(context) > 1 and len(transcript.prompt(session.header, context)) > _MAX_CONTEXT_TOKENS:
        context = context[1:]
    if len(transcript.prompt(session.header, context)) > 2 * _MAX_CONTEXT_TOKENS:
        return None
    return Exchange(session.id, session.header, context, session.turns[index])


def sample_evenly(items: Sequence[Item], count: int) -> list[Item]:
    """At most `count` of the items, evenly spaced."""
    if len(items) <= count:
        return list(items)
    return [items[index * len(items) // count] for index in range(count)]


def other_person_exchanges(data: EvaluationData, transcript: Transcript, count: int) -> list[Exchange]:
    """At most `count` replies of the one other person who replied most often, evenly over time.

    From the test split, or from both splits if that has too few. Empty if nobody replied `MIN_EXCHANGES` times.
    """
    sessions = [*data.train, *data.test]
    replies = [
        (session, index)
        for session in sessions
        for index in range(1, len(session.turns))
        if not session.turns[index].is_mine and session.turns[index - 1].speaker != session.turns[index].speaker
    ]
    total = Counter(session.turns[index].speaker for session, index in replies)
    test_ids = {session.id for session in data.test}
    in_test = Counter(session.turns[index].speaker for session, index in replies if session.id in test_ids)
    speaker = max(total, key=lambda name: (min(in_test[name], count), total[name]), default="")
    if total[speaker] < MIN_EXCHANGES:
        return []
    candidates = [
        _exchange_at(session, index, transcript)
        for session, index in replies
        if session.turns[index].speaker == speaker
    ]
    exchanges = [exchange for exchange in candidates if exchange is not None]
    test_exchanges = [exchange for exchange in exchanges if exchange.session_id in test_ids]
    return sample_evenly(test_exchanges if len(test_exchanges) >= count else exchanges, count)


def other_texts(sessions: Iterable[Session]) -> list[str]:
    """What everybody but the owner wrote: one text per turn, one bubble per line."""
    return ["\n".join(turn.bubbles) for session in sessions for turn in session.turns if not turn.is_mine]


def owner_texts(sessions: Iterable[Session]) -> list[str]:
    """What the owner wrote: one text per turn, one bubble per line."""
    return ["\n".join(turn.bubbles) for session in sessions for turn in session.turns if turn.is_mine]


def owner_examples(sessions: Sequence[Session], transcript: Transcript, max_length: int, tokens: int) -> list[Example]:
    """About `tokens` tokens of conversations, evenly over time, with loss on the owner's turns, as in training."""
    pieces = [piece for session in sessions for piece in _pieces(session, transcript, max_length, ME)]
    return spread_sample(pieces, tokens)


def other_examples(sessions: Sequence[Session], transcript: Transcript, max_length: int, tokens: int) -> list[Example]:
    """Like `owner_examples`, with loss on the turns of the most talkative other person of each conversation."""
    pieces = []
    for session in sessions:
        counts = Counter(turn.speaker for turn in session.turns if not turn.is_mine)
        if counts:
            pieces += _pieces(session, transcript, max_length, counts.most_common(1)[0][0])
    return spread_sample(pieces, tokens)


def few_shot_prompt(sessions: Sequence[Session], transcript: Transcript, max_tokens: int, seed: int = 0) -> list[int]:
    """Token ids of conversations in which the owner wrote most: a prompt from which the base model can imitate them."""
    sample = random.Random(seed).sample(sessions, min(_FEW_SHOT_SESSIONS, len(sessions)))
    ids: list[int] = []
    for session in sorted(sample, key=_owner_share, reverse=True):
        encoded = transcript.encode(session.header, session.turns)
        ends = [end for end in encoded.turn_ends if end <= max_tokens - len(ids)]
        if ends:
            ids += encoded.ids[: ends[-1]]
        if len(ids) > 0.8 * max_tokens:
            break
    return ids


def prepend_prompt(prompt: Sequence[int], examples: Iterable[Example]) -> list[Example]:
    """The examples after a prompt that has no loss."""
    return [
        Example([*prompt, *example.ids], [NO_LOSS] * (len(prompt) + 1) + example.loss_mask[1:], example.text_bytes)
        for example in examples
    ]


def _pieces(session: Session, transcript: Transcript, max_length: int, speaker: str) -> list[Example]:
    encoded = transcript.encode(session.header, session.turns, speaker)
    return [piece for piece in cut(encoded, max_length) if piece.supervised and piece.text_bytes]


def _owner_share(session: Session) -> float:
    own = sum(len(bubble) for turn in session.turns if turn.is_mine for bubble in turn.bubbles)
    return own / max(1, sum(len(bubble) for turn in session.turns for bubble in turn.bubbles))
