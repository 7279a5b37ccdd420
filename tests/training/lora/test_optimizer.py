"""MasterAdamW is AdamW for float32, and does not lose small steps in bfloat16."""

from typing import Any

import torch

from training.lora.optimizer import MasterAdamW


def _run(optimizer: torch.optim.Optimizer, parameter: torch.nn.Parameter, steps: int) -> None:
    torch.manual_seed(0)
    for _ in range(steps):
        optimizer.zero_grad()
        (parameter.float() * torch.randn(parameter.shape)).sum().backward()
        optimizer.step()


def test_equals_adamw_in_float32() -> None:
    ours, theirs = (torch.nn.Parameter(torch.ones(5)) for _ in range(2))
    _run(MasterAdamW([ours], lr=0.01), ours, 20)
    _run(torch.optim.AdamW([theirs], lr=0.01, betas=(0.9, 0.99), weight_decay=0.0), theirs, 20)
    torch.testing.assert_close(ours, theirs)


def test_steps_below_bfloat16_precision_add_up() -> None:
    parameter = torch.nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
    optimizer = MasterAdamW([parameter], lr=1e-4)
    for _ in range(200):  # each step is far below 1/256, bfloat16's spacing at 1
        optimizer.zero_grad()
        parameter.sum().backward()
        optimizer.step()
    assert abs(parameter.item() - 0.98) < 0.01


def test_resumes_bit_for_bit_from_its_state() -> None:
    start = torch.randn(8).bfloat16()
    whole = torch.nn.Parameter(start.clone())
    optimizer = MasterAdamW([whole], lr=3e-3)
    gradients = [torch.randn(8).bfloat16() for _ in range(10)]

    def step(optimizer: MasterAdamW, parameter: torch.nn.Parameter, gradient: torch.Tensor) -> None:
        parameter.grad = gradient.clone()
        optimizer.step()

    state: dict[str, Any] = {}
    for number, gradient in enumerate(gradients):
        if number == 5:
            state = optimizer.state_dict()
            state = torch.utils._pytree.tree_map(lambda one: one.clone() if torch.is_tensor(one) else one, state)
        step(optimizer, whole, gradient)
    resumed = torch.nn.Parameter(torch.zeros(8, dtype=torch.bfloat16))
    other = MasterAdamW([resumed], lr=3e-3)
    other.load_state_dict(state)
    for gradient in gradients[5:]:
        step(other, resumed, gradient)
    assert torch.equal(whole, resumed)
