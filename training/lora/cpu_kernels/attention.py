"""Causal attention over packed sequences on a CPU: each attends to itself only, and nothing is padded.

The queries that share a key head are multiplied as one matrix, a block of positions at a time, so that most of what a
position must not see is never computed.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from training.lora.cpu_kernels import kernels
from training.lora.cpu_kernels.functions import view
from training.lora.cpu_kernels.shapes import missing_rows

_BLOCK = 256  # positions; keeps the scores of a block in the cache


class PackedAttention(torch.autograd.Function):
    """`softmax(factor * q @ k.T) @ v` of several sequences packed into one row."""

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
        """Computes the attention.

        Args:
            ctx: autograd's context.
            query: (1, H, N, D). key, value: (1, K, N, D), where K divides H.
            lengths: of the sequences, N in all.
            factor: of the scores.
            window: how many positions a position sees, itself included; None for all before it.

        Returns:
            (1, N, H, D).
        """
        ctx.layout = layout = _Layout(lengths, query)
        q, k, v = (layout.spread(tensor[0].transpose(0, 1)) for tensor in (query, key, value))
        out = torch.empty_like(q)
        ctx.window = window = window or max(lengths)
        ctx.factor = factor
        saved = []
        for rows, columns, keys, heads, first in _blocks(layout.spread_lengths, window, q, k):
            scores = _flat(q[rows, heads]) @ k[columns, keys].T
            group = heads.stop - heads.start
            kernels.causal_softmax(view(scores), group, first, window, np.float32(factor))
            out[rows, heads] = (scores @ v[columns, keys]).view(-1, group, q.shape[-1])
            saved.append(scores)
        ctx.save_for_backward(q, k, v, *saved)
        return layout.gather(out)[None]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """The gradients of query, key and value."""
        q, k, v, *saved = ctx.saved_tensors
        upstream = ctx.layout.spread(gradient[0])
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        blocks = _blocks(ctx.layout.spread_lengths, ctx.window, q, k)
        for (rows, columns, keys, heads, first), weights in zip(blocks, saved, strict=True):
            group = heads.stop - heads.start
            block = _flat(upstream[rows, heads])
            grad_scores = block @ v[columns, keys].T
            kernels.causal_softmax_backward(
                view(weights), view(grad_scores), group, first, ctx.window, np.float32(ctx.factor)
            )
            grad_q[rows, heads] = (grad_scores @ k[columns, keys]).view(-1, group, q.shape[-1])
            grad_k[columns, keys] += grad_scores.T @ _flat(q[rows, heads])
            grad_v[columns, keys] += weights.T @ block
        gradients = (ctx.layout.gather(grad).transpose(0, 1)[None] for grad in (grad_q, grad_k, grad_v))
        return *gradients, None, None, None


class _Layout:
    """Where the sequences lie while attention is computed: each begins at a multiple of the rows that kernels are for.

    The rows added after a sequence are seen by none of its positions, and their gradients are zero.
    """

    def __init__(self, lengths: Sequence[int], like: torch.Tensor) -> None:
        self._lengths = lengths
        self._missing = [missing_rows(length, like.dtype, like.device) for length in lengths]
        self.spread_lengths = [length + missing for length, missing in zip(lengths, self._missing, strict=True)]

    def spread(self, packed: torch.Tensor) -> torch.Tensor:
        """(N, ...) as (M, ...), contiguous, where M is the sum of `spread_lengths`."""
        if not any(self._missing):
            return packed.contiguous()
        pieces = zip(packed.split(list(self._lengths)), self._missing, strict=True)
        return torch.cat([part for piece, rows in pieces for part in (piece, piece.new_zeros(rows, *piece.shape[1:]))])

    def gather(self, spread: torch.Tensor) -> torch.Tensor:
        """The inverse of `spread`."""
        if not any(self._missing):
            return spread
        pieces = zip(spread.split(self.spread_lengths), self._lengths, strict=True)
        return torch.cat([piece[:length] for piece, length in pieces])


def _blocks(
    lengths: Sequence[int], window: int, q: torch.Tensor, k: torch.Tensor
) -> Iterator[tuple[slice, slice, int, slice, int]]:
    """(rows, columns they see, key head, its query heads, index of the first row among the columns)."""
    group = q.shape[1] // k.shape[1]
    begin = 0
    for length in lengths:
        for start in range(begin, begin + length, _BLOCK):
            end = min(start + _BLOCK, begin + length)
            first = max(begin, start - window + 1)
            for keys in range(k.shape[1]):
                yield slice(start, end), slice(first, end), keys, slice(keys * group, (keys + 1) * group), start - first
        begin += length


def _flat(heads: torch.Tensor) -> torch.Tensor:
    """(L, G, D) as (L · G, D)."""
    return heads.reshape(-1, heads.shape[-1])
