"""Chats for `serve.py`: the bundled base, adapters for it, prompts of any length, and requests made of them."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from doppel.engine import Request, Sampling
from doppel.engine.local.engine import TransformersEngine
from doppel.models.base import choose_device, choose_dtype, identify, load_model, load_tokenizer
from doppel.transcript import ME, Header, Transcript, Turn

_OPENINGS = (
    "hey, how was your day?",
    "did you see the game last night, it was something else",
    "what are you having for dinner",
    "are you coming on saturday? we could take the early train, and be back before it gets dark",
    "my cat threw up on the carpet again",
    "so what did she say",
    "do you know a good book",
    "I can't believe it's already november",
)
_HISTORY = 1_000


class Bench:
    """The base, adapters for it, and chats.

    Args:
        base: the prepared base.
        adapters: folders of published adapters; the first is used unless told otherwise.
        tokens: of each reply.
    """

    def __init__(self, base: Path, adapters: Sequence[Path], tokens: int) -> None:
        self.base = base
        self.adapters = adapters
        self.tokens = tokens
        self.device = choose_device("auto")
        self.dtype = choose_dtype("auto", self.device)
        self.tokenizer = load_tokenizer(base)
        self.transcript = Transcript(self.tokenizer)

    def engine(self, **options: int) -> TransformersEngine:
        """The engine that is measured."""
        return TransformersEngine(self.model(), self.tokenizer, identify(self.base, "bundled"), **options)

    def model(self) -> Any:
        """The base, loaded anew."""
        return load_model(self.base, self.dtype, self.device)

    def prompts(self, count: int, seed: int) -> list[list[int]]:
        """Prompts of so many chats, none of which was asked before."""
        draw = random.Random(seed)
        return [
            self.transcript.prompt(Header(kind="dm", language="en"), self._turns(draw, 1 + place % 5))
            for place in range(count)
        ]

    def history(self, seed: int) -> list[Turn]:
        """Turns of about 1,000 tokens, the last of them somebody else's."""
        draw = random.Random(seed)
        turns = self._turns(draw, 1)
        while len(self.transcript.prompt(Header(kind="dm"), turns)) < _HISTORY:
            turns = [*turns, *self._turns(draw, 2)[::-1]]
        return turns

    def request(self, prompt: list[int], adapter: str, seed: int, tokens: int | None = None) -> Request:
        """A reply of fixed length."""
        sampling = Sampling(max_tokens=tokens or self.tokens, seed=seed)
        return Request(prompt=prompt, sampling=sampling, stop_ids=frozenset(), adapter=adapter, deadline_seconds=600)

    def _turns(self, draw: random.Random, count: int) -> list[Turn]:
        said = [f"{draw.choice(_OPENINGS)} {draw.randrange(1000)}" for _ in range(count)]
        return [Turn("Tom" if (count - place) % 2 else ME, (text,)) for place, text in enumerate(said)]
