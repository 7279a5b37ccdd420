"""The head at supervised positions equals plain cross-entropy over full logits, values and gradients."""

import pytest
import torch

from training.lora import head
from training.lora.head import supervised_losses


def _plain(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, softcap: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    hidden = hidden.detach().float().requires_grad_()
    logits = hidden @ weight.float().T
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    losses.sum().backward()
    assert hidden.grad is not None
    return losses.detach(), hidden.grad


def _relative(left: torch.Tensor, right: torch.Tensor) -> float:
    return float((left.detach().float() - right).norm() / right.norm())


@pytest.mark.parametrize("softcap", [None, 30.0, 2.0])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("columns", [1, 7, 1000])
def test_equals_plain_cross_entropy(
    dtype: torch.dtype,
    tolerance: float,
    softcap: float | None,
    columns: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    hidden = torch.randn(10, 16, dtype=dtype, requires_grad=True)
    weight = torch.randn(50, 16).to(dtype) * 0.5
    targets = torch.randint(50, (10,))
    monkeypatch.setattr(head, "MIN_COLUMNS", columns)
    monkeypatch.setattr(head, "BLOCK_BYTES", 1)
    losses = supervised_losses(hidden, weight, targets, softcap)
    losses.sum().backward()
    expected, gradient = _plain(hidden, weight, targets, softcap)
    assert hidden.grad is not None
    assert losses.dtype == torch.float32
    assert _relative(losses, expected) < tolerance
    assert _relative(hidden.grad, gradient) < tolerance


def test_scales_each_row_by_its_upstream_gradient() -> None:
    torch.manual_seed(1)
    hidden = torch.randn(4, 8, requires_grad=True)
    weight, targets = torch.randn(20, 8), torch.randint(20, (4,))
    share = torch.tensor([1.0, 0.0, 2.0, 0.5])
    (supervised_losses(hidden, weight, targets) * share).sum().backward()
    _, gradient = _plain(hidden, weight, targets, None)
    assert hidden.grad is not None
    torch.testing.assert_close(hidden.grad, gradient * share[:, None])


def test_needs_no_gradient_when_scoring() -> None:
    hidden, weight = torch.randn(4, 8), torch.randn(20, 8)
    targets = torch.randint(20, (4,))
    losses = supervised_losses(hidden, weight, targets)
    assert not losses.requires_grad
    torch.testing.assert_close(losses, _plain(hidden, weight, targets, None)[0])


def test_survives_large_logits() -> None:
    hidden = torch.full((1, 2), 100.0, requires_grad=True)
    weight = torch.tensor([[100.0, 100.0], [-100.0, -100.0]])
    losses = supervised_losses(hidden, weight, torch.tensor([0]))
    losses.sum().backward()
    assert losses.item() == 0.0
    assert hidden.grad is not None
    assert torch.isfinite(hidden.grad).all()
