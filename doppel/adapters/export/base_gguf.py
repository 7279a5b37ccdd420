"""The base model as a GGUF file for llama.cpp: the user's own, the bundled one, or a cached conversion.

Converts the families in `FAMILIES`, with weights in 8 bits. A converted file has placeholders for a vocabulary, because
the engine exchanges only token ids with llama.cpp.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import msgspec
from gguf import GGUFWriter
from gguf.constants import MODEL_ARCH_NAMES
from safetensors import safe_open
from torch import Tensor
from transformers import AutoConfig, PretrainedConfig

from doppel.adapters.export.families import FAMILIES, base_tensors, head_sizes
from doppel.adapters.export.target import exporting
from doppel.config import Config, cache_dir
from doppel.errors import DoppelError, UserError
from doppel.i18n import tr
from doppel.models.base import identify, load_tokenizer
from doppel.models.bundled import BUNDLED, bundled_gguf_name, write_bundled_gguf

_MAGIC = b"GGUF"


class BaseFile(msgspec.Struct, frozen=True):
    """A base as GGUF.

    Attributes:
        has_vocabulary: whether it has the base's real vocabulary.
    """

    path: Path
    has_vocabulary: bool


def prepare_gguf(config: Config, folder: Path, on_progress: Callable[[str], None]) -> BaseFile:
    """The configured base as GGUF; converted if needed.

    Args:
        folder: the prepared base.
        on_progress: called with a line for the user when something slow begins.

    Raises:
        UserError: there is no such file, or the base cannot be converted. DoppelError: it cannot be written.
    """
    if config.engine.gguf is not None:
        return BaseFile(_check_gguf(config.root / Path(config.engine.gguf).expanduser()), has_vocabulary=True)
    if config.model.base == BUNDLED:
        return BaseFile(_bundled(), has_vocabulary=True)
    digest = identify(folder, config.model.base).digest
    target = cache_dir() / "llamacpp" / f"base-{digest[:16]}-q8_0-1.gguf"  # 1: version of the conversion
    if not target.is_file():
        on_progress(tr("Converting {base} for llama.cpp, once …", base=config.model.base))
        _write_once(target, lambda: write_base(folder, target))
    return BaseFile(target, has_vocabulary=False)


def write_base(folder: Path, target: Path) -> None:
    """Converts a prepared base.

    Raises:
        UserError: its family, or its configuration, is not supported. DoppelError: it cannot be written.
    """
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    family = FAMILIES.get(config.model_type)
    text = config.get_text_config()
    if family is None or not _is_default_architecture(text):
        raise UserError(
            tr(
                "model.base: doppel cannot convert this {kind} model for llama.cpp; download it as GGUF, or convert "
                "it with llama.cpp's convert_hf_to_gguf.py, and set engine.gguf to the file",
                kind=config.model_type,
            )
        )
    with exporting(target, folder=False) as path:
        writer = GGUFWriter(path, MODEL_ARCH_NAMES[family.architecture], use_temp_file=True)
        add_sizes(writer, text)
        add_vocabulary(writer, text.vocab_size, load_tokenizer(folder).eos_token_id or 0)
        writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
        for name, values, is_exact in base_tensors(_weights(folder), text, family):
            kind = gguf.GGMLQuantizationType.F32 if is_exact else _kind(values)
            writer.add_tensor(name, gguf.quants.quantize(values.contiguous().numpy(), kind), raw_dtype=kind)
        try:
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()


def _check_gguf(path: Path) -> Path:
    """The path of the user's own file, if it is GGUF. Raises UserError."""
    try:
        with path.open("rb") as file:
            is_gguf = file.read(len(_MAGIC)) == _MAGIC
    except OSError as error:
        raise UserError(tr("engine.gguf: {path} cannot be read: {error}", path=path, error=error.strerror)) from None
    if not is_gguf:
        raise UserError(tr("engine.gguf: {path} is not a GGUF file", path=path))
    return path


def _bundled() -> Path:
    """The GGUF file that the bundled base was converted from, in the cache."""
    target = cache_dir() / "llamacpp" / bundled_gguf_name()

    def write() -> None:
        with exporting(target, folder=False) as path:
            write_bundled_gguf(path)

    if not target.is_file():
        _write_once(target, write)
    return target


def _write_once(target: Path, write: Callable[[], None]) -> None:
    """Writes a file of the cache; does not fail if another process has written it meanwhile."""
    try:
        write()
    except (DoppelError, OSError):
        if not target.is_file():
            raise


def _is_default_architecture(config: PretrainedConfig) -> bool:
    """Whether llama.cpp computes this model like transformers when the file gives only its sizes."""
    rope: dict[str, Any] = config.rope_parameters
    if config.model_type == "gemma4_text":
        return _is_default_gemma4(config)
    rope_by_layer_type = [value for value in rope.values() if isinstance(value, dict)] or [rope]
    if any(parameters.get("rope_type", "default") != "default" for parameters in rope_by_layer_type):
        return False
    if config.model_type == "qwen3_5_text":
        interval = _full_attention_interval(config)
        pattern = ["linear_attention"] * (interval - 1) + ["full_attention"]
        return (
            config.layer_types == (pattern * config.num_hidden_layers)[: config.num_hidden_layers]
            and config.linear_key_head_dim == config.linear_value_head_dim  # llama.cpp has one size for both
            and config.hidden_act == "silu"
            and not config.attention_bias
        )
    if config.model_type != "gemma3_text":
        return True
    pattern = ["full_attention" if layer % 6 == 5 else "sliding_attention" for layer in range(config.num_hidden_layers)]
    sliding: float | None = rope.get("sliding_attention", {}).get("rope_theta")
    has_usual_scale = bool(config.query_pre_attn_scalar == config.head_dim)
    return has_usual_scale and config.layer_types == pattern and sliding == 10_000


def _is_default_gemma4(config: PretrainedConfig) -> bool:
    full, sliding = (config.rope_parameters.get(f"{kind}_attention", {}) for kind in ("full", "sliding"))
    own = config.num_hidden_layers - config.num_kv_shared_layers  # layers with keys and values of their own
    return bool(
        full.get("rope_type") == "proportional"
        and full.get("factor", 1.0) == 1.0
        and sliding.get("rope_type", "default") == "default"
        and len(head_sizes(config, "full_attention")) == 1
        and len(head_sizes(config, "sliding_attention")) <= 1
        # llama.cpp takes the last two layers before those that share for the ones whose keys and values are shared
        and (
            own == config.num_hidden_layers
            or config.layer_types[own - 2 : own] == ["sliding_attention", "full_attention"]
        )
        and not config.enable_moe_block
        and not config.attention_bias
        and config.use_bidirectional_attention != "all"
        and config.hidden_activation == "gelu_pytorch_tanh"
        and (not config.hidden_size_per_layer_input or config.vocab_size_per_layer_input >= config.vocab_size)
    )


def _full_attention_interval(config: PretrainedConfig) -> int:
    """The n of a Qwen3.5 whose every nth layer has full attention; more than its layers if none has."""
    types: list[str] = config.layer_types
    return types.index("full_attention") + 1 if "full_attention" in types else len(types) + 1


def _weights(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """The weights of a prepared base by transformers' names, one at a time."""
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as weights:
            for name in weights.keys():  # noqa: SIM118 not a dictionary
                yield name, weights.get_tensor(name)


def _kind(values: Tensor) -> gguf.GGMLQuantizationType:
    whole_blocks = values.shape[-1] % gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType.Q8_0][0] == 0
    return gguf.GGMLQuantizationType.Q8_0 if whole_blocks else gguf.GGMLQuantizationType.F16


def add_sizes(writer: GGUFWriter, config: PretrainedConfig) -> None:
    """Writes the sizes in the text configuration of a model of a supported family."""
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    rope = config.rope_parameters.get("full_attention", config.rope_parameters)
    writer.add_rope_freq_base(rope["rope_theta"])
    if config.model_type in {"gemma3_text", "gemma4_text"}:
        writer.add_sliding_window(config.sliding_window)
        writer.add_final_logit_softcapping(config.final_logit_softcapping or 0.0)  # without it Gemma 4 is capped at 30
    if config.model_type == "gemma4_text":
        _add_gemma4_sizes(writer, config)
        return
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rotated = int(head * rope.get("partial_rotary_factor", 1.0))
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(rotated)
    if config.model_type == "qwen3_5_text":
        # Rotary frequencies are shared out among time, height and width. A text has the same position in all three, so
        # any shares will do that leave none for the fourth section, in which the position is 0.
        third = -(-rotated // 6)
        writer.add_rope_dimension_sections([third, third, third, 0])
        writer.add_full_attention_interval(_full_attention_interval(config))
        writer.add_ssm_conv_kernel(config.linear_conv_kernel_dim)
        writer.add_ssm_state_size(config.linear_key_head_dim)
        writer.add_ssm_group_count(config.linear_num_key_heads)
        writer.add_ssm_time_step_rank(config.linear_num_value_heads)
        writer.add_ssm_inner_size(config.linear_value_head_dim * config.linear_num_value_heads)


def _add_gemma4_sizes(writer: GGUFWriter, config: PretrainedConfig) -> None:
    """Writes the sizes that differ between a Gemma 4's layers."""
    (full,) = head_sizes(config, "full_attention")
    (sliding,) = head_sizes(config, "sliding_attention") or {full}
    layers = range(config.num_hidden_layers)
    own = config.num_hidden_layers - config.num_kv_shared_layers
    doubled = range(own, config.num_hidden_layers) if config.use_double_wide_mlp else ()
    writer.add_feed_forward_length([config.intermediate_size * (2 if layer in doubled else 1) for layer in layers])
    writer.add_head_count_kv([config.per_layer_config[layer].num_key_value_heads for layer in layers])
    writer.add_key_length(full)
    writer.add_value_length(full)
    writer.add_key_length_swa(sliding)
    writer.add_value_length_swa(sliding)
    rope = config.rope_parameters["sliding_attention"]
    writer.add_rope_freq_base_swa(rope["rope_theta"])
    writer.add_rope_dimension_count(full)  # `rope_freqs` tells which frequencies rotate
    writer.add_rope_dimension_count_swa(int(sliding * rope.get("partial_rotary_factor", 1.0)))
    writer.add_sliding_window_pattern([kind == "sliding_attention" for kind in config.layer_types])
    writer.add_shared_kv_layers(config.num_kv_shared_layers)
    writer.add_embedding_length_per_layer_input(config.hidden_size_per_layer_input or 0)


def add_vocabulary(writer: GGUFWriter, size: int, end: int) -> None:
    """Writes placeholder tokens: each has a text that no combination of other tokens spells."""
    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"<{number}>" for number in range(size)])
    writer.add_token_scores([0.0] * size)
    writer.add_token_types([gguf.TokenType.NORMAL] * size)
    writer.add_bos_token_id(end)
    writer.add_eos_token_id(end)
    writer.add_unk_token_id(end)
    writer.add_add_bos_token(False)
