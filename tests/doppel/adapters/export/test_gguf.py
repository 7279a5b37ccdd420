"""GGUF LoRAs: llama.cpp computes with them what PEFT computes, for every family; what it cannot is refused."""

from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from gguf import GGUFReader
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from doppel.adapters.export import base_gguf
from doppel.adapters.export.gguf import write_gguf
from doppel.adapters.lora_file import Lora, base_layers
from doppel.adapters.versions import WEIGHTS
from doppel.errors import DoppelError, UserError
from doppel.models.base import load_model, load_tokenizer
from tests.families import EXPORTED, random_lora, save_family, save_seeing
from tests.llamacpp import LlamaCpp

PROMPT = [7 * number % 250 + 3 for number in range(60)]  # longer than the tiny Gemma's window


def log_probabilities(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=torch.tensor([PROMPT])).logits
    return logits[0, -1].float().log_softmax(-1)


class TableGelu(torch.nn.Module):
    """GELU as llama.cpp computes it on the CPU: looked up in a table of float16."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        found = torch.nn.functional.gelu(values.half().float(), approximate="tanh").half().float()
        return torch.where(values.abs() < 10, found, values.clamp(min=0))


def load(base: Path) -> PreTrainedModel:
    model = load_model(base, torch.float32)
    if model.config.get_text_config().model_type.startswith("gemma"):
        for module in model.modules():
            if hasattr(module, "act_fn"):
                module.act_fn = TableGelu()
    return model


def make_lora(base: Path, adapters: Path) -> Lora:
    """A random LoRA of all layers that llama.cpp can adapt."""
    left_out = [layer for layer in base_layers(base) if layer.endswith("per_layer_model_projection")]
    return random_lora(base, adapters, exclude_modules=left_out or None)


# Values that the table of GELU rounds the other way change what follows, most where attention is not scaled.
TOLERANCES = {"gemma3": 1e-3, "gemma4": 1e-2, "qwen3_5": 1e-3}

CASES: list[tuple[str, dict[str, Any]]] = [
    *((family, {}) for family in EXPORTED),
    ("gemma3", {"tied": True, "final_logit_softcapping": 5.0}),
    # As the smallest ones: wider layers where keys and values are shared.
    ("gemma4", {"tied": True, "use_double_wide_mlp": True, "final_logit_softcapping": 5.0}),
    # As the larger ones: keys are values, of fewer heads, where attention is whole; nothing is shared.
    (
        "gemma4",
        {
            "attention_k_eq_v": True,
            "num_global_key_value_heads": 1,
            "num_kv_shared_layers": 0,
            "hidden_size_per_layer_input": 0,
        },
    ),
    ("qwen3_5", {"tied": True, "linear_num_value_heads": 2}),
    ("qwen3_5", {"linear_num_value_heads": 6, "num_hidden_layers": 3, "full_attention_interval": 2}),
]


@pytest.mark.parametrize(("family", "changes"), CASES)
def test_llama_cpp_computes_what_peft_computes(family: str, changes: dict[str, Any], tmp_path: Path) -> None:
    base = save_family(family, tmp_path / "base", **changes)
    lora = make_lora(base, tmp_path / "adapters")
    compare(base, lora, tmp_path, TOLERANCES.get(family, 1e-4))


def test_the_scaling_of_rslora_is_kept(tmp_path: Path) -> None:
    base = save_family("llama", tmp_path / "base")
    compare(base, random_lora(base, tmp_path / "adapters", use_rslora=True), tmp_path, 1e-4)


def compare(base: Path, lora: Lora, folder: Path, close: float) -> None:
    """Asserts that base and LoRA, converted, give the log-probabilities and the reply of transformers and PEFT."""
    file, base_file = write_gguf(lora, base, folder / "lora.gguf"), folder / "base.gguf"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base_gguf, "_kind", lambda values: gguf.GGMLQuantizationType.F32)
        base_gguf.write_base(base, base_file)
    model = load(base)
    size = model.config.get_text_config().vocab_size
    without = log_probabilities(model)
    assert torch.allclose(LlamaCpp(base_file).log_probabilities(PROMPT, size), without, atol=close)
    adapted = PeftModel.from_pretrained(model, str(lora.folder))
    expected = log_probabilities(adapted)
    assert (expected - without).abs().max() > 0.5
    llama_cpp = LlamaCpp(base_file, file)
    assert torch.allclose(llama_cpp.log_probabilities(PROMPT, size), expected, atol=close)
    end = load_tokenizer(base).eos_token_id
    ids = torch.tensor([PROMPT])
    reply = adapted.generate(input_ids=ids, do_sample=False, max_new_tokens=12, eos_token_id=end)[0, len(PROMPT) :]
    assert llama_cpp.greedy(PROMPT, 12) == reply.tolist()


@pytest.mark.parametrize("family", ["gemma3", "gemma4", "qwen3_5"])
def test_of_a_multimodal_model_the_text_model_is_exported(family: str, tmp_path: Path) -> None:
    base = save_seeing(tmp_path / "base", family)
    lora = make_lora(base, tmp_path / "adapters")
    seeing = [layer for layer in lora.layers if "vision" in layer]
    if seeing:
        with pytest.raises(UserError, match=r"llama\.cpp cannot adapt model\.(vision_tower|embed_vision)"):
            write_gguf(lora, base, tmp_path / "lora.gguf")
    for name, weight in lora.weights.items():
        if "vision" in name and "lora_B" in name:
            weight.zero_()  # what training on text leaves
    compare(base, lora, tmp_path, TOLERANCES[family])


def test_a_layer_that_llama_cpp_cannot_adapt_is_refused(tmp_path: Path) -> None:
    base = save_family("gemma4", tmp_path / "base")
    lora = random_lora(base, tmp_path / "adapters")
    with pytest.raises(UserError, match=r"llama\.cpp cannot adapt model\.per_layer_model_projection; use --merged"):
        write_gguf(lora, base, tmp_path / "lora.gguf")


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
    with pytest.raises(
        UserError,
        match="cannot export a gpt2 model as GGUF, only gemma3, gemma3_text, gemma4, gemma4_text, glm4, llama",
    ):
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
