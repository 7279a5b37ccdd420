"""Writes an adapter as a GGUF LoRA, which llama.cpp and Ollama apply to a base in GGUF."""

from collections.abc import Iterator
from pathlib import Path

from gguf import GGUFReader, GGUFType, GGUFWriter, Keys, get_tensor_name_map
from gguf.constants import MODEL_ARCH_NAMES
from torch import Tensor
from transformers import AutoConfig, PretrainedConfig

from doppel.adapters.export.families import FAMILIES, Family, lora_tensor_name, order_inputs, order_outputs
from doppel.adapters.export.target import exporting
from doppel.adapters.lora_file import Lora, base_layers, check_fits
from doppel.errors import UserError
from doppel.i18n import tr


def write_gguf(lora: Lora, base_folder: Path, target: Path) -> Path:
    """Writes the LoRA in float32.

    Args:
        lora: the adapter, verified for this base.
        base_folder: the prepared base; only its configuration is read.
        target: the file, which must not exist.

    Returns:
        The target's absolute path.

    Raises:
        UserError: something is at `target`, or the family is not in `FAMILIES`.
        AdapterRefused: the adapter does not fit. DoppelError: the target cannot be written.
    """
    config = AutoConfig.from_pretrained(base_folder, local_files_only=True)
    family = FAMILIES.get(config.model_type)
    if family is None:
        raise UserError(
            tr(
                "cannot export a {kind} model as GGUF, only {supported}; use --merged and convert the result with "
                "llama.cpp's convert_hf_to_gguf.py",
                kind=config.model_type,
                supported=", ".join(FAMILIES),
            )
        )
    check_fits(lora, base_layers(base_folder))
    tensors = {name: tensor.float().contiguous() for name, tensor in _tensors(lora, config, family)}
    with exporting(target, folder=False) as path:
        writer = GGUFWriter(path, MODEL_ARCH_NAMES[family.architecture])
        writer.add_type(GGUFType.ADAPTER)
        writer.add_string(Keys.Adapter.TYPE, "lora")
        # llama.cpp divides by the rank, also for adapters with rsLoRA scaling
        writer.add_float32(Keys.Adapter.LORA_ALPHA, lora.scaling.factor * lora.scaling.r)
        for name, tensor in tensors.items():
            writer.add_tensor(name, tensor.numpy())
        try:
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()
        if not _reads_back(path, tensors):  # numpy does not report a full disk
            raise OSError(tr("the file ends too early; is the disk full?"))
    return target.expanduser().resolve()


def _reads_back(path: Path, tensors: dict[str, Tensor]) -> bool:
    try:
        written = {tensor.name: tensor.data for tensor in GGUFReader(path).tensors}
    except ValueError:  # a truncated tensor
        return False
    return written.keys() == tensors.keys() and all(
        bool((written[name] == tensor.numpy()).all()) for name, tensor in tensors.items()
    )


def _tensors(lora: Lora, config: PretrainedConfig, family: Family) -> Iterator[tuple[str, Tensor]]:
    text = config.get_text_config()
    names = get_tensor_name_map(family.architecture, text.num_hidden_layers)
    for layer in lora.layers:
        lora_a, lora_b = (lora.weights[f"base_model.model.{layer}.lora_{side}.weight"] for side in "AB")
        name = lora_tensor_name(names, layer)
        if name is None and not lora_b.any():
            continue  # has no effect, like the vision layers of a model that was trained on text only
        if name is None or (layer == "lm_head" and config.tie_word_embeddings):
            raise UserError(tr("{path}: llama.cpp cannot adapt {layer}; use --merged", path=lora.folder, layer=layer))
        yield f"{name}.lora_a", order_inputs(lora_a, layer, text)
        yield f"{name}.lora_b", order_outputs(lora_b, layer, text, family)
