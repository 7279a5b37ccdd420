"""Fused kernels are used where there is a GPU, and nothing changes elsewhere."""

from pathlib import Path

import pytest
import torch

from doppel.models.base import load_model
from training.lora.examples import Example, collate
from training.lora.gpu_kernels import use_fused_kernels
from training.lora.model import token_losses

EXAMPLE = Example(list(range(5, 65)), [0] + [1] * 59, 59)


def test_a_base_on_the_cpu_stays_as_it_is(tiny_base: Path) -> None:
    base = load_model(tiny_base, torch.float32)
    before, _ = token_losses(base, collate([EXAMPLE]))
    assert not use_fused_kernels(base)
    after, _ = token_losses(base, collate([EXAMPLE]))
    assert torch.equal(before, after)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_base_on_a_gpu_computes_the_same(tiny_base: Path) -> None:
    pytest.importorskip("liger_kernel")
    base = load_model(tiny_base, torch.bfloat16, "cuda")
    before, _ = token_losses(base, collate([EXAMPLE]))
    assert use_fused_kernels(base)
    after, _ = token_losses(base, collate([EXAMPLE]))
    assert torch.allclose(before, after, atol=0.05)
