"""The outcome of an examination in the terminal: one screen."""

from rich.table import Table

from doppel.i18n import tr
from doppel.reports.metrics import Metric, by_name, format_value
from training.fidelity.examine import Examination
from training.fidelity.outcome import Fidelity
from training.fidelity.report.titles import title_of
from training.fidelity.texts import LEAST_TURNS

SHOWN = (
    *("bits_per_byte", "bits_per_byte_prompted", "bits_change", "specificity", "choice", "choice_others"),
    *("two_sample_auc", "two_sample_auc_matched", "candidates_two_sample_auc", "habits_distance"),
    *("habits_distance_prompted", "distinct_2", "length_spread", "authorship", "relevance", "candidates_relevance"),
    *("out_of_character", "verbatim_run", "recited", "forgetting", "quiz"),
)
_BAR = 12
_WIDE = 110


def report_table(outcome: Fidelity, width: int = _WIDE) -> Table:
    """Value, interval, floor and ceiling of the main figures, and where there is room where the value lies between.

    Args:
        outcome: of the examination.
        width: of the terminal, in characters.
    """
    title = tr("Version {version}: how much it is like you", version=outcome.version)
    table = Table(title=title, title_justify="left", caption=floor_of(outcome.examination), caption_justify="left")
    table.add_column(tr("figure"), overflow="fold")
    for column in (tr("value"), tr("floor"), tr("ceiling (you)") if width >= _WIDE else tr("you")):
        table.add_column(column, justify="right", no_wrap=True)
    if width >= _WIDE:
        table.add_column(tr("floor → you"))
    figures = by_name(outcome.examination.figures)
    for name in SHOWN:
        if (figure := figures.get(name)) is not None:
            cells = (
                title_of(name),
                format_value(figure, figure.estimate, with_interval=True),
                *_bounds(figure),
                _bar(figure),
            )
            table.add_row(*cells[: len(table.columns)])
    return table


def floor_of(examination: Examination) -> str:
    """Who is the floor of the figures of what is written, in a sentence."""
    if examination.other:
        return tr(
            "Floor of the written replies: {count} of one other person in your archive.", count=len(examination.other)
        )
    return tr(
        "Floor of the written replies: the base model with a prompt; nobody else in your archive wrote {least}.",
        least=LEAST_TURNS,
    )


def comparison_table(first: Fidelity, second: Fidelity) -> Table:
    """The main figures of two versions."""
    table = Table(title=tr("Two versions compared"), title_justify="left")
    table.add_column(tr("figure"), overflow="fold")
    for outcome in (first, second):
        table.add_column(outcome.version, justify="right")
    sides = [by_name(outcome.examination.figures) for outcome in (first, second)]
    for name in SHOWN:
        if all(name in side for side in sides):
            cells = [format_value(side[name], side[name].estimate, with_interval=True) for side in sides]
            table.add_row(title_of(name), *cells)
    return table


def _bounds(figure: Metric) -> tuple[str, str]:
    return format_value(figure, figure.floor), format_value(figure, figure.ceiling)


def _bar(figure: Metric) -> str:
    if figure.normalized is None or figure.normalized != figure.normalized:
        return ""
    place = round(max(0.0, min(1.0, figure.normalized)) * _BAR)
    return "━" * place + "●" + "─" * (_BAR - place)
