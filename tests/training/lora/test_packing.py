"""Sequences in one row are what they are alone, and the whole loss is plain cross-entropy over full logits."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, Lfm2Config, PreTrainedModel

from doppel.models.base import load_model
from tests.families import FAMILIES, save_family
from training.lora.cpu_kernels.install import accelerate
from training.lora.examples import Example, collate, micro_batches
from training.lora.model import add_lora, token_losses
from training.lora.packing import packed_attention, packing_obstacle, tokens_per_batch

LENGTHS = (3, 40, 2, 75, 12)  # the sliding windows of the tiny models see 32


def _examples(vocabulary: int) -> list[Example]:
    random = torch.Generator().manual_seed(3)
    items = []
    for length in LENGTHS:
        ids = torch.randint(5, vocabulary, (length,), generator=random).tolist()
        loss_mask = torch.randint(0, 3, (length,), generator=random).tolist()
        items.append(Example(ids, [0, *loss_mask[1:-1], 1], length))
    return items


def _adapted(folder: Path, dtype: torch.dtype) -> PeftModel:
    torch.manual_seed(0)
    model = add_lora(load_model(folder, dtype), 4, 8)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    return model


def _gradients(model: torch.nn.Module) -> torch.Tensor:
    """All the adapter's gradients as one vector; cleared."""
    flat = [
        parameter.grad.flatten().double()
        for parameter in model.parameters()
        if parameter.requires_grad and parameter.grad is not None
    ]
    model.zero_grad(set_to_none=True)
    return torch.cat(flat)


def _plain(model: torch.nn.Module, items: list[Example]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean loss over supervised tokens by the library's full logits, one sequence at a time, and gradients."""
    total = torch.zeros(())
    for example in items:
        ids = torch.tensor(example.ids)
        labels = torch.where(torch.tensor(example.loss_mask) > 0, ids, -100)
        logits = model(input_ids=ids[None]).logits[0, :-1]
        total = total + cross_entropy(logits.float(), labels[1:], ignore_index=-100, reduction="sum")
    loss = total / sum(example.supervised for example in items)
    loss.backward()
    return loss.detach(), _gradients(model)


def _ours(model: torch.nn.Module, items: list[Example], limit: int) -> tuple[torch.Tensor, torch.Tensor]:
    supervised = sum(example.supervised for example in items)
    total = torch.zeros(())
    for group in micro_batches(items, limit):
        losses, _ = token_losses(model, collate(group))
        loss = losses.sum() / supervised
        loss.backward()
        total += loss.detach()
    return total, _gradients(model)


@pytest.mark.parametrize("fast", [False, True], ids=["library", "fast"])
@pytest.mark.parametrize(("family", "tied"), [(family, number % 2 == 0) for number, family in enumerate(FAMILIES)])
def test_loss_and_gradients_are_those_of_full_logits(tmp_path: Path, family: str, *, tied: bool, fast: bool) -> None:
    folder = save_family(family, tmp_path / "base", tied=tied)
    model = _adapted(folder, torch.float32)
    items = _examples(model.get_input_embeddings().weight.shape[0])
    loss, gradients = _plain(model, items)
    if fast:
        accelerate(model)
    for limit in (10_000, 60):  # one row, several
        got, ours = _ours(model, items, limit)
        assert abs(float(got - loss)) <= 1e-5 * float(loss)
        assert float((ours - gradients).norm()) <= 1e-5 * float(gradients.norm())


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_loses_no_more_than_the_library_does(tmp_path: Path, family: str) -> None:
    """Against the same weights in float32: 2e-2 of the gradient, or what plain bfloat16 loses where that is more."""
    folder = save_family(family, tmp_path / "base", initializer_range=0.05)
    exact, model = _adapted(folder, torch.float32), _adapted(folder, torch.bfloat16)
    exact.load_state_dict(model.state_dict())
    items = _examples(exact.get_input_embeddings().weight.shape[0])
    loss, gradients = _plain(exact, items)
    lost = float((_plain(model, items)[1] - gradients).norm() / gradients.norm())
    accelerate(model)
    got, ours = _ours(model, items, 10_000)
    assert abs(float(got - loss)) <= 1e-3 * float(loss)
    assert float((ours - gradients).norm() / gradients.norm()) <= max(2e-2, 1.1 * lost)


def test_generation_after_acceleration_is_unchanged(tmp_path: Path) -> None:
    folder = save_family("gemma3", tmp_path / "base")
    model = _adapted(folder, torch.float32)
    prompt = torch.tensor([[5, 6, 7, 8]])
    before = model.generate(input_ids=prompt, max_new_tokens=12, do_sample=False)
    accelerate(model)
    assert model.generate(input_ids=prompt, max_new_tokens=12, do_sample=False).tolist() == before.tolist()


def test_acceleration_twice_is_acceleration_once(tmp_path: Path) -> None:
    model = _adapted(save_family("llama", tmp_path / "base"), torch.float32)
    accelerate(model)
    forwards = {name: module.forward for name, module in model.named_modules() if "forward" in vars(module)}
    assert len(forwards) > 10
    accelerate(model)
    assert forwards == {name: module.forward for name, module in model.named_modules() if "forward" in vars(module)}


def test_a_disabled_adapter_stays_disabled(tmp_path: Path) -> None:
    model = _adapted(save_family("llama", tmp_path / "base"), torch.float32)
    ids = torch.tensor([[5, 6, 7, 8]])
    with model.disable_adapter(), torch.no_grad():
        expected = model(input_ids=ids).logits
    accelerate(model)
    with model.disable_adapter(), torch.no_grad():
        torch.testing.assert_close(model(input_ids=ids).logits, expected)


def _hybrid() -> PreTrainedModel:
    config = Lfm2Config(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        layer_types=["conv", "full_attention"],
        max_position_embeddings=128,
    )
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    return model


def test_models_that_would_leak_are_not_packed_and_train_one_sequence_at_a_time() -> None:
    torch.manual_seed(0)
    model = _hybrid()
    reason = packing_obstacle(model)
    assert reason is not None
    assert "conv" in reason
    items = _examples(50)
    with pytest.raises(ValueError, match="packed"):
        token_losses(model, collate(items))
    assert all(len(group) == 1 for group in micro_batches(items, tokens_per_batch(model)))
    adapted = add_lora(model, 4, 8)
    accelerate(adapted)
    expected, gradients = _plain(adapted, items)
    loss, ours = _ours(adapted, items, tokens_per_batch(adapted))
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(ours, gradients, rtol=1e-3, atol=1e-5)


def test_families_that_may_be_packed_are(tmp_path: Path) -> None:
    model = load_model(save_family("gemma3", tmp_path / "base"), torch.float32)
    assert packing_obstacle(model) is None
    assert tokens_per_batch(model) > 1000


def test_other_devices_attend_one_sequence_at_a_time_alike() -> None:
    q, k, v = torch.randn(1, 4, 60, 8), torch.randn(1, 2, 60, 8), torch.randn(1, 2, 60, 8)
    ends = torch.tensor([0, 7, 50, 60], dtype=torch.int32)
    arguments = {"scaling": 0.4, "cu_seq_lens_q": ends, "max_length_q": 43, "sliding_window": 20}
    module = torch.nn.Identity()
    fast, _ = packed_attention(module, q, k, v, None, **arguments)  # type: ignore[arg-type]
    plain, _ = packed_attention(module, q.double(), k.double(), v.double(), None, **arguments)  # type: ignore[arg-type]
    torch.testing.assert_close(fast.double(), plain, rtol=1e-5, atol=1e-6)


def test_rows_are_full() -> None:
    """Nothing is padded: every token of a row is a token of the data."""
    items = _examples(50)
    rows = [collate(group) for group in micro_batches(items, 80)]
    assert sum(len(row.ids) for row in rows) == sum(LENGTHS)
