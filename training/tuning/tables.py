"""Tables of trials for the terminal."""

import math
from typing import TYPE_CHECKING

from rich.table import Table

from doppel.i18n import tr
from doppel.reports.metrics import format_share

if TYPE_CHECKING:
    from training.tuning.sampling import SamplingResult
    from training.tuning.search import SearchResult
    from training.tuning.study import Trial


def trials_table(result: "SearchResult") -> Table:
    """Every trial of a search with its settings and score, the best one marked."""
    names = [*result.trials[0].values]
    table = Table(title=tr("Trials"), title_justify="left", box=None, pad_edge=False)
    titles = [name.replace("_", " ") for name in names]
    for title in ("", tr("trial"), *titles, tr("bits per byte"), tr("vs. base model"), tr("minutes")):
        table.add_column(title, justify="right")
    for trial in result.trials:
        is_best = result.best is not None and trial.number == result.best.number
        table.add_row(
            "●" if is_best else "",
            str(trial.number),
            *(f"{value:g}" for value in trial.values.values()),
            "–" if trial.score is None else f"{trial.score:.4f}",
            _outcome(trial, result.base_bits),
            "–" if trial.seconds is None else f"{trial.seconds / 60:.1f}",
            style="bold" if is_best else "dim" if trial.status == "pruned" else "",
        )
    return table


def sampling_table(result: "SamplingResult") -> Table:
    """Every sampling setting that was tried for a version, the chosen one marked."""
    title = tr("Version {version}: sampling settings", version=result.version)
    table = Table(title=title, title_justify="left")
    for name in result.chosen.setting:
        table.add_column(name, justify="right")
    for column in (tr("detectable (0.5: not)"), tr("habits"), tr("relevance"), ""):
        table.add_column(column, justify="right")
    for place, trial in enumerate(result.trials):
        mark = "●" if trial == result.chosen else tr("before") if place == 0 else ""
        numbers = [f"{value:g}" for value in trial.setting.values()]
        table.add_row(*numbers, f"{trial.auc:.3f}", f"{trial.distance:.3f}", format_share(trial.relevance), mark)
    return table


def _outcome(trial: "Trial", base_bits: float) -> str:
    if trial.status == "pruned":
        return tr("stopped early")
    if trial.status == "running":
        return tr("not finished")
    return "–" if trial.score is None or not math.isfinite(trial.score) else f"{trial.score / base_bits - 1:+.1%}"
