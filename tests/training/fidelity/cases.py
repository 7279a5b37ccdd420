"""Made-up authors for tests: one writes short lower-case bursts with emoji, the other long careful sentences."""

import random

from doppel.transcript import ME, Header, Turn
from training.fidelity.generate import EvaluationReply
from training.fidelity.texts import Exchange

_SHORT = ("haha", "ok", "yes lol", "no way", "brb", "idk", "omg", "sure thing", "wanna go", "tbh same")
_LONG = (
    "I suppose that we ought to leave before noon.",
    "Would you kindly send me the document again?",
    "It was, all things considered, a splendid evening.",
    "Nevertheless, I shall think about it carefully.",
    "There is nothing quite like a walk by the river.",
)


def situation(number: int, heard: str = "what now?") -> Exchange:
    """One of a conversation of its own."""
    return Exchange(f"s{number // 3}", Header(kind="dm"), (Turn("Ramito", (heard,)),), Turn(ME, ("yes",)))


def casual(count: int, seed: int = 0) -> list[EvaluationReply]:
    """Replies of the first author."""
    rng = random.Random(seed)
    return [
        EvaluationReply(situation(number), tuple(f"{rng.choice(_SHORT)} 😀" for _ in range(rng.randint(1, 3))))
        for number in range(count)
    ]


def formal(count: int, seed: int = 0) -> list[EvaluationReply]:
    """Replies of the second."""
    rng = random.Random(seed)
    return [EvaluationReply(situation(number), (rng.choice(_LONG),)) for number in range(count)]
