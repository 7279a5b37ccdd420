"""The model families that llama.cpp has, and where its weights differ from those of transformers.

Names and order follow llama.cpp's `convert_hf_to_gguf.py` and `convert_lora_to_gguf.py`.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from gguf import TensorNameMap, get_tensor_name_map
from gguf.constants import MODEL_ARCH
from torch import Tensor
from transformers import PretrainedConfig

from doppel.errors import UserError
from doppel.i18n import tr

# Parts of a multimodal model that are not its text model, and heads that predict several tokens at once.
_LEFT_OUT = ("vision", "visual", "audio", "projector", "mtp.")
# Weights without a layer of their own, by the end of their name; what llama.cpp's table of names calls them.
_RENAMED = {".dt_bias": ".dt_proj.bias", ".layer_scalar": ".layer_scalar.weight"}
# llama.cpp multiplies with these weights without looking for a LoRA, so one would be ignored silently.
_NOT_ADAPTABLE = frozenset({"per_layer_model_projection"})
_UNROTATED = 1e30  # a rotary frequency divided by this is 0


class Family(NamedTuple):
    """A model family in llama.cpp.

    Attributes:
        architecture: llama.cpp's name of it.
        paired: whether rows of queries and keys that rotate together are adjacent in llama.cpp; in transformers they
            are half a head apart.
        centered_norms: whether transformers adds 1 to the weights of norms in the forward pass; llama.cpp's files
            have it added.
    """

    architecture: MODEL_ARCH
    paired: bool = False
    centered_norms: bool = False


FAMILIES = {
    "gemma3": Family(MODEL_ARCH.GEMMA3, centered_norms=True),
    "gemma3_text": Family(MODEL_ARCH.GEMMA3, centered_norms=True),
    "gemma4": Family(MODEL_ARCH.GEMMA4),
    "gemma4_text": Family(MODEL_ARCH.GEMMA4),
    "glm4": Family(MODEL_ARCH.GLM4),
    "llama": Family(MODEL_ARCH.LLAMA, paired=True),
    "mistral": Family(MODEL_ARCH.LLAMA, paired=True),
    "qwen2": Family(MODEL_ARCH.QWEN2),
    "qwen3": Family(MODEL_ARCH.QWEN3),
    "qwen3_5": Family(MODEL_ARCH.QWEN35, centered_norms=True),
    "qwen3_5_text": Family(MODEL_ARCH.QWEN35, centered_norms=True),
}
"""By transformers' `model_type`."""


class BaseTensor(NamedTuple):
    """A weight of a base model as llama.cpp stores it.

    Attributes:
        name: llama.cpp's.
        values: float32, in llama.cpp's order.
        is_exact: whether llama.cpp takes it in float32 only.
    """

    name: str
    values: Tensor
    is_exact: bool


def base_tensors(
    weights: Iterable[tuple[str, Tensor]], config: PretrainedConfig, family: Family
) -> Iterator[BaseTensor]:
    """Converts the weights of a base model, one at a time.

    Args:
        weights: by transformers' names; those that are no part of the text model are left out.
        config: of the text model.
        family: of the model.

    Raises:
        UserError: llama.cpp has no counterpart of a weight.
    """
    names = get_tensor_name_map(family.architecture, config.num_hidden_layers)
    for full_name, tensor in weights:
        is_tied_head = config.tie_word_embeddings and "lm_head." in full_name
        if is_tied_head or any(part in full_name for part in _LEFT_OUT):
            continue
        name = names.get_name(_mapped_name(full_name), try_suffixes=(".weight", ".bias"))
        if name is None:
            raise UserError(tr("model.base: llama.cpp has no counterpart of {name}", name=full_name))
        layer = full_name.removesuffix(".weight").removesuffix(".bias")
        values = order_inputs(order_outputs(tensor.float(), layer, config, family), layer, config)
        if family.centered_norms and layer.endswith("norm") and not layer.endswith("linear_attn.norm"):
            values = values + 1
        elif layer.endswith(".A_log"):
            values = -values.exp()
        elif layer.endswith(".conv1d"):
            values = values.squeeze(1)
        elif layer.endswith(".embed_tokens_per_layer"):
            values = values[: config.vocab_size]  # llama.cpp wants a row for each token, and no more
        yield BaseTensor(name, values, is_exact=values.dim() == 1 or layer.endswith(".conv1d"))
    if config.model_type == "gemma4_text":
        yield BaseTensor("rope_freqs.weight", _frequency_divisors(config), is_exact=True)


def lora_tensor_name(names: TensorNameMap, layer: str) -> str | None:
    """llama.cpp's name for the weight of a layer that it can adapt; None if it cannot."""
    if layer.rpartition(".")[2] in _NOT_ADAPTABLE:
        return None
    name: str | None = names.get_name(_mapped_name(f"{layer}.weight"), try_suffixes=(".weight",))
    return name


def order_outputs(rows: Tensor, layer: str, config: PretrainedConfig, family: Family) -> Tensor:
    """Reorders the outputs of a layer as llama.cpp has them; those of most layers are unchanged.

    Args:
        rows: shape (outputs, …), in transformers' order: a weight, a bias, or a LoRA's B.
        layer: name of the layer, or of a parameter that has no layer of its own.
        config: of the text model, for the number of heads.
        family: of the model.
    """
    part = layer.rpartition(".")[2]
    if family.paired and part in {"q_proj", "k_proj"}:
        heads = config.num_attention_heads if part == "q_proj" else config.num_key_value_heads
        return rows.reshape(heads, 2, -1, *rows.shape[1:]).transpose(1, 2).reshape(rows.shape)
    if ".linear_attn." not in layer:
        return rows
    if part in {"in_proj_z", "in_proj_a", "in_proj_b", "A_log", "dt_bias"}:
        return _tile_value_heads(rows, config)
    if part in {"in_proj_qkv", "conv1d"}:  # queries, keys, values
        start = 2 * config.linear_num_key_heads * config.linear_key_head_dim
        return torch.cat([rows[:start], _tile_value_heads(rows[start:], config)])
    return rows


def order_inputs(columns: Tensor, layer: str, config: PretrainedConfig) -> Tensor:
    """Reorders the inputs of a layer as llama.cpp has them; those of most layers are unchanged.

    Args:
        columns: shape (…, inputs), in transformers' order: a weight or a LoRA's A.
        layer: name of the layer.
        config: of the text model, for the number of heads.
    """
    if not layer.endswith(".linear_attn.out_proj"):
        return columns
    return _tile_value_heads(columns.mT, config).mT


def _mapped_name(name: str) -> str:
    """A weight's name as it is in llama.cpp's table."""
    name = name.replace("language_model.", "", 1)  # of multimodal models; before or after `model.`
    for end, renamed in _RENAMED.items():
        if name.endswith(end):
            return name.removesuffix(end) + renamed
    return name


def _tile_value_heads(rows: Tensor, config: PretrainedConfig) -> Tensor:
    """Reorders the value heads of a gated delta net, along the first axis.

    In transformers the value heads of a key head are adjacent; in llama.cpp the first of each key head come first,
    then the second of each, and so on.
    """
    keys = config.linear_num_key_heads
    heads = rows.reshape(keys, config.linear_num_value_heads // keys, -1, *rows.shape[1:])
    return heads.transpose(0, 1).reshape(rows.shape)


def _frequency_divisors(config: PretrainedConfig) -> Tensor:
    """Shape (head size / 2,): what llama.cpp divides rotary frequencies by in layers with full attention.

    Gemma 4 rotates only the first part of each half of a head there, which llama.cpp cannot be told otherwise.
    """
    (head,) = head_sizes(config, "full_attention")
    rotated = int(config.rope_parameters["full_attention"].get("partial_rotary_factor", 1.0) * head // 2)
    return torch.tensor([1.0] * rotated + [_UNROTATED] * (head // 2 - rotated))


def head_sizes(config: PretrainedConfig, attention: str) -> set[int]:
    """The sizes that heads have in a Gemma 4's layers with `full_attention` or `sliding_attention`."""
    return {
        config.per_layer_config[layer].head_dim for layer, kind in enumerate(config.layer_types) if kind == attention
    }
