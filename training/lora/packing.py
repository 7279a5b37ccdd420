"""Packs several sequences into one row, each attending to itself only, so that nothing is padded.

transformers lets an attention function be registered by name; ours takes the sequence lengths under the parameter
names that flash attention uses. Models whose layers carry a state along the row (convolutions, linear attention)
would leak from one sequence into the next, and get one sequence at a time.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from doppel.i18n import tr
from training.lora.cpu_kernels.attention import PackedAttention
from training.lora.cpu_kernels.shapes import missing_rows
from training.lora.examples import MicroBatch

_ATTENTION_NAME = "doppel_packed"
_PACKABLE_LAYERS = {"full_attention", "sliding_attention"}
# Measured with Gemma 3 270M in float32 on two AVX2 cores: 2,048 are 10 % faster and take 1.2 GB more.
_TOKENS_PER_BATCH = {"cpu": 1024}
_FLASH_MAX_HEAD_DIM = 256  # of torch's flash attention


def tokens_per_batch(model: torch.nn.Module) -> int:
    """Tokens in one micro-batch, enough to keep the device busy; 1, which means one sequence, if not packed."""
    causal = model.get_base_model() if isinstance(model, PeftModel) else model
    assert isinstance(causal, PreTrainedModel)
    if packing_obstacle(causal) is not None:
        return 1
    return _TOKENS_PER_BATCH.get(causal.device.type, 8192)


def packing_obstacle(model: PreTrainedModel) -> str | None:
    """Why sequences of this model must not share a row, for the user; None if they may."""
    config = model.config.get_text_config()
    layer_types = set(getattr(config, "layer_types", None) or ["full_attention"])
    if not model._supports_attention_backend:
        return tr("{kind} models use their own attention code", kind=config.model_type)
    if layer_types - _PACKABLE_LAYERS:
        return tr(
            "{kind} models have {layers} layers, which carry state from one conversation into the next",
            kind=config.model_type,
            layers=", ".join(sorted(layer_types - _PACKABLE_LAYERS)),
        )
    if getattr(config, "attn_logit_softcapping", None) or any("sinks" in name for name, _ in model.named_parameters()):
        return tr("{kind} models use a non-standard attention", kind=config.model_type)
    return None


def hidden_states(model: PreTrainedModel, batch: MicroBatch) -> torch.Tensor:
    """The body's last hidden states (N, D) at every position of a packed batch.

    Raises:
        ValueError: more than one sequence for a model that must not be packed.
    """
    parameter = next(model.parameters())
    device = parameter.device
    ids, positions = batch.ids[None].to(device), batch.positions[None].to(device)
    if packing_obstacle(model) is not None:
        if len(batch.lengths) > 1:
            raise ValueError("this model must not be packed")
        return model.base_model(input_ids=ids, use_cache=False).last_hidden_state[0]  # type: ignore[no-any-return]
    lengths = batch.lengths
    if missing := missing_rows(len(batch.ids), parameter.dtype, device):  # as a sequence of its own, of token 0
        ids, positions = pad(ids, (0, missing)), pad(positions, (0, missing))
        lengths = [*lengths, missing]
    boundaries = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    longest = max(lengths)
    with use_packed_attention(model):
        output = model.base_model(
            input_ids=ids,
            position_ids=positions,
            use_cache=False,
            cu_seq_lens_q=boundaries.to(device),
            cu_seq_lens_k=boundaries.to(device),
            max_length_q=longest,
            max_length_k=longest,
        )
    return output.last_hidden_state[0, : len(batch.ids)]  # type: ignore[no-any-return]


@contextmanager
def use_packed_attention(model: PreTrainedModel) -> Iterator[None]:
    """Makes the model use our attention within the block."""
    config = model.config.get_text_config()
    original = config._attn_implementation
    ALL_ATTENTION_FUNCTIONS.register(_ATTENTION_NAME, packed_attention)
    config._attn_implementation = _ATTENTION_NAME
    try:
        yield
    finally:
        config._attn_implementation = original


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float,
    cu_seq_lens_q: torch.Tensor,
    max_length_q: int,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each sequence of a row, with the signature that transformers calls.

    Args:
        module: the attention layer; not used.
        query: (1, H, N, D). key, value: (1, K, N, D), where K divides H.
        attention_mask: not used; `cu_seq_lens_q` replaces it.
        scaling: factor of the scores.
        cu_seq_lens_q: (sequences + 1,) int32, where each sequence begins, and N.
        max_length_q: length of the longest.
        sliding_window: how many positions a position sees, itself included; None for all before it.

    Returns:
        (1, N, H, D), and no attention weights.
    """
    if _has_flash(query):
        q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
        window = (-1, 0) if sliding_window is None else (sliding_window - 1, 0)
        out = varlen_attn(
            q,
            k,
            v,
            cu_seq_lens_q,
            cu_seq_lens_q,
            max_length_q,
            max_length_q,
            scale=scaling,
            window_size=window,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        assert isinstance(out, torch.Tensor)
        return out[None], None
    lengths = cu_seq_lens_q.diff().tolist()
    if query.device.type == "cpu" and query.dtype in (torch.float32, torch.bfloat16):
        packed: torch.Tensor = PackedAttention.apply(query, key, value, lengths, scaling, sliding_window)  # type: ignore[no-untyped-call]
        return packed, None
    sequences = zip(*(tensor.split(lengths, dim=2) for tensor in (query, key, value)), strict=True)
    outputs = [_sequence_attention(q, k, v, scaling, sliding_window) for q, k, v in sequences]
    return torch.cat(outputs, dim=2).transpose(1, 2), None


def _has_flash(query: torch.Tensor) -> bool:
    """Whether torch's flash attention supports these heads: half precision, on Ampere or newer."""
    if query.device.type != "cuda" or query.dtype == torch.float32 or query.shape[-1] > _FLASH_MAX_HEAD_DIM:
        return False
    return torch.cuda.get_device_capability(query.device) >= (8, 0)


def _sequence_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, window: int | None
) -> torch.Tensor:
    """Attention of one sequence by torch's own kernel: (1, H, L, D)."""
    length = query.shape[2]
    mask = None
    if window is not None and length > window:
        mask = torch.ones(length, length, dtype=torch.bool, device=query.device).tril().triu(1 - window)
    is_grouped = query.shape[1] != key.shape[1]
    return scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=is_grouped
    )
