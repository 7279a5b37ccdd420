"""Draws the next token from logits, for all rows of a batch at once.

The order and the meaning of the settings are those of transformers' `generate` (a test compares them), except
that exactly `top_k` candidates are kept when several share the last place, and that words and repetitions are
not forbidden where nothing else would be left. Nothing is sorted but the candidates: on a vocabulary of 262k a
full sort costs more than a small model's layers. Knows no model and no thread.
"""

import random
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from doppel.engine import EngineError, Sampling, Token
from doppel.engine.local.penalties import Said, matters
from doppel.i18n import tr

_BLOCK = 64  # scores whose maximum is looked at first
_FIRST_GUESS = 256  # candidates that usually hold the mass; eight times as many are tried next


class TokenMask:
    """Rules out tokens before anything is sampled, for all rows in one operation.

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
    """The draws of one generation: remembers what was said for the penalties, and owns its random numbers.

    Each token takes exactly one random number, so that the n-th token depends on the seed and n alone.

    Args:
        prompt: token ids that count as said already.
        mask: tokens that are never sampled, shared by the rows of a batch.
    """

    def __init__(self, sampling: Sampling, prompt: Sequence[int], mask: TokenMask | None = None) -> None:
        self.sampling = sampling
        self.mask = mask
        self._random = random.Random(sampling.seed)
        self.said = Said(sampling, prompt) if matters(sampling) else None
        """What was said, if that changes anything."""

    def draw(self, logits: Tensor) -> Token:
        """The next token, given the logits of the last position, shape (vocabulary,).

        Raises:
            EngineError: the logits are not finite numbers.
        """
        token = draw([self], logits[None])[0]
        if isinstance(token, EngineError):
            raise token
        return token

    def chance(self) -> float:
        """The random number of the next token."""
        return self._random.random()

    def take(self, token: int) -> None:
        """Remembers what was drawn."""
        if self.said is not None:
            self.said.add(token)


def draw(samplers: Sequence[Sampler], logits: Tensor) -> list[Token | EngineError]:
    """The next token of each row, or why there is none.

    Args:
        samplers: one for each row.
        logits: shape (rows, vocabulary), any float type and device; changed in place.
    """
    scores = plain = logits.float()
    normalizers = plain.logsumexp(-1)  # of the model's own distribution, before anything is ruled out
    _mask(samplers, scores)
    if any(sampler.said is not None for sampler in samplers):
        scores = plain.clone()
        for sampler, row in zip(samplers, scores, strict=True):
            if sampler.said is not None:
                sampler.said.edit(row)
    ids, weights = _candidates(scores, [sampler.sampling for sampler in samplers])
    chances = torch.tensor([[sampler.chance()] for sampler in samplers], dtype=torch.float64)
    cumulative = weights.double().cumsum(-1)
    mass = cumulative[:, -1:].contiguous()
    # The product may round to the total itself; the last token with any weight is where that falls.
    last = torch.searchsorted(cumulative, mass)
    places = torch.minimum(torch.searchsorted(cumulative, chances * mass, right=True), last)
    places = places.clamp(max=weights.shape[1] - 1)  # where nothing is a number, neither is the place
    drawn = ids.gather(1, places)
    logprobs = (weights.gather(1, places).double() / mass).log()[:, 0].tolist()
    own = (plain.gather(1, drawn.to(plain.device))[:, 0] - normalizers).tolist()
    tokens: list[Token | EngineError] = []
    for sampler, token, logprob, model_logprob, whole in zip(
        samplers, drawn[:, 0].tolist(), logprobs, own, mass[:, 0].tolist(), strict=True
    ):
        if not 0 < whole < torch.inf:
            reason = tr("the model computed no usable numbers; the adapter or the base may be damaged")
            tokens.append(EngineError(reason))
            continue
        sampler.take(token)
        tokens.append(Token(token, logprob, min(model_logprob, 0.0)))
    return tokens


def _mask(samplers: Sequence[Sampler], scores: Tensor) -> None:
    """Rules out tokens in each row; the rows of a batch nearly always share one mask."""
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
    """The tokens that may come next and their weights (probabilities up to a common factor).

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
        raise EngineError(tr("the model computed no usable numbers; the adapter or the base may be damaged"))
    return ids[0][kept], weights[0][kept]


def _candidates(scores: Tensor, samplings: Sequence[Sampling]) -> tuple[Tensor, Tensor]:
    """Ids and weights of each row's candidates, both (rows, n), on the CPU; weights of no candidate are zero.

    A row whose scores are no finite numbers has only weights that are zero or no numbers.
    """
    size = scores.shape[1]
    counts = [1 if one.temperature == 0 else one.top_k if 0 < one.top_k < size else 0 for one in samplings]
    few = [place for place, count in enumerate(counts) if count]
    if len(few) == len(counts):
        return _of_few(scores, samplings, counts)
    parts: dict[int, tuple[Tensor, Tensor]] = {}
    if few:
        ids, weights = _of_few(scores[few], [samplings[place] for place in few], [counts[place] for place in few])
        parts |= {place: (ids[row], weights[row]) for row, place in enumerate(few)}
    for place, count in enumerate(counts):
        if not count:
            parts[place] = _of_all(scores[place], samplings[place])
    width = max(len(ids) for ids, _ in parts.values())
    padded = [
        (torch.nn.functional.pad(one, (0, width - len(one))) for one in parts[place]) for place in range(len(counts))
    ]
    all_ids, all_weights = zip(*padded, strict=True)
    return torch.stack(all_ids), torch.stack(all_weights)


def _of_few(scores: Tensor, samplings: Sequence[Sampling], counts: Sequence[int]) -> tuple[Tensor, Tensor]:
    """`_candidates` of rows that all have a bound: top-k first, the rest on what it leaves, vectorised."""
    most = max(counts)
    best, ids = (part.cpu() for part in _likeliest(scores, most))
    allowed = torch.arange(most) < torch.tensor(counts)[:, None]
    # Relative to the best, no temperature however small overflows. Greedy rows have one candidate: any will do.
    temperatures = torch.tensor([[one.temperature or 1.0] for one in samplings])
    weights = ((best - best[:, :1]) / temperatures).exp() * allowed
    if any(one.top_p < 1 for one in samplings):
        weights = _top_p(weights, weights.sum(-1, keepdim=True), torch.tensor([[one.top_p] for one in samplings]))
    if any(one.min_p for one in samplings):
        weights = weights * (weights >= torch.tensor([[one.min_p] for one in samplings]) * weights[:, :1])
    if any(one.typical_p < 1 for one in samplings):
        weights = _typical(weights, torch.tensor([[one.typical_p] for one in samplings]))
    return ids, weights


def _likeliest(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The highest scores of each row, in order, and where they are: looks only into blocks whose highest is high.

    The highest so many scores cannot lie in more blocks than that, and those are the blocks with the highest maxima.
    """
    rows, size = scores.shape
    if size % _BLOCK or count * _BLOCK >= size:
        best, ids = scores.topk(count)
        return best, ids
    blocks = scores.view(rows, -1, _BLOCK)
    chosen = blocks.amax(-1).topk(count).indices
    within = blocks.gather(1, chosen[:, :, None].expand(-1, -1, _BLOCK)).flatten(1)
    best, places = within.topk(count)
    return best, chosen.gather(1, places // _BLOCK) * _BLOCK + places % _BLOCK


def _of_all(scores: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """`_candidates` of one row without a bound."""
    weights = ((scores - scores.max()) / sampling.temperature).exp()
    ids = torch.arange(len(weights), device=weights.device)
    if sampling.min_p:  # keeps the likeliest as top-p does, so that either may come first: this one sorts nothing
        total = weights.sum()
        ids = (weights >= sampling.min_p).nonzero()[:, 0]  # the best weighs 1
        weights, order = weights[ids].sort(descending=True, stable=True)
        ids = ids[order]
        if sampling.top_p < 1 and len(weights):
            top_p = torch.tensor([[sampling.top_p]], device=weights.device)
            weights = _top_p(weights[None], total, top_p)[0]
    elif sampling.top_p < 1:
        weights, ids = _top_p_of_all(weights, sampling.top_p)
    if not len(weights):  # no numbers are not at least anything
        return torch.zeros(1, dtype=torch.long), torch.zeros(1)
    if sampling.typical_p < 1:
        weights = _typical(weights[None], torch.tensor([[sampling.typical_p]], device=weights.device))[0]
    return ids.cpu(), weights.cpu()


def _top_p(weights: Tensor, total: Tensor, top_p: Tensor) -> Tensor:
    """Rows of descending weights with zero after the fewest that make up at least `top_p` of `total`."""
    kept = weights.cumsum(-1) - weights < top_p * total
    kept[:, 0] = True
    return weights * (kept | (top_p >= 1))


def _top_p_of_all(weights: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """Top-p over a whole vocabulary: looks at ever more of the likeliest until they are enough."""
    total = weights.sum()
    count = min(_FIRST_GUESS, len(weights))
    while True:
        likeliest, ids = weights.topk(count)
        if count == len(weights) or likeliest.sum() >= top_p * total:
            break
        count = min(8 * count, len(weights))
    likeliest = _top_p(likeliest[None], total, torch.tensor([[top_p]], device=weights.device))[0]
    kept = likeliest != 0  # what is no number stays, to be found
    return likeliest[kept], ids[kept]


def _typical(weights: Tensor, typical_p: Tensor) -> Tensor:
    """Rows of weights with zero for all but the most typical tokens that make up at least `typical_p`, (rows, 1)."""
    chances = weights / weights.sum(-1, keepdim=True)
    entropy = -torch.special.xlogy(chances, chances).sum(-1, keepdim=True)
    distance = (-chances.log() - entropy).abs()
    count = min(_FIRST_GUESS, weights.shape[1])
    while True:
        nearest, order = distance.topk(count, largest=False)
        mass = chances.gather(1, order).cumsum(-1)
        if count == weights.shape[1] or bool((mass[:, -1:] >= typical_p).all()):
            break
        count = min(8 * count, weights.shape[1])
    last = (mass < typical_p).sum(-1, keepdim=True).clamp(max=count - 1)
    kept: Tensor = (distance <= nearest.gather(1, last)) | (typical_p >= 1)
    return weights * kept
