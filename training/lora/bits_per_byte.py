"""Bits per byte: how well a model predicts what the owner wrote, comparable between tokenizers.

Only the text of the owner's bubbles counts. The ends of bubbles and turns are reported separately: learning our own
separators is easy and says nothing about the person.
"""

import math
from collections.abc import Callable, Sequence

import msgspec
import torch

from doppel.transcript import TEXT_LOSS
from training.lora.examples import Example, collate, count_tokens, micro_batches
from training.lora.model import token_losses


class HeldOutScore(msgspec.Struct, frozen=True):
    """A score on held-out examples.

    Attributes:
        bits_per_byte: of the owner's text.
        end_nats: mean loss at the end of a bubble or turn, nats.
        tokens: tokens of text scored.
        text_bytes: bytes of text scored.
    """

    bits_per_byte: float
    end_nats: float
    tokens: int
    text_bytes: int


@torch.no_grad()
def score_examples(
    model: torch.nn.Module,
    examples: Sequence[Example],
    tokens_per_batch: int,
    on_progress: Callable[[int], None] = lambda _: None,
) -> HeldOutScore:
    """Scores a model in evaluation mode, and restores the mode it was in.

    Args:
        model: a causal language model, bare or with adapters.
        examples: to score.
        tokens_per_batch: tokens in one micro-batch.
        on_progress: is given the number of tokens after each micro-batch.
    """
    was_training = model.training
    model.eval()
    text_nats = end_nats = 0.0
    tokens = ends = 0
    for group in micro_batches(examples, tokens_per_batch):
        losses, loss_mask = token_losses(model, collate(group))
        is_text = loss_mask == TEXT_LOSS
        text_nats += float(losses[is_text].double().sum())
        end_nats += float(losses[~is_text].double().sum())
        tokens += int(is_text.sum())
        ends += int((~is_text).sum())
        on_progress(count_tokens(group))
    model.train(was_training)
    text_bytes = sum(example.text_bytes for example in examples)
    return HeldOutScore(text_nats / math.log(2) / max(1, text_bytes), end_nats / max(1, ends), tokens, text_bytes)
