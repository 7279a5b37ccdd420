"""The forecast of a training, for people: what it is run with and why, how long it takes, how much memory."""

from rich.table import Table

from doppel.i18n import tr
from training.run.forecast import Forecast
from training.run.report import duration, setting_rows
from training.run.timings import PHASES, phase_title

_GB = 1e9


def settings_table(forecast: Forecast) -> Table:
    """Every setting with its value and where that is from."""
    table = Table(title=tr("Settings"), title_justify="left")
    for title in (tr("setting"), tr("value"), tr("from")):
        table.add_column(title, overflow="fold")
    for row in setting_rows(forecast.plan):
        table.add_row(*row)
    return table


def time_table(forecast: Forecast) -> Table:
    """Every part of the run with its time."""
    table = Table(title=tr("Time, about"), title_justify="left", show_footer=True)
    table.add_column(tr("part"), tr("together"))
    table.add_column(tr("time"), duration(forecast.seconds), justify="right")
    for name in PHASES:
        if forecast.parts[name] >= 0.05:
            table.add_row(phase_title(name), duration(forecast.parts[name]))
    return table


def lines(forecast: Forecast) -> list[str]:
    """What else there is to say, a line each."""
    plan = forecast.plan
    told = [
        tr(
            "{messages} messages of yours in {sessions} conversations, {tokens} tokens; {steps} steps on {device} in "
            "{dtype}, {speed:.0f} tokens a second.",
            messages=f"{forecast.messages:,}",
            sessions=f"{forecast.sessions:,}",
            tokens=f"{forecast.tokens:,}",
            steps=f"{plan.steps:,}",
            device=plan.device,
            dtype=plan.dtype,
            speed=plan.tokens_per_second,
        ),
        tr("It stops earlier when {checks} checks in a row bring nothing better.", checks=plan.patience),
    ]
    if forecast.goes_on_from:
        told.append(tr("An interrupted training goes on from step {step}.", step=forecast.goes_on_from))
    if forecast.samples_replay:
        told.append(tr("Sampling text to replay is not counted; it is done once, and kept."))
    if forecast.peak_memory_bytes is not None:
        told.append(_memory(forecast.peak_memory_bytes, forecast.memory_bytes))
    return told


def _memory(peak: int, there_is: int | None) -> str:
    if there_is is None:
        return tr("Memory: about {peak:.1f} GB.", peak=peak / _GB)
    if peak > there_is * 0.95:
        return tr(
            "Memory: about {peak:.1f} GB, and there are only {all:.1f}; take a smaller base, or lower "
            "training.max_length or training.rank.",
            peak=peak / _GB,
            all=there_is / _GB,
        )
    return tr("Memory: about {peak:.1f} of {all:.1f} GB.", peak=peak / _GB, all=there_is / _GB)
