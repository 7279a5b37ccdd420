"""Packed weights compute what the others do, and take no more room than they must."""

import copy
from pathlib import Path

import pytest
import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, PreTrainedModel

from doppel.engine.local import packed_weights as packed
from doppel.engine.local.packed_weights import BFloat16Embedding, PackedLinear, pack_weights
from doppel.models.base import load_model

pytestmark = pytest.mark.skipif(not packed._packable_dtypes(), reason="weights are not packed on this machine")


@pytest.fixture
def tied() -> PreTrainedModel:
    """A Gemma, which scales what its embedding gives, and whose head has the same weights."""
    config = Gemma3TextConfig(
        vocab_size=96,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        pad_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Gemma3ForCausalLM(config).eval()


def rounded(model: PreTrainedModel) -> PreTrainedModel:
    """With weights as they come in a file of bfloat16."""
    return model.bfloat16().float()


@torch.inference_mode()
def assert_alike(left: PreTrainedModel, right: PreTrainedModel) -> None:
    for rows, length in ((1, 1), (3, 1), (2, 30)):
        ids = torch.randint(0, left.config.vocab_size, (rows, length), generator=torch.Generator().manual_seed(rows))
        torch.testing.assert_close(left(ids).logits, right(ids).logits, atol=1e-5, rtol=1e-4)


def test_tied_weights_are_packed_for_the_head_and_bfloat16_for_the_embedding(tied: PreTrainedModel) -> None:
    plain = copy.deepcopy(rounded(tied))
    pack_weights(tied)
    assert_alike(tied, plain)
    assert isinstance(tied.get_output_embeddings(), PackedLinear)
    embedding = tied.get_input_embeddings()
    assert isinstance(embedding, BFloat16Embedding)
    held = [*embedding.parameters(), *embedding.buffers()]
    assert sum(tensor.nbytes for tensor in held if tensor.numel() > 1) == 2 * 96 * 48


def test_an_embedding_that_would_be_rounded_is_left_alone(tied: PreTrainedModel) -> None:
    plain = copy.deepcopy(tied)
    pack_weights(tied)
    assert_alike(tied, plain)
    assert not isinstance(tied.get_input_embeddings(), BFloat16Embedding)


def test_an_untied_embedding_is_left_alone(tiny_base: Path) -> None:
    model = load_model(tiny_base, torch.float32)
    pack_weights(model)
    assert_alike(model, load_model(tiny_base, torch.float32))
    assert not isinstance(model.get_input_embeddings(), BFloat16Embedding)


@pytest.mark.skipif(torch.bfloat16 not in packed._packable_dtypes(), reason="this machine has no units for bfloat16")
def test_bfloat16_is_packed_where_the_cpu_supports_it(tied: PreTrainedModel) -> None:
    plain, rows = copy.deepcopy(tied.bfloat16()), tied.get_input_embeddings().weight
    pack_weights(tied)
    assert isinstance(tied.get_output_embeddings(), PackedLinear)
    assert tied.get_input_embeddings().weight is rows
    ids = torch.arange(60).view(2, 30)
    with torch.inference_mode():
        torch.testing.assert_close(tied(ids).logits, plain(ids).logits, atol=0.02, rtol=0.02)


def test_other_types_are_left_alone(tiny_base: Path) -> None:
    model = load_model(tiny_base, torch.float16)
    pack_weights(model)
    assert not any(isinstance(module, PackedLinear) for module in model.modules())
