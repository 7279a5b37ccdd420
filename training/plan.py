"""What a training run will do: settings from the size of data and model, steps from the time allowed.

A plan is made once, before the first step, and kept beside the checkpoints: a resumed run follows the same
one, whatever the machine measures then.
"""

import math
import time
from collections.abc import Sequence

import msgspec
import torch

from doppel.config import Training
from training.examples import Example, Step, collate, micro_batches, plan_steps
from training.lora import token_losses

_FEWEST_STEPS = 45  # below this a cosine schedule has no room: smaller steps teach more than fewer
_SHORT_LENGTH = 256  # of examples when time is short: more conversations seen, and cheaper attention
_SHARE_FOR_STEPS = 0.8  # of the time allowed; the rest goes to validation, samples and checkpoints
_TOKENS_PER_BATCH = {"cpu": 2048}
_CHECK_TOKENS = 16_000


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of one run.

    Attributes:
        rank, alpha, learning_rate: of the LoRA and its optimizer.
        sessions_per_step: examples in one optimizer step.
        tokens_per_batch: padded tokens in one micro-batch.
        max_length: tokens of the longest example.
        steps: optimizer steps of the whole run.
        warmup_steps: steps of linear warm-up.
        steps_between_checks: steps between validations; each leaves a checkpoint.
        check_tokens: tokens of held-out examples in one validation.
        patience: validations without improvement after which training stops.
        seed: of the order of examples and the LoRA's start.
        device, dtype: where and in what the model computes.
        tokens_per_second: training speed measured before the first step.
        epochs: passes over the training examples that `steps` amount to.
    """

    rank: int
    alpha: float
    learning_rate: float
    sessions_per_step: int
    tokens_per_batch: int
    max_length: int
    steps: int
    warmup_steps: int
    steps_between_checks: int
    check_tokens: int
    patience: int
    seed: int
    device: str
    dtype: str
    tokens_per_second: float
    epochs: float


def choose_rank(settings: Training, messages: int, minutes: float | None) -> int:
    """As set; else 16 to 128 by the owner's messages, and 16 where time allows only part of them."""
    if settings.rank is not None:
        return settings.rank
    if minutes is not None:
        return 16
    return next((rank for most, rank in ((5_000, 16), (20_000, 32), (200_000, 64)) if messages < most), 128)


def choose_learning_rate(settings: Training, parameters: int, minutes: float | None) -> float:
    """As set; else 5e-4 up to a billion parameters, 3e-4 up to five, 2e-4 above; twice that for a short run."""
    if settings.learning_rate is not None:
        return settings.learning_rate
    rate = next((rate for most, rate in ((1e9, 5e-4), (5e9, 3e-4)) if parameters <= most), 2e-4)
    return rate if minutes is None else 2 * rate


def choose_length(settings: Training, minutes: float | None) -> int:
    """Tokens of the longest example: as set, and at most 256 where time allows only part of the data."""
    return settings.max_length if minutes is None else min(settings.max_length, _SHORT_LENGTH)


def measure_speed(model: torch.nn.Module, items: Sequence[Example], pad_id: int, tokens_per_batch: int) -> float:
    """Training speed in tokens a second: forward and backward of one typical micro-batch, the second time.

    Leaves no gradients behind.
    """
    middle = sorted(items, key=lambda example: len(example.ids))[len(items) // 3 :]
    group = micro_batches(middle[: max(1, tokens_per_batch // len(middle[0].ids))], tokens_per_batch)[0]
    seconds = math.inf
    for _ in range(2):  # the first time kernels are chosen and memory is taken
        started = time.perf_counter()
        losses, _ = token_losses(model, collate(group, pad_id))
        losses.mean().backward()
        seconds = min(seconds, time.perf_counter() - started)
        model.zero_grad(set_to_none=True)
    return sum(len(example.ids) for example in group) / seconds


def make_plan(
    settings: Training,
    *,
    items: Sequence[Example],
    rank: int,
    learning_rate: float,
    minutes: float | None,
    tokens_per_second: float,
    device: str,
    dtype: torch.dtype,
) -> Plan:
    """The plan for training on `items`, within `minutes` of training time if given."""
    epoch_tokens = sum(len(example.ids) for example in items)
    tokens = epoch_tokens * settings.epochs
    if minutes is not None:
        tokens = min(tokens, minutes * 60 * _SHARE_FOR_STEPS * tokens_per_second)
    count = max(1, round(len(items) * tokens / epoch_tokens))
    per_step = max(1, min(settings.sessions_per_step, count // _FEWEST_STEPS))
    steps = max(1, math.ceil(count / per_step))
    checks = 3 if steps < 200 else 10
    return Plan(
        rank=rank,
        alpha=settings.alpha,
        learning_rate=learning_rate,
        sessions_per_step=per_step,
        tokens_per_batch=tokens_per_batch(device),
        max_length=choose_length(settings, minutes),
        steps=steps,
        warmup_steps=max(1, round(steps * 0.03)),
        steps_between_checks=max(1, math.ceil(steps / checks)),
        check_tokens=_CHECK_TOKENS // 4 if minutes is not None else _CHECK_TOKENS,
        patience=settings.patience,
        seed=settings.seed,
        device=device,
        dtype=str(dtype).removeprefix("torch."),
        tokens_per_second=tokens_per_second,
        epochs=count / len(items),
    )


def tokens_per_batch(device: str) -> int:
    """Padded tokens in one micro-batch: what keeps a CPU's caches, or a GPU's units, busy."""
    return _TOKENS_PER_BATCH.get(device, 8192)


def steps_of(plan: Plan, items: Sequence[Example]) -> list[Step]:
    """The optimizer steps of a plan; the same items give the same steps."""
    steps: list[Step] = []
    epoch = 0
    while len(steps) < plan.steps:
        steps += plan_steps(items, plan.sessions_per_step, plan.tokens_per_batch, plan.seed + epoch)
        epoch += 1
    return steps[: plan.steps]
