"""The output head and its loss, only where there is something to learn.

With a vocabulary of 262,144 one token's head costs more than the whole body of a small model, and in a chat
most positions carry no loss. So the head is computed at supervised positions only, a block of the vocabulary
at a time, with the softmax's normaliser growing from block to block, and the gradient of the hidden states is
taken in the same pass: logits are never stored for backward and never recomputed. The head itself is frozen
(the adapter is in the body), so it needs no gradient. Knows tensors; knows no model.
"""

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from training.lora.cpu_kernels.functions import view
from training.lora.cpu_kernels.kernels import online_exp

BLOCK_BYTES = 1 << 26
"""Largest block of logits held at once: 64 MiB, unless `FEWEST_COLUMNS` of the vocabulary take more."""
FEWEST_COLUMNS = 1024

_LEAST = -3e38  # below every logit, and still a number


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
        rows = hidden.shape[0]
        total = torch.zeros(rows, device=hidden.device)
        largest, chosen = torch.full_like(total, _LEAST), torch.zeros_like(total)
        expected = torch.zeros(hidden.shape, device=hidden.device) if hidden.requires_grad else None
        wanted = weight[targets]
        columns = max(FEWEST_COLUMNS, BLOCK_BYTES // (max(1, rows) * weight.element_size()))
        for start in range(0, weight.shape[0], columns):
            part = weight[start : start + columns]
            logits = hidden @ part.T
            slope = None if softcap is None else _cap(logits, softcap)
            at = targets - start
            inside = (at >= 0) & (at < part.shape[0])
            chosen = torch.where(inside, logits.gather(1, at.where(inside, 0)[:, None])[:, 0].float(), chosen)
            if slope is not None:
                picked = slope.gather(1, at.where(inside, 0)[:, None])
                wanted = torch.where(inside[:, None], wanted * picked, wanted)
            shrink = _exponentiate(logits, largest, total)
            if expected is not None:
                weights = logits if slope is None else logits.mul_(slope)
                expected.mul_(shrink[:, None]).add_(weights @ part)
        if expected is not None:
            ctx.save_for_backward(expected.div_(total[:, None]).sub_(wanted).to(hidden.dtype))
        return total.log_().add_(largest).sub_(chosen)

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


def _cap(logits: torch.Tensor, softcap: float) -> torch.Tensor:
    """Caps logits in place and returns the slope of the cap at each, both (N, C)."""
    logits.div_(softcap).tanh_()
    slope = 1 - logits.square()
    logits.mul_(softcap)
    return slope


def _exponentiate(logits: torch.Tensor, largest: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
    """`online_exp` on any device: logits (N, C) in place, statistics (N,) updated; returns the factor (N,)."""
    if logits.device.type == "cpu" and logits.dtype in (torch.float32, torch.bfloat16):
        shrink = torch.empty_like(total)
        online_exp(view(logits), view(largest), view(total), view(shrink))
        return shrink
    best = torch.maximum(largest, logits.amax(-1).float())
    shrink = (largest - best).exp_()
    logits.sub_(best[:, None]).exp_()
    total.mul_(shrink).add_(logits.sum(-1, dtype=torch.float32))
    largest.copy_(best)
    return shrink
