"""Draws the next token from logits: penalty, temperature, top-k, top-p, min-p, in this order.

The order and the meaning are those of transformers' `generate` (a test compares them), except that exactly
`top_k` candidates are kept when several share the last place. Nothing is sorted but the candidates: on a
vocabulary of 262k a full sort costs more than a small model's layers. Knows no model and no thread.
"""

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from doppel.engine import EngineError, Sampling, Token
from doppel.i18n import tr

_FIRST_GUESS = 256  # candidates that usually hold top_p of the mass; eight times as many are tried next


class Sampler:
    """The draws of one generation: remembers what was said for the penalty, and owns its random numbers.

    Each token takes exactly one random number, so that the n-th token depends on the seed and n alone.

    Args:
        prompt: token ids that count as said already.
    """

    def __init__(self, sampling: Sampling, prompt: Sequence[int]) -> None:
        self._sampling = sampling
        self._random = random.Random(sampling.seed)
        self._seen = set(prompt) if sampling.repetition_penalty != 1 else None

    def draw(self, logits: Tensor) -> Token:
        """The next token, given the logits of the last position, shape (vocabulary,).

        Raises:
            EngineError: the logits are not finite numbers.
        """
        chance = self._random.random()
        ids, weights = candidates(logits, self._sampling, sorted(self._seen or ()))
        cumulative = weights.double().cumsum(0)
        total = cumulative[-1]
        # The product may round to the total itself; the last token with any weight is where that falls.
        place = min(
            int(torch.searchsorted(cumulative, chance * total, right=True)), int(torch.searchsorted(cumulative, total))
        )
        token = int(ids[place])
        if self._seen is not None:
            self._seen.add(token)
        return Token(token, float(torch.log(weights[place].double() / total)))


def candidates(logits: Tensor, sampling: Sampling, seen: Sequence[int] = ()) -> tuple[Tensor, Tensor]:
    """The tokens that may come next and their weights (probabilities up to a common factor).

    Args:
        logits: shape (vocabulary,), any float type and device.
        seen: distinct token ids the repetition penalty applies to.

    Returns:
        ids, shape (n,), and weights, shape (n,), float32, on the CPU; n is at least 1.

    Raises:
        EngineError: the logits are not finite numbers.
    """
    scores = logits.float()
    if seen and sampling.repetition_penalty != 1:
        scores = _penalized(scores, torch.tensor(seen, device=scores.device), sampling.repetition_penalty)
    ids = None
    if sampling.temperature == 0:
        ids = scores.argmax()[None]
        scores = scores[ids]
    elif 0 < sampling.top_k < len(scores):
        scores, ids = torch.topk(scores, sampling.top_k)
    best = scores.max()
    if not torch.isfinite(best):  # a NaN anywhere is also the maximum
        raise EngineError(tr("the model computed no usable numbers; the adapter or the base may be damaged"))
    if sampling.temperature == 0 and ids is not None:
        return ids.cpu(), torch.ones(1)
    # Relative to the best, no temperature however small overflows.
    weights = ((scores - best) / sampling.temperature).exp()
    if ids is not None:
        ids, weights = ids.cpu(), weights.cpu()
        ids, weights = _top_p(ids, weights, weights.sum(), sampling.top_p)
    elif sampling.top_p < 1:
        ids, weights = _top_p_of_all(weights, sampling.top_p)
    else:
        ids, weights = torch.arange(len(weights)), weights.cpu()
    if sampling.min_p:
        likely = weights >= sampling.min_p * weights.max()
        ids, weights = ids[likely], weights[likely]
    return ids, weights


def _penalized(scores: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Makes tokens less likely that were said: their logit is divided if positive, multiplied if negative."""
    seen = seen[seen < len(scores)]
    before = scores[seen]
    return scores.index_copy(0, seen, torch.where(before < 0, before * penalty, before / penalty))


def _top_p(ids: Tensor, weights: Tensor, total: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """The fewest of the descending `weights` that make up at least `top_p` of `total`."""
    if top_p >= 1:
        return ids, weights
    before = weights.cumsum(0) - weights
    kept = before < top_p * total
    kept[0] = True
    return ids[kept], weights[kept]


def _top_p_of_all(weights: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """Top-p over a whole vocabulary, looking at ever more of the likeliest until they are enough."""
    total = weights.sum()
    count = min(_FIRST_GUESS, len(weights))
    while True:
        likeliest, ids = torch.topk(weights, count)
        if count == len(weights) or likeliest.sum() >= top_p * total:
            return _top_p(ids.cpu(), likeliest.cpu(), total.cpu(), top_p)
        count = min(8 * count, len(weights))
