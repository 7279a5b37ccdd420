"""What `serve.py` measures with: the base, its adapters, prompts of made-up chats, and requests."""

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
_HISTORY_TOKENS = 1_000


class Bench:
    """The base, adapters for it, and made-up chats.

    Args:
        base: folder of the prepared base.
        adapters: folders of published adapters.
        tokens: number of tokens of each reply.
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
        """A new engine `transformers` with these limits."""
        return TransformersEngine(self.model(), self.tokenizer, identify(self.base, "bundled"), **options)

    def model(self) -> Any:
        """A newly loaded base model."""
        return load_model(self.base, self.dtype, self.device)

    def prompts(self, count: int, seed: int) -> list[list[int]]:
        """Prompts of `count` chats; other seeds give other prompts."""
        rng = random.Random(seed)
        return [
            self.transcript.prompt(Header(kind="dm", language="en"), self._turns(rng, 1 + number % 5))
            for number in range(count)
        ]

    def history(self, seed: int) -> list[Turn]:
        """Turns of about 1,000 tokens together; the last one is not the owner's."""
        rng = random.Random(seed)
        turns = self._turns(rng, 1)
        while len(self.transcript.prompt(Header(kind="dm"), turns)) < _HISTORY_TOKENS:
            turns = [*turns, *self._turns(rng, 2)[::-1]]
        return turns

    def request(self, prompt: list[int], adapter: str, seed: int, tokens: int | None = None) -> Request:
        """A request for a reply of exactly `tokens` tokens, by default those of this bench."""
        sampling = Sampling(max_tokens=tokens or self.tokens, seed=seed)
        return Request(prompt=prompt, sampling=sampling, stop_ids=frozenset(), adapter=adapter, deadline_seconds=600)

    def _turns(self, rng: random.Random, count: int) -> list[Turn]:
        texts = [f"{rng.choice(_OPENINGS)} {rng.randrange(1000)}" for _ in range(count)]
        return [Turn("Tom" if (count - position) % 2 else ME, (text,)) for position, text in enumerate(texts)]
