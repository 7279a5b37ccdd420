"""The dtype of the frozen weights on GPUs without native bfloat16, where some families overflow in float16."""

import json
from pathlib import Path

import pytest
import torch

from doppel.models.base import choose_dtype


@pytest.fixture(params=[True, False], ids=["ampere", "turing"])
def is_native(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the GPU has bfloat16 units; before Ampere torch only emulates it."""
    native: bool = request.param
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation)
    return native


@pytest.mark.parametrize(
    ("family", "before_ampere"),
    [
        ("qwen3", torch.float16),
        ("llama", torch.float16),
        ("gemma3_text", torch.float32),
        ("gemma4_text", torch.float32),
        ("qwen3_5_text", torch.float32),
        ("unheard_of", torch.float32),
        (None, torch.float32),
    ],
)
def test_float16_is_for_families_that_stay_within_its_range(
    family: str | None, before_ampere: torch.dtype, is_native: bool, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({} if family is None else {"model_type": family}))
    assert choose_dtype("auto", "cuda", tmp_path) == (torch.bfloat16 if is_native else before_ampere)
    assert choose_dtype("bfloat16", "cuda", tmp_path) == torch.bfloat16
    assert choose_dtype("float32", "cuda", tmp_path) == torch.float32


def test_a_base_that_is_not_known_yet_gets_float32(is_native: bool) -> None:
    assert choose_dtype("auto", "cuda") == (torch.bfloat16 if is_native else torch.float32)
