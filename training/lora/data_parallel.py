"""Divides a training step, and the scoring of held-out examples, among the processes of a training.

Each process knows all the examples and picks its share, so nothing has to be sent.
"""

from collections.abc import Callable, Sequence

import torch

from doppel.transcript import END_LOSS
from training.lora.bits_per_byte import HeldOutScore
from training.lora.distributed import ProcessGroup
from training.lora.examples import Example, Step, balanced_groups, micro_batches
from training.lora.fsdp import is_sharded


def split_step(step: Step, world_size: int, tokens_per_batch: int, cost_of: Callable[[Example], float]) -> list[Step]:
    """The micro-batches of a step that each process computes; some processes have none if there are few examples."""
    if world_size == 1:
        return [step]
    examples = [example for group in step for example in group]
    shares = balanced_groups(examples, world_size, cost_of)
    return [micro_batches(share, tokens_per_batch) if share else [] for share in shares]


def score_in_parallel(
    processes: ProcessGroup,
    model: torch.nn.Module,
    examples: Sequence[Example],
    score: Callable[[Sequence[Example]], HeldOutScore],
) -> HeldOutScore:
    """Scores a share of the examples in each process; returns the score of all of them, the same in every process.

    With a sharded base every process scores all the examples, since each batch needs all processes anyway.
    """
    if is_sharded(model):
        return processes.broadcast(score(examples))
    share = balanced_groups(examples, processes.world_size)[processes.rank]
    ends = sum(loss == END_LOSS for example in share for loss in example.loss_mask[1:])
    results = processes.all_gather((score(share), ends))
    total_bytes = sum(score.text_bytes for score, _ in results)
    total_ends = sum(ends for _, ends in results)
    return HeldOutScore(
        bits_per_byte=sum(score.bits_per_byte * score.text_bytes for score, _ in results) / max(1, total_bytes),
        end_nats=sum(score.end_nats * ends for score, ends in results) / max(1, total_ends),
        tokens=sum(score.tokens for score, _ in results),
        text_bytes=total_bytes,
    )
