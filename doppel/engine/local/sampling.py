"""Samples the next token from logits, for all rows of a batch at once.

Settings apply in the order and with the meaning of transformers' `generate` (a test compares them), with two
exceptions: exactly `top_k` candidates are kept when several tie for the last place, and forbidden words and
repetitions are allowed when nothing else is left. Only the candidates are sorted: on a vocabulary of 262k a full
sort takes longer than the layers of a small model.
"""

import random
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from doppel.engine import EngineError, Sampling, Token
from doppel.engine.local.penalties import TokenHistory, needs_history
from doppel.i18n import tr

_BLOCK = 64  # logits per block, of which the maximum is compared first
_FIRST_GUESS = 256  # candidates that usually hold the probability mass; eight times as many are tried next


class TokenMask:
    """Excludes tokens from sampling, for all rows of a batch in one operation.

    Args:
        ids: of the tokens; those beyond a model's vocabulary are ignored.
    """

    def __init__(self, ids: Iterable[int]) -> None:
        self._ids = sorted(ids)
        self._index = torch.empty(0, dtype=torch.long)
        self._size = 0

    def apply(self, logits: Tensor) -> None:
        """Sets the logits of these tokens, the last dimension being the vocabulary, to -inf in place."""
        if self._size != logits.shape[-1] or self._index.device != logits.device:
            self._size = logits.shape[-1]
            self._index = torch.tensor(
                [token for token in self._ids if token < self._size], dtype=torch.long, device=logits.device
            )
        logits.index_fill_(-1, self._index, -torch.inf)


class Sampler:
    """The sampling state of one generation: its token history for the penalties, and its random numbers.

    Each token uses exactly one random number, so that the n-th one depends on the seed and n alone.

    Args:
        sampling: the settings.
        prompt: token ids that count towards the penalties from the start.
        mask: tokens that are never sampled, shared by the rows of a batch.
    """

    def __init__(self, sampling: Sampling, prompt: Sequence[int], mask: TokenMask | None = None) -> None:
        self.sampling = sampling
        self.mask = mask
        self._random = random.Random(sampling.seed)
        self.history = TokenHistory(sampling, prompt) if needs_history(sampling) else None
        """The tokens so far; None when no setting depends on them."""

    def sample(self, logits: Tensor) -> Token:
        """The next token, given the logits of the last position, shape (vocabulary,).

        Raises:
            EngineError: the logits are not finite numbers.
        """
        token = sample([self], logits[None])[0]
        if isinstance(token, EngineError):
            raise token
        return token

    def next_random(self) -> float:
        """The random number for the next token, uniform in [0, 1)."""
        return self._random.random()

    def record(self, token: int) -> None:
        """Adds a sampled token to the history."""
        if self.history is not None:
            self.history.add(token)


def sample(samplers: Sequence[Sampler], logits: Tensor) -> list[Token | EngineError]:
    """The next token of each row, or an error where the logits are not finite.

    Args:
        samplers: one for each row.
        logits: shape (rows, vocabulary), any float type and device; changed in place.
    """
    scores = model_logits = logits.float()
    normalizers = model_logits.logsumexp(-1)  # of the model's own distribution, before anything is masked
    _mask(samplers, scores)
    if any(sampler.history is not None for sampler in samplers):
        scores = model_logits.clone()
        for sampler, row in zip(samplers, scores, strict=True):
            if sampler.history is not None:
                sampler.history.apply(row)
    ids, weights = _candidates(scores, [sampler.sampling for sampler in samplers])
    uniform = torch.tensor([[sampler.next_random()] for sampler in samplers], dtype=torch.float64)
    cumulative = weights.double().cumsum(-1)
    total = cumulative[:, -1:].contiguous()
    # The product may round up to the total, which then selects the last token of any weight.
    last = torch.searchsorted(cumulative, total)
    columns = torch.minimum(torch.searchsorted(cumulative, uniform * total, right=True), last)
    columns = columns.clamp(max=weights.shape[1] - 1)  # NaN weights give a column out of range
    sampled = ids.gather(1, columns)
    logprobs = (weights.gather(1, columns).double() / total).log()[:, 0].tolist()
    model_logprobs = (model_logits.gather(1, sampled.to(model_logits.device))[:, 0] - normalizers).tolist()
    tokens: list[Token | EngineError] = []
    for sampler, token, logprob, model_logprob, mass in zip(
        samplers, sampled[:, 0].tolist(), logprobs, model_logprobs, total[:, 0].tolist(), strict=True
    ):
        if not 0 < mass < torch.inf:
            tokens.append(EngineError(_not_finite()))
            continue
        sampler.record(token)
        tokens.append(Token(token, logprob, min(model_logprob, 0.0)))
    return tokens


def _mask(samplers: Sequence[Sampler], scores: Tensor) -> None:
    """Applies each row's mask; the rows of a batch nearly always share one."""
    masks = {sampler.mask for sampler in samplers}
    for mask in masks - {None}:
        assert mask is not None
        if len(masks) == 1:
            mask.apply(scores)
            continue
        for sampler, row in zip(samplers, scores, strict=True):
            if sampler.mask is mask:
                mask.apply(row)


def candidates(logits: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """The tokens that may be sampled next, and their weights (probabilities up to a common factor).

    Args:
        logits: shape (vocabulary,), any float type and device.

    Returns:
        ids, shape (n,), and weights, shape (n,), float32, on the CPU; n is at least 1.

    Raises:
        EngineError: the logits are not finite numbers.
    """
    ids, weights = _candidates(logits.float()[None], [sampling])
    kept = weights[0] > 0
    if not kept.any():
        raise EngineError(_not_finite())
    return ids[0][kept], weights[0][kept]


def _candidates(scores: Tensor, samplings: Sequence[Sampling]) -> tuple[Tensor, Tensor]:
    """Ids and weights of each row's candidates, both (rows, n), on the CPU; other columns have weight zero.

    A row without finite scores has only weights that are zero or NaN.
    """
    size = scores.shape[1]
    counts = [_max_candidates(sampling, size) for sampling in samplings]
    bounded = [row for row, count in enumerate(counts) if count]
    if len(bounded) == len(counts):
        return _bounded_candidates(scores, samplings, counts)
    parts: dict[int, tuple[Tensor, Tensor]] = {}
    if bounded:
        ids, weights = _bounded_candidates(
            scores[bounded], [samplings[row] for row in bounded], [counts[row] for row in bounded]
        )
        parts |= {row: (ids[number], weights[number]) for number, row in enumerate(bounded)}
    for row, count in enumerate(counts):
        if not count:
            parts[row] = _unbounded_candidates(scores[row], samplings[row])
    width = max(len(ids) for ids, _ in parts.values())
    padded = [
        (torch.nn.functional.pad(values, (0, width - len(values))) for values in parts[row])
        for row in range(len(counts))
    ]
    all_ids, all_weights = zip(*padded, strict=True)
    return torch.stack(all_ids), torch.stack(all_weights)


def _max_candidates(sampling: Sampling, size: int) -> int:
    """How many tokens may be candidates at most; 0: no limit."""
    if sampling.temperature == 0:
        return 1
    return sampling.top_k if 0 < sampling.top_k < size else 0


def _bounded_candidates(scores: Tensor, samplings: Sequence[Sampling], counts: Sequence[int]) -> tuple[Tensor, Tensor]:
    """`_candidates` of rows that all have a top-k or are greedy: top-k first, the other filters on what is left."""
    max_count = max(counts)
    best, ids = (part.cpu() for part in _blockwise_topk(scores, max_count))
    allowed = torch.arange(max_count) < torch.tensor(counts)[:, None]
    # Relative to the best, no temperature overflows, however small. Greedy rows have one candidate: any value works.
    temperatures = torch.tensor([[sampling.temperature or 1.0] for sampling in samplings])
    weights = ((best - best[:, :1]) / temperatures).exp() * allowed
    if any(sampling.top_p < 1 for sampling in samplings):
        top_p = torch.tensor([[sampling.top_p] for sampling in samplings])
        weights = _top_p(weights, weights.sum(-1, keepdim=True), top_p)
    if any(sampling.min_p for sampling in samplings):
        weights = weights * (weights >= torch.tensor([[sampling.min_p] for sampling in samplings]) * weights[:, :1])
    if any(sampling.typical_p < 1 for sampling in samplings):
        weights = _typical(weights, torch.tensor([[sampling.typical_p] for sampling in samplings]))
    return ids, weights


def _blockwise_topk(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """`scores.topk(count)`, which searches only the blocks with the highest maxima.

    The `count` highest scores lie in at most `count` blocks, and those are the blocks with the highest maxima.
    """
    rows, size = scores.shape
    if size % _BLOCK or count * _BLOCK >= size:
        best, ids = scores.topk(count)
        return best, ids
    blocks = scores.view(rows, -1, _BLOCK)
    best_blocks = blocks.amax(-1).topk(count).indices
    inside = blocks.gather(1, best_blocks[:, :, None].expand(-1, -1, _BLOCK)).flatten(1)
    best, positions = inside.topk(count)
    return best, best_blocks.gather(1, positions // _BLOCK) * _BLOCK + positions % _BLOCK


def _unbounded_candidates(scores: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """`_candidates` of one row without a top-k."""
    weights = ((scores - scores.max()) / sampling.temperature).exp()
    ids = torch.arange(len(weights), device=weights.device)
    if sampling.min_p:  # both filters keep the likeliest, so either may come first: this one needs no sort
        total = weights.sum()
        ids = (weights >= sampling.min_p).nonzero()[:, 0]  # the best weighs 1
        weights, order = weights[ids].sort(descending=True, stable=True)
        ids = ids[order]
        if sampling.top_p < 1 and len(weights):
            top_p = torch.tensor([[sampling.top_p]], device=weights.device)
            weights = _top_p(weights[None], total, top_p)[0]
    elif sampling.top_p < 1:
        weights, ids = _top_p_of_all(weights, sampling.top_p)
    if not len(weights):  # NaN passes no filter
        return torch.zeros(1, dtype=torch.long), torch.zeros(1)
    if sampling.typical_p < 1:
        weights = _typical(weights[None], torch.tensor([[sampling.typical_p]], device=weights.device))[0]
    return ids.cpu(), weights.cpu()


def _top_p(weights: Tensor, total: Tensor, top_p: Tensor) -> Tensor:
    """Rows of descending weights, zeroed after the smallest prefix with at least `top_p` of `total`."""
    kept = weights.cumsum(-1) - weights < top_p * total
    kept[:, 0] = True
    return weights * (kept | (top_p >= 1))


def _top_p_of_all(weights: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """Top-p over a whole vocabulary: takes ever more of the likeliest tokens until they have enough mass."""
    total = weights.sum()
    count = min(_FIRST_GUESS, len(weights))
    while True:
        likeliest, ids = weights.topk(count)
        if count == len(weights) or likeliest.sum() >= top_p * total:
            break
        count = min(8 * count, len(weights))
    likeliest = _top_p(likeliest[None], total, torch.tensor([[top_p]], device=weights.device))[0]
    kept = likeliest != 0  # NaN stays, to be reported
    return likeliest[kept], ids[kept]


def _typical(weights: Tensor, typical_p: Tensor) -> Tensor:
    """Rows of weights, zeroed except for the most typical tokens with at least `typical_p`, (rows, 1), of the mass."""
    probabilities = weights / weights.sum(-1, keepdim=True)
    entropy = -torch.special.xlogy(probabilities, probabilities).sum(-1, keepdim=True)
    distance = (-probabilities.log() - entropy).abs()
    count = min(_FIRST_GUESS, weights.shape[1])
    while True:
        nearest, order = distance.topk(count, largest=False)
        mass = probabilities.gather(1, order).cumsum(-1)
        if count == weights.shape[1] or bool((mass[:, -1:] >= typical_p).all()):
            break
        count = min(8 * count, weights.shape[1])
    last = (mass < typical_p).sum(-1, keepdim=True).clamp(max=count - 1)
    kept: Tensor = (distance <= nearest.gather(1, last)) | (typical_p >= 1)
    return weights * kept


def _not_finite() -> str:
    return tr("the model's output is not finite; the adapter or the base model may be damaged")
