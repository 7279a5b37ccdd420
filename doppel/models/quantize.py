"""Loads a base in 4 or 8 bits (QLoRA; Dettmers et al. 2023), for machines with too little memory for all of it.

Linear layers are quantised while they are loaded. Embeddings, norms and the head keep the compute dtype and are not
upcast, because neither training nor serving needs them in float32.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch
from transformers import BitsAndBytesConfig, PreTrainedModel

from doppel.errors import DoppelError, UserError
from doppel.i18n import tr
from doppel.models.base import load_model
from doppel.terminal import print_status

Method = Literal["nf4", "int8"]


def check_quantization(device: str, setting: str = "training.quantize") -> None:
    """Raises UserError if a quantised base cannot run here: bitsandbytes is missing or does not support the device.

    Args:
        setting: the key in config.yaml that turns it on, for the message.
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


def quantization(method: Method, dtype: torch.dtype) -> BitsAndBytesConfig:
    """bitsandbytes' settings for a method; `nf4` also quantises the scales, which saves 0.4 bits per weight."""
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
    """The base with its linear layers quantised, on `device`. Raises UserError or DoppelError if that fails.

    Args:
        setting: the key in config.yaml that turns it on, for messages.
    """
    check_quantization(device, setting)
    if device == "cpu":
        print_status(tr("Quantised on a CPU: needs less memory, but is slower."))
    exact_device = f"cuda:{torch.cuda.current_device()}" if device == "cuda" else device
    try:
        base = load_model(folder, dtype, exact_device, quantization(method, dtype))
    except (ImportError, RuntimeError) as error:  # bitsandbytes is too old, or built for another CUDA version
        reason = str(error).partition("\n")[0]
        raise DoppelError(
            tr("{setting}: the base cannot be quantised here: {reason}", setting=setting, reason=reason)
        ) from None
    for module in base.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # The first forward pass would repack the weights into a form that rounds them and has no gradient.
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
    return base
