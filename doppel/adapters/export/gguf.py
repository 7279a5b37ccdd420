"""An adapter as a GGUF LoRA, which llama.cpp and what is built on it (Ollama) lay over a base in GGUF.

Says where each family's layers are in llama.cpp and how their rows are ordered there, after its
`convert_lora_to_gguf.py`. Knows nothing of the base's weights; only their names and sizes matter.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from gguf import GGUFReader, GGUFType, GGUFWriter, Keys, TensorNameMap, get_tensor_name_map
from gguf.constants import MODEL_ARCH, MODEL_ARCH_NAMES
from torch import Tensor
from transformers import AutoConfig, PretrainedConfig

from doppel.adapters.export.target import exporting
from doppel.adapters.lora_file import Lora, base_layers, check_fits
from doppel.errors import UserError
from doppel.i18n import tr


class Family(NamedTuple):
    """A family of models as llama.cpp knows it.

    Attributes:
        architecture: its name and tensors there.
        paired: whether the rows of queries and keys that rotate together stand side by side there; transformers
            has them half a head apart.
    """

    architecture: MODEL_ARCH
    paired: bool


FAMILIES = {
    "gemma3": Family(MODEL_ARCH.GEMMA3, paired=False),
    "gemma3_text": Family(MODEL_ARCH.GEMMA3, paired=False),
    "glm4": Family(MODEL_ARCH.GLM4, paired=False),
    "llama": Family(MODEL_ARCH.LLAMA, paired=True),
    "mistral": Family(MODEL_ARCH.LLAMA, paired=True),
    "qwen2": Family(MODEL_ARCH.QWEN2, paired=False),
    "qwen3": Family(MODEL_ARCH.QWEN3, paired=False),
}
"""By transformers' `model_type`."""


def write_gguf(lora: Lora, base_folder: Path, target: Path) -> Path:
    """Writes the LoRA in float32.

    Args:
        lora: the adapter, verified for this base.
        base_folder: the prepared base; only its configuration is read.
        target: the file, which must not exist.

    Returns:
        The target's absolute path.

    Raises:
        UserError: there is something at `target`, or llama.cpp's names for this base are not known here.
        AdapterRefused: the adapter does not fit. DoppelError: the target cannot be written.
    """
    config = AutoConfig.from_pretrained(base_folder, local_files_only=True)
    family = FAMILIES.get(config.model_type)
    if family is None:
        raise UserError(
            tr(
                "a {kind} model cannot be exported as GGUF, only {known}; use --merged and llama.cpp's own converter",
                kind=config.model_type,
                known=", ".join(FAMILIES),
            )
        )
    check_fits(lora, base_layers(base_folder))
    tensors = {name: tensor.float().contiguous() for name, tensor in _tensors(lora, config, family)}
    with exporting(target, folder=False) as path:
        writer = GGUFWriter(path, MODEL_ARCH_NAMES[family.architecture])
        writer.add_type(GGUFType.ADAPTER)
        writer.add_string(Keys.Adapter.TYPE, "lora")
        # llama.cpp divides by the rank, whatever the adapter's own rule is
        writer.add_float32(Keys.Adapter.LORA_ALPHA, lora.scaling.factor * lora.scaling.r)
        for name, tensor in tensors.items():
            writer.add_tensor(name, tensor.numpy())
        try:
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()
        if not _reads_back(path, tensors):  # numpy does not tell when the disk is full
            raise OSError(tr("the file ends too early; is the disk full?"))
    return target.expanduser().resolve()


def tensor_name(names: TensorNameMap, layer: str) -> str | None:
    """llama.cpp's name for the weight of a layer; None where it has none."""
    layer = layer.replace("model.language_model.", "model.", 1)  # of a model that also sees
    found: str | None = names.get_name(f"{layer}.weight", try_suffixes=(".weight",))
    return found


def pair_rows(rows: Tensor, layer: str, config: PretrainedConfig) -> Tensor:
    """Rows of a query or key projection in llama.cpp's order for `paired` families; those of others as they are.

    Args:
        rows: (outputs, …), as transformers has them.
        layer: the projection's name.
        config: says how many heads there are.
    """
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(layer.rpartition(".")[2])
    if heads is None:
        return rows
    return rows.reshape(heads, 2, -1, *rows.shape[1:]).transpose(1, 2).reshape(rows.shape)


def _reads_back(path: Path, tensors: dict[str, Tensor]) -> bool:
    try:
        written = {tensor.name: tensor.data for tensor in GGUFReader(path).tensors}
    except ValueError:  # a tensor that is cut short
        return False
    return written.keys() == tensors.keys() and all(
        bool((written[name] == tensor.numpy()).all()) for name, tensor in tensors.items()
    )


def _tensors(lora: Lora, config: PretrainedConfig, family: Family) -> Iterator[tuple[str, Tensor]]:
    text = config.get_text_config()
    names = get_tensor_name_map(family.architecture, text.num_hidden_layers)
    for layer in lora.layers:
        inward, outward = (lora.weights[f"base_model.model.{layer}.lora_{side}.weight"] for side in "AB")
        name = tensor_name(names, layer)
        if name is None and not outward.any():
            continue  # as of the eyes of a model that was trained on text: it changes nothing
        if name is None or (layer == "lm_head" and config.tie_word_embeddings):
            raise UserError(
                tr("{path}: adapts {layer}, which llama.cpp cannot; use --merged", path=lora.folder, layer=layer)
            )
        yield f"{name}.lora_a", inward
        yield f"{name}.lora_b", pair_rows(outward, layer, text) if family.paired else outward
