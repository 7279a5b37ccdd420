"""The bundled base in llama.cpp, and the one that comes along: with the exported LoRA they say what PEFT says."""

from pathlib import Path

import pytest
import torch

from benchmarks.export import GOAL, TOKENS, forced_agreement, free_agreement, peft_greedy, prompts, random_adapter
from doppel.adapters.export.version import export_gguf
from doppel.adapters.lora_file import read_lora
from doppel.config import parse_config
from doppel.models.base import identify, load_model, load_tokenizer
from doppel.transcript import Transcript
from tests.llamacpp import LlamaCpp, write_base


@pytest.mark.slow
def test_llama_cpp_generates_what_peft_generates(bundled_base: Path, tmp_path: Path) -> None:
    """The measurement of `benchmarks/export.py` on 3 of its prompts; each position judged on its own."""
    config = parse_config({}, tmp_path / "config.yaml")
    identity = identify(bundled_base, "bundled")
    random_adapter(bundled_base, identity, config.adapters_dir)
    exported = export_gguf(config, None, tmp_path / "lora.gguf", tmp_path / "quantised.gguf")
    model = load_model(bundled_base, torch.float32)
    ids = prompts(Transcript(load_tokenizer(bundled_base)), 3)
    replies = peft_greedy(model, read_lora(config.adapters_dir / "0001", identity), ids)
    assert all(len(reply) == TOKENS for reply in replies)
    lora = Path(exported["gguf"])
    base = write_base(model, tmp_path / "base.gguf", "f16", end=262_000)
    llama = LlamaCpp(base, lora)
    _, first = free_agreement(llama, ids, replies)
    assert forced_agreement(llama, ids, replies, first) >= GOAL
    assert free_agreement(LlamaCpp(base), ids, replies)[0] < 0.5
    quantised = LlamaCpp(Path(exported["base_gguf"]), lora)  # the base that comes along: less exact
    assert free_agreement(quantised, ids, replies)[0] > 0.5
