"""Recommends training settings by the size of archive and model, each with its reason; config.yaml takes precedence.

The values come from published practice and our own measurements (docs/decisions/0006-training.md); `doppel tune`
searches for better ones for a given archive.
"""

from typing import Generic, TypeVar

import msgspec

from doppel.config import TrainingSettings
from doppel.errors import UserError
from doppel.i18n import tr

_RANKS = ((5_000, 16), (20_000, 32), (200_000, 64))  # (messages fewer than, rank)
_LARGEST_RANK = 128
_LEARNING_RATES = ((1e9, 5e-4), (5e9, 3e-4))  # (parameters up to, learning rate)
_SMALLEST_LEARNING_RATE = 2e-4
_SHORT_LEARNING_RATE = 1e-3
"""With a time limit, for the smallest bases: in a part of an epoch nothing is learned by heart (docs/LOG.md)."""
_EPOCHS = ((20_000, 3.0), (200_000, 2.0))  # (messages fewer than, epochs)
_ALPHA = 32.0
_TOKENS_PER_STEP = {"cpu": 2_400}  # on a CPU steps are dear, and many small ones teach more than few large ones
_DEFAULT_TOKENS_PER_STEP = 16_384
_MAX_LENGTHS = {"cpu": 1024}  # what a prompt has when it is served; a GPU attends to more at little cost
_DEFAULT_MAX_LENGTH = 2048

Number = TypeVar("Number", int, float)


class ChosenValue(msgspec.Struct, Generic[Number], frozen=True):
    """The value of a setting and why it was chosen; no reason if config.yaml sets it."""

    value: Number
    reason: str | None


class TrainingSize(msgspec.Struct, frozen=True, kw_only=True):
    """The size of the data and of the model.

    Attributes:
        messages: the persona's, in the training split.
        examples: sequences in the training split.
        tokens: in all of them.
        device: where the model computes.
        parameters: of the base model.
        minutes: time limit of the training, or None.
    """

    messages: int
    examples: int
    tokens: int
    device: str
    parameters: int
    minutes: float | None


class Hyperparameters(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of a training; the names are the keys under `training:` in config.yaml."""

    rank: ChosenValue[int]
    alpha: ChosenValue[float]
    learning_rate: ChosenValue[float]
    epochs: ChosenValue[float]
    sessions_per_step: ChosenValue[int]
    max_length: ChosenValue[int]

    def choices(self) -> dict[str, ChosenValue[int] | ChosenValue[float]]:
        """Each value by its key."""
        return {name: getattr(self, name) for name in self.__struct_fields__}

    def reasons(self) -> dict[str, str]:
        """Why each setting that config.yaml leaves open has its value."""
        return {name: choice.reason for name, choice in self.choices().items() if choice.reason is not None}


def recommend(training: TrainingSettings, size: TrainingSize, max_length: ChosenValue[int]) -> Hyperparameters:
    """Each setting from config.yaml, or by `size` if it is not set there; `max_length` is from `choose_length`."""
    return Hyperparameters(
        rank=_configured(training.rank) or _rank(size),
        alpha=_configured(training.alpha) or ChosenValue(_ALPHA, tr("suits every rank")),
        learning_rate=_configured(training.learning_rate) or _learning_rate(size),
        epochs=_configured(training.epochs) or _epochs(size),
        sessions_per_step=_configured(training.sessions_per_step) or _sessions_per_step(size),
        max_length=max_length,
    )


def planned_length(training: TrainingSettings, device: str) -> ChosenValue[int]:
    """The `max_length` that `doppel train` would use, before the base model's own limit is known.

    Args:
        training: the `training` section of config.yaml.
        device: `model.device` in config.yaml.
    """
    from doppel.models.base import choose_device

    context = training.max_length or 2**31  # `doppel train` checks it against the base model
    return choose_length(training, choose_device(device), context)


def choose_length(training: TrainingSettings, device: str, context: int) -> ChosenValue[int]:
    """Tokens of the longest example.

    Args:
        training: the `training` section of config.yaml.
        device: where the model computes.
        context: the context length of the base model.

    Raises:
        UserError: config.yaml sets more than the base model supports.
    """
    if training.max_length is not None:
        if training.max_length > context:
            raise UserError(
                tr(
                    "training.max_length: {length} is over the base model's limit of {context} tokens",
                    length=training.max_length,
                    context=context,
                )
            )
        return ChosenValue(training.max_length, None)
    preferred = _MAX_LENGTHS.get(device, _DEFAULT_MAX_LENGTH)
    if context < preferred:
        return ChosenValue(context, tr("the base model's limit"))
    return ChosenValue(preferred, tr("about the length of a prompt, trained on {device}", device=device))


def _configured(value: Number | None) -> ChosenValue[Number] | None:
    return None if value is None else ChosenValue(value, None)


def _rank(size: TrainingSize) -> ChosenValue[int]:
    if size.minutes is not None:
        return ChosenValue(_RANKS[0][1], tr("little time: a small adapter learns fastest"))
    value = next((rank for limit, rank in _RANKS if size.messages < limit), _LARGEST_RANK)
    return ChosenValue(value, _by_messages(size))


def _learning_rate(size: TrainingSize) -> ChosenValue[float]:
    if size.minutes is not None and size.parameters <= _LEARNING_RATES[0][0]:
        return ChosenValue(_SHORT_LEARNING_RATE, tr("little time and a small base: large steps"))
    rate = next((rate for limit, rate in _LEARNING_RATES if size.parameters <= limit), _SMALLEST_LEARNING_RATE)
    billions = size.parameters / 1e9
    count = f"{billions:.2g}B" if billions >= 1 else f"{billions * 1000:.0f}M"
    return ChosenValue(rate, tr("a base model with {count} parameters", count=count))


def _epochs(size: TrainingSize) -> ChosenValue[float]:
    epochs = next((epochs for limit, epochs in _EPOCHS if size.messages < limit), 1.0)
    return ChosenValue(epochs, _by_messages(size))


def _sessions_per_step(size: TrainingSize) -> ChosenValue[int]:
    tokens = _TOKENS_PER_STEP.get(size.device, _DEFAULT_TOKENS_PER_STEP)
    value = max(1, round(tokens * size.examples / size.tokens))
    return ChosenValue(value, tr("about {tokens} tokens a step", tokens=f"{tokens:,}"))


def _by_messages(size: TrainingSize) -> str:
    return tr("{count} messages of yours", count=f"{size.messages:,}")
