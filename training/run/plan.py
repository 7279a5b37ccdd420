"""The plan of a training run: settings by the size of data and model, steps by the time limit.

It is made once, before the first step, and stored beside the checkpoints. A resumed run follows the same plan,
whatever the machine measures then.
"""

import math
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import count

import msgspec
import torch

from doppel.config import TrainingSettings
from doppel.i18n import tr
from training.lora.epochs import EpochSource
from training.lora.examples import Example, Step, count_tokens, plan_steps
from training.lora.memory import BatchLimit
from training.lora.settings import Hyperparameters
from training.run.schedule import Schedule
from training.run.speed import ComputeCost

_MIN_STEPS = 45  # with fewer the learning rate has no room to fall: smaller steps teach more
_SHARE_FOR_STEPS = 0.95  # of the time limit; the rest goes to validation, samples and checkpoints
_CHECK_TOKENS, _CHECK_TOKENS_WHEN_SHORT = 16_000, 3_000
_CHECKS, _CHECKS_WHEN_SHORT = 10, 2


class TrainingPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of one run.

    Attributes:
        rank, alpha, learning_rate: of the LoRA and its optimizer.
        sessions_per_step: examples in one optimizer step.
        tokens_per_batch: tokens in one micro-batch.
        max_length: tokens of the longest example.
        steps: optimizer steps of the whole run; under a time limit, as many as are expected to fit.
        max_steps: where it ends if there is time for more; 0: after `steps`.
        steps_between_checks: steps between validations; each validation saves a checkpoint.
        check_tokens: tokens of held-out examples in one validation.
        patience: training stops after so many validations without improvement.
        seed: of the order of examples and the LoRA's initial weights.
        device, dtype: where and in what the model computes.
        tokens_per_second: training speed measured before the first step.
        epochs: passes over the training examples in `steps`.
        checkpointing: whether layers are computed twice, because what they compute does not fit into memory.
        threads: of the CPU.
        quantize: how the base is quantised; None if it is not.
        began_at: when the plan was made, UTC, ISO 8601; it names the run.
        reasons: for people, why each setting that config.yaml leaves open has its value.
    """

    rank: int
    alpha: float
    learning_rate: float
    sessions_per_step: int
    tokens_per_batch: int
    max_length: int
    steps: int
    max_steps: int = 0
    steps_between_checks: int
    check_tokens: int
    patience: int
    seed: int
    device: str
    dtype: str
    tokens_per_second: float
    epochs: float
    checkpointing: bool = False
    threads: int = 1
    quantize: str | None = None
    began_at: str = ""
    reasons: dict[str, str] = {}


def make_plan(
    training: TrainingSettings,
    hyperparameters: Hyperparameters,
    *,
    examples: Sequence[Example],
    max_tokens: float,
    is_short: bool,
    tokens_per_second: float,
    batch: BatchLimit,
    device: str,
    dtype: torch.dtype,
    now: datetime,
) -> TrainingPlan:
    """The plan for training on `examples`.

    Args:
        training: the `training` section of config.yaml, for settings without a recommendation.
        hyperparameters: configured or recommended.
        examples: to train on.
        max_tokens: where to stop; `math.inf` to train all epochs.
        is_short: validate on less, because time is short.
        tokens_per_second: training speed of this machine.
        batch: what fits into memory.
        device, dtype: where and in what the model computes.
        now: the time, UTC.
    """
    epoch_tokens = count_tokens(examples)
    wanted = epoch_tokens * hyperparameters.epochs.value
    tokens = min(wanted, max_tokens)
    per_step, reasons = hyperparameters.sessions_per_step.value, hyperparameters.reasons()
    if hyperparameters.sessions_per_step.reason is not None:
        fitting = max(1, int(len(examples) * tokens / epoch_tokens / _MIN_STEPS))
        if fitting < per_step:
            per_step = fitting
            reasons["sessions_per_step"] = tr("few conversations: smaller steps, so that there are enough of them")
    if tokens < wanted:
        reasons["epochs"] = tr("as many as fit into the time limit")
    steps, max_steps = (
        max(1, math.ceil(round(len(examples) * some / epoch_tokens) / per_step)) for some in (tokens, wanted)
    )
    return TrainingPlan(
        rank=hyperparameters.rank.value,
        alpha=hyperparameters.alpha.value,
        learning_rate=hyperparameters.learning_rate.value,
        sessions_per_step=per_step,
        tokens_per_batch=batch.tokens,
        checkpointing=batch.checkpointing,
        max_length=hyperparameters.max_length.value,
        steps=steps,
        max_steps=max_steps,
        steps_between_checks=max(1, math.ceil(steps / (_CHECKS_WHEN_SHORT if is_short else _CHECKS))),
        check_tokens=_CHECK_TOKENS_WHEN_SHORT if is_short else _CHECK_TOKENS,
        patience=training.patience,
        seed=training.seed,
        device=device,
        dtype=str(dtype).removeprefix("torch."),
        tokens_per_second=tokens_per_second,
        epochs=tokens / epoch_tokens,
        threads=torch.get_num_threads(),
        quantize=training.quantize,
        began_at=now.isoformat(timespec="seconds"),
        reasons=reasons,
    )


def tokens_per_second(cost: ComputeCost, examples: Sequence[Example], seconds_per_mac: float) -> float:
    """Training speed over all the examples, from the seconds per multiply-add (see `training.run.speed`)."""
    return count_tokens(examples) / (cost.of(examples) * seconds_per_mac)


def token_budget(minutes: float | None, speed: float) -> float:
    """Training tokens that fit into the time limit beside validation and checkpoints; infinite without a limit."""
    return math.inf if minutes is None else minutes * 60 * _SHARE_FOR_STEPS * speed


def schedule_of(plan: TrainingPlan, minutes: float | None, examples: Sequence[Example]) -> Schedule:
    """The learning rate of a run of `minutes`, or without a time limit, on these examples."""
    if minutes is None:
        return Schedule(plan.learning_rate, plan.steps)
    step_seconds = count_tokens(examples) * plan.epochs / plan.steps / plan.tokens_per_second
    return Schedule(plan.learning_rate, plan.max_steps or plan.steps, minutes * 60, step_seconds)


def optimizer_steps(plan: TrainingPlan, data: EpochSource) -> Iterator[Step]:
    """The optimizer steps of a plan, epoch after epoch without end; the same data give the same steps."""
    for epoch in count():
        examples = data.examples(epoch, recent_first=plan.epochs < 1)
        yield from plan_steps(examples, plan.sessions_per_step, plan.tokens_per_batch)
