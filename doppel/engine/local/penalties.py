"""What a generation has said so far, and how that and the user's words change the next token's logits.

Everything is kept up token by token, so that a step costs what it changes and not the length of the chat.
Knows token ids and one row of logits; draws nothing.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from doppel.engine import Sampling

_LONGEST_REPETITION = 50  # tokens DRY looks back: a longer repetition is forbidden as surely


def matters(sampling: Sampling) -> bool:
    """Whether any setting looks at what was said or names tokens."""
    return (
        sampling.repetition_penalty != 1
        or sampling.presence_penalty != 0
        or sampling.frequency_penalty != 0
        or sampling.no_repeat_ngram > 0
        or sampling.dry_multiplier > 0
        or bool(sampling.logit_bias)
        or bool(sampling.bad_words)
    )


class Said:
    """The tokens of prompt and reply.

    Args:
        sampling: what they are kept for.
        prompt: token ids before the reply.
    """

    def __init__(self, sampling: Sampling, prompt: Sequence[int]) -> None:
        self._sampling = sampling
        self._ids: list[int] = []
        self._reply: Counter[int] = Counter()
        self._distinct: dict[int, None] = {}
        self._followers: defaultdict[tuple[int, ...], set[int]] = defaultdict(set)
        self._places: defaultdict[int, list[int]] = defaultdict(list)
        for token in prompt:
            self._append(token)

    def add(self, token: int) -> None:
        """The reply goes on with a token."""
        self._reply[token] += 1
        self._append(token)

    def edit(self, scores: Tensor) -> None:
        """Changes the logits of the next token, shape (vocabulary,), in place."""
        sampling = self._sampling
        bias = {token: value for token, value in sampling.logit_bias if token < len(scores)}
        _add(scores, bias)
        if sampling.repetition_penalty != 1:
            self._penalize(scores)
        _add(scores, self._subtracted())
        forbidden = sorted(token for token in self._forbidden() if token < len(scores))
        if forbidden:
            places = torch.tensor(forbidden, device=scores.device)
            before = scores[places]
            scores[places] = -torch.inf
            if scores.max() == -torch.inf:  # something must be said
                scores[places] = before

    def _append(self, token: int) -> None:
        sampling = self._sampling
        if sampling.no_repeat_ngram:
            before = sampling.no_repeat_ngram - 1
            if len(self._ids) >= before:
                self._followers[self._last(before)].add(token)
        if sampling.dry_multiplier > 0:
            self._places[token].append(len(self._ids))
        if sampling.repetition_penalty != 1:
            self._distinct[token] = None
        self._ids.append(token)

    def _last(self, count: int) -> tuple[int, ...]:
        return tuple(self._ids[len(self._ids) - count :])

    def _penalize(self, scores: Tensor) -> None:
        """Makes tokens less likely that were said: their logit is divided if positive, multiplied if negative."""
        penalty = self._sampling.repetition_penalty
        places = torch.tensor([token for token in self._distinct if token < len(scores)], device=scores.device).long()
        before = scores[places]
        scores[places] = torch.where(before < 0, before * penalty, before / penalty)

    def _subtracted(self) -> dict[int, float]:
        """What presence, frequency and DRY take from the logits of single tokens."""
        sampling = self._sampling
        change: defaultdict[int, float] = defaultdict(float)
        if sampling.presence_penalty or sampling.frequency_penalty:
            for token, count in self._reply.items():
                change[token] -= sampling.presence_penalty + count * sampling.frequency_penalty
        if sampling.dry_multiplier > 0:
            for token, length in self._repetitions().items():
                if length >= sampling.dry_allowed_length:
                    change[token] -= sampling.dry_multiplier * sampling.dry_base ** (
                        length - sampling.dry_allowed_length
                    )
        return change

    def _repetitions(self) -> dict[int, int]:
        """Each token that once followed what was said last → how many tokens of that were the same."""
        breakers = self._sampling.breakers
        ids = self._ids
        longest: dict[int, int] = {}
        if not ids or ids[-1] in breakers:
            return longest
        for place in self._places[ids[-1]][:-1]:
            following = ids[place + 1]
            if following in breakers:
                continue
            length = 1
            while (
                length < min(_LONGEST_REPETITION, place + 1)
                and ids[place - length] == ids[-1 - length]
                and ids[place - length] not in breakers
            ):
                length += 1
            longest[following] = max(longest.get(following, 0), length)
        return longest

    def _forbidden(self) -> set[int]:
        sampling = self._sampling
        found: set[int] = set()
        if sampling.no_repeat_ngram and len(self._ids) >= sampling.no_repeat_ngram - 1:
            found |= self._followers.get(self._last(sampling.no_repeat_ngram - 1), set()) - sampling.breakers
        for word in sampling.bad_words:
            before = len(word) - 1
            if before <= len(self._ids) and self._last(before) == word[:-1]:
                found.add(word[-1])
        return found


def _add(scores: Tensor, change: dict[int, float]) -> None:
    kept = {token: value for token, value in change.items() if token < len(scores)}
    if kept:
        places = torch.tensor(list(kept), device=scores.device)
        scores[places] += torch.tensor(list(kept.values()), device=scores.device)
