"""Micro-batches that fit into memory, and gradients that do not depend on how they fit."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel

from doppel.models.base import load_model
from doppel.system.memory import available_memory, total_memory
from training.lora import memory
from training.lora.cpu_kernels.install import accelerate
from training.lora.examples import Example, collate
from training.lora.memory import BatchLimit, fit_batch, saved_bytes_per_token, use_checkpointing
from training.lora.model import add_lora, token_losses

EXAMPLES = [Example(list(range(5, 205)), [0] + [1] * 199, 200)] * 4


@pytest.fixture(params=[False, True], ids=["plain", "accelerated"])
def model(request: pytest.FixtureRequest, tiny_base: Path) -> PeftModel:
    torch.manual_seed(0)
    adapted = add_lora(load_model(tiny_base, torch.float32), 4, 8)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    if request.param:
        accelerate(adapted)
    return adapted.train()


def gradient(model: PeftModel) -> torch.Tensor:
    model.zero_grad()
    losses, _ = token_losses(model, collate(EXAMPLES[:2]))
    losses.sum().backward()
    return torch.cat([value.grad.flatten() for value in model.parameters() if value.grad is not None])


def test_enough_memory_keeps_the_device_busy(model: PeftModel) -> None:
    assert fit_batch(model, EXAMPLES, None, free=2**40) == BatchLimit(1024)
    assert fit_batch(model, EXAMPLES, None) == BatchLimit(1024)


def test_less_memory_makes_smaller_batches(model: PeftModel) -> None:
    per_token = saved_bytes_per_token(model, EXAMPLES, None)
    assert per_token > 4 * model.config.hidden_size
    limit = fit_batch(model, EXAMPLES, None, free=int(500 * per_token))
    assert 200 < limit.tokens < 500
    assert not limit.checkpointing


def test_where_one_conversation_does_not_fit_the_layers_are_computed_twice(model: PeftModel) -> None:
    per_token, whole = saved_bytes_per_token(model, EXAMPLES, None), gradient(model)
    limit = fit_batch(model, EXAMPLES, None, free=int(150 * per_token))
    assert limit.checkpointing
    assert saved_bytes_per_token(model, EXAMPLES, None) < 0.7 * per_token
    assert torch.allclose(gradient(model), whole, rtol=1e-4, atol=1e-6)


def test_what_the_first_optimizer_step_allocates_is_kept_free(tiny_base: Path) -> None:
    model = add_lora(load_model(tiny_base, torch.float32), 512, 8).train()
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    per_token = saved_bytes_per_token(model, EXAMPLES, None)
    limit = fit_batch(model, EXAMPLES, None, free=int(400 * per_token) + 16 * trained)
    assert 200 < limit.tokens < 320


def test_a_model_that_reads_one_conversation_at_a_time_stays_so(
    model: PeftModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "tokens_per_batch", lambda _: 1)
    per_token = saved_bytes_per_token(model, EXAMPLES, None)
    assert fit_batch(model, EXAMPLES, None, free=2**40) == BatchLimit(1)
    assert fit_batch(model, EXAMPLES, None, free=int(150 * per_token)) == BatchLimit(1, checkpointing=True)


def test_measuring_leaves_no_gradients(model: PeftModel) -> None:
    fit_batch(model, EXAMPLES, None)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_checkpointing_changes_no_gradient(model: PeftModel) -> None:
    whole = gradient(model)
    use_checkpointing(model)
    assert torch.allclose(gradient(model), whole, rtol=1e-4, atol=1e-6)


def test_free_memory_is_part_of_all_memory() -> None:
    free, total = available_memory(), total_memory()
    if free is not None:
        assert total is not None
        assert 0 < free < total
