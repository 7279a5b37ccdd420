"""What a training run will do: settings from the size of data and model, steps from the time allowed.

A plan is made once, before the first step, and kept beside the checkpoints: a resumed run follows the same
one, whatever the machine measures then.
"""

import math
from collections.abc import Sequence
from datetime import datetime

import msgspec
import torch

from doppel.config import TrainingSettings
from doppel.i18n import tr
from training.lora.examples import Example, Step, plan_steps
from training.lora.settings import Settings
from training.run.speed import compute_cost

_FEWEST_STEPS = 45  # below this a cosine schedule has no room: smaller steps teach more than fewer
_SHARE_FOR_STEPS = 0.8  # of the time allowed; the rest goes to validation, samples and checkpoints
_CHECK_TOKENS = 16_000


class TrainingPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of one run.

    Attributes:
        rank, alpha, learning_rate: of the LoRA and its optimizer.
        sessions_per_step: examples in one optimizer step.
        tokens_per_batch: tokens in one micro-batch.
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
        quantize: how the base was quantised, None for not at all.
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
    warmup_steps: int
    steps_between_checks: int
    check_tokens: int
    patience: int
    seed: int
    device: str
    dtype: str
    tokens_per_second: float
    epochs: float
    threads: int = 1
    quantize: str | None = None
    began_at: str = ""
    reasons: dict[str, str] = {}


def make_plan(
    training: TrainingSettings,
    settings: Settings,
    *,
    items: Sequence[Example],
    most_tokens: float,
    is_short: bool,
    tokens_per_second: float,
    tokens_per_batch: int,
    device: str,
    dtype: torch.dtype,
    now: datetime,
) -> TrainingPlan:
    """The plan for training on `items`.

    Args:
        training: config.yaml's section, for what has no recommendation.
        settings: what was chosen.
        items: the training examples.
        most_tokens: where to stop, `math.inf` to train all the epochs.
        is_short: check on less, as there is little time.
        tokens_per_second: training speed of this machine.
        tokens_per_batch: tokens of one micro-batch.
        device, dtype: where and in what the model computes.
        now: the time, UTC.
    """
    epoch_tokens = sum(len(example.ids) for example in items)
    tokens = min(epoch_tokens * settings.epochs.value, most_tokens)
    count = max(1, round(len(items) * tokens / epoch_tokens))
    per_step, reasons = settings.sessions_per_step.value, settings.reasons()
    if settings.sessions_per_step.reason is not None and count // per_step < _FEWEST_STEPS:
        per_step = max(1, count // _FEWEST_STEPS)
        reasons["sessions_per_step"] = tr("few conversations: smaller steps, so that there are enough of them")
    if tokens < epoch_tokens * settings.epochs.value:
        reasons["epochs"] = tr("as far as the time allowed goes")
    steps = max(1, math.ceil(count / per_step))
    checks = 3 if steps < 200 else 10
    return TrainingPlan(
        rank=settings.rank.value,
        alpha=settings.alpha.value,
        learning_rate=settings.learning_rate.value,
        sessions_per_step=per_step,
        tokens_per_batch=tokens_per_batch,
        max_length=settings.max_length.value,
        steps=steps,
        warmup_steps=max(1, round(steps * 0.03)),
        steps_between_checks=max(1, math.ceil(steps / checks)),
        check_tokens=_CHECK_TOKENS // 4 if is_short else _CHECK_TOKENS,
        patience=training.patience,
        seed=training.seed,
        device=device,
        dtype=str(dtype).removeprefix("torch."),
        tokens_per_second=tokens_per_second,
        epochs=count / len(items),
        threads=torch.get_num_threads(),
        quantize=training.quantize,
        began_at=now.isoformat(timespec="seconds"),
        reasons=reasons,
    )


def tokens_per_second(model: torch.nn.Module, items: Sequence[Example], seconds: float) -> float:
    """Training speed over all of `items`, from the seconds that a multiply-add takes (`training.run.speed`)."""
    return sum(len(example.ids) for example in items) / (compute_cost(model).of(items) * seconds)


def token_budget(minutes: float | None, speed: float) -> float:
    """Training tokens that fit into the time allowed, validation and checkpoints beside them; infinite without one."""
    return math.inf if minutes is None else minutes * 60 * _SHARE_FOR_STEPS * speed


def optimizer_steps(plan: TrainingPlan, items: Sequence[Example]) -> list[Step]:
    """The optimizer steps of a plan; the same items give the same steps."""
    steps: list[Step] = []
    epoch = 0
    while len(steps) < plan.steps:
        steps += plan_steps(items, plan.sessions_per_step, plan.tokens_per_batch, plan.seed + epoch)
        epoch += 1
    return steps[: plan.steps]
