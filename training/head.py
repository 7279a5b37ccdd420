"""The output head and its loss, only where there is something to learn.

With a vocabulary of 262,144 one token's head costs more than the whole body of a small model, and in a chat
most positions carry no loss. So the head is computed at supervised positions only, a tile of rows at a
time, and the gradient of the hidden states is taken in the same pass: logits are never stored for
backward and never recomputed. The head itself is frozen (the adapter is in the body), so it needs no
gradient. Knows tensors; knows no model.
"""

from typing import Any

import torch
from torch.autograd.function import once_differentiable

TILE_BYTES = 1 << 28
"""Largest block of logits held at once: 256 MiB."""


class SupervisedHead(torch.autograd.Function):
    """Cross-entropy of `hidden @ weight.T` against `targets`, differentiable in `hidden` only."""

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, softcap: float | None
    ) -> torch.Tensor:
        """Loss of every row.

        Args:
            ctx: autograd's context.
            hidden: (N, D) hidden states at the supervised positions, any float dtype.
            weight: (V, D) head weight in the same dtype, frozen.
            targets: (N,) int64 ids of the tokens to predict.
            softcap: c in `c · tanh(logits / c)`, for models that cap their logits.

        Returns:
            (N,) float32 negative log-likelihoods in nats.
        """
        rows = max(1, TILE_BYTES // (weight.shape[0] * weight.element_size()))
        losses = torch.empty(hidden.shape[0], dtype=torch.float32, device=hidden.device)
        gradient = torch.empty_like(hidden) if hidden.requires_grad else None
        for start in range(0, hidden.shape[0], rows):
            tile = slice(start, start + rows)
            losses[tile] = _tile(
                hidden[tile], weight, targets[tile], softcap, None if gradient is None else gradient[tile]
            )
        ctx.save_for_backward(gradient)
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, None, None, None]:
        """Scales each row's gradient by the gradient of its loss."""
        (gradient,) = ctx.saved_tensors
        return gradient * upstream.to(gradient.dtype)[:, None], None, None, None


def supervised_losses(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, softcap: float | None = None
) -> torch.Tensor:
    """Negative log-likelihood in nats of every target; see `SupervisedHead.forward` for shapes."""
    losses: torch.Tensor = SupervisedHead.apply(hidden, weight, targets, softcap)  # type: ignore[no-untyped-call]
    return losses


def _tile(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    softcap: float | None,
    gradient: torch.Tensor | None,
) -> torch.Tensor:
    """Losses of one tile (R,), float32; writes d loss / d hidden (R, D) into `gradient` when given."""
    logits = hidden @ weight.T
    slope = None
    if softcap is not None:
        logits = logits.div_(softcap).tanh_()
        slope = 1 - logits.square() if gradient is not None else None
        logits = logits.mul_(softcap)
    largest = logits.amax(-1, keepdim=True)
    chosen = logits.gather(-1, targets[:, None]) - largest
    weights = logits.sub_(largest).exp_()
    total = weights.sum(-1, keepdim=True, dtype=torch.float32)
    if gradient is not None:
        if slope is None:
            torch.mm(weights, weight, out=gradient)
            gradient.div_(total).sub_(weight[targets])
        else:
            error = weights.div_(total)
            error[torch.arange(len(targets), device=targets.device), targets] -= 1
            torch.mm(error.mul_(slope), weight, out=gradient)
    return (total.log() - chosen.float())[:, 0]
