"""Turns sessions into training examples, and examples into optimizer steps of evenly filled micro-batches.

A session becomes one sequence with loss on the persona's turns only. A session longer than the limit is cut at turn
ends; each piece repeats the header and some earlier turns as context without loss, so that no text is truncated and
none is learned twice.
"""

import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import msgspec
import torch

from doppel.transcript import NO_LOSS, Encoded, Transcript
from training.dataset.files import Session

Item = TypeVar("Item")

CONTEXT_SHARE = 0.25
"""The largest part of a piece's length that repeated context may take."""


class Example(msgspec.Struct, frozen=True):
    """A sequence to train or score on.

    Attributes:
        ids: token ids, length T.
        loss_mask: length T, as in `Encoded`.
        text_bytes: UTF-8 bytes of the text where `loss_mask` is `TEXT_LOSS`.
    """

    ids: list[int]
    loss_mask: list[int]
    text_bytes: int

    @property
    def supervised(self) -> int:
        """The number of tokens with loss; the first token of a sequence never has one."""
        return sum(loss > NO_LOSS for loss in self.loss_mask[1:])


class MicroBatch(msgspec.Struct, frozen=True):
    """Sequences laid end to end, N tokens in all, S of them with loss.

    Attributes:
        ids: (N,) int64.
        positions: (N,) int64, counted from the start of each sequence.
        targets: (S,) int64, indices of the tokens with loss.
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


def make_examples(sessions: Iterable[Session], transcript: Transcript, max_length: int) -> list[Example]:
    """Each session as one or more examples of at most `max_length` tokens, in the given order."""
    return [
        example
        for session in sessions
        for example in cut(transcript.encode(session.header, session.turns), max_length)
        if example.supervised
    ]


def cut(encoded: Encoded, max_length: int) -> list[Example]:
    """Cuts a session into pieces of at most `max_length` tokens, each supervised token in exactly one of them."""
    if len(encoded.ids) <= max_length:
        return [Example(encoded.ids, encoded.loss_mask, encoded.text_bytes)]
    room = max_length - encoded.opening
    spans = _spans(encoded, room - int(room * CONTEXT_SHARE))
    return [_piece(encoded, span, _context_start(encoded, span[0], room - (span[1] - span[0]))) for span in spans]


def cut_at_random(encoded: Encoded, max_length: int, draw: random.Random) -> list[Example]:
    """Cuts a session as `cut` does, but at other turns each time, and without repeating any context.

    What a reply has before it is then now little and now much, and no token is computed twice.
    """
    if len(encoded.ids) <= max_length:
        return [Example(encoded.ids, encoded.loss_mask, encoded.text_bytes)]
    room = max_length - encoded.opening
    return [_piece(encoded, span, span[0]) for span in _spans(encoded, room, draw.randint(1, room))]


def _piece(encoded: Encoded, span: tuple[int, int, int], context: int) -> Example:
    """The header, the tokens from `context` on without loss, and a span (start, end, text bytes) with its own."""
    start, end, text_bytes = span
    return Example(
        encoded.ids[: encoded.opening] + encoded.ids[context:end],
        [NO_LOSS] * (encoded.opening + start - context) + encoded.loss_mask[start:end],
        text_bytes,
    )


def plan_steps(examples: Iterable[Example], per_step: int, tokens_per_batch: int) -> Iterator[Step]:
    """The examples in their order, `per_step` to an optimizer step, in micro-batches of about equal length."""
    remaining = iter(examples)
    while chosen := list(islice(remaining, per_step)):
        yield micro_batches(chosen, tokens_per_batch)


def micro_batches(examples: Sequence[Example], tokens_per_batch: int) -> list[list[Example]]:
    """Groups of at most `tokens_per_batch` tokens, about equally full; a longer example gets a group of its own."""
    total = count_tokens(examples)
    groups = balanced_groups(examples, max(1, -(-total // tokens_per_batch)), max_weight=tokens_per_batch)
    return [group for group in groups if group]


def balanced_groups(
    examples: Sequence[Example],
    count: int,
    weight_of: Callable[[Example], float] = lambda example: len(example.ids),
    max_weight: float = math.inf,
) -> list[list[Example]]:
    """Divides the examples into `count` groups of about the same weight; with too few examples some stay empty.

    Starts a further group wherever an example would make one heavier than `max_weight`.
    """
    groups: list[list[Example]] = [[] for _ in range(count)]
    weights = [0.0] * count
    for example in sorted(examples, key=weight_of, reverse=True):
        # longest processing time first: the heaviest item goes to the lightest group (Graham 1969)
        lightest = weights.index(min(weights))
        if weights[lightest] and weights[lightest] + weight_of(example) > max_weight:
            lightest = len(groups)
            groups.append([])
            weights.append(0.0)
        groups[lightest].append(example)
        weights[lightest] += weight_of(example)
    return groups


def collate(group: Sequence[Example]) -> MicroBatch:
    """Lays the examples of a micro-batch end to end."""
    lengths = [len(example.ids) for example in group]
    loss_mask = torch.tensor([loss for example in group for loss in (NO_LOSS, *example.loss_mask[1:])])
    targets = loss_mask.nonzero()[:, 0]
    return MicroBatch(
        ids=torch.tensor([token for example in group for token in example.ids]),
        positions=torch.cat([torch.arange(length) for length in lengths]),
        targets=targets,
        loss_mask=loss_mask[targets],
        lengths=lengths,
    )


def count_tokens(examples: Iterable[Example]) -> int:
    """The number of tokens in all the examples."""
    return sum(len(example.ids) for example in examples)


def first_tokens(examples: Sequence[Example], tokens: int) -> list[Example]:
    """The first examples that have at least `tokens` tokens in all, or every one; never none of them."""
    chosen: list[Example] = []
    for example in examples:
        if chosen and count_tokens(chosen) >= tokens:
            break
        chosen.append(example)
    return chosen


def spread_sample(examples: Sequence[Example], tokens: int) -> list[Example]:
    """A fixed sample of about `tokens` tokens, spread evenly over the sequence; everything if that is less."""
    return sample_by_size(examples, tokens, lambda example: len(example.ids))


def sample_by_size(items: Sequence[Item], size: int, size_of: Callable[[Item], int]) -> list[Item]:
    """A fixed sample of items of about `size` in all, spread evenly over the sequence; every one if that is less."""
    total = sum(map(size_of, items))
    if total <= size:
        return list(items)
    share, owed, chosen = size / total, 0.0, []
    for item in items:
        owed += share
        if owed >= 1:
            owed -= 1
            chosen.append(item)
    return chosen or list(items[:1])


def sample_evenly(items: Sequence[Item], count: int) -> list[Item]:
    """At most `count` of the items, evenly spaced."""
    if len(items) <= count:
        return list(items)
    return [items[index * len(items) // count] for index in range(count)]


def _spans(encoded: Encoded, room: int, first_room: int | None = None) -> list[tuple[int, int, int]]:
    """(start, end, text bytes) of pieces of at most `room` tokens: whole turns, or parts of one very long turn.

    The first piece has at most `first_room` tokens, unless its first turn is longer.
    """
    spans: list[tuple[int, int, int]] = []
    start = encoded.opening
    for end, text_bytes in zip(encoded.turn_ends, encoded.turn_bytes, strict=True):
        limit = first_room if first_room is not None and len(spans) == 1 else room
        if spans and end - spans[-1][0] <= limit:
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
    """The earliest turn start from which the tokens up to `start` fit into `room`; any token inside a long turn."""
    starts = [encoded.opening, *encoded.turn_ends[:-1]]
    fallback = start if start in starts else max(encoded.opening, start - room)
    return next((at for at in starts if at <= start and start - at <= room), fallback)
