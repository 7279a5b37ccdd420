"""Measuring leaves the model unchanged, and counts multiply-adds, not batches."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import PreTrainedModel

from doppel.models.base import load_model
from doppel.system.memory import peak_memory, total_memory
from training.lora.examples import Example, Step, plan_steps
from training.lora.model import add_lora
from training.run.speed import (
    DeviceTimer,
    compute_cost,
    scoring_seconds_per_mac,
    time_step_and_checkpoint,
    training_seconds_per_mac,
)


def example(length: int, supervised: int) -> Example:
    return Example([5] * length, [0] * (length - supervised) + [1] * supervised, supervised)


@pytest.fixture
def base(tiny_base: Path) -> PreTrainedModel:
    return load_model(tiny_base, torch.float32)


@pytest.fixture
def model(base: PreTrainedModel) -> PeftModel:
    return add_lora(base, 4, 8)


@pytest.fixture
def steps() -> list[Step]:
    return list(plan_steps([example(20 + size, size) for size in range(4, 24)], 4, 64))


def timer() -> DeviceTimer:
    """A timer whose clock advances a second whenever it is read, so that everything takes one second."""
    ticks: Iterator[int] = count()
    return DeviceTimer("cpu", lambda: float(next(ticks)))


def test_cost_counts_body_and_head_separately(base: PreTrainedModel, model: PeftModel) -> None:
    size, vocabulary = 32, base.config.vocab_size
    body = base.num_parameters() - sum(
        parameter.numel() for name, parameter in base.named_parameters() if "lora" in name
    )
    cost = compute_cost(model)
    assert cost.per_supervised_token == size * vocabulary
    assert cost.per_token > body - 2 * size * vocabulary
    assert cost.of([example(20, 4), example(10, 1)]) == 30 * cost.per_token + 5 * cost.per_supervised_token


def test_the_speed_is_seconds_per_cost(model: PeftModel, steps: list[Step]) -> None:
    groups = [group for step in steps for group in step]
    cost = compute_cost(model)
    least, most = min(map(cost.of, groups)), max(map(cost.of, groups))
    for unit in (training_seconds_per_mac(model, steps, timer()), scoring_seconds_per_mac(model, groups, timer())):
        assert 1 / most <= unit <= 1 / least


def test_measuring_changes_neither_weights_nor_gradients(model: PeftModel, steps: list[Step]) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(0)
    state = torch.random.get_rng_state()
    training_seconds_per_mac(model, steps, DeviceTimer("cpu"))
    assert time_step_and_checkpoint(model, steps, timer()) == (1, 1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_memory_is_reported_in_bytes() -> None:
    peak, there_is = peak_memory(), total_memory()
    assert peak is not None
    assert there_is is not None
    assert 2**25 < peak < there_is
    held = torch.ones(2**26, dtype=torch.uint8)
    after = peak_memory()
    assert after is not None
    assert after >= peak
    del held
