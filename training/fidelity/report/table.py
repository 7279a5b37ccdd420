"""Fidelity reports in the terminal, on one screen."""

from rich.table import Table

from doppel.i18n import tr
from doppel.reports.metrics import Metric, by_name, format_value
from training.fidelity.examine import ExaminationResult
from training.fidelity.report.titles import title_of
from training.fidelity.stored import FidelityReport
from training.fidelity.texts import MIN_EXCHANGES

_LISTED = (
    *("bits_per_byte", "bits_per_byte_prompted", "bits_change", "bits_change_far", "bits_change_short", "specificity"),
    *("choice", "choice_others", "two_sample_auc", "two_sample_auc_matched", "two_sample_auc_informed"),
    *("candidates_two_sample_auc", "habits_distance", "habits_distance_prompted", "habits_within", "distinct_2"),
    *("style_spread", "authorship", "relevance", "candidates_relevance", "relevance_self_judged", "silent"),
    *("out_of_character", "verbatim_run", "recited", "recited_from_contacts", "parroted"),
    *("commonest_reply", "forgetting", "quiz"),
)
_BAR_WIDTH = 12
_WIDE_TERMINAL = 110


def report_table(report: FidelityReport, width: int = _WIDE_TERMINAL) -> Table:
    """The main metrics with interval, floor and ceiling, and a bar from floor to ceiling where there is room.

    Args:
        report: on one version.
        width: of the terminal, in characters.
    """
    is_wide = width >= _WIDE_TERMINAL
    title = tr("Version {version}: how much it writes like you", version=report.version)
    table = Table(
        title=title,
        title_justify="left",
        caption=floor_description(report.examination),
        caption_justify="left",
    )
    table.add_column(tr("metric"), overflow="fold")
    for column in (tr("value"), tr("floor"), tr("ceiling (you)") if is_wide else tr("you")):
        table.add_column(column, justify="right", no_wrap=True)
    if is_wide:
        table.add_column(tr("floor → you"))
    metrics = by_name(report.examination.metrics)
    for name in _LISTED:
        if (metric := metrics.get(name)) is not None:
            cells = (
                title_of(name),
                format_value(metric, metric.estimate, with_interval=True),
                format_value(metric, metric.floor),
                format_value(metric, metric.ceiling),
                _bar(metric),
            )
            table.add_row(*cells[: len(table.columns)])
    return table


def floor_description(examination: ExaminationResult) -> str:
    """A sentence that says who is the floor of the metrics on replies."""
    if examination.other:
        return tr(
            "Floor of the metrics on replies: {count} replies of one other person in your archive.",
            count=len(examination.other),
        )
    return tr(
        "Floor of the metrics on replies: the base model with a prompt; "
        "nobody else in your archive wrote {minimum} replies.",
        minimum=MIN_EXCHANGES,
    )


def comparison_table(first: FidelityReport, second: FidelityReport) -> Table:
    """The main metrics of two versions."""
    table = Table(title=tr("Comparison of two versions"), title_justify="left")
    table.add_column(tr("metric"), overflow="fold")
    for report in (first, second):
        table.add_column(report.version, justify="right")
    versions = [by_name(report.examination.metrics) for report in (first, second)]
    for name in _LISTED:
        if all(name in metrics for metrics in versions):
            cells = [format_value(metrics[name], metrics[name].estimate, with_interval=True) for metrics in versions]
            table.add_row(title_of(name), *cells)
    return table


def _bar(metric: Metric) -> str:
    if metric.normalized is None or metric.normalized != metric.normalized:
        return ""
    position = round(max(0.0, min(1.0, metric.normalized)) * _BAR_WIDTH)
    return "━" * position + "●" + "─" * (_BAR_WIDTH - position)
