"""What a model is shown, anew in every epoch: sessions joined, told of and cut as they will be met when serving.

A running chat is served with its last messages, however many conversations ago they were. So a training example may
begin some conversations earlier, and ends where it must: how much history comes before a reply differs from epoch to
epoch, and the model learns to reply with little as well as with much.
"""

import random
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from doppel.transcript import Transcript, Turn
from training.dataset.files import Session
from training.lora.examples import Example, cut_at_random

_CHAT_KINDS = ("dm", "group")
"""Kinds whose sessions go on one after the other in a chat; posts and threads stand alone."""


class EpochSource(msgspec.Struct, frozen=True):
    """Gives the training examples of an epoch; the same ones for the same epoch.

    Attributes:
        sessions: the owner's, in order of time.
        transcript: for the base's tokenizer.
        max_length: tokens of the longest example.
        history: messages of a chat in a prompt, at most; `reply.history` in config.yaml.
        seed: of everything that is drawn.
        others: further examples, the same in each epoch.
    """

    sessions: Sequence[Session]
    transcript: Transcript
    max_length: int
    history: int
    seed: int
    others: Sequence[Example] = ()

    def examples(self, epoch: int) -> list[Example]:
        """The examples of an epoch in training order."""
        draw = random.Random(f"{self.seed} {epoch}")  # not for secrets
        joined = join_sessions(self.sessions, self.history, draw)
        own = [example for session in joined for example in self._examples_of(session, draw)]
        order = [*own, *self.others]
        draw.shuffle(order)
        return order

    def _examples_of(self, session: Session, draw: random.Random) -> Iterator[Example]:
        encoded = self.transcript.encode(session.header, session.turns)
        return (example for example in cut_at_random(encoded, self.max_length, draw) if example.supervised)


def join_sessions(sessions: Iterable[Session], history: int, draw: random.Random) -> list[Session]:
    """Joins some sessions of a chat to the ones before them, as they stand in a prompt one after the other.

    A session that the owner begins starts anew: what moved the owner to write is not in the messages before, and no
    reply should be learned from it.

    Args:
        sessions: in order of time.
        history: messages of a chat in a prompt, at most. How many of them an example begins with is drawn at random,
            up to this.
        draw: decides.

    Returns:
        Sessions with the identity and the header of the last one in them, in order of that.
    """
    chats: dict[str, list[Session]] = {}
    for session in sessions:
        is_in_chat = (session.kind or session.header.kind) in _CHAT_KINDS
        chats.setdefault(session.chat if is_in_chat else session.id, []).append(session)
    joined = (session for chat in chats.values() for session in _join_chat(chat, history, draw))
    return sorted(joined, key=lambda session: session.started_at)


def _join_chat(chat: list[Session], history: int, draw: random.Random) -> Iterator[Session]:
    """The sessions of one chat, some of them joined."""
    earlier, room = chat[0], draw.randint(0, history)
    for session in chat[1:]:
        if _messages(earlier) <= room and not session.turns[0].is_mine:
            earlier = msgspec.structs.replace(session, turns=_joined(earlier.turns, session.turns))
            continue
        yield earlier
        earlier, room = session, draw.randint(0, history)
    yield earlier


def _messages(session: Session) -> int:
    return sum(len(turn.bubbles) for turn in session.turns)


def _joined(earlier: tuple[Turn, ...], later: tuple[Turn, ...]) -> tuple[Turn, ...]:
    """The turns of both; a person who ends the one and begins the other has one turn, as in a prompt."""
    last, first = earlier[-1], later[0]
    if last.speaker != first.speaker:
        return (*earlier, *later)
    return (*earlier[:-1], Turn(last.speaker, (*last.bubbles, *first.bubbles)), *later[1:])
