"""What fidelity.json keeps beside its figures: the replies the adapter wrote, and quizzes that people took.

Of the owner's messages it keeps nothing: a situation is named by its digest, and looked up in the data set again.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import msgspec

from doppel.figures import Estimate, Figure, wilson
from training.fidelity.heldout import Situation
from training.fidelity.replies import Reply

FILE = "fidelity.json"


class Quiz(msgspec.Struct, frozen=True, kw_only=True):
    """One person's answers in a quiz.

    Attributes:
        name: of the person, as they gave it.
        at: when, ISO 8601.
        seed: of the choice of replies.
        asked: replies that were judged.
        right: judgements that were right.
        generated: judged replies that were generated.
        taken_for_real: those of them that were called real.
    """

    name: str
    at: str
    seed: int
    asked: int
    right: int
    generated: int
    taken_for_real: int

    @property
    def share(self) -> Estimate:
        """Share of right judgements; half of them is guessing."""
        return wilson(self.right, self.asked)


class Kept(msgspec.Struct, frozen=True):
    """The part of fidelity.json that outlives one examination, or serves after it."""

    replies: dict[str, list[str]] = {}
    quizzes: list[Quiz] = []


def read_kept(folder: Path) -> Kept:
    """What a version's fidelity.json keeps; nothing where there is none, or it is of an older form."""
    try:
        return msgspec.json.decode((folder / FILE).read_bytes(), type=Kept)
    except (FileNotFoundError, msgspec.MsgspecError):
        return Kept()


def to_keep(written: Iterable[Reply]) -> dict[str, list[str]]:
    """Generated replies, by the digest of what they answer; those that say something."""
    return {digest(one.situation): list(one.bubbles) for one in written if one.bubbles}


def kept_replies(kept: Kept, situations: Iterable[Situation]) -> list[Reply]:
    """The replies kept for these situations; one whose situation is not among them is of another data set."""
    return [Reply(one, tuple(bubbles)) for one in situations if (bubbles := kept.replies.get(digest(one))) is not None]


def digest(situation: Situation) -> str:
    """Names a situation without telling it."""
    return hashlib.sha256(msgspec.json.encode(situation)).hexdigest()[:24]


def quiz_figures(quizzes: Iterable[Quiz]) -> list[Figure]:
    """How often people told real from generated, all quizzes together; nothing before the first."""
    taken = list(quizzes)
    asked, right = sum(one.asked for one in taken), sum(one.right for one in taken)
    if not asked:
        return []
    floor, ceiling = Estimate(1.0, 1.0, 1.0), Estimate(0.5, 0.5, 0.5)
    share = wilson(right, asked)
    return [Figure(name="quiz", value=share, floor=floor, ceiling=ceiling, lower_is_better=True, unit="share")]
