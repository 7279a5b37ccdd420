"""`doppel train --plan --bases`: which base model this machine affords, and in what time. Downloads nothing."""

from typing import Any

import msgspec
from rich.table import Table

from doppel.config import Config
from doppel.i18n import tr
from doppel.models.base import choose_device, choose_dtype
from doppel.models.known_bases import KNOWN_BASES, KnownBase, largest_base, matrix_rate, training_speed
from doppel.system.memory import gigabytes, total_memory
from doppel.transcript import render
from training.dataset.files import read_sessions
from training.dataset.report.statistics import estimate_tokens
from training.lora.settings import planned_length
from training.run.report import duration


class BaseForecast(msgspec.Struct, frozen=True, kw_only=True):
    """What one base takes.

    Attributes:
        base: as in `model.base`.
        parameters: number of weights.
        tokens_per_second: of training on this machine.
        epoch_seconds: one pass over the data set.
        training_bytes_range: memory to train: the least, with each layer computed twice, and without.
        serving_bytes: memory to reply.
        fits: whether it can be trained in this device's memory; None if that is not known.
    """

    base: str
    parameters: int
    tokens_per_second: float
    epoch_seconds: float
    training_bytes_range: tuple[int, int]
    serving_bytes: int
    fits: bool | None


class BaseChoice(msgspec.Struct, frozen=True, kw_only=True):
    """The bases compared.

    Attributes:
        device, dtype: of the measurement.
        matrix_rate: floating-point operations a second.
        memory_bytes: of the device; None if unknown.
        tokens: one epoch of this data set, about.
        bases: from small to large.
        affordable: the largest base that fits and finishes an epoch in a number of hours; None if none does.
    """

    device: str
    dtype: str
    matrix_rate: float
    memory_bytes: int | None
    tokens: int
    bases: list[BaseForecast]
    affordable: dict[int, str | None]


EVENING, NIGHT, DAY = 3, 8, 24
"""Hours."""


def compare_bases(config: Config) -> BaseChoice:
    """Compares the recommended bases on this machine and data set.

    Raises:
        UserError: there is no data set, or the device cannot be used.
    """
    device = choose_device(config.model.device)
    dtype = choose_dtype(config.model.dtype, device)
    length = planned_length(config.training, config.model.device).value
    machine = _Machine(matrix_rate(device, dtype), total_memory(device), dtype.itemsize, length)
    tokens = _epoch_tokens(config)
    return BaseChoice(
        device=device,
        dtype=str(dtype).removeprefix("torch."),
        matrix_rate=machine.rate,
        memory_bytes=machine.memory,
        tokens=tokens,
        bases=[_forecast(base, machine, tokens) for base in KNOWN_BASES],
        affordable={hours: _largest(machine, tokens, hours) for hours in (EVENING, NIGHT, DAY)},
    )


def base_table(choice: BaseChoice) -> Table:
    """One row a base."""
    table = Table(title=tr("Base models on this machine"), title_justify="left")
    table.add_column(tr("base"), no_wrap=True)
    for title in (tr("an epoch"), tr("tokens/s"), tr("memory to train"), tr("memory to reply"), tr("fits")):
        table.add_column(title, justify="right", no_wrap=True)
    for base in choice.bases:
        least, most = base.training_bytes_range
        fits = {None: "?", True: tr("yes"), False: tr("no")}[base.fits]
        speed, memory = f"{base.tokens_per_second:,.0f}", f"{least / 1e9:.1f}–{gigabytes(most)}"
        table.add_row(base.base, duration(base.epoch_seconds), speed, memory, gigabytes(base.serving_bytes), fits)
    return table


def choice_lines(choice: BaseChoice) -> list[str]:
    """What the numbers stand on, and which base an evening, a night or a day affords."""
    names = {EVENING: tr("an evening (3 h)"), NIGHT: tr("a night (8 h)"), DAY: tr("a day (24 h)")}
    lines = [
        tr(
            "Estimated from {rate:.0f} GFLOP/s on {device} in {dtype} and {tokens} tokens an epoch; nothing was "
            "downloaded. With the smaller number of memory each layer is computed twice, which takes a third longer; "
            "that is counted where it is needed.",
            rate=choice.matrix_rate / 1e9,
            device=choice.device,
            dtype=choice.dtype,
            tokens=f"{choice.tokens:,}",
        )
    ]
    for hours, base in choice.affordable.items():
        lines.append(
            tr("{time}: {base}", time=names[hours], base=base)
            if base is not None
            else tr("{time}: none finishes an epoch; set training.minutes for a part of one", time=names[hours])
        )
    return lines


def choice_result(choice: BaseChoice) -> dict[str, Any]:
    """What `--json` prints."""
    result: dict[str, Any] = msgspec.to_builtins(choice, str_keys=True)
    return result


def _largest(machine: "_Machine", tokens: int, hours: int) -> str | None:
    base = largest_base(
        machine.rate,
        machine.memory,
        bytes_per_weight=machine.bytes_per_weight,
        length=machine.length,
        tokens=tokens,
        hours=hours,
    )
    return None if base is None else base.name


def _forecast(base: KnownBase, machine: "_Machine", tokens: int) -> BaseForecast:
    width, length = machine.bytes_per_weight, machine.length
    speed = training_speed(base, machine.rate) / base.slowdown(machine.memory, length, width)
    return BaseForecast(
        base=base.name,
        parameters=base.parameters,
        tokens_per_second=round(speed, 1),
        epoch_seconds=round(tokens / speed, 1),
        training_bytes_range=(
            int(base.smallest_training_bytes(length, width)),
            int(base.training_bytes(length, width)),
        ),
        serving_bytes=int(base.serving_bytes(width)),
        fits=base.fits(machine.memory, length, width),
    )


class _Machine(msgspec.Struct, frozen=True):
    """What the forecasts stand on: matrix rate, memory, bytes of a weight, tokens of the longest example."""

    rate: float
    memory: int | None
    bytes_per_weight: float
    length: int


def _epoch_tokens(config: Config) -> int:
    """About how many tokens the training split has."""
    return sum(
        sum(estimate_tokens([render(session.header, session.turns)]))
        for session in read_sessions(config.data_dir)
        if session.split == "train"
    )
