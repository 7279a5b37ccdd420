"""The tokens of a generation so far, and what penalties, biases and forbidden words do to the next token's logits.

Everything is updated token by token, so that a step does not get slower as the chat gets longer.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from doppel.engine import Sampling

_MAX_REPETITION = 50  # tokens that DRY looks back; the penalty of a longer repetition is prohibitive already


def needs_history(sampling: Sampling) -> bool:
    """Whether any setting depends on earlier tokens or names single tokens."""
    return (
        sampling.repetition_penalty != 1
        or sampling.presence_penalty != 0
        or sampling.frequency_penalty != 0
        or sampling.no_repeat_ngram > 0
        or sampling.dry_multiplier > 0
        or bool(sampling.logit_bias)
        or bool(sampling.bad_words)
    )


class TokenHistory:
    """The tokens of prompt and reply, indexed for the penalties.

    Args:
        sampling: which penalties apply.
        prompt: token ids before the reply.
    """

    def __init__(self, sampling: Sampling, prompt: Sequence[int]) -> None:
        self._sampling = sampling
        self._ids: list[int] = []
        self._reply_counts: Counter[int] = Counter()
        self._distinct: dict[int, None] = {}
        self._followers: defaultdict[tuple[int, ...], set[int]] = defaultdict(set)
        self._positions: defaultdict[int, list[int]] = defaultdict(list)
        for token in prompt:
            self._append(token)

    def add(self, token: int) -> None:
        """Appends a token of the reply."""
        self._reply_counts[token] += 1
        self._append(token)

    def apply(self, logits: Tensor) -> None:
        """Changes the logits of the next token, shape (vocabulary,), in place."""
        sampling = self._sampling
        _add(logits, dict(sampling.logit_bias))
        if sampling.repetition_penalty != 1:
            self._apply_repetition_penalty(logits)
        _add(logits, self._penalties())
        forbidden = sorted(token for token in self._forbidden() if token < len(logits))
        if forbidden:
            index = torch.tensor(forbidden, device=logits.device)
            before = logits[index]
            logits[index] = -torch.inf
            if logits.max() == -torch.inf:  # nothing else is left to sample
                logits[index] = before

    def _append(self, token: int) -> None:
        sampling = self._sampling
        if sampling.no_repeat_ngram:
            before = sampling.no_repeat_ngram - 1
            if len(self._ids) >= before:
                self._followers[self._last(before)].add(token)
        if sampling.dry_multiplier > 0:
            self._positions[token].append(len(self._ids))
        if sampling.repetition_penalty != 1:
            self._distinct[token] = None
        self._ids.append(token)

    def _last(self, count: int) -> tuple[int, ...]:
        return tuple(self._ids[len(self._ids) - count :])

    def _apply_repetition_penalty(self, logits: Tensor) -> None:
        """Divides the positive logits of earlier tokens by the penalty, and multiplies the negative ones."""
        penalty = self._sampling.repetition_penalty
        index = torch.tensor([token for token in self._distinct if token < len(logits)], device=logits.device).long()
        before = logits[index]
        logits[index] = torch.where(before < 0, before * penalty, before / penalty)

    def _penalties(self) -> dict[int, float]:
        """What presence, frequency and DRY penalties add to the logits of single tokens."""
        sampling = self._sampling
        change: defaultdict[int, float] = defaultdict(float)
        if sampling.presence_penalty or sampling.frequency_penalty:
            for token, count in self._reply_counts.items():
                change[token] -= sampling.presence_penalty + count * sampling.frequency_penalty
        if sampling.dry_multiplier > 0:
            for token, length in self._repetitions().items():
                if length >= sampling.dry_allowed_length:
                    change[token] -= sampling.dry_multiplier * sampling.dry_base ** (
                        length - sampling.dry_allowed_length
                    )
        return change

    def _repetitions(self) -> dict[int, int]:
        """Tokens that would continue a repetition → the length of what is repeated so far, in tokens."""
        breakers = self._sampling.breakers
        ids = self._ids
        longest: dict[int, int] = {}
        if not ids or ids[-1] in breakers:
            return longest
        for position in self._positions[ids[-1]][:-1]:
            following = ids[position + 1]
            if following in breakers:
                continue
            length = 1
            while (
                length < min(_MAX_REPETITION, position + 1)
                and ids[position - length] == ids[-1 - length]
                and ids[position - length] not in breakers
            ):
                length += 1
            longest[following] = max(longest.get(following, 0), length)
        return longest

    def _forbidden(self) -> set[int]:
        """Tokens that would complete a repeated n-gram or a forbidden word."""
        sampling = self._sampling
        forbidden: set[int] = set()
        if sampling.no_repeat_ngram and len(self._ids) >= sampling.no_repeat_ngram - 1:
            forbidden |= self._followers.get(self._last(sampling.no_repeat_ngram - 1), set()) - sampling.breakers
        for word in sampling.bad_words:
            before = len(word) - 1
            if before <= len(self._ids) and self._last(before) == word[:-1]:
                forbidden.add(word[-1])
        return forbidden


def _add(logits: Tensor, change: dict[int, float]) -> None:
    kept = {token: value for token, value in change.items() if token < len(logits)}
    if kept:
        index = torch.tensor(list(kept), device=logits.device)
        logits[index] += torch.tensor(list(kept.values()), device=logits.device)
