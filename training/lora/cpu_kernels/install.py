"""Installs the CPU kernels in a model before training.

A module's forward is replaced only if the replacement gives the same result on random numbers, so it is safe to call
this on any model: what is not recognised stays unchanged.
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
_ROTATION, _INSTALLED = "apply_rotary_pos_emb", "is_accelerated"


def accelerate(model: nn.Module) -> None:
    """Makes a model's norms, gated units, rotary embeddings and LoRA layers run in one pass each.

    On a GPU that is done for LoRA layers only (`training.lora.gpu_kernels` has the others). Does nothing on a CPU for a
    model whose weights are neither float32 nor bfloat16. May be called again after an adapter was added. The rotary
    embedding is a function of the model's module, so the replacement applies to all models of that family in this
    process.
    """
    parameter = next(model.parameters())
    if parameter.device.type == "cuda":
        _replace_forward(model, _fast_lora)
        return
    if parameter.device.type != "cpu" or parameter.dtype not in _DTYPES:
        return
    use_threads(torch.get_num_threads())
    generator = torch.Generator().manual_seed(0)
    _replace_forward(
        model, lambda module: _fast_norm(module, generator) or _fast_gate(module, generator) or _fast_lora(module)
    )
    for name in {type(module).__module__ for module in model.modules()}:
        _replace_rotation(sys.modules[name], generator)


def _replace_forward(model: nn.Module, fast: Callable[[nn.Module], Callable[..., torch.Tensor] | None]) -> None:
    """Gives each module that has not got one yet the faster forward, if there is one for it."""
    for module in model.modules():
        if "forward" not in vars(module) and (forward := fast(module)) is not None:
            module.forward = forward


def _fast_norm(module: nn.Module, generator: torch.Generator) -> Callable[..., torch.Tensor] | None:
    epsilon = getattr(module, "eps", None) or getattr(module, "variance_epsilon", None)
    weight = getattr(module, "weight", None)
    if not type(module).__name__.endswith("RMSNorm") or epsilon is None or weight is None or weight.requires_grad:
        return None
    x = torch.randn(3, len(weight), generator=generator).to(weight.dtype)
    for factor in (weight.detach().float(), weight.detach().float() + 1):  # Gemma stores the weight minus one

        def forward(hidden_states: torch.Tensor, factor: torch.Tensor = factor) -> torch.Tensor:
            return RMSNorm.apply(hidden_states, factor, epsilon)  # type: ignore[no-any-return, no-untyped-call]

        if _is_close(forward(x), module(x)):
            return forward
    return None


def _fast_gate(module: nn.Module, generator: torch.Generator) -> Callable[..., torch.Tensor] | None:
    names = ("gate_proj", "up_proj", "down_proj", "act_fn")
    gate, up, down, activation = (getattr(module, name, None) for name in names)
    if gate is None or up is None or down is None or activation is None:
        return None
    dtype = next(module.parameters()).dtype
    if dtype not in _DTYPES:  # the layer is quantised
        return None
    x = torch.randn(2, 64, generator=generator).to(dtype)
    for name in ("gelu", "silu"):
        if _is_close(GatedProduct.apply(x, x, name), activation(x) * x):  # type: ignore[no-untyped-call]

            def forward(x: torch.Tensor, name: str = name) -> torch.Tensor:
                return down(GatedProduct.apply(gate(x), up(x), name))  # type: ignore[no-any-return, no-untyped-call]

            return forward
    return None


def _fast_lora(module: nn.Module) -> Callable[..., torch.Tensor] | None:
    if type(module) is not PeftLinear or type(module.base_layer) is not nn.Linear:
        return None
    original, base = module.forward, module.base_layer

    def forward(x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        active = module.active_adapters
        is_plain = len(active) == 1 and active[0] in module.lora_A and active[0] not in module.lora_variant
        if args or kwargs or not is_plain or module.disable_adapters or module.merged:
            return original(x, *args, **kwargs)
        name = active[0]
        a, b = module.lora_A[name].weight, module.lora_B[name].weight
        if a.dtype != x.dtype or not isinstance(module.lora_dropout[name], nn.Identity):
            return original(x)
        out: torch.Tensor = LoraLinear.apply(x, base.weight, base.bias, a, b, module.scaling[name])  # type: ignore[no-untyped-call]
        return out

    return forward


def _replace_rotation(model_code: Any, generator: torch.Generator) -> None:
    """Replaces the rotary embedding of a transformers modeling module, if it is the usual one that rotates halves."""
    original = getattr(model_code, _ROTATION, None)
    if original is None or hasattr(original, _INSTALLED):
        return

    def rotate(
        q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, unsqueeze_dim: int = 1
    ) -> tuple[torch.Tensor, torch.Tensor]:
        is_plain = unsqueeze_dim == 1 and q.device.type == "cpu" and q.dtype in _DTYPES and cos.dtype == q.dtype
        if not is_plain or cos.shape[-1] != q.shape[-1]:  # some families rotate a part of each head only
            result: tuple[torch.Tensor, torch.Tensor] = original(q, k, cos, sin, unsqueeze_dim=unsqueeze_dim)
            return result
        return Rotation.apply(q, cos, sin), Rotation.apply(k, cos, sin)  # type: ignore[no-untyped-call]

    q, k = (torch.randn(1, heads, 3, 8, generator=generator) for heads in (2, 1))
    angle = torch.rand(1, 3, 4, generator=generator).repeat(1, 1, 2)
    try:
        expected = original(q, k, angle.cos(), angle.sin())
    except (RuntimeError, TypeError, ValueError):
        return
    actual = rotate(q, k, angle.cos(), angle.sin())
    if all(_is_close(*pair) for pair in zip(actual, expected, strict=True)):
        setattr(rotate, _INSTALLED, True)
        setattr(model_code, _ROTATION, rotate)


def _is_close(actual: torch.Tensor, expected: torch.Tensor) -> bool:
    tolerance = 1e-5 if actual.dtype == torch.float32 else 2e-2
    return actual.shape == expected.shape and torch.allclose(actual, expected, rtol=tolerance, atol=tolerance)
