"""RunFolder divided among the processes of a training: the examples of a step, and held-out examples to score.

Every process knows all of it and takes its share, so that nothing has to be handed out. Knows no launcher.
"""

from collections.abc import Callable, Sequence

import torch

from doppel.transcript import END_LOSS
from training.lora.bits_per_byte import HeldOutScore
from training.lora.distributed import ProcessGroup
from training.lora.examples import Example, Step, balanced_groups, micro_batches
from training.lora.fsdp import is_sharded


def split_step(step: Step, count: int, tokens_per_batch: int, weigh: Callable[[Example], float]) -> list[Step]:
    """The micro-batches that each of `count` processes computes of a step."""
    if count == 1:
        return [step]
    examples = [example for group in step for example in group]
    return [
        micro_batches(share, tokens_per_batch) if share else [] for share in balanced_groups(examples, count, weigh)
    ]


def score_in_parallel(
    ranks: ProcessGroup,
    model: torch.nn.Module,
    items: Sequence[Example],
    score: Callable[[Sequence[Example]], HeldOutScore],
) -> HeldOutScore:
    """The score over all the examples, each process having scored a share; the same in every process.

    A base that is split is gathered by all for every batch, so there everybody scores everything.
    """
    if is_sharded(model):
        return ranks.tell(score(items))
    mine = balanced_groups(items, ranks.count)[ranks.number]
    ends = sum(loss == END_LOSS for example in mine for loss in example.loss_mask[1:])
    parts = ranks.collect((score(mine), ends))
    total_bytes = sum(bits.text_bytes for bits, _ in parts)
    total_ends = sum(ends for _, ends in parts)
    return HeldOutScore(
        bits_per_byte=sum(bits.bits_per_byte * bits.text_bytes for bits, _ in parts) / max(1, total_bytes),
        end_nats=sum(bits.end_nats * ends for bits, ends in parts) / max(1, total_ends),
        tokens=sum(bits.tokens for bits, _ in parts),
        text_bytes=total_bytes,
    )
