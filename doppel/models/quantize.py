"""A base in 4 or 8 bits (QLoRA; Dettmers et al. 2023), for machines whose memory does not hold it otherwise.

Linear layers are quantised while they are loaded. Embeddings, norms and the head stay in the dtype of the body;
nothing is upcast: neither training nor serving needs float32 weights. Knows weights; knows nothing of what for.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch
from transformers import BitsAndBytesConfig, PreTrainedModel

from doppel.errors import DoppelError, UserError
from doppel.i18n import tr
from doppel.models.base import choose_dtype, load_model
from doppel.terminal import print_status

Method = Literal["nf4", "int8"]


def check_quantization(device: str, setting: str = "training.quantize") -> None:
    """Raises UserError where a quantised base cannot be computed: without bitsandbytes, or on a device it lacks.

    Args:
        setting: what in config.yaml asks for it.
    """
    if find_spec("bitsandbytes") is None:
        raise UserError(
            tr(
                "{setting}: needs bitsandbytes; install it with `pip install 'doppel[quant]'`, or write null",
                setting=setting,
            )
        )
    if not device.startswith(("cuda", "cpu")):
        raise UserError(
            tr(
                "{setting}: works on NVIDIA GPUs and CPUs, not on {device}; write null, or model.device: cpu",
                setting=setting,
                device=device,
            )
        )


def choose_body_dtype(setting: str, device: str) -> torch.dtype:
    """The dtype to compute in: as set, else bfloat16, and float16 on GPUs that only imitate bfloat16 (before 2020)."""
    if setting == "auto" and device.startswith("cuda") and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return choose_dtype(setting, device)


def quantization(method: Method, dtype: torch.dtype) -> BitsAndBytesConfig:
    """How the layers are quantised; for `nf4` the scales are quantised once more, which saves 0.4 bits a weight."""
    if method == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def load_quantized(
    folder: Path, method: Method, dtype: torch.dtype, device: str, setting: str = "training.quantize"
) -> PreTrainedModel:
    """The base with its linear layers quantised, on `device`. Raises UserError or DoppelError where that cannot be.

    Args:
        setting: what in config.yaml asks for it.
    """
    check_quantization(device, setting)
    if device == "cpu":
        print_status(tr("On a CPU a quantised base takes less memory, and more time."))
    place = f"cuda:{torch.cuda.current_device()}" if device == "cuda" else device
    try:
        base = load_model(folder, dtype, place, quantization(method, dtype))
    except (ImportError, RuntimeError) as error:  # too old, or not made for this machine's CUDA
        reason = str(error).partition("\n")[0]
        raise DoppelError(
            tr("{setting}: the base cannot be quantised here: {reason}", setting=setting, reason=reason)
        ) from None
    for module in base.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # It repacks the weights when it is first evaluated, into a form that rounds them and has no gradient.
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
    return base
