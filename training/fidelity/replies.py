"""Replies written for measuring: the adapter's, and the base's with a prompt, to situations of the owner's future."""

import random
from collections.abc import Callable, Sequence

import msgspec
import torch
from transformers import DynamicCache

from doppel.engine import Sampling
from doppel.engine.sampling import Sampler
from doppel.transcript import Transcript, TurnDecoder
from training.fidelity.heldout import Situation
from training.fidelity.subject import Subject

_ROWS = 16
_MOST_TOKENS = 64
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
        sampling: how words are chosen; `max_tokens` counts up to 64.
        advance: hears how many situations were answered.
        prompt: token ids put before every situation.
        seed: of the sampling.
    """
    transcript = subject.transcript
    prompts = [transcript.prompt(one.header, one.context) for one in situations]
    order = sorted(range(len(situations)), key=lambda place: len(prompts[place]))  # like lengths need little padding
    replies: dict[int, Reply] = {}
    for start in range(0, len(order), _ROWS):
        places = order[start : start + _ROWS]
        rows = [
            _Row(subject.transcript, prompts[place], msgspec.structs.replace(sampling, seed=_seed(seed, place)))
            for place in places
        ]
        _generate(subject, prompt, rows, min(sampling.max_tokens, _MOST_TOKENS))
        for place, row in zip(places, rows, strict=True):
            replies[place] = Reply(situations[place], tuple(row.bubbles()))
        advance(len(places))
    return [replies[place] for place in range(len(situations))]


class _Row:
    """One reply being written."""

    def __init__(self, transcript: Transcript, prompt: list[int], sampling: Sampling) -> None:
        self.prompt = prompt
        self._decoder = TurnDecoder(transcript)
        self._sampler = Sampler(sampling, prompt)
        self._done: list[str] = []

    def draw(self, logits: torch.Tensor) -> int:
        """The next token, given the logits (V,)."""
        token = self._sampler.draw(logits).id
        self._done += self._decoder.feed(token)
        return token

    @property
    def is_over(self) -> bool:
        return self._decoder.finished

    def bubbles(self) -> list[str]:
        """What was written."""
        return self._done + self._decoder.close()


def _generate(subject: Subject, prefix: Sequence[int], rows: Sequence[_Row], most: int) -> None:
    """Writes all rows in one batch, padded on the left; a row that is over leaves it, and a prefix is read once."""
    model, device = subject.model, subject.model.device
    cache = DynamicCache(config=model.config.get_text_config())
    if prefix:
        model(input_ids=torch.tensor([list(prefix)], device=device), past_key_values=cache, logits_to_keep=1)
        cache.batch_repeat_interleave(len(rows))
    longest = max(len(row.prompt) for row in rows)
    padding = rows[0].prompt[0]
    ids = torch.tensor([[padding] * (longest - len(row.prompt)) + row.prompt for row in rows], device=device)
    seen = [[1] * len(prefix) + [0] * (longest - len(row.prompt)) + [1] * len(row.prompt) for row in rows]
    mask = torch.tensor(seen, device=device)
    active = list(rows)
    for _ in range(most):
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        logits = model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, logits_to_keep=1
        ).logits[:, -1]
        tokens = [row.draw(scores) for row, scores in zip(active, logits, strict=True)]
        kept = [place for place, row in enumerate(active) if not row.is_over]
        if not kept:
            return
        if len(kept) < len(active):
            chosen = torch.tensor(kept, device=device)
            cache.batch_select_indices(chosen)
            mask, active = mask[chosen], [active[place] for place in kept]
        ids = torch.tensor([[tokens[place]] for place in kept], device=device)
        mask = torch.cat([mask, mask.new_ones(len(kept), 1)], dim=1)


def _seed(seed: int, place: int) -> int:
    return random.Random(f"{seed} {place}").getrandbits(63)
