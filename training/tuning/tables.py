"""What was tried for the sampling of an adapter, as a table for the terminal."""

from rich.table import Table

from doppel.i18n import tr
from doppel.reports.metrics import format_share
from training.tuning.sampling import SETTINGS, Tuned


def tuning_table(tuned: Tuned) -> Table:
    """What was tried for a version's sampling, the best marked."""
    table = Table(title=tr("Version {version}: ways to choose words", version=tuned.version), title_justify="left")
    for name in SETTINGS:
        table.add_column(name, justify="right")
    for column in (tr("told apart (0.5: not)"), tr("habits"), tr("relevance"), ""):
        table.add_column(column, justify="right")
    for place, one in enumerate(tuned.trials):
        mark = "●" if one == tuned.chosen else tr("before") if place == 0 else ""
        numbers = [f"{value:g}" for value in one.setting.values()]
        table.add_row(*numbers, f"{one.auc:.3f}", f"{one.distance:.3f}", format_share(one.relevance), mark)
    return table
