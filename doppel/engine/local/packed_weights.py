"""Repacks a model's weights into oneDNN's own layout, for serving on a CPU.

In float32 torch's usual product takes almost n times as long for n rows as for one; with packed weights eight rows
take little longer than one. In bfloat16 any number of rows takes two thirds of the time.
"""

import platform

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from transformers import PreTrainedModel

_MACHINES = ("x86_64", "amd64")  # elsewhere torch uses other libraries
_CHUNK_ROWS = 4096  # rows of an embedding that are checked together


def pack_weights(model: PreTrainedModel) -> None:
    """Packs a model's linear layers in place, where that is faster. The model can only be used for inference then."""
    dtypes = _packable_dtypes()
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    is_tied = head is not None and embedding.weight is head.weight
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear and child.weight.dtype in dtypes and child.weight.device.type == "cpu":
                setattr(parent, name, PackedLinear(child))
    is_copied = is_tied and isinstance(model.get_output_embeddings(), PackedLinear)
    if is_copied and isinstance(embedding, nn.Embedding) and _fits_bfloat16(embedding.weight):
        model.set_input_embeddings(BFloat16Embedding(embedding))


class PackedLinear(nn.Linear):
    """A linear layer for inference, whose packed weight only its own product can read.

    Args:
        linear: in float32 or bfloat16, on the CPU.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
        packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        self.weight = nn.Parameter(packed, requires_grad=False)
        self.bias = linear.bias

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 the name is torch's
        """The output of the linear layer, without gradients."""
        if not input.numel():  # oneDNN refuses empty inputs
            return input.new_empty(*input.shape[:-1], self.out_features)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(input.contiguous(), self.weight, self.bias, "none", [], "")
        return product


class BFloat16Embedding(nn.Module):
    """An embedding that stores its weights in bfloat16 and computes as before.

    Args:
        embedding: in float32, with weights that bfloat16 can hold.
    """

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.register_buffer("rows", embedding.weight.detach().bfloat16())
        embedding.weight = nn.Parameter(embedding.weight.new_empty(0, embedding.embedding_dim), requires_grad=False)
        embedding.padding_idx = None  # only gradients need it, and it would have to be among the rows looked up
        self._embedding = embedding

    def forward(self, ids: Tensor) -> Tensor:
        """The embedding of ids. It runs on the rows looked up, so that subclasses (which scale, say) still apply."""
        rows = functional.embedding(ids.flatten(), self.get_buffer("rows")).float()
        row_ids = torch.arange(ids.numel(), device=ids.device).view(ids.shape)
        embedded: Tensor = functional_call(self._embedding, {"weight": rows}, (row_ids,))
        return embedded


def _packable_dtypes() -> tuple[torch.dtype, ...]:
    """The types whose packed product is faster on this machine."""
    has_product = hasattr(torch.ops.mkldnn, "_reorder_linear_weight") and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    if platform.machine().lower() not in _MACHINES or not torch.backends.mkldnn.is_available() or not has_product:
        return ()
    has_units = any(torch.cpu.get_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16"))
    return (torch.float32, torch.bfloat16) if has_units else (torch.float32,)


def _fits_bfloat16(weight: Tensor) -> bool:
    """Whether bfloat16 holds every weight exactly."""
    return weight.dtype == torch.float32 and all(
        bool((rows.bfloat16().float() == rows).all()) for rows in weight.detach().split(_CHUNK_ROWS)
    )
