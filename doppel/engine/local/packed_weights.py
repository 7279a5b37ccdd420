"""A model's weights in the order in which oneDNN multiplies by them, for serving on a CPU.

torch's usual product by a few rows in float32 takes almost as long for each as for one alone; on weights that were
rearranged beforehand, eight rows cost little more than one. In bfloat16 any number of rows takes two thirds of the
time. Knows linear layers and embeddings; knows no requests.
"""

import platform

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from transformers import PreTrainedModel

_MACHINES = ("x86_64", "amd64")  # elsewhere torch multiplies with other libraries
_ROWS = 4096  # of an embedding looked at together


def pack(model: PreTrainedModel) -> None:
    """Packs a model's linear layers in place, where that makes them faster. From then on it can only be served."""
    dtypes = _dtypes()
    rows, head = model.get_input_embeddings(), model.get_output_embeddings()
    is_shared = head is not None and rows.weight is head.weight
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear and child.weight.dtype in dtypes and child.weight.device.type == "cpu":
                setattr(parent, name, PackedLinear(child))
    has_own_copy = is_shared and isinstance(model.get_output_embeddings(), PackedLinear)
    if has_own_copy and isinstance(rows, nn.Embedding) and _fits_bfloat16(rows.weight):
        model.set_input_embeddings(HalvedEmbedding(rows))


class PackedLinear(nn.Linear):
    """A linear layer for inference whose weight no other operation than its own product can read.

    Args:
        linear: in float32 or bfloat16, on the CPU.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
        packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        self.weight = nn.Parameter(packed, requires_grad=False)
        self.bias = linear.bias

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 the name is torch's
        """As of any linear layer, without gradients."""
        if not input.numel():  # oneDNN refuses
            return input.new_empty(*input.shape[:-1], self.out_features)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(input.contiguous(), self.weight, self.bias, "none", [], "")
        return product


class HalvedEmbedding(nn.Module):
    """An embedding that keeps its weights in bfloat16, and computes as before.

    Args:
        embedding: in float32, with weights that bfloat16 can hold.
    """

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.register_buffer("rows", embedding.weight.detach().bfloat16())
        embedding.weight = nn.Parameter(embedding.weight.new_empty(0, embedding.embedding_dim), requires_grad=False)
        embedding.padding_idx = None  # it matters for gradients only, and would have to be among the rows looked up
        self._embedding = embedding

    def forward(self, ids: Tensor) -> Tensor:
        """What the embedding makes of ids, whatever else it does with the rows: those looked up stand in for all."""
        rows = functional.embedding(ids.flatten(), self.get_buffer("rows")).float()
        places = torch.arange(ids.numel(), device=ids.device).view(ids.shape)
        embedded: Tensor = functional_call(self._embedding, {"weight": rows}, (places,))
        return embedded


def _dtypes() -> tuple[torch.dtype, ...]:
    """In which a packed product is faster here."""
    has_product = hasattr(torch.ops.mkldnn, "_reorder_linear_weight") and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    if platform.machine().lower() not in _MACHINES or not torch.backends.mkldnn.is_available() or not has_product:
        return ()
    has_units = any(torch.cpu.get_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16"))
    return (torch.float32, torch.bfloat16) if has_units else (torch.float32,)


def _fits_bfloat16(weight: Tensor) -> bool:
    """Whether no weight would be rounded."""
    return weight.dtype == torch.float32 and all(
        bool((rows.bfloat16().float() == rows).all()) for rows in weight.detach().split(_ROWS)
    )
