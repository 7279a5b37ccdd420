"""The output head over the words that occur, for training: most of a large vocabulary never does.

Of the 262,144 tokens of Gemma 3 some 16,000 occur in an archive. The head is computed for these and for the commonest
of the tokenizer; all others are represented by a random sample of them, each standing for as many as were left out.
So the loss remains a likelihood over the whole vocabulary: an adapter cannot gain by moving probability to what is not
computed. Scores are always taken with the whole head.
"""

import math
from collections.abc import Iterable

import msgspec
import torch
from peft import PeftModel
from transformers import PreTrainedModel

from training.lora.examples import Example

_COMMONEST = 32_768
"""Token ids below this are kept: BPE tokenizers number their tokens in the order of merging, commonest first."""
_SAMPLE = 4_096
_MIN_GAIN = 2.0
"""Times that the whole vocabulary must be larger, or the copy of the head is not worth its memory."""


class ReducedHead(msgspec.Struct, frozen=True):
    """The rows of a head that training computes.

    Attributes:
        weight: (R, D) the rows, in the head's dtype.
        bias: (R,) added to their logits: the logarithm of how many tokens a row stands for.
        rows: (V,) int64, the row of each token id; -1 for those that have none.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    rows: torch.Tensor


def reduce_head(model: torch.nn.Module, examples: Iterable[Example], seed: int) -> ReducedHead | None:
    """The head for training on some examples; None if the model's own is small, or no plain matrix.

    Args:
        model: a causal language model, bare or with adapters.
        examples: all that is trained on, in any epoch.
        seed: of the sample.
    """
    causal = model.get_base_model() if isinstance(model, PeftModel) else model
    assert isinstance(causal, PreTrainedModel)
    head = causal.get_output_embeddings().weight
    assert isinstance(head, torch.Tensor)
    size = head.shape[0]
    occurring = {token for example in examples for token in example.ids}
    kept = torch.tensor(sorted(occurring.union(range(min(_COMMONEST, size)))))
    if not head.is_floating_point() or (len(kept) + _SAMPLE) * _MIN_GAIN > size:
        return None
    is_rest = torch.ones(size, dtype=torch.bool)
    is_rest[kept] = False
    rest = is_rest.nonzero()[:, 0]
    sample = rest[torch.randperm(len(rest), generator=torch.Generator().manual_seed(seed))[:_SAMPLE]]
    rows = torch.full((size,), -1)
    rows[kept] = torch.arange(len(kept))
    bias = torch.zeros(len(kept) + len(sample), dtype=head.dtype)
    bias[len(kept) :] = math.log(len(rest) / len(sample))
    weight = head.detach()[torch.cat([kept, sample]).to(head.device)].contiguous()
    return ReducedHead(weight, bias.to(head.device), rows.to(head.device))
