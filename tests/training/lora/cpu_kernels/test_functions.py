"""Every fast function equals the same thing written in plain torch, values and gradients, in both dtypes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional

from training.lora.cpu_kernels.attention import PackedAttention
from training.lora.cpu_kernels.functions import GatedProduct, LoraLinear, RMSNorm, Rotation

Function = Callable[..., torch.Tensor]


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """What the function computes in; the comparison is with float64."""
    kind = request.param
    assert isinstance(kind, torch.dtype)
    return kind


def _compare(fast: Function, plain: Function, dtype: torch.dtype, *shapes: tuple[int, ...]) -> None:
    """Calls both with random tensors, backward too; relative errors must be the dtype's own."""
    torch.manual_seed(0)
    inputs = [torch.randn(shape).to(dtype) for shape in shapes]
    exact = [tensor.double().requires_grad_() for tensor in inputs]
    given = [tensor.requires_grad_() for tensor in inputs]
    got, expected = fast(*given), plain(*exact)
    upstream = torch.randn(expected.shape)
    got.backward(upstream.to(dtype))
    expected.backward(upstream.to(dtype).double())
    tolerance = 2e-6 if dtype == torch.float32 else 1e-2
    for actual, reference in [
        (got, expected),
        *((mine.grad, theirs.grad) for mine, theirs in zip(given, exact, strict=True)),
    ]:
        assert actual is not None
        assert reference is not None
        assert actual.dtype == dtype
        assert float((actual.detach().double() - reference.detach()).norm()) <= tolerance * float(
            reference.detach().norm()
        )


def test_rms_norm(dtype: torch.dtype) -> None:
    weight = torch.rand(48) + 0.5

    def plain(x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * weight

    _compare(lambda x: RMSNorm.apply(x, weight, 1e-6), plain, dtype, (2, 5, 48))


@pytest.mark.parametrize(
    ("name", "activation"),
    [("gelu", lambda x: functional.gelu(x, approximate="tanh")), ("silu", functional.silu)],
)
def test_gated_product(name: str, activation: Function, dtype: torch.dtype) -> None:
    _compare(
        lambda gate, up: GatedProduct.apply(gate * 3, up, name),
        lambda gate, up: activation(gate * 3) * up,
        dtype,
        (3, 7, 33),
        (3, 7, 33),
    )


@pytest.mark.parametrize("activation", ["gelu", "silu"])
def test_gated_product_far_from_zero(activation: str) -> None:
    gate = torch.tensor([[-1e4, -90.0, 0.0, 90.0, 1e4]], requires_grad=True)
    out = GatedProduct.apply(gate, torch.ones(1, 5), activation)
    out.sum().backward()
    torch.testing.assert_close(out.detach(), torch.tensor([[0.0, 0.0, 0.0, 90.0, 1e4]]))
    torch.testing.assert_close(gate.grad, torch.tensor([[0.0, 0.0, 0.5, 1.0, 1.0]]))


def test_rotation(dtype: torch.dtype) -> None:
    angle = torch.rand(1, 6, 4).repeat(1, 1, 2).to(dtype)
    cos, sin = angle.cos(), angle.sin()

    def plain(x: torch.Tensor) -> torch.Tensor:
        first, second = x.chunk(2, -1)
        return x * cos.double() + torch.cat([-second, first], -1) * sin.double()

    _compare(lambda x: Rotation.apply(x, cos, sin), plain, dtype, (2, 3, 6, 8))


@pytest.mark.parametrize("biased", [False, True])
def test_lora_linear(dtype: torch.dtype, *, biased: bool) -> None:
    weight, bias = torch.randn(20, 12).to(dtype), torch.randn(20).to(dtype) if biased else None

    def plain(x: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        shift = 0 if bias is None else bias.double()
        return x @ weight.double().T + shift + 0.5 * (x @ a.T) @ b.T

    _compare(lambda x, a, b: LoraLinear.apply(x, weight, bias, a, b, 0.5), plain, dtype, (2, 9, 12), (4, 12), (20, 4))


def test_lora_of_an_input_without_gradient_gives_none() -> None:
    a, b = torch.randn(4, 12, requires_grad=True), torch.randn(20, 4, requires_grad=True)
    LoraLinear.apply(torch.randn(9, 12), torch.randn(20, 12), None, a, b, 1.0).sum().backward()
    assert a.grad is not None
    assert b.grad is not None


@pytest.mark.parametrize("window", [None, 5, 300])
@pytest.mark.parametrize(("heads", "keys"), [(4, 1), (4, 2), (2, 2)])
def test_packed_attention(heads: int, keys: int, window: int | None, dtype: torch.dtype) -> None:
    lengths = [3, 1, 290, 20]  # one is longer than a block of positions

    def plain(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        parts = []
        for actual in zip(*(x.split(lengths, dim=2) for x in (q, k, v)), strict=True):
            length = actual[0].shape[2]
            seen = torch.ones(length, length, dtype=torch.bool).tril().triu(1 - (window or length))
            parts.append(
                functional.scaled_dot_product_attention(*actual, attn_mask=seen, scale=0.3, enable_gqa=heads != keys)
            )
        return torch.cat(parts, 2).transpose(1, 2)

    def fast(*inputs: torch.Tensor) -> Any:
        return PackedAttention.apply(*inputs, lengths, 0.3, window)

    total = sum(lengths)
    _compare(fast, plain, dtype, (1, heads, total, 16), (1, keys, total, 16), (1, keys, total, 16))
