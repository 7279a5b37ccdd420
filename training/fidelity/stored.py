"""What fidelity.json keeps beside its figures: the replies the adapter wrote, and quizzes that people took.

Of the owner's messages it keeps nothing: a situation is named by its digest, and looked up in the data set again.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import msgspec

from doppel.reports.metrics import FIDELITY_FILE
from doppel.reports.quiz import QuizResult
from training.fidelity.generate import Reply
from training.fidelity.texts import Situation


class Kept(msgspec.Struct, frozen=True):
    """The part of fidelity.json that outlives one examination, or serves after it."""

    replies: dict[str, list[str]] = {}
    quizzes: list[QuizResult] = []


def read_kept(folder: Path) -> Kept:
    """What a version's fidelity.json keeps; nothing where there is none, or it is of an older form."""
    try:
        return msgspec.json.decode((folder / FIDELITY_FILE).read_bytes(), type=Kept)
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
