"""Tiny random models of the families that people train, with the tiny tokenizer, and LoRAs for them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    Gemma3Config,
    Gemma3TextConfig,
    Gemma4Config,
    Gemma4TextConfig,
    Gemma4VisionConfig,
    Glm4Config,
    GlmConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3_5Config,
    Qwen3_5TextConfig,
    Qwen3_5VisionConfig,
    Qwen3Config,
    SiglipVisionConfig,
)

from doppel.adapters.lora_file import Lora, read_lora
from doppel.adapters.versions import Manifest, publishing
from doppel.models.base import identify, load_model
from tests.tiny import CONTEXT_LENGTH, build_tokenizer

# Of each: a head size that is not hidden size / heads where the family allows it, so that a mix-up shows.
_FAMILIES: dict[str, tuple[type[PreTrainedConfig], dict[str, Any]]] = {
    "gemma3": (
        Gemma3TextConfig,
        {"num_hidden_layers": 6, "head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 32},
    ),
    # keys and values of the last layers shared, an embedding for each layer, larger heads where attention is whole
    "gemma4": (
        Gemma4TextConfig,
        {
            "num_hidden_layers": 6,
            "head_dim": 32,
            "global_head_dim": 64,
            "sliding_window": 32,
            "layer_types": ["sliding_attention", "full_attention"] * 3,
            "num_kv_shared_layers": 2,
            "hidden_size_per_layer_input": 16,
            "vocab_size_per_layer_input": 320,
        },
    ),
    "glm": (GlmConfig, {"num_hidden_layers": 2, "head_dim": 32}),
    "glm4": (Glm4Config, {"num_hidden_layers": 2, "head_dim": 32}),
    "llama": (LlamaConfig, {"num_hidden_layers": 2}),
    "mistral": (MistralConfig, {"num_hidden_layers": 2, "head_dim": 32}),
    "qwen2": (Qwen2Config, {"num_hidden_layers": 2}),
    "qwen3": (Qwen3Config, {"num_hidden_layers": 2, "head_dim": 32}),
    # layers that carry a state from token to token, and every fourth with attention
    "qwen3_5": (
        Qwen3_5TextConfig,
        {
            "num_hidden_layers": 4,
            "head_dim": 32,
            "linear_key_head_dim": 16,
            "linear_value_head_dim": 16,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
        },
    ),
}
FAMILIES = tuple(family for family in _FAMILIES if family not in {"glm", "gemma4", "qwen3_5"})
"""Those whose layers all have attention of their own, and projections of their own in it."""
EXPORTED = (*FAMILIES, "gemma4", "qwen3_5")
"""Those that are exported for llama.cpp."""


def save_family(
    family: str,
    folder: Path,
    *,
    tied: bool = False,
    dtype: torch.dtype = torch.float32,
    tokenizer: PreTrainedTokenizerFast | None = None,
    **changes: Any,
) -> Path:
    """Saves a random model of a family and its tokenizer; norms and biases are random too.

    Args:
        tokenizer: the tiny one, unless another is given.
        changes: settings of the model that differ from the usual.
    """
    tokenizer = tokenizer or build_tokenizer()
    kind, settings = _FAMILIES[family]
    usual = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": CONTEXT_LENGTH,
        "initializer_range": 0.2,
        "tie_word_embeddings": tied,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    config = kind(**{**usual, **settings, **changes})
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype)
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
        for name, buffer in model.named_buffers():
            if name.endswith(".layer_scalar"):
                buffer.add_(0.1 * torch.randn_like(buffer))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_seeing(folder: Path, family: str = "gemma3") -> Path:
    """Saves a random model of a family that also takes pictures, as published ones do, and its tokenizer.

    Args:
        family: gemma3, gemma4 or qwen3_5.
    """
    save_family(family, folder, tied=True)
    text = AutoConfig.from_pretrained(folder)
    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16}
    two_heads: dict[str, Any] = {"num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 14}
    configs: dict[str, Callable[[], PreTrainedConfig]] = {
        "gemma3": lambda: Gemma3Config(
            text_config=text,
            vision_config=SiglipVisionConfig(**sizes, **two_heads, image_size=28),
            mm_tokens_per_image=4,
            tie_word_embeddings=True,
        ),
        "gemma4": lambda: Gemma4Config(
            text_config=text,
            vision_config=Gemma4VisionConfig(
                **sizes, **two_heads, num_key_value_heads=2, head_dim=8, position_embedding_size=16
            ),
            tie_word_embeddings=True,
        ),
        "qwen3_5": lambda: Qwen3_5Config(
            text_config=text,
            vision_config=Qwen3_5VisionConfig(
                **sizes, depth=1, num_heads=2, patch_size=14, out_hidden_size=64, num_position_embeddings=16
            ),
            tie_word_embeddings=True,
        ),
    }
    with torch.random.fork_rng():
        torch.manual_seed(1)
        AutoModelForImageTextToText.from_config(configs[family]()).save_pretrained(folder)
    return folder


def random_lora(base: Path, adapters: Path, **settings: Any) -> Lora:
    """Publishes a random LoRA on all linear layers, or as `settings` say, and reads it back verified."""
    identity = identify(base, "tiny")
    config = LoraConfig(
        **{"r": 4, "lora_alpha": 6, "target_modules": "all-linear", **settings}, init_lora_weights=False
    )
    with torch.random.fork_rng(), publishing(adapters, Manifest(persona="ann", base=identity)) as staging:
        torch.manual_seed(2)
        model = get_peft_model(load_model(base, torch.float32), config)
        model.save_pretrained(str(staging), save_embedding_layers=False)
        (staging / "README.md").unlink()
    return read_lora(adapters / "0001", identity)
