"""The kernels as autograd functions, on CPU tensors of any leading shape."""

from typing import Any

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from training.lora.cpu_kernels import kernels


def view(tensor: torch.Tensor) -> Any:
    """A tensor's memory as the NumPy array that kernels take: bfloat16 as uint16, float32 unchanged."""
    tensor = tensor.detach()
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


class RMSNorm(torch.autograd.Function):
    """`x / rms(x) * weight` over the last dimension, differentiable in x; the weight is frozen."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        """x: (..., D). weight: (D,) float32, the factor. epsilon: added to the mean square."""
        rows = x.reshape(-1, x.shape[-1]).contiguous()
        out = torch.empty_like(rows)
        scale = torch.empty(rows.shape[0])
        kernels.rms_norm(view(rows), view(weight), np.float32(epsilon), view(out), view(scale))
        ctx.save_for_backward(rows, weight, scale)
        return out.view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        """The gradient of x."""
        rows, weight, scale = ctx.saved_tensors
        gradient = gradient.contiguous()
        out = torch.empty_like(rows)
        kernels.rms_norm_backward(view(gradient.view(rows.shape)), view(rows), view(weight), view(scale), view(out))
        return out.view(gradient.shape), None, None


_PRODUCTS = {
    "gelu": (kernels.gelu_product, kernels.gelu_product_backward),
    "silu": (kernels.silu_product, kernels.silu_product_backward),
}


class GatedProduct(torch.autograd.Function):
    """`activation(gate) * up` with activation `gelu` (tanh form) or `silu`."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor, activation: str) -> torch.Tensor:
        """gate, up: (..., D) of one shape and dtype."""
        gate, up = gate.contiguous(), up.contiguous()
        out = torch.empty_like(gate)
        width = gate.shape[-1]
        _PRODUCTS[activation][0](view(gate.view(-1, width)), view(up.view(-1, width)), view(out.view(-1, width)))
        ctx.save_for_backward(gate, up)
        ctx.activation = activation
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        """The gradients of gate and up."""
        gate, up = ctx.saved_tensors
        grad_gate, grad_up = torch.empty_like(gate), torch.empty_like(up)
        flat = [
            view(tensor.reshape(-1, gate.shape[-1])) for tensor in (gradient.contiguous(), gate, up, grad_gate, grad_up)
        ]
        _PRODUCTS[ctx.activation][1](*flat)
        return grad_gate, grad_up, None


class Rotation(torch.autograd.Function):
    """Rotary position embedding of one tensor of heads; positions get no gradient."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        """Args: x (B, H, T, D); cos, sin (B or 1, T, D), of x's dtype. Returns (B, H, T, D), stored (B, T, H, D)."""
        batch, _, length, width = x.shape
        cos, sin = (angles.expand(batch, length, width).reshape(-1, width).contiguous() for angles in (cos, sin))
        ctx.save_for_backward(cos, sin)
        return _rotated(x, cos, sin, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        """The gradient, rotated back."""
        cos, sin = ctx.saved_tensors
        return _rotated(gradient, cos, sin, -1), None, None


def _rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, sign: int) -> torch.Tensor:
    batch, heads, length, width = x.shape
    rows = x.transpose(1, 2).contiguous()
    out = torch.empty_like(rows)
    flat = (batch * length, heads, width)
    kernels.rotate(view(rows.view(flat)), view(cos), view(sin), np.float32(sign), view(out.view(flat)))
    return out.transpose(1, 2)


class LoraLinear(torch.autograd.Function):
    """`x @ weight.T + bias + scaling * (x @ a.T) @ b.T` with a frozen weight, summed in place."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        a: torch.Tensor,
        b: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        """x: (..., D). weight: (E, D). bias: (E,) or None. a: (R, D). b: (E, R), all of one dtype."""
        rows = x.reshape(-1, x.shape[-1])
        low = rows @ a.T
        out = rows @ weight.T if bias is None else torch.addmm(bias, rows, weight.T)
        out.addmm_(low, b.T, alpha=scaling)
        ctx.save_for_backward(rows, weight, a, b, low)
        ctx.scaling = scaling
        return out.view(*x.shape[:-1], weight.shape[0])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """The gradients of x, a and b."""
        rows, weight, a, b, low = ctx.saved_tensors
        flat = gradient.reshape(-1, weight.shape[0])
        grad_low = (flat @ b).mul_(ctx.scaling)
        grad_b = (flat.T @ low).mul_(ctx.scaling)
        grad_a = grad_low.T @ rows
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = (flat @ weight).addmm_(grad_low, a).view(*gradient.shape[:-1], weight.shape[1])
        return grad_x, None, None, grad_a, grad_b, None
