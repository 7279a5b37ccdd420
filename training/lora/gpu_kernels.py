"""Fused kernels for GPUs: norms, rotary embeddings and gated units of the liger-kernel package, if it is installed.

Its losses are not used: the head here is computed at supervised positions only.
"""

from importlib.util import find_spec

from transformers import PreTrainedModel


def use_fused_kernels(base: PreTrainedModel) -> bool:
    """Replaces what is fused in a base on a CUDA device; returns whether anything was.

    Args:
        base: as loaded, without adapters.
    """
    if base.device.type != "cuda" or find_spec("liger_kernel") is None:
        return False
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN, _apply_liger_kernel_to_instance

    if base.config.model_type not in MODEL_TYPE_TO_APPLY_LIGER_FN:
        return False
    _apply_liger_kernel_to_instance(
        model=base,
        rope=True,
        rms_norm=True,
        swiglu=True,
        geglu=True,
        cross_entropy=False,
        fused_linear_cross_entropy=False,
    )
    return True
