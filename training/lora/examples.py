"""Sessions as training examples, and examples as optimizer steps of evenly filled micro-batches.

One sequence per session, loss on the persona's turns only. A session longer than the limit is cut at turn
ends; each piece carries the header and the turns before it as context without loss, so that nothing is
truncated and nothing is learned twice. Knows token ids; knows no model.
"""

import math
import random
from collections.abc import Callable, Iterable, Sequence

import msgspec
import torch

from doppel.transcript import NO_LOSS, Encoded, Transcript
from training.dataset.files import Session

CONTEXT_SHARE = 0.25
"""Largest part of a piece's length given to repeated context."""


class Example(msgspec.Struct, frozen=True):
    """A sequence to train or score on.

    Attributes:
        ids: token ids, length T.
        loss_mask: length T, as in `Encoded`.
        text_bytes: UTF-8 bytes of the text under role 1.
    """

    ids: list[int]
    loss_mask: list[int]
    text_bytes: int

    @property
    def supervised(self) -> int:
        """How many tokens carry loss (the first token of a sequence never does)."""
        return sum(loss > NO_LOSS for loss in self.loss_mask[1:])


class Batch(msgspec.Struct, frozen=True):
    """A micro-batch: sequences laid end to end, N tokens in all.

    Attributes:
        ids: (N,) int64.
        positions: (N,) int64, counted from the start of each sequence.
        targets: (S,) int64, positions in the row of the tokens that carry loss.
        loss_mask: (S,) int64, their values in the loss mask.
        lengths: of the sequences.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    targets: torch.Tensor
    loss_mask: torch.Tensor
    lengths: list[int]


Step = list[list[Example]]
"""One optimizer step: its micro-batches."""


def examples(sessions: Iterable[Session], transcript: Transcript, max_length: int) -> list[Example]:
    """Every session as one or more examples of at most `max_length` tokens, in the given order."""
    return [
        example
        for session in sessions
        for example in cut(transcript.encode(session.header, session.turns), max_length)
        if example.supervised
    ]


def cut(encoded: Encoded, max_length: int) -> list[Example]:
    """Pieces of a session that fit `max_length`, each supervised token in exactly one of them."""
    opening = encoded.ids[: encoded.opening]
    room = max_length - len(opening)
    if len(encoded.ids) <= max_length:
        return [Example(encoded.ids, encoded.loss_mask, encoded.text_bytes)]
    pieces = []
    for start, end, text_bytes in _spans(encoded, room - int(room * CONTEXT_SHARE)):
        context = _context_start(encoded, start, room - (end - start))
        pieces.append(
            Example(
                opening + encoded.ids[context:end],
                [NO_LOSS] * (len(opening) + start - context) + encoded.loss_mask[start:end],
                text_bytes,
            )
        )
    return pieces


def plan_steps(items: Sequence[Example], per_step: int, tokens_per_batch: int, seed: int) -> list[Step]:
    """One epoch: shuffled examples, `per_step` to an optimizer step, in micro-batches of like lengths."""
    order = list(items)
    random.Random(seed).shuffle(order)
    return [micro_batches(order[at : at + per_step], tokens_per_batch) for at in range(0, len(order), per_step)]


def micro_batches(items: Sequence[Example], tokens_per_batch: int) -> list[list[Example]]:
    """Examples in groups of at most `tokens_per_batch` tokens, about equally full (one example always fits)."""
    total = sum(len(example.ids) for example in items)
    groups = balanced_groups(items, max(1, -(-total // tokens_per_batch)), most=tokens_per_batch)
    return [group for group in groups if group]


def balanced_groups(
    items: Sequence[Example],
    count: int,
    weigh: Callable[[Example], float] = lambda example: len(example.ids),
    most: float = math.inf,
) -> list[list[Example]]:
    """`count` lists of about the same weight that hold every example once; some stay empty if there are too few.

    Where an example would make a list heavier than `most`, a further list begins, however heavy the example.
    """
    loads: list[list[Example]] = [[] for _ in range(count)]
    weights = [0.0] * count
    for example in sorted(items, key=weigh, reverse=True):
        # the heaviest first, each to whoever has the least: the classic of even loads (Graham 1969)
        place = weights.index(min(weights))
        if weights[place] and weights[place] + weigh(example) > most:
            place = len(loads)
            loads.append([])
            weights.append(0.0)
        loads[place].append(example)
        weights[place] += weigh(example)
    return loads


def collate(group: Sequence[Example]) -> Batch:
    """Lays the examples of a micro-batch end to end."""
    lengths = [len(example.ids) for example in group]
    loss_mask = torch.tensor([loss for example in group for loss in (NO_LOSS, *example.loss_mask[1:])])
    targets = loss_mask.nonzero()[:, 0]
    return Batch(
        ids=torch.tensor([token for example in group for token in example.ids]),
        positions=torch.cat([torch.arange(length) for length in lengths]),
        targets=targets,
        loss_mask=loss_mask[targets],
        lengths=lengths,
    )


def first(items: Sequence[Example], tokens: int) -> list[Example]:
    """The first examples that hold as many tokens together, at least one."""
    chosen: list[Example] = []
    for example in items:
        if chosen and sum(len(one.ids) for one in chosen) >= tokens:
            break
        chosen.append(example)
    return chosen


def spread_sample(items: Sequence[Example], tokens: int) -> list[Example]:
    """A fixed sample of about `tokens` tokens, taken evenly over the whole sequence (all, if it is smaller)."""
    total = sum(len(example.ids) for example in items)
    if total <= tokens:
        return list(items)
    share, taken, chosen = tokens / total, 0.0, []
    for example in items:
        taken += share
        if taken >= 1:
            taken -= 1
            chosen.append(example)
    return chosen or list(items[:1])


def _spans(encoded: Encoded, room: int) -> list[tuple[int, int, int]]:
    """(start, end, text bytes) of pieces of at most `room` tokens: whole turns, or parts of one very long turn."""
    spans: list[tuple[int, int, int]] = []
    start = encoded.opening
    for end, text_bytes in zip(encoded.turn_ends, encoded.turn_bytes, strict=True):
        if spans and end - spans[-1][0] <= room:
            spans[-1] = (spans[-1][0], end, spans[-1][2] + text_bytes)
        elif end - start <= room:
            spans.append((start, end, text_bytes))
        else:
            cuts = list(range(start, end, room))
            shares = [text_bytes * (min(at + room, end) - at) // (end - start) for at in cuts]
            shares[-1] += text_bytes - sum(shares)
            spans += [(at, min(at + room, end), share) for at, share in zip(cuts, shares, strict=True)]
        start = end
    return spans


def _context_start(encoded: Encoded, start: int, room: int) -> int:
    """The earliest turn start from which everything up to `start` fits `room`; inside a very long turn, its tokens."""
    starts = [encoded.opening, *encoded.turn_ends[:-1]]
    fallback = start if start in starts else max(encoded.opening, start - room)
    return next((at for at in starts if at <= start and start - at <= room), fallback)
