"""Replies written for measuring: the adapter's, and the base's with a prompt, to situations of the owner's future."""

import random
from collections.abc import Callable, Sequence

import msgspec
import torch
from transformers import GenerationConfig, LogitsProcessor

from doppel.engine import Sampling
from doppel.engine.sampling import Sampler
from doppel.transcript import TurnDecoder
from training.fidelity.heldout import Situation
from training.fidelity.subject import Subject

_ROWS = 16
_MOST_TOKENS = 80
Advance = Callable[[int], None]


class Reply(msgspec.Struct, frozen=True):
    """What somebody answered in a situation. `bubbles` may be empty: nothing was said."""

    situation: Situation
    bubbles: tuple[str, ...]

    @property
    def text(self) -> str:
        """The reply, a bubble a line."""
        return "\n".join(self.bubbles)


def real(situations: Sequence[Situation]) -> list[Reply]:
    """What the owner answered."""
    return [Reply(one, one.reply.bubbles) for one in situations]


@torch.no_grad()
def write(
    subject: Subject,
    situations: Sequence[Situation],
    sampling: Sampling,
    advance: Advance = lambda _: None,
    *,
    prompt: Sequence[int] = (),
    seed: int = 0,
) -> list[Reply]:
    """A sampled reply to each situation, in their order; each depends on the seed and its place alone.

    Args:
        subject: who writes: with the adapter in force, or the base alone.
        situations: to answer.
        sampling: how words are chosen; `max_tokens` counts up to 80.
        advance: hears how many situations were answered.
        prompt: token ids put before every situation.
        seed: of the sampling.
    """
    order = sorted(range(len(situations)), key=lambda place: len(situations[place].context))
    replies: dict[int, Reply] = {}
    for start in range(0, len(order), _ROWS):
        places = order[start : start + _ROWS]
        prompts = [
            [*prompt, *subject.transcript.prompt(situations[place].header, situations[place].context)]
            for place in places
        ]
        seeds = [f"{seed} {place}" for place in places]
        for place, ids in zip(places, _generate(subject, prompts, sampling, seeds), strict=True):
            replies[place] = Reply(situations[place], tuple(subject.transcript.reply(ids)))
        advance(len(places))
    return [replies[place] for place in range(len(situations))]


def _generate(subject: Subject, prompts: list[list[int]], sampling: Sampling, seeds: list[str]) -> list[list[int]]:
    """New tokens of each prompt, in one batch padded on the left."""
    transcript = subject.transcript
    longest = max(map(len, prompts))
    stops = sorted(transcript.stop_ids)
    padding = stops[0]
    device = subject.model.device
    ids = torch.tensor([[padding] * (longest - len(one)) + one for one in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in prompts], device=device)
    samplers = [
        Sampler(msgspec.structs.replace(sampling, seed=random.Random(seed).getrandbits(63)), one)
        for seed, one in zip(seeds, prompts, strict=True)
    ]
    decoders = [TurnDecoder(transcript) for _ in prompts]
    made = subject.model.generate(  # type: ignore[operator]
        input_ids=ids,
        attention_mask=mask,
        generation_config=GenerationConfig(
            do_sample=False,  # `_Draw` has chosen
            max_new_tokens=min(sampling.max_tokens, _MOST_TOKENS),
            eos_token_id=stops,
            pad_token_id=padding,
        ),
        logits_processor=[_Draw(samplers)],
        stopping_criteria=[_TurnsOver(decoders, longest)],
    )
    return made[:, longest:].tolist()  # type: ignore[no-any-return]


class _Draw(LogitsProcessor):
    """Draws each row's next token as the engine does, and leaves it as the only one possible."""

    def __init__(self, samplers: Sequence[Sampler]) -> None:
        self._samplers = samplers

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores (B, V)."""
        drawn = [sampler.draw(row).id for sampler, row in zip(self._samplers, scores, strict=True)]
        places = torch.tensor(drawn, device=scores.device)[:, None]
        return torch.full_like(scores, -torch.inf).scatter(-1, places, 0)


class _TurnsOver:
    """Ends a row where its turn is over, also where an empty line ends it that is no token of its own."""

    def __init__(self, decoders: Sequence[TurnDecoder], begin: int) -> None:
        self._decoders = decoders
        self._read = begin

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: object) -> torch.Tensor:
        """Which rows (B,) are done."""
        for column in input_ids[:, self._read :].T.tolist():
            for decoder, token in zip(self._decoders, column, strict=True):
                decoder.feed(token)
        self._read = input_ids.shape[1]
        return torch.tensor([decoder.finished for decoder in self._decoders], device=input_ids.device)
