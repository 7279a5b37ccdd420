"""GGUF LoRAs: llama.cpp computes with them what PEFT computes, for every family; what it cannot is refused."""

from pathlib import Path

import pytest
import torch
from gguf import GGUFReader
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

from doppel.adapters.export.gguf import write_gguf
from doppel.adapters.lora_file import Lora
from doppel.adapters.versions import WEIGHTS
from doppel.errors import DoppelError, UserError
from doppel.models.base import load_model
from tests.families import FAMILIES, random_lora, save_family, save_seeing
from tests.llamacpp import LlamaCpp, write_base

PROMPT = [7 * number % 250 + 3 for number in range(60)]  # longer than the tiny Gemma's window


def log_probabilities(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=torch.tensor([PROMPT])).logits
    return logits[0, -1].float().log_softmax(-1)


@pytest.mark.parametrize(("family", "rslora"), [*((family, False) for family in FAMILIES), ("llama", True)])
def test_llama_cpp_computes_what_peft_computes(family: str, rslora: bool, tmp_path: Path) -> None:
    base = save_family(family, tmp_path / "base", tied=family == "gemma3")
    lora = random_lora(base, tmp_path / "adapters", use_rslora=rslora)
    file = write_gguf(lora, base, tmp_path / "lora.gguf")
    model = load_model(base, torch.float32)
    size = model.config.vocab_size
    base_file = write_base(model, tmp_path / "base.gguf", "f32", end=size - 1)
    without = log_probabilities(model)
    adapted = PeftModel.from_pretrained(model, str(lora.folder))
    expected = log_probabilities(adapted)
    assert (expected - without).abs().max() > 0.5
    actual = LlamaCpp(base_file, file).log_probabilities(PROMPT, size)
    close = 2e-2 if family == "gemma3" else 1e-4  # llama.cpp looks Gemma's GELU up in a float16 table
    assert torch.allclose(actual, expected, atol=close)


def test_of_a_multimodal_model_the_text_model_is_exported(tmp_path: Path) -> None:
    base = save_seeing(tmp_path / "base")
    lora = random_lora(base, tmp_path / "adapters")
    with pytest.raises(UserError, match=r"llama\.cpp cannot adapt model\.vision_tower"):
        write_gguf(lora, base, tmp_path / "lora.gguf")
    for name, weight in lora.weights.items():
        if "vision" in name and "lora_B" in name:
            weight.zero_()  # what training on text leaves
    file = write_gguf(lora, base, tmp_path / "lora.gguf")
    model = load_model(base, torch.float32)
    size = model.config.get_text_config().vocab_size
    base_file = write_base(model, tmp_path / "base.gguf", "f32", end=size - 1)
    expected = log_probabilities(PeftModel.from_pretrained(model, str(lora.folder)))
    actual = LlamaCpp(base_file, file).log_probabilities(PROMPT, size)
    assert torch.allclose(actual, expected, atol=2e-2)


def test_the_file_has_its_metadata(tmp_path: Path) -> None:
    base = save_family("llama", tmp_path / "base")
    file = write_gguf(random_lora(base, tmp_path / "adapters"), base, tmp_path / "lora.gguf")
    reader = GGUFReader(file)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["general.type"] == "adapter"
    assert fields["general.architecture"] == "llama"
    assert fields["adapter.type"] == "lora"
    assert fields["adapter.lora.alpha"] == 6
    tensors = {tensor.name: tuple(tensor.data.shape) for tensor in reader.tensors}
    assert tensors["blk.1.ffn_down.weight.lora_a"] == (4, 96)
    assert tensors["blk.1.ffn_down.weight.lora_b"] == (64, 4)
    assert len(tensors) == 2 * 2 * 7
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_another_family_is_refused(tmp_path: Path) -> None:
    base = tmp_path / "base"
    GPT2LMHeadModel(GPT2Config(n_embd=8, n_head=2, n_layer=1, vocab_size=20)).save_pretrained(base)
    lora = random_lora(save_family("llama", tmp_path / "other"), tmp_path / "adapters")
    with pytest.raises(UserError, match="cannot export a gpt2 model as GGUF, only gemma3, gemma3_text, glm4, llama"):
        write_gguf(lora, base, tmp_path / "lora.gguf")
    assert not (tmp_path / "lora.gguf").exists()


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
def test_a_tied_head_is_refused(tmp_path: Path) -> None:
    base = save_family("qwen3", tmp_path / "base", tied=True)
    lora = random_lora(base, tmp_path / "adapters", target_modules=["lm_head", "q_proj"])
    with pytest.raises(UserError, match=r"llama\.cpp cannot adapt lm_head; use --merged"):
        write_gguf(lora, base, tmp_path / "lora.gguf")


def test_an_untied_head_is_exported(tmp_path: Path) -> None:
    base = save_family("qwen3", tmp_path / "base")
    lora = random_lora(base, tmp_path / "adapters", target_modules=["lm_head"])
    file = write_gguf(lora, base, tmp_path / "lora.gguf")
    assert {tensor.name for tensor in GGUFReader(file).tensors} == {"output.weight.lora_a", "output.weight.lora_b"}


def test_an_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    base = save_family("llama", tmp_path / "base")
    lora = random_lora(base, tmp_path / "adapters")
    target = tmp_path / "lora.gguf"
    target.write_text("mine")
    with pytest.raises(UserError, match="already exists"):
        write_gguf(lora, base, target)
    assert target.read_text() == "mine"


def test_the_weights_are_those_of_the_adapter(tmp_path: Path) -> None:
    base = save_family("qwen2", tmp_path / "base")
    lora = random_lora(base, tmp_path / "adapters")
    half = {name: tensor.bfloat16() for name, tensor in load_file(lora.folder / WEIGHTS).items()}
    save_file(half, tmp_path / "half.safetensors")
    file = write_gguf(Lora(lora.name, lora.folder, lora.scaling, half, lora.layers), base, tmp_path / "lora.gguf")
    tensors = {tensor.name: torch.from_numpy(tensor.data.copy()) for tensor in GGUFReader(file).tensors}
    expected = half["base_model.model.model.layers.0.mlp.up_proj.lora_A.weight"]
    assert torch.equal(tensors["blk.0.ffn_up.weight.lora_a"], expected.float())


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    base = save_family("llama", tmp_path / "base")
    (tmp_path / "file").write_text("")
    with pytest.raises(DoppelError, match="cannot be written"):
        write_gguf(random_lora(base, tmp_path / "adapters"), base, tmp_path / "file" / "lora.gguf")
