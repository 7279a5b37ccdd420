"""The plan of a run: enough steps, within the time allowed, and the user's own settings kept."""

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import pytest
import torch

from doppel.config import TrainingSettings
from training.lora.epochs import EpochSource
from training.lora.examples import Example, count_tokens
from training.lora.memory import BatchLimit
from training.lora.settings import ChosenValue, TrainingSize, recommend
from training.run.plan import TrainingPlan, make_plan, optimizer_steps, schedule_of, token_budget


def example(length: int) -> Example:
    return Example(ids=[1] * length, loss_mask=[0] + [1] * (length - 1), text_bytes=length)


def plan(items: list[Example], max_tokens: float = math.inf, **training: Any) -> TrainingPlan:
    settings = TrainingSettings(**training)
    size = TrainingSize(
        messages=100,
        examples=len(items),
        tokens=count_tokens(items),
        device="cpu",
        parameters=10**6,
        minutes=None,
    )
    return make_plan(
        settings,
        recommend(settings, size, ChosenValue(64, None)),
        examples=items,
        max_tokens=max_tokens,
        is_short=max_tokens < math.inf,
        tokens_per_second=100.0,
        batch=BatchLimit(2048),
        device="cpu",
        dtype=torch.float32,
        now=datetime(2026, 1, 1, tzinfo=UTC),
    )


def test_steps_cover_the_epochs() -> None:
    made = plan([example(20)] * 1600, epochs=2, sessions_per_step=16)
    assert (made.steps, made.max_steps, made.epochs) == (200, 200, 2)
    assert schedule_of(made, None, [example(20)] * 1600).steps == 200


def test_epochs_follow_one_another_without_end() -> None:
    class Source(EpochSource, frozen=True):
        def examples(self, epoch: int, *, recent_first: bool = False) -> Iterator[Example]:
            yield from [example(10 + epoch)] * 5

    made = plan([example(20)] * 5, epochs=3, sessions_per_step=2)
    steps = list(islice(optimizer_steps(made, Source((), None, 64, 40, (), 0)), 8))  # type: ignore[arg-type]
    assert [[len(one.ids) for group in step for one in group] for step in steps] == [
        *([10, 10], [10, 10], [10]),
        *([11, 11], [11, 11], [11]),
        *([12, 12], [12, 12]),
    ]


def test_few_conversations_get_smaller_steps_with_a_reason() -> None:
    made = plan([example(20)] * 100, epochs=1)
    assert made.sessions_per_step == 2
    assert "smaller steps" in made.reasons["sessions_per_step"]


def test_steps_that_config_yaml_sets_stay_as_they_are() -> None:
    made = plan([example(20)] * 100, epochs=1, sessions_per_step=16)
    assert (made.sessions_per_step, made.steps) == (16, 7)
    assert "sessions_per_step" not in made.reasons


def test_the_time_limit_ends_a_plan_and_is_its_reason() -> None:
    items = [example(20)] * 1000
    made = plan(items, max_tokens=token_budget(1, 100.0), epochs=3)
    assert made.epochs * 20_000 == pytest.approx(60 * 100 * 0.95)
    assert made.reasons["epochs"] == "as many as fit into the time limit"
    assert token_budget(None, 100.0) == math.inf
    assert "epochs" not in plan(items, epochs=3).reasons
