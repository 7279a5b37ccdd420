"""A head over the words that occur stands for the whole one: same loss, same direction."""

import pytest
import torch
from peft import PeftModel
from transformers import Gemma2Config, Gemma2ForCausalLM, PreTrainedModel

from training.lora import reduced_head
from training.lora.examples import Example, collate
from training.lora.model import add_lora, token_losses
from training.lora.reduced_head import ReducedHead, reduce_head

VOCABULARY = 4_000


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def model(request: pytest.FixtureRequest) -> PeftModel:
    """A random model whose logits are capped, with a LoRA that has an effect."""
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        attn_logit_softcapping=None,
        final_logit_softcapping=5.0,
    )
    base: PreTrainedModel = Gemma2ForCausalLM(config).to(request.param)  # type: ignore[arg-type]
    base.get_output_embeddings().weight.data *= 20  # so that some tokens are likelier than others
    adapted = add_lora(base, 4, 8)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return adapted


@pytest.fixture
def examples() -> list[Example]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 900, (4, 40), generator=generator).tolist()
    return [Example(row, [0] * 10 + [1] * 30, 30) for row in ids]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reduced_head, "_COMMONEST", 500)
    monkeypatch.setattr(reduced_head, "_SAMPLE", 600)


def losses_and_gradient(
    model: PeftModel, examples: list[Example], head: ReducedHead | None
) -> tuple[torch.Tensor, ...]:
    model.zero_grad()
    losses, _ = token_losses(model, collate(examples), head)
    losses.mean().backward()
    gradients = [parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None]
    return losses.detach(), torch.cat(gradients).float()


def test_every_token_is_a_row_or_stands_behind_one(model: PeftModel, examples: list[Example]) -> None:
    head = reduce_head(model, examples, seed=0)
    assert head is not None
    kept = set(head.rows[head.rows >= 0].tolist())
    assert set(range(500)) | {token for one in examples for token in one.ids} <= set(
        (head.rows >= 0).nonzero()[:, 0].tolist()
    )
    assert kept == set(range(len(kept)))
    assert head.bias.float().exp().sum() == pytest.approx(VOCABULARY, rel=0.01)


def test_loss_and_gradient_are_close_to_those_of_the_whole_head(model: PeftModel, examples: list[Example]) -> None:
    whole_losses, whole = losses_and_gradient(model, examples, None)
    losses, gradient = losses_and_gradient(model, examples, reduce_head(model, examples, seed=0))
    assert float((losses - whole_losses).abs().mean()) < 0.1
    assert float(torch.nn.functional.cosine_similarity(gradient, whole, 0)) > 0.98


def test_with_every_token_in_the_sample_nothing_changes(
    model: PeftModel, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reduced_head, "_SAMPLE", VOCABULARY)
    monkeypatch.setattr(reduced_head, "_MIN_GAIN", 0.0)
    head = reduce_head(model, examples, seed=0)
    assert head is not None
    assert not head.bias.any()
    whole_losses, whole = losses_and_gradient(model, examples, None)
    losses, gradient = losses_and_gradient(model, examples, head)
    tolerance = 1e-4 if losses.dtype == gradient.dtype == model.dtype else 0.05
    assert torch.allclose(losses, whole_losses, atol=tolerance)
    assert torch.allclose(gradient, whole, atol=tolerance * float(whole.abs().max()))


def test_a_token_without_a_row_is_learned_with_the_whole_head(model: PeftModel, examples: list[Example]) -> None:
    head = reduce_head(model, examples, seed=0)
    assert head is not None
    outside = int((head.rows < 0).nonzero()[0, 0])
    stranger = Example([*examples[0].ids, outside], [*examples[0].loss_mask, 1], 31)
    whole, _ = losses_and_gradient(model, [stranger], None)
    assert torch.equal(losses_and_gradient(model, [stranger], head)[0], whole)


def test_a_small_vocabulary_is_not_reduced(
    model: PeftModel, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reduced_head, "_COMMONEST", 3_000)
    assert reduce_head(model, examples, seed=0) is None


def test_the_same_seed_takes_the_same_sample(model: PeftModel, examples: list[Example]) -> None:
    first, second, other = (reduce_head(model, examples, seed) for seed in (0, 0, 1))
    assert first is not None
    assert second is not None
    assert other is not None
    assert torch.equal(first.weight, second.weight)
    assert not torch.equal(first.weight, other.weight)
