"""Bits per byte: how surprised a model is by what the owner wrote, whatever the tokenizer.

Only the text of the owner's bubbles counts (role 1); ends of bubbles and turns are reported apart, because
learning our own punctuation is easy and says nothing about the person.
"""

import math
from collections.abc import Callable, Sequence

import msgspec
import torch

from doppel.transcript import TEXT_LOSS
from training.lora.examples import Example, collate, micro_batches
from training.lora.model import token_losses


class HeldOutScore(msgspec.Struct, frozen=True):
    """A score on held-out examples.

    Attributes:
        bits_per_byte: of the owner's text.
        end_nats: mean loss of a bubble's or turn's end, nats.
        tokens: tokens of text scored.
        text_bytes: bytes of text scored.
    """

    bits_per_byte: float
    end_nats: float
    tokens: int
    text_bytes: int


@torch.no_grad()
def score(
    model: torch.nn.Module,
    items: Sequence[Example],
    tokens_per_batch: int,
    advance: Callable[[int], None] = lambda _: None,
) -> HeldOutScore:
    """Scores the model on examples; `advance` hears how many tokens each micro-batch held.

    The model is scored in evaluation mode and left in the mode it was in.
    """
    was_training = model.training
    model.eval()
    text = ends = 0.0
    tokens = end_tokens = 0
    for group in micro_batches(items, tokens_per_batch):
        losses, loss_mask = token_losses(model, collate(group))
        is_text = loss_mask == TEXT_LOSS
        text += float(losses[is_text].double().sum())
        ends += float(losses[~is_text].double().sum())
        tokens += int(is_text.sum())
        end_tokens += int((~is_text).sum())
        advance(sum(len(example.ids) for example in group))
    model.train(was_training)
    text_bytes = sum(example.text_bytes for example in items)
    return HeldOutScore(text / math.log(2) / max(1, text_bytes), ends / max(1, end_tokens), tokens, text_bytes)
