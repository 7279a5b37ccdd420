"""What fidelity tests examine: a random adapter, made-up sessions, and two made-up authors.

One author writes short lower-case bursts with emoji, the other long careful sentences.
"""

import random
from datetime import UTC, datetime
from pathlib import Path

from doppel.config import parse_config
from doppel.transcript import ME, Header, Turn
from tests.families import random_lora, save_family
from training.dataset.files import Session
from training.fidelity.adapted_model import AdaptedModel, load_adapted_model
from training.fidelity.generate import EvaluationReply
from training.fidelity.served import Exchange

_SHORT = ("haha", "ok", "yes lol", "no way", "brb", "idk", "omg", "sure thing", "wanna go", "tbh same")
_LONG = (
    "I suppose that we ought to leave before noon.",
    "Would you kindly send me the document again?",
    "It was, all things considered, a splendid evening.",
    "Nevertheless, I shall think about it carefully.",
    "There is nothing quite like a walk by the river.",
)


def load_random_adapter(folder: Path, family: str) -> AdaptedModel:
    """A tiny random model of a family with a random LoRA, both written into `folder`."""
    base = save_family(family, folder / "base")
    lora = random_lora(base, folder / "adapters")
    config = parse_config({"model": {"base": str(base), "dtype": "float32"}}, folder / "config.yaml")
    return load_adapted_model(config.model, lora.folder)


def make_session(number: int, *turns: tuple[str, str]) -> Session:
    """A session of the test split with these turns, given as speaker and text."""
    return Session(
        id=f"{number:03}",
        split="test",
        chat="c",
        started_at=datetime(2020, 1, 1, tzinfo=UTC),
        header=Header(),
        turns=tuple(Turn(speaker, (text,)) for speaker, text in turns),
    )


def make_exchange(number: int, question: str = "what now?") -> Exchange:
    """An exchange in which Ramito asks and the owner says yes; three of them have the same session id."""
    return Exchange(f"s{number // 3}", Header(kind="dm"), (Turn("Ramito", (question,)),), Turn(ME, ("yes",)))


def casual(count: int, seed: int = 0) -> list[EvaluationReply]:
    """Replies of the first author."""
    rng = random.Random(seed)
    return [
        EvaluationReply(make_exchange(number), tuple(f"{rng.choice(_SHORT)} 😀" for _ in range(rng.randint(1, 3))))
        for number in range(count)
    ]


def formal(count: int, seed: int = 0) -> list[EvaluationReply]:
    """Replies of the second author."""
    rng = random.Random(seed)
    return [EvaluationReply(make_exchange(number), (rng.choice(_LONG),)) for number in range(count)]
