"""Merges base and adapter into one Hugging Face model, which transformers loads without doppel.

Each adapted weight is summed in float32 and rounded once, to the dtype that the base is stored in. The merged model
still expects conversations in the format of `doppel.transcript`.
"""

import math
import shutil
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn
from transformers import AutoConfig, GenerationConfig, PreTrainedModel

from doppel.adapters.export.target import check_free, exporting
from doppel.adapters.lora_file import Lora, check_fits, linear_layers
from doppel.errors import UserError
from doppel.i18n import tr
from doppel.models.base import load_model

_SHARD_SIZE = "5GB"
_GENERATION = "generation_config.json"
# Files to copy from the base, besides weights and configuration. No code and no pickled files.
_COPIED_FILES = (
    *("tokenizer*", "*.model", "*.jinja", "vocab.json", "vocab.txt", "merges.txt"),
    *("special_tokens_map.json", "added_tokens.json", "chat_template.json"),
    *("preprocessor_config.json", "processor_config.json"),
    *("LICENSE*", "NOTICE*", "*TERMS*", "USE_POLICY*"),
)
_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_PICKLED = (".bin", ".pt", ".pth", ".pkl")


def write_merged(lora: Lora, base_folder: Path, target: Path) -> Path:
    """Writes the merged model; needs memory for the base in the dtype it is stored in.

    Args:
        lora: the adapter, verified for this base.
        base_folder: the prepared base.
        target: a new or empty folder.

    Returns:
        The target's absolute path.

    Raises:
        UserError: something is at `target`, or the base's weights are quantised.
        AdapterRefused: the adapter does not fit. DoppelError: the target cannot be written.
    """
    target = check_free(target, folder=True)
    model = load_model(base_folder, stored_dtype(base_folder))
    merge(model, lora)
    has_generation_config = (base_folder / _GENERATION).is_file()
    if has_generation_config:  # copied below, because transformers refuses to save the one of some bases
        model.generation_config = GenerationConfig()
    with exporting(target, folder=True) as folder:
        model.save_pretrained(folder, max_shard_size=_SHARD_SIZE)
        for path in _files_to_copy(base_folder):
            shutil.copyfile(path, folder / path.name)
    return target


def merge(model: PreTrainedModel, lora: Lora) -> None:
    """Adds a LoRA to a model's weights in place. Raises AdapterRefused, the model unchanged, if it does not fit."""
    check_fits(lora, linear_layers(model))
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    for layer in lora.layers:
        module = model.get_submodule(layer)
        assert isinstance(module, nn.Linear)
        weight = module.weight.detach()
        product = _factor(lora, layer, "B") @ _factor(lora, layer, "A")
        if module is head and module.weight is embeddings.weight:
            # The adapter changes the head but not the embeddings, so they can no longer share a matrix.
            model.config.tie_word_embeddings = False
            model.config.get_text_config().tie_word_embeddings = False
        merged = (weight.float() + lora.scaling.factor * product).to(weight.dtype)
        module.weight = nn.Parameter(merged, requires_grad=False)


def stored_dtype(base_folder: Path) -> torch.dtype:
    """The dtype of a base's largest stored weight. Raises UserError for quantised weights, which cannot be merged."""
    config = AutoConfig.from_pretrained(base_folder, local_files_only=True)
    with safe_open(min(base_folder.glob("*.safetensors")), framework="pt") as weights:
        slices = [weights.get_slice(name) for name in weights.keys()]  # noqa: SIM118
        largest = max(slices, key=lambda weight: math.prod(weight.get_shape()))
        dtype = _DTYPES.get(largest.get_dtype())
    if dtype is None or getattr(config, "quantization_config", None) is not None:
        raise UserError(tr("{path}: quantised weights cannot be merged; use the unquantised model", path=base_folder))
    return dtype


def _factor(lora: Lora, layer: str, side: str) -> torch.Tensor:
    return lora.weights[f"base_model.model.{layer}.lora_{side}.weight"].float()


def _files_to_copy(base_folder: Path) -> list[Path]:
    paths = {path for pattern in (*_COPIED_FILES, _GENERATION) for path in base_folder.glob(pattern)}
    return sorted(path for path in paths if path.is_file() and path.suffix not in _PICKLED)
