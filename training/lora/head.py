"""The output head and its loss, computed only at supervised positions.

With a vocabulary of 262,144, the head costs more per token than the whole body of a small model, and in a chat most
positions carry no loss. So the head is computed at supervised positions only, one block of the vocabulary at a time
with a running softmax normaliser. The gradient of the hidden states is computed in the same pass: logits are never
stored for backward and never recomputed. The head itself is frozen (the adapter is in the body) and needs no gradient.
"""

from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from training.lora.cpu_kernels.functions import view
from training.lora.cpu_kernels.kernels import online_exp
from training.lora.cpu_kernels.shapes import missing_rows

BLOCK_BYTES = 1 << 26
"""The largest block of logits in memory: 64 MiB, unless `MIN_COLUMNS` of the vocabulary take more."""
MIN_COLUMNS = 1024

_LOWEST = -3e38  # below every logit, and still finite


class SupervisedHead(torch.autograd.Function):
    """Cross-entropy of `hidden @ weight.T` against `targets`, differentiable in `hidden` only."""

    @staticmethod
    def forward(  # noqa: PLR0917  # autograd passes arguments by position
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        targets: torch.Tensor,
        softcap: float | None,
        bias: torch.Tensor | None,
    ) -> torch.Tensor:
        """Computes the loss of each row.

        Args:
            ctx: autograd's context.
            hidden: (N, D) hidden states at the supervised positions, any float dtype.
            weight: (V, D) head weight in the same dtype, frozen.
            targets: (N,) int64 ids of the tokens to predict.
            softcap: c in `c · tanh(logits / c)`, for models that cap their logits.
            bias: (V,) added to the capped logits, 0 at the targets; None for none.

        Returns:
            (N,) float32 negative log-likelihoods in nats.
        """
        rows = hidden.shape[0]
        total = torch.zeros(rows, device=hidden.device)
        largest, target_logits = torch.full_like(total, _LOWEST), torch.zeros_like(total)
        # the gradient of a row is the expected head weight under the softmax, less the weight of its target
        expected = torch.zeros(hidden.shape, device=hidden.device) if hidden.requires_grad else None
        target_weight = weight[targets]
        columns = max(MIN_COLUMNS, BLOCK_BYTES // (max(1, rows) * weight.element_size()))
        for start in range(0, weight.shape[0], columns):
            block = weight[start : start + columns]
            logits = hidden @ block.T
            slope = None if softcap is None else _cap(logits, softcap)
            column = targets - start
            is_inside = (column >= 0) & (column < block.shape[0])
            block_logits = logits.gather(1, column.where(is_inside, 0)[:, None])[:, 0].float()
            target_logits = torch.where(is_inside, block_logits, target_logits)
            if slope is not None:
                target_slope = slope.gather(1, column.where(is_inside, 0)[:, None])
                target_weight = torch.where(is_inside[:, None], target_weight * target_slope, target_weight)
            if bias is not None:
                logits += bias[start : start + columns]
            rescale = _exponentiate(logits, largest, total)
            if expected is not None:
                probabilities = logits if slope is None else logits.mul_(slope)
                expected.mul_(rescale[:, None]).add_(probabilities @ block)
        if expected is not None:
            ctx.save_for_backward(expected.div_(total[:, None]).sub_(target_weight).to(hidden.dtype))
        return total.log_().add_(largest).sub_(target_logits)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, None, None, None, None]:
        """Scales each row's gradient by the gradient of its loss."""
        (gradient,) = ctx.saved_tensors
        return gradient * upstream.to(gradient.dtype)[:, None], None, None, None, None


def supervised_losses(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    softcap: float | None = None,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """Negative log-likelihood of each target in nats; see `SupervisedHead.forward` for shapes."""
    rows = len(targets)
    missing = missing_rows(rows, hidden.dtype, hidden.device)
    hidden, targets = pad(hidden, (0, 0, 0, missing)), pad(targets, (0, missing))
    losses: torch.Tensor = SupervisedHead.apply(hidden, weight, targets, softcap, bias)  # type: ignore[no-untyped-call]
    return losses[:rows]


def _cap(logits: torch.Tensor, softcap: float) -> torch.Tensor:
    """Caps logits in place and returns the derivative of the cap at each, both (N, C)."""
    logits.div_(softcap).tanh_()
    slope = 1 - logits.square()
    logits.mul_(softcap)
    return slope


def _exponentiate(logits: torch.Tensor, largest: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
    """`online_exp` on any device: updates logits (N, C), largest and total (N,) in place, returns the rescale (N,)."""
    if logits.device.type == "cpu" and logits.dtype in (torch.float32, torch.bfloat16):
        rescale = torch.empty_like(total)
        online_exp(view(logits), view(largest), view(total), view(rescale))
        return rescale
    new_largest = torch.maximum(largest, logits.amax(-1).float())
    rescale = (largest - new_largest).exp_()
    logits.sub_(new_largest[:, None]).exp_()
    total.mul_(rescale).add_(logits.sum(-1, dtype=torch.float32))
    largest.copy_(new_largest)
    return rescale
