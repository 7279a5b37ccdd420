"""Replies written for measuring: the adapter's, and the base's with a prompt, to situations of the owner's future."""

import random
from collections.abc import Callable, Sequence

import msgspec
import torch
from transformers import Cache

from doppel.engine import EngineError, Sampling
from doppel.engine.local.kv_cache import Row, Windows, gather, new_cache, windows_of
from doppel.engine.local.sampling import Sampler, TokenMask, draw
from doppel.transcript import Transcript, TurnDecoder
from training.fidelity.judge import Subject
from training.fidelity.texts import Situation

_ROWS = 48
"""Replies written at once: on a CPU a step of many costs little more than one of few, which reads all weights too."""
_KEPT = 0.75  # of the rows of a batch: when fewer are still written, the others leave it, which copies the cache
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


class Draft(msgspec.Struct, frozen=True):
    """A reply as it was generated.

    Attributes:
        reply: what it says.
        ids: its tokens, the end too if it came to one.
        log_probabilities: of each, in nats, by whoever wrote it.
    """

    reply: Reply
    ids: list[int]
    log_probabilities: list[float]


def real(situations: Sequence[Situation]) -> list[Reply]:
    """What the owner answered."""
    return [Reply(one, one.reply.bubbles) for one in situations]


def write(
    subject: Subject,
    situations: Sequence[Situation],
    sampling: Sampling,
    advance: Advance = lambda _: None,
    *,
    prompt: Sequence[int] = (),
    seed: int = 0,
) -> list[Reply]:
    """What `drafts` say."""
    return [one.reply for one in drafts(subject, situations, sampling, advance, prompt=prompt, seed=seed)]


@torch.no_grad()
def drafts(
    subject: Subject,
    situations: Sequence[Situation],
    sampling: Sampling,
    advance: Advance = lambda _: None,
    *,
    prompt: Sequence[int] = (),
    seed: int = 0,
) -> list[Draft]:
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
    most = min(sampling.max_tokens, _MOST_TOKENS)
    mask = TokenMask(transcript.forbidden_ids)
    windows = windows_of(subject.model)
    size = _ROWS if windows else 1  # a model that keeps a state along the row cannot be padded
    written: dict[int, Draft] = {}
    for start in range(0, len(order), size):
        places = order[start : start + size]
        rows = [
            _Row(transcript, prompts[place], msgspec.structs.replace(sampling, seed=_seed(seed, place)), mask)
            for place in places
        ]
        if windows:
            _generate(subject, prompt, rows, most, windows)
        else:
            _generate_alone(subject, prompt, rows[0], most)
        for place, row in zip(places, rows, strict=True):
            written[place] = row.draft(situations[place])
        advance(len(places))
    return [written[place] for place in range(len(situations))]


class _Row:
    """One reply being written."""

    def __init__(self, transcript: Transcript, prompt: list[int], sampling: Sampling, mask: TokenMask) -> None:
        self.prompt = prompt
        self.sampler = Sampler(sampling, prompt, mask)
        self.ids: list[int] = []
        self._log_probabilities: list[float] = []
        self._decoder = TurnDecoder(transcript)
        self._bubbles: list[str] = []

    def take(self, token: int, log_probability: float) -> None:
        """Goes on by a token, unless it is over."""
        if not self.is_over:
            self.ids.append(token)
            self._log_probabilities.append(log_probability)
            self._bubbles += self._decoder.feed(token)

    @property
    def is_over(self) -> bool:
        return self._decoder.finished

    def draft(self, situation: Situation) -> Draft:
        """What was written."""
        bubbles = tuple(self._bubbles + self._decoder.close())
        return Draft(Reply(situation, bubbles), self.ids, self._log_probabilities)


def _draw(rows: Sequence[_Row], logits: torch.Tensor) -> None:
    """The next token of every row, given logits (rows, V)."""
    for row, token in zip(rows, draw([row.sampler for row in rows], logits), strict=True):
        if isinstance(token, EngineError):
            raise token
        row.take(token.id, token.model_logprob or 0.0)


def _generate(subject: Subject, prefix: Sequence[int], rows: Sequence[_Row], most: int, windows: Windows) -> None:
    """Writes all rows in one batch, padded on the left; rows that are over leave it, and a prefix is read once."""
    model, device = subject.model, subject.model.device
    longest = max(len(row.prompt) for row in rows)
    cache = new_cache(windows, len(prefix) + longest + most)
    if prefix:
        model(input_ids=torch.tensor([list(prefix)], device=device), past_key_values=cache, logits_to_keep=1)
        cache, _ = gather([Row(cache)] * len(rows), longest + most)
    padding = rows[0].prompt[0]
    ids = torch.tensor([[padding] * (longest - len(row.prompt)) + row.prompt for row in rows], device=device)
    seen = [[1] * len(prefix) + [0] * (longest - len(row.prompt)) + [1] * len(row.prompt) for row in rows]
    mask = torch.tensor(seen, device=device)
    active = list(rows)
    for left in range(most, 0, -1):
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        logits = model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, logits_to_keep=1
        ).logits[:, -1]
        _draw(active, logits)
        kept = [place for place, row in enumerate(active) if not row.is_over]
        if not kept:
            return
        if len(kept) <= _KEPT * len(active):
            cache, _ = gather([Row(cache, place) for place in kept], left)
            mask, active = mask[torch.tensor(kept, device=device)], [active[place] for place in kept]
        ids = torch.tensor([row.ids[-1:] for row in active], device=device)
        mask = torch.cat([mask, mask.new_ones(len(active), 1)], dim=1)


def _generate_alone(subject: Subject, prefix: Sequence[int], row: _Row, most: int) -> None:
    """Writes one row with whatever cache the model makes for itself."""
    ids: list[int] = [*prefix, *row.prompt]
    cache: Cache | None = None
    for _ in range(most):
        tokens = torch.tensor([ids], device=subject.model.device)
        output = subject.model(input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = output.past_key_values
        _draw([row], output.logits[:, -1])
        if row.is_over:
            return
        ids = row.ids[-1:]


def _seed(seed: int, place: int) -> int:
    return random.Random(f"{seed} {place}").getrandbits(63)
