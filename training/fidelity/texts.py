"""Selects the texts an adapter is examined on: exchanges it was not trained on, other people's, and earlier ones."""

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from doppel.errors import UserError
from doppel.i18n import tr
from doppel.transcript import Transcript
from training.dataset.files import Session, Split
from training.fidelity.served import Exchange, Serving, served_exchanges
from training.lora.examples import Example, cut, sample_by_size, sample_evenly

MIN_EXCHANGES = 30
"""Replies of the owner in the test split below which no metric is reliable."""

_MAX_SESSIONS = 2_000
"""Of the test split are examined: more would take memory and change no figure."""
_TRAINED_SESSIONS = 200
_FEW_TURNS = 4
_FULL_PROMPT = 0.1  # of a few-shot prompt may stay free


class EvaluationData(msgspec.Struct, frozen=True):
    """What an adapter is examined on.

    Attributes:
        train: sessions it was trained on, which are earlier.
        test: sessions it was not trained on, which are later.
        exchanges: the owner's replies in `test` with the daemon's prompts, in order of time.
        other_exchanges: those of the most talkative other person of each conversation in `test`.
        trained_exchanges: some of the owner's replies in `train`.
    """

    train: list[Session]
    test: list[Session]
    exchanges: list[Exchange]
    other_exchanges: list[Exchange] = []
    trained_exchanges: list[Exchange] = []


def select_evaluation_data(
    sessions: Sequence[Session], transcript: Transcript, serving: Serving, split: Split = "test"
) -> EvaluationData:
    """Sorts a data set by its splits and finds the replies in the one to examine on.

    Args:
        sessions: of the data set.
        transcript: of the adapter.
        serving: how the daemon writes a prompt.
        split: that the adapter was not trained on.

    Raises:
        UserError: that split has too few replies of the owner.
    """
    train = [session for session in sessions if session.split == "train"]
    test = sample_evenly([session for session in sessions if session.split == split], _MAX_SESSIONS)
    exchanges = served_exchanges(sessions, test, transcript, serving)
    if len(exchanges) < MIN_EXCHANGES:
        raise UserError(
            tr(
                "only {count} of your replies are held out for evaluation; at least {minimum} are needed: "
                "give `doppel build` a larger archive",
                count=len(exchanges),
                minimum=MIN_EXCHANGES,
            )
        )
    return EvaluationData(
        train=train,
        test=test,
        exchanges=exchanges,
        other_exchanges=served_exchanges(sessions, test, transcript, serving, _most_talkative),
        trained_exchanges=served_exchanges(train, sample_evenly(train, _TRAINED_SESSIONS), transcript, serving),
    )


def _most_talkative(session: Session) -> str | None:
    """The other person who has most turns in a session."""
    counts = Counter(turn.speaker for turn in session.turns if not turn.is_mine)
    return counts.most_common(1)[0][0] if counts else None


def owner_exchanges(session: Session) -> list[Exchange]:
    """Every turn of the owner that follows another person's, with the turns shortly before it."""
    return [
        Exchange(session.id, session.header, session.turns[max(0, index - _FEW_TURNS) : index], session.turns[index])
        for index in range(1, len(session.turns))
        if session.turns[index].is_mine and not session.turns[index - 1].is_mine
    ]


def other_person_exchanges(data: EvaluationData, count: int) -> list[Exchange]:
    """At most `count` replies of the one other person who replied most often, evenly over time, for their words alone.

    From the test split, or from both splits if that has too few. Empty if nobody replied `MIN_EXCHANGES` times.
    """
    replies = [
        Exchange(session.id, session.header, session.turns[index - 1 : index], session.turns[index])
        for session in (*data.train, *data.test)
        for index in range(1, len(session.turns))
        if not session.turns[index].is_mine and session.turns[index - 1].speaker != session.turns[index].speaker
    ]
    total = Counter(exchange.reply.speaker for exchange in replies)
    test_ids = {session.id for session in data.test}
    in_test = Counter(exchange.reply.speaker for exchange in replies if exchange.session_id in test_ids)
    speaker = max(total, key=lambda name: (min(in_test[name], count), total[name]), default="")
    if total[speaker] < MIN_EXCHANGES:
        return []
    exchanges = [exchange for exchange in replies if exchange.reply.speaker == speaker]
    test_exchanges = [exchange for exchange in exchanges if exchange.session_id in test_ids]
    return sample_evenly(test_exchanges if len(test_exchanges) >= count else exchanges, count)


def other_texts(sessions: Iterable[Session]) -> list[str]:
    """What everybody but the owner wrote: one text per turn, one bubble per line."""
    return ["\n".join(turn.bubbles) for session in sessions for turn in session.turns if not turn.is_mine]


def owner_texts(sessions: Iterable[Session]) -> list[str]:
    """What the owner wrote: one text per turn, one bubble per line."""
    return ["\n".join(turn.bubbles) for session in sessions for turn in session.turns if turn.is_mine]


def owner_pieces(
    sessions: Sequence[Session], transcript: Transcript, max_length: int, tokens: int
) -> list[tuple[str, Example]]:
    """About `tokens` tokens of conversations in pieces as in training, with loss on the owner's turns.

    Returns:
        (session id, piece), evenly over time.
    """
    pieces = [
        (session.id, piece)
        for session in sessions
        for piece in cut(transcript.encode(session.header, session.turns), max_length)
        if piece.supervised and piece.text_bytes
    ]
    return sample_by_size(pieces, tokens, lambda pair: len(pair[1].ids))


def few_shot_prompt(sessions: Sequence[Session], transcript: Transcript, max_tokens: int) -> list[int]:
    """Token ids of the latest conversations with both sides in them: a prompt for the base model to imitate the owner.

    Oldest first, so that the latest is nearest to what follows. Only the first begins like a sequence: a mark of the
    beginning in between would tell the model to forget what came before.

    Args:
        sessions: in order of time.
        transcript: of the base model.
        max_tokens: of the prompt.
    """
    chosen: list[list[int]] = []
    room = max_tokens - len(transcript.start)
    for session in reversed(sessions):
        if not any(turn.is_mine for turn in session.turns) or all(turn.is_mine for turn in session.turns):
            continue
        encoded = transcript.encode(session.header, session.turns)
        ids = encoded.ids[len(transcript.start) : max(end for end in (0, *encoded.turn_ends) if end <= room)]
        if ids:
            chosen.append(ids)
            room -= len(ids)
        if room < max_tokens * _FULL_PROMPT:
            break
    return [*transcript.start, *(token for ids in reversed(chosen) for token in ids)]
