"""Causal attention over sequences laid end to end, on a CPU: each sees itself only, and nothing is padded.

Queries that share a key head are one matrix with their keys, a block of positions at a time, so that what
lies after a position, or before its window, is mostly not computed.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from training.lora.cpu_kernels import kernels
from training.lora.cpu_kernels.functions import view

_BLOCK = 256  # positions: the scores of a block stay in the cache


class PackedAttention(torch.autograd.Function):
    """`softmax(factor * q @ k.T) @ v` of several sequences in one row."""

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        lengths: Sequence[int],
        factor: float,
        window: int | None,
    ) -> torch.Tensor:
        """Attention.

        Args:
            ctx: autograd's context.
            query: (1, H, N, D). key, value: (1, K, N, D), where K divides H.
            lengths: of the sequences, N in all.
            factor: of the scores.
            window: how many positions, itself included, a position sees; None for all before it.

        Returns:
            (1, N, H, D).
        """
        q, k, v = (one[0].transpose(0, 1).contiguous() for one in (query, key, value))
        out = torch.empty_like(q)
        ctx.window = window = window or max(lengths)
        ctx.factor, ctx.lengths = factor, lengths
        saved = []
        for rows, columns, keys, heads, first in _blocks(lengths, window, q, k):
            scores = _flat(q[rows, heads]) @ k[columns, keys].T
            share = heads.stop - heads.start
            kernels.causal_softmax(view(scores), share, first, window, np.float32(factor))
            out[rows, heads] = (scores @ v[columns, keys]).view(-1, share, q.shape[-1])
            saved.append(scores)
        ctx.save_for_backward(q, k, v, *saved)
        return out[None]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """The gradients of query, key and value."""
        q, k, v, *saved = ctx.saved_tensors
        given = gradient[0].contiguous()
        to_q, to_k, to_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        blocks = _blocks(ctx.lengths, ctx.window, q, k)
        for (rows, columns, keys, heads, first), weights in zip(blocks, saved, strict=True):
            share = heads.stop - heads.start
            part = _flat(given[rows, heads])
            to_scores = part @ v[columns, keys].T
            kernels.causal_softmax_backward(
                view(weights), view(to_scores), share, first, ctx.window, np.float32(ctx.factor)
            )
            to_q[rows, heads] = (to_scores @ k[columns, keys]).view(-1, share, q.shape[-1])
            to_k[columns, keys] += to_scores.T @ _flat(q[rows, heads])
            to_v[columns, keys] += weights.T @ part
        return *(one.transpose(0, 1)[None] for one in (to_q, to_k, to_v)), None, None, None


def _blocks(
    lengths: Sequence[int], window: int, q: torch.Tensor, k: torch.Tensor
) -> Iterator[tuple[slice, slice, int, slice, int]]:
    """(positions, positions they may see, key head, its query heads, first of the positions among the seen)."""
    share = q.shape[1] // k.shape[1]
    begin = 0
    for length in lengths:
        for start in range(begin, begin + length, _BLOCK):
            end = min(start + _BLOCK, begin + length)
            seen = max(begin, start - window + 1)
            for keys in range(k.shape[1]):
                yield slice(start, end), slice(seen, end), keys, slice(keys * share, (keys + 1) * share), start - seen
        begin += length


def _flat(heads: torch.Tensor) -> torch.Tensor:
    """(L, G, D) as (L · G, D)."""
    return heads.reshape(-1, heads.shape[-1])
