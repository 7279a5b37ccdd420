"""Generates the replies that are examined: the adapter's, and those of the base model with a prompt."""

import random
from collections.abc import Sequence

import msgspec
import torch
from transformers import Cache

from doppel.engine import EngineError, Sampling
from doppel.engine.local.kv_cache import CacheRow, Windows, attention_windows, copy_rows, new_cache
from doppel.engine.local.sampling import Sampler, TokenMask, sample
from doppel.transcript import Transcript, TurnDecoder
from training.fidelity.adapted_model import AdaptedModel
from training.fidelity.served import Exchange, after_prompt
from training.fidelity.stages import OnProgress

_BATCH_SIZE = 48
"""Replies generated together: a CPU step for many costs little more than one for a few, as both read all weights."""
_BATCH_TOKENS = 16_384
"""Tokens of the prompts of a batch: the memory that a batch takes grows with them."""
_COMPACT_BELOW = 0.75  # share of a batch still running below which finished rows are removed, which copies the cache
_MAX_NEW_TOKENS = 64


class EvaluationReply(msgspec.Struct, frozen=True):
    """A reply in the place of an exchange's own. `bubbles` may be empty: the model said nothing."""

    exchange: Exchange
    bubbles: tuple[str, ...]

    @property
    def text(self) -> str:
        """The reply, one bubble per line."""
        return "\n".join(self.bubbles)


class Completion(msgspec.Struct, frozen=True):
    """A generated reply with its tokens.

    Attributes:
        reply: the reply.
        ids: its token ids, with the end of the turn if it was reached.
        log_probabilities: of each token, in nats, under the model that generated it.
    """

    reply: EvaluationReply
    ids: list[int]
    log_probabilities: list[float]


def actual_replies(exchanges: Sequence[Exchange]) -> list[EvaluationReply]:
    """The replies that were really sent."""
    return [EvaluationReply(exchange, exchange.reply.bubbles) for exchange in exchanges]


def generate_replies(
    adapted: AdaptedModel,
    exchanges: Sequence[Exchange],
    sampling: Sampling,
    on_progress: OnProgress = lambda _: None,
    *,
    prompt: Sequence[int] = (),
    seed: int = 0,
) -> list[EvaluationReply]:
    """Like `generate`, without the tokens."""
    completions = generate(adapted, exchanges, sampling, on_progress, prompt=prompt, seed=seed)
    return [completion.reply for completion in completions]


@torch.no_grad()
def generate(
    adapted: AdaptedModel,
    exchanges: Sequence[Exchange],
    sampling: Sampling,
    on_progress: OnProgress = lambda _: None,
    *,
    prompt: Sequence[int] = (),
    seed: int = 0,
) -> list[Completion]:
    """Samples a reply to the context of each exchange, in order. Each depends on the seed and its index alone.

    Args:
        adapted: the model, with its adapter enabled or not.
        exchanges: to reply to.
        sampling: the sampling settings; `max_tokens` is capped at 64.
        on_progress: called with the number of replies generated.
        prompt: token ids of a few-shot prompt before every context.
        seed: of the sampling.
    """
    transcript = adapted.transcript
    contexts = [transcript.prompt(exchange.header, exchange.context) for exchange in exchanges]
    if prompt:
        contexts = [after_prompt(prompt, context, transcript)[len(prompt) :] for context in contexts]
    max_new_tokens = min(sampling.max_tokens, _MAX_NEW_TOKENS)
    mask = TokenMask(transcript.forbidden_ids)
    windows = attention_windows(adapted.model)
    completions: dict[int, Completion] = {}
    # A model that carries a state along the row cannot be padded.
    for indices in _batches([len(context) + len(prompt) for context in contexts], _BATCH_SIZE if windows else 1):
        rows = [
            _Row(transcript, contexts[index], msgspec.structs.replace(sampling, seed=_row_seed(seed, index)), mask)
            for index in indices
        ]
        if windows:
            _generate_batch(adapted, prompt, rows, max_new_tokens, windows)
        else:
            _generate_one(adapted, prompt, rows[0], max_new_tokens)
        for index, row in zip(indices, rows, strict=True):
            completions[index] = row.completion(exchanges[index])
        on_progress(len(indices))
    return [completions[index] for index in range(len(exchanges))]


def _batches(lengths: Sequence[int], max_rows: int) -> list[list[int]]:
    """Indices of prompts of about the same length, which need little padding, in batches that fit into memory."""
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        last = batches[-1] if batches else []
        # The longest of a batch comes first, and the others are padded to it.
        if not last or len(last) == max_rows or lengths[last[0]] * (len(last) + 1) > _BATCH_TOKENS:
            batches.append([])
        batches[-1].append(index)
    return batches


class _Row:
    """One reply while it is generated."""

    def __init__(self, transcript: Transcript, context: list[int], sampling: Sampling, mask: TokenMask) -> None:
        self.context = context
        self.sampler = Sampler(sampling, context, mask)
        self.ids: list[int] = []
        self._log_probabilities: list[float] = []
        self._decoder = TurnDecoder(transcript)
        self._bubbles: list[str] = []

    def append(self, token: int, log_probability: float) -> None:
        """Adds a token, unless the reply is finished."""
        if not self.is_finished:
            self.ids.append(token)
            self._log_probabilities.append(log_probability)
            self._bubbles += self._decoder.feed(token)

    @property
    def is_finished(self) -> bool:
        return self._decoder.finished

    def completion(self, exchange: Exchange) -> Completion:
        """The reply as far as it was generated."""
        bubbles = tuple(self._bubbles + self._decoder.close())
        return Completion(EvaluationReply(exchange, bubbles), self.ids, self._log_probabilities)


def _sample_next(rows: Sequence[_Row], logits: torch.Tensor) -> None:
    """Appends the next token to every row, given logits (rows, V)."""
    for row, token in zip(rows, sample([row.sampler for row in rows], logits), strict=True):
        if isinstance(token, EngineError):
            raise token
        row.append(token.id, token.model_logprob or 0.0)


def _generate_batch(
    adapted: AdaptedModel, prefix: Sequence[int], rows: Sequence[_Row], max_new_tokens: int, windows: Windows
) -> None:
    """Generates all rows in one batch padded on the left; finished rows leave it, and a prefix is computed once."""
    model, device = adapted.model, adapted.model.device
    longest = max(len(row.context) for row in rows)
    cache = new_cache(windows, len(prefix) + longest + max_new_tokens)
    if prefix:
        model(input_ids=torch.tensor([list(prefix)], device=device), past_key_values=cache, logits_to_keep=1)
        cache, _ = copy_rows([CacheRow(cache)] * len(rows), longest + max_new_tokens)
    padding = rows[0].context[0]
    ids = torch.tensor([[padding] * (longest - len(row.context)) + row.context for row in rows], device=device)
    mask = torch.tensor(
        [[1] * len(prefix) + [0] * (longest - len(row.context)) + [1] * len(row.context) for row in rows],
        device=device,
    )
    active = list(rows)
    for remaining in range(max_new_tokens, 0, -1):
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        logits = model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, logits_to_keep=1
        ).logits[:, -1]
        _sample_next(active, logits)
        running = [index for index, row in enumerate(active) if not row.is_finished]
        if not running:
            return
        if len(running) <= _COMPACT_BELOW * len(active):
            cache, _ = copy_rows([CacheRow(cache, index) for index in running], remaining)
            mask, active = mask[torch.tensor(running, device=device)], [active[index] for index in running]
        ids = torch.tensor([row.ids[-1:] for row in active], device=device)
        mask = torch.cat([mask, mask.new_ones(len(active), 1)], dim=1)


def _generate_one(adapted: AdaptedModel, prefix: Sequence[int], row: _Row, max_new_tokens: int) -> None:
    """Generates one row with the cache that the model creates by itself."""
    ids: list[int] = [*prefix, *row.context]
    cache: Cache | None = None
    for _ in range(max_new_tokens):
        tokens = torch.tensor([ids], device=adapted.model.device)
        output = adapted.model(input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = output.past_key_values
        _sample_next([row], output.logits[:, -1])
        if row.is_finished:
            return
        ids = row.ids[-1:]


def _row_seed(seed: int, index: int) -> int:
    return random.Random(f"{seed} {index}").getrandbits(63)
