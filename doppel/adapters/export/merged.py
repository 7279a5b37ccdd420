"""Base and adapter as one plain Hugging Face model, which transformers loads with no code of ours.

Each adapted weight is added up in float32 and rounded once, to the type the base is stored in. Knows nothing
of personas; the way a persona's conversations are written stays in `doppel.transcript`.
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
# Beside weights and configuration, what a model folder holds that a copy of the model must keep. No code, no pickle.
_KEPT = (
    *("tokenizer*", "*.model", "*.jinja", "vocab.json", "vocab.txt", "merges.txt"),
    *("special_tokens_map.json", "added_tokens.json", "chat_template.json"),
    *("preprocessor_config.json", "processor_config.json"),
    *("LICENSE*", "NOTICE*", "*TERMS*", "USE_POLICY*"),
)
_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_PICKLED = (".bin", ".pt", ".pth", ".pkl")


def write_merged(lora: Lora, base_folder: Path, target: Path) -> Path:
    """Writes the merged model; needs memory for the base in the type it is stored in.

    Args:
        lora: the adapter, verified for this base.
        base_folder: the prepared base.
        target: a folder that is missing or empty.

    Returns:
        The target's absolute path.

    Raises:
        UserError: there is something at `target`, or the base's weights are quantised.
        AdapterRefused: the adapter does not fit. DoppelError: the target cannot be written.
    """
    target = check_free(target, folder=True)
    model = load_model(base_folder, stored_dtype(base_folder))
    merge(model, lora)
    has_own = (base_folder / _GENERATION).is_file()
    if has_own:  # copied as it is: some bases come with one that the library refuses to save
        model.generation_config = GenerationConfig()
    with exporting(target, folder=True) as folder:
        model.save_pretrained(folder, max_shard_size=_SHARD_SIZE)
        for path in _kept(base_folder, has_own):
            shutil.copyfile(path, folder / path.name)
    return target


def merge(model: PreTrainedModel, lora: Lora) -> None:
    """Adds a LoRA to a model's weights in place. Raises AdapterRefused, the model being as before."""
    check_fits(lora, linear_layers(model))
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    for layer in lora.layers:
        module = model.get_submodule(layer)
        assert isinstance(module, nn.Linear)
        weight = module.weight.detach()
        product = _side(lora, layer, "B") @ _side(lora, layer, "A")
        if module is head and module.weight is embeddings.weight:
            # The adapter changed the head and not the embeddings: from now on they are two matrices.
            model.config.tie_word_embeddings = False
            model.config.get_text_config().tie_word_embeddings = False
        merged = (weight.float() + lora.scaling.factor * product).to(weight.dtype)
        module.weight = nn.Parameter(merged, requires_grad=False)


def stored_dtype(base_folder: Path) -> torch.dtype:
    """The type most of a base is stored in. Raises UserError for quantised weights, which cannot be added to."""
    config = AutoConfig.from_pretrained(base_folder, local_files_only=True)
    with safe_open(min(base_folder.glob("*.safetensors")), framework="pt") as weights:
        slices = [weights.get_slice(name) for name in weights.keys()]  # noqa: SIM118
        largest = max(slices, key=lambda one: math.prod(one.get_shape()))
        dtype = _DTYPES.get(largest.get_dtype())
    if dtype is None or getattr(config, "quantization_config", None) is not None:
        raise UserError(
            tr("{path}: its weights are quantised and cannot be merged; use the unquantised model", path=base_folder)
        )
    return dtype


def _side(lora: Lora, layer: str, side: str) -> torch.Tensor:
    return lora.weights[f"base_model.model.{layer}.lora_{side}.weight"].float()


def _kept(base_folder: Path, has_own: bool) -> list[Path]:
    found = {path for pattern in _KEPT for path in base_folder.glob(pattern)}
    if has_own:
        found.add(base_folder / _GENERATION)
    return sorted(path for path in found if path.is_file() and path.suffix not in _PICKLED)
