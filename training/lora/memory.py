"""How many tokens of a micro-batch fit into a device's memory, from what the model itself keeps for backward.

Activations take most of the memory of a training: megabytes for every token. How many depends on the model, the
attention and the kernels in use, so a small batch is measured instead of guessed. Where not even one conversation
fits, layers are computed twice instead of kept (activation checkpointing): a third slower, at a fraction of the memory.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import cycle, islice
from typing import Any

import msgspec
import torch
from peft import PeftModel
from torch.autograd.graph import saved_tensors_hooks
from transformers import PreTrainedModel

from doppel.system.memory import available_memory
from training.lora.examples import Example, collate
from training.lora.fsdp import is_sharded
from training.lora.model import token_losses
from training.lora.packing import packing_obstacle, tokens_per_batch, use_packed_attention
from training.lora.reduced_head import ReducedHead

_MEASURED_TOKENS = (64, 192)
_USABLE = 0.8
"""Of the free memory; the rest is for what the measurement does not see: temporary results, fragmentation."""
_FEWEST_TOKENS = 128
_TRANSIENT = 1.25
"""Peak during backward over what was kept for it."""
_OPTIMIZER_BYTES = 4 + 8
"""Of each trained weight: its float32 master, and AdamW's two moments. The gradient comes on top."""


class BatchLimit(msgspec.Struct, frozen=True):
    """What fits into memory.

    Attributes:
        tokens: in one micro-batch.
        checkpointing: whether the layers are computed twice instead of kept.
    """

    tokens: int
    checkpointing: bool = False


def fit_batch(
    model: PeftModel, examples: Sequence[Example], head: ReducedHead | None, free: int | None = None
) -> BatchLimit:
    """The micro-batch for training on some examples.

    Args:
        model: with its LoRA.
        examples: to train on.
        head: that it trains with.
        free: bytes that can be used; None: as many as are free on the device.

    Returns:
        As many tokens as keep the device busy, and fewer where they do not fit.
    """
    preferred = tokens_per_batch(model)
    if is_sharded(model):  # processes with different memory would not measure the same
        return BatchLimit(preferred)
    free = available_memory(str(model.device)) if free is None else free
    if free is None:
        return BatchLimit(preferred)
    free -= _optimizer_bytes(model)
    longest = max(len(example.ids) for example in examples)
    kept = saved_bytes_per_token(model, examples, head)
    fitting = _fitting(kept, free)
    if fitting >= max(preferred, longest):
        return BatchLimit(preferred)
    if fitting >= longest:
        return BatchLimit(1 if preferred == 1 else max(_FEWEST_TOKENS, fitting))
    use_checkpointing(model)
    one_layer = kept / _causal(model).config.get_text_config().num_hidden_layers  # while it is computed again
    fitting = min(preferred, _fitting(saved_bytes_per_token(model, examples, head) + one_layer, free))
    return BatchLimit(1 if preferred == 1 else max(_FEWEST_TOKENS, fitting), checkpointing=True)


def use_checkpointing(model: PeftModel) -> None:
    """Makes the model compute its layers again in backward instead of keeping what they computed."""
    causal = _causal(model)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """For the first pass and for the second one, which comes when the first one's attention is no longer set."""
        return nullcontext(), nullcontext() if packing_obstacle(causal) is not None else use_packed_attention(causal)

    causal.activation_checkpointing_enable({"use_reentrant": False, "context_fn": contexts})


def saved_bytes_per_token(model: PeftModel, examples: Sequence[Example], head: ReducedHead | None) -> float:
    """Bytes that the model keeps for backward for each further token of a batch."""
    small, large = (_saved_bytes(model, _sequence(examples, length), head) for length in _MEASURED_TOKENS)
    return (large - small) / (_MEASURED_TOKENS[1] - _MEASURED_TOKENS[0])


def _fitting(bytes_per_token: float, free: int) -> int:
    return int(free * _USABLE / (_TRANSIENT * max(1.0, bytes_per_token)))


def _optimizer_bytes(model: PeftModel) -> int:
    """Of what the first optimizer step allocates."""
    trained = (parameter for parameter in model.parameters() if parameter.requires_grad)
    return sum(parameter.numel() * (_OPTIMIZER_BYTES + parameter.element_size()) for parameter in trained)


def _saved_bytes(model: PeftModel, example: Example, head: ReducedHead | None) -> int:
    """Bytes of everything kept for backward on an example, without the model's own weights."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    def unpack(tensor: Any) -> Any:
        return tensor

    with saved_tensors_hooks(pack, unpack):
        losses, _ = token_losses(model, collate([example]), head)
        total = sum(kept.values())
        losses.sum().backward()  # frees what was kept
    model.zero_grad(set_to_none=True)
    return total


def _sequence(examples: Sequence[Example], length: int) -> Example:
    """A sequence of a given length with the examples' tokens, all of them with loss, as in an archive of posts."""
    ids = list(islice(cycle([token for example in examples[:100] for token in example.ids]), length))
    return Example(ids, [0] + [1] * (length - 1), length)


def _causal(model: PeftModel) -> PreTrainedModel:
    causal = model.get_base_model()
    assert isinstance(causal, PreTrainedModel)
    return causal
