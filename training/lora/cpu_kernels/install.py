"""Puts the fast functions into a model that is to be trained.

A module is replaced only if its fast form gives what the module gives, tried on random numbers; what is not
known stays as it is. So every model may be handed in, and the worst that happens is that nothing changes.
"""

import sys
from collections.abc import Callable
from typing import Any

import torch
from peft.tuners.lora import Linear as PeftLinear
from torch import nn

from training.lora.cpu_kernels.functions import GatedProduct, LoraLinear, RMSNorm, Rotation
from training.lora.threads import use_threads

_DTYPES = (torch.float32, torch.bfloat16)
_ROTARY, _MARK = "apply_rotary_pos_emb", "is_fast"


def accelerate(model: nn.Module) -> None:
    """Lets a model's norms, gated units, rotations and LoRA layers run as one pass each, from now on.

    Does nothing off the CPU, or for weights that are neither float32 nor bfloat16; what it did before stays.
    The rotation is a function of the model's code, so that other models of the family in this process get it too.
    """
    first = next(model.parameters())
    if first.device.type != "cpu" or first.dtype not in _DTYPES:
        return
    use_threads(torch.get_num_threads())
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if "forward" not in vars(module):
            forward = _norm(module, generator) or _gated(module, generator) or _lora(module)
            if forward is not None:
                module.forward = forward
    for code in {type(module).__module__ for module in model.modules()}:
        _turn(sys.modules[code], generator)


def _norm(module: nn.Module, generator: torch.Generator) -> Callable[..., torch.Tensor] | None:
    epsilon = getattr(module, "eps", None) or getattr(module, "variance_epsilon", None)
    weight = getattr(module, "weight", None)
    if not type(module).__name__.endswith("RMSNorm") or epsilon is None or weight is None or weight.requires_grad:
        return None
    x = torch.randn(3, len(weight), generator=generator).to(weight.dtype)
    for factor in (weight.detach().float(), weight.detach().float() + 1):  # Gemma keeps the weight less one

        def forward(hidden_states: torch.Tensor, factor: torch.Tensor = factor) -> torch.Tensor:
            return RMSNorm.apply(hidden_states, factor, epsilon)  # type: ignore[no-any-return, no-untyped-call]

        if _alike(forward(x), module(x)):
            return forward
    return None


def _gated(module: nn.Module, generator: torch.Generator) -> Callable[..., torch.Tensor] | None:
    parts = [getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj", "act_fn")]
    gate, up, down, activation = parts
    if gate is None or up is None or down is None or activation is None:
        return None
    dtype = next(module.parameters()).dtype
    if dtype not in _DTYPES:  # quantised
        return None
    x = torch.randn(2, 64, generator=generator).to(dtype)
    for name in ("gelu", "silu"):
        if _alike(GatedProduct.apply(x, x, name), activation(x) * x):  # type: ignore[no-untyped-call]

            def forward(x: torch.Tensor, name: str = name) -> torch.Tensor:
                return down(GatedProduct.apply(gate(x), up(x), name))  # type: ignore[no-any-return, no-untyped-call]

            return forward
    return None


def _lora(module: nn.Module) -> Callable[..., torch.Tensor] | None:
    if type(module) is not PeftLinear or type(module.base_layer) is not nn.Linear:
        return None
    original, base = module.forward, module.base_layer

    def forward(x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        active = module.active_adapters
        plain = len(active) == 1 and active[0] in module.lora_A and active[0] not in module.lora_variant
        if args or kwargs or not plain or module.disable_adapters or module.merged:
            return original(x, *args, **kwargs)
        name = active[0]
        a, b = module.lora_A[name].weight, module.lora_B[name].weight
        if a.dtype != x.dtype or not isinstance(module.lora_dropout[name], nn.Identity):
            return original(x)
        out: torch.Tensor = LoraLinear.apply(x, base.weight, base.bias, a, b, module.scaling[name])  # type: ignore[no-untyped-call]
        return out

    return forward


def _turn(code: Any, generator: torch.Generator) -> None:
    """Replaces a modeling module's rotation of queries and keys, if it is the usual one of halves."""
    original = getattr(code, _ROTARY, None)
    if original is None or hasattr(original, _MARK):
        return

    def rotate(
        q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, unsqueeze_dim: int = 1
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if unsqueeze_dim != 1 or q.device.type != "cpu" or q.dtype not in _DTYPES or cos.dtype != q.dtype:
            result: tuple[torch.Tensor, torch.Tensor] = original(q, k, cos, sin, unsqueeze_dim=unsqueeze_dim)
            return result
        return Rotation.apply(q, cos, sin), Rotation.apply(k, cos, sin)  # type: ignore[no-untyped-call]

    q, k = (torch.randn(1, heads, 3, 8, generator=generator) for heads in (2, 1))
    angle = torch.rand(1, 3, 4, generator=generator).repeat(1, 1, 2)
    try:
        expected = original(q, k, angle.cos(), angle.sin())
    except (RuntimeError, TypeError, ValueError):
        return
    got = rotate(q, k, angle.cos(), angle.sin())
    if all(_alike(one, other) for one, other in zip(got, expected, strict=True)):
        setattr(rotate, _MARK, True)
        setattr(code, _ROTARY, rotate)


def _alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    tolerance = 1e-5 if one.dtype == torch.float32 else 2e-2
    return one.shape == other.shape and torch.allclose(one, other, rtol=tolerance, atol=tolerance)
