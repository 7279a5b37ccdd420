"""What a model is shown, anew in every epoch: sessions joined, told of and cut as they will be met when serving.

A running chat is served with its last messages, however many conversations ago they were. So a training example may
begin some conversations earlier, and ends where it must: how much history comes before a reply differs from epoch to
epoch, and the model learns to reply with little as well as with much.
"""

import random
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from doppel.transcript import Transcript, Turn
from training.dataset.files import CHAT_KINDS, Session, kind_of
from training.lora.conditions import favour_recent, vary, without_unanswered
from training.lora.examples import Example, cut_at_random

_POOL = 64
"""Sessions whose pieces are shuffled together, so that those of a long one are not in one step."""


class EpochSource(msgspec.Struct, frozen=True):
    """Gives the training examples of an epoch; the same ones for the same epoch.

    Attributes:
        sessions: the owner's, in order of time.
        transcript: for the base's tokenizer.
        max_length: tokens of the longest example.
        history: messages of a chat in a prompt, at most; `reply.history` in config.yaml.
        languages: that the owner writes in.
        seed: of everything that is drawn.
        others: further examples, the same in each epoch.
    """

    sessions: Sequence[Session]
    transcript: Transcript
    max_length: int
    history: int
    languages: Sequence[str]
    seed: int
    others: Sequence[Example] = ()

    @property
    def unanswered(self) -> int:
        """How many sessions are left out because nobody answered the owner."""
        return len(self.sessions) - len(without_unanswered(self.sessions))

    def examples(self, epoch: int, *, recent_first: bool = False) -> Iterator[Example]:
        """The examples of an epoch in training order.

        Args:
            epoch: its number; any.
            recent_first: newer sessions tend to come first, for a training that ends before the epoch does.
        """
        draw = random.Random(f"{self.seed} {epoch}")
        joined = join_sessions(without_unanswered(self.sessions), self.history, draw)
        if recent_first:
            joined = favour_recent(joined, draw)
        else:
            draw.shuffle(joined)
        others = list(self.others)
        draw.shuffle(others)
        for pool in _pools(joined, others):
            examples = [example for item in pool for example in self._examples_of(item, draw)]
            draw.shuffle(examples)
            yield from examples

    def _examples_of(self, item: Session | Example, draw: random.Random) -> list[Example]:
        if isinstance(item, Example):
            return [item]
        session = vary(item, self.languages, draw)
        encoded = self.transcript.encode(session.header, session.turns)
        return [example for example in cut_at_random(encoded, self.max_length, draw) if example.supervised]


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
        Sessions with the identity and the header of the last one in them.
    """
    chats: dict[str, list[Session]] = {}
    for session in sessions:
        chats.setdefault(session.chat if kind_of(session) in CHAT_KINDS else session.id, []).append(session)
    return [session for chat in chats.values() for session in _join_chat(chat, history, draw)]


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


def _pools(sessions: Sequence[Session], others: Sequence[Example]) -> Iterator[list[Session | Example]]:
    """The sessions in their order, some at a time, with an even share of the other examples."""
    count = max(1, -(-len(sessions) // _POOL))
    for number in range(count):
        first, last = number * len(others) // count, (number + 1) * len(others) // count
        yield [*sessions[number * _POOL : (number + 1) * _POOL], *others[first:last]]
