"""Recommended settings: by size, with a reason, and never over what config.yaml says."""

import pytest

from doppel.config import TrainingSettings
from doppel.errors import UserError
from training.lora.settings import ChosenValue, TrainingSize, choose_length, recommend

LENGTH = ChosenValue(512, "trained on cpu")


def size(
    messages: int = 1_000, parameters: float = 0.27e9, minutes: float | None = None, device: str = "cpu"
) -> TrainingSize:
    return TrainingSize(
        messages=messages, examples=500, tokens=300_000, device=device, parameters=int(parameters), minutes=minutes
    )


@pytest.mark.parametrize(
    ("messages", "rank", "epochs"),
    [(100, 16, 3), (4_999, 16, 3), (5_000, 32, 3), (20_000, 64, 2), (199_999, 64, 2), (200_000, 128, 1)],
)
def test_rank_and_epochs_follow_the_archive(messages: int, rank: int, epochs: float) -> None:
    settings = recommend(TrainingSettings(), size(messages), LENGTH)
    assert (settings.rank.value, settings.epochs.value, settings.alpha.value) == (rank, epochs, 32)
    assert f"{messages:,}" in settings.reasons()["rank"]


@pytest.mark.parametrize(
    ("parameters", "rate"), [(0.27e9, 5e-4), (1e9, 5e-4), (1.7e9, 3e-4), (4e9, 3e-4), (8e9, 2e-4), (32e9, 2e-4)]
)
def test_the_learning_rate_follows_the_base(parameters: float, rate: float) -> None:
    assert recommend(TrainingSettings(), size(parameters=parameters), LENGTH).learning_rate.value == rate
    short = recommend(TrainingSettings(), size(messages=50_000, parameters=parameters, minutes=4), LENGTH)
    assert short.learning_rate.value == (rate if parameters > 1e9 else 1e-3)
    assert short.rank.value == 16


def test_a_step_has_few_tokens_on_a_cpu_and_many_on_a_gpu() -> None:
    assert recommend(TrainingSettings(), size(), LENGTH).sessions_per_step.value == 4
    on_gpu = recommend(TrainingSettings(), size(device="cuda"), LENGTH).sessions_per_step
    assert on_gpu.value == 27
    assert "16,384 tokens" in (on_gpu.reason or "")


def test_config_yaml_overrides_everything_and_then_there_is_no_reason() -> None:
    training = TrainingSettings(rank=8, alpha=16, learning_rate=1e-3, epochs=0.5, sessions_per_step=3, max_length=100)
    settings = recommend(training, size(10**6, 8e9, 4.0), choose_length(training, "cpu", 512))
    assert {key: choice.value for key, choice in settings.choices().items()} == {
        "rank": 8,
        "alpha": 16,
        "learning_rate": 1e-3,
        "epochs": 0.5,
        "sessions_per_step": 3,
        "max_length": 100,
    }
    assert settings.reasons() == {}


def test_the_length_follows_device_and_base() -> None:
    free = TrainingSettings()
    assert choose_length(free, "cpu", 32768).value == 1024
    assert choose_length(free, "cuda", 32768).value == 2048
    assert choose_length(free, "cuda", 1024).value == 1024
    with pytest.raises(UserError, match="513 is over the base model's limit of 512 tokens"):
        choose_length(TrainingSettings(max_length=513), "cpu", 512)
