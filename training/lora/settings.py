"""Recommended settings by size of archive and model, each with the reason it was chosen; config.yaml's come first.

The figures are those of published practice and of our own measurements (docs/decisions/0006-training.md);
`doppel tune` finds better ones for a given archive. Knows counts; knows no data set and no model.
"""

from typing import Generic, TypeVar

import msgspec

from doppel.config import Config, TrainingSettings
from doppel.errors import UserError
from doppel.i18n import tr

_RANKS = ((5_000, 16), (20_000, 32), (200_000, 64))  # (messages fewer than, rank)
_LARGEST_RANK = 128
_RATES = ((1e9, 5e-4), (5e9, 3e-4))  # (parameters up to, learning rate)
_SMALLEST_RATE = 2e-4
_EPOCHS = ((20_000, 3.0), (200_000, 2.0))  # (messages fewer than, epochs)
_ALPHA = 32.0
_MANY_SESSIONS = 20_000
_LENGTHS = {"cpu": 512}  # without a GPU attention is not free; on one a long session costs what it holds
_LONGEST = 2048
_SHORT_LENGTH = 256  # when time is short: more conversations seen, and cheaper attention

Number = TypeVar("Number", int, float)


class Choice(msgspec.Struct, Generic[Number], frozen=True):
    """The value of a setting, and for people why it was chosen; None where config.yaml sets it."""

    value: Number
    reason: str | None


class TrainingSize(msgspec.Struct, frozen=True, kw_only=True):
    """How much there is to learn, and what is to learn it.

    Attributes:
        messages: the persona's, in the training split.
        examples: sequences in the training split.
        parameters: of the base model.
        minutes: training time allowed, or None.
    """

    messages: int
    examples: int
    parameters: int
    minutes: float | None


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a training is run with; the names are the keys under `training:` in config.yaml."""

    rank: Choice[int]
    alpha: Choice[float]
    learning_rate: Choice[float]
    epochs: Choice[float]
    sessions_per_step: Choice[int]
    max_length: Choice[int]

    def choices(self) -> dict[str, Choice[int] | Choice[float]]:
        """Every choice under its key."""
        return {name: getattr(self, name) for name in self.__struct_fields__}

    def reasons(self) -> dict[str, str]:
        """Why each setting that config.yaml leaves open has its value."""
        return {name: choice.reason for name, choice in self.choices().items() if choice.reason is not None}


def recommend(training: TrainingSettings, size: TrainingSize, max_length: Choice[int]) -> Settings:
    """Every setting: as config.yaml has it, else by `size`. `max_length` is from `choose_length`."""
    return Settings(
        rank=_given(training.rank) or _rank(size),
        alpha=_given(training.alpha) or Choice(_ALPHA, tr("right for every rank")),
        learning_rate=_given(training.learning_rate) or _learning_rate(size),
        epochs=_given(training.epochs) or _epochs(size),
        sessions_per_step=_given(training.sessions_per_step) or _sessions_per_step(size),
        max_length=max_length,
    )


def planned_length(config: Config) -> Choice[int]:
    """Tokens of the longest example that `doppel train` would use, before the base model's own limit is known."""
    from doppel.models.base import choose_device

    training = config.training
    context = training.max_length or 2**31  # `doppel train` checks what the base takes
    return choose_length(training, training.minutes, choose_device(config.model.device), context)


def choose_length(training: TrainingSettings, minutes: float | None, device: str, context: int) -> Choice[int]:
    """Tokens of the longest example.

    Args:
        training: config.yaml's section.
        minutes: training time allowed, or None.
        device: where the model computes.
        context: the most tokens the base model takes.

    Raises:
        UserError: config.yaml wants more than the base model takes.
    """
    if training.max_length is not None:
        if training.max_length > context:
            raise UserError(
                tr(
                    "training.max_length: {length} is more than the {context} tokens that the base model takes",
                    length=training.max_length,
                    context=context,
                )
            )
        return Choice(training.max_length, None)
    if minutes is not None:
        return Choice(min(_SHORT_LENGTH, context), tr("little time: more conversations, shorter pieces"))
    wanted = _LENGTHS.get(device, _LONGEST)
    if context < wanted:
        return Choice(context, tr("the base model takes no more"))
    return Choice(wanted, tr("trained on {device}", device=device))


def _given(value: Number | None) -> Choice[Number] | None:
    return None if value is None else Choice(value, None)


def _rank(size: TrainingSize) -> Choice[int]:
    if size.minutes is not None:
        return Choice(_RANKS[0][1], tr("little time: a small adapter learns soonest"))
    value = next((rank for most, rank in _RANKS if size.messages < most), _LARGEST_RANK)
    return Choice(value, _messages(size))


def _learning_rate(size: TrainingSize) -> Choice[float]:
    rate = next((rate for most, rate in _RATES if size.parameters <= most), _SMALLEST_RATE)
    return Choice(rate, tr("a base of {billions:.2g} billion parameters", billions=size.parameters / 1e9))


def _epochs(size: TrainingSize) -> Choice[float]:
    return Choice(next((epochs for most, epochs in _EPOCHS if size.messages < most), 1.0), _messages(size))


def _sessions_per_step(size: TrainingSize) -> Choice[int]:
    value = 32 if size.examples >= _MANY_SESSIONS else 16
    return Choice(value, tr("{count} pieces of conversation to learn from", count=f"{size.examples:,}"))


def _messages(size: TrainingSize) -> str:
    return tr("{count} messages of yours", count=f"{size.messages:,}")
