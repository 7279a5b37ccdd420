"""The outcome of an examination in the terminal: one screen."""

from rich.table import Table

from doppel.figures import Figure, by_name, share_of, shown
from doppel.i18n import tr
from training.fidelity.outcome import Fidelity
from training.fidelity.tuning import SETTINGS, Tuned

SHOWN = (
    *("bits_per_byte", "bits_per_byte_prompted", "bits_change", "specificity", "choice", "choice_others"),
    *("two_sample_auc", "two_sample_auc_matched", "habits_distance", "distinct_2", "length_spread"),
    *("authorship", "relevance", "out_of_character", "verbatim_run", "recited", "forgetting"),
    "quiz",
)
_BAR = 12


def title_of(name: str) -> str:
    """What a figure is called for people; its own name where it is a detail."""
    return {
        "bits_per_byte": tr("bits per byte of your unseen messages"),
        "bits_per_byte_prompted": tr("… of the base model with a prompt"),
        "bits_change": tr("… change against the base (floor: on others' messages)"),
        "specificity": tr("how much more it learned you than others"),
        "choice": tr("finds your reply among four"),
        "choice_others": tr("… among three, the others by strangers"),
        "two_sample_auc": tr("a classifier tells it from you (0.5: cannot)"),
        "two_sample_auc_matched": tr("… at equal lengths"),
        "habits_distance": tr("distance of writing habits"),
        "distinct_2": tr("variety of word pairs (1: yours)"),
        "length_spread": tr("spread of lengths (1: yours)"),
        "authorship": tr("a judge takes its replies for yours"),
        "relevance": tr("replies fit what was said"),
        "out_of_character": tr("says that it is a machine"),
        "verbatim_run": tr("words repeated from training, longest run"),
        "recited": tr("replies that recite eight words or more"),
        "forgetting": tr("neutral text: change in bits"),
        "quiz": tr("people tell it from you (50 %: they guess)"),
    }.get(name, name)


def report_table(outcome: Fidelity) -> Table:
    """Value, interval, floor and ceiling of the main figures, and where the value lies between the two."""
    title = tr("Version {version}: how much it is like you", version=outcome.version)
    table = Table(title=title, title_justify="left")
    table.add_column(tr("figure"), overflow="fold")
    for column in (tr("value"), tr("floor"), tr("ceiling (you)")):
        table.add_column(column, justify="right")
    table.add_column(tr("floor → you"))
    figures = by_name(outcome.examination.figures)
    for name in SHOWN:
        if (figure := figures.get(name)) is not None:
            table.add_row(
                title_of(name), shown(figure, figure.value, with_interval=True), *_bounds(figure), _bar(figure)
            )
    return table


def comparison_table(first: Fidelity, second: Fidelity) -> Table:
    """The main figures of two versions."""
    table = Table(title=tr("Two versions compared"), title_justify="left")
    table.add_column(tr("figure"), overflow="fold")
    for outcome in (first, second):
        table.add_column(outcome.version, justify="right")
    sides = [by_name(outcome.examination.figures) for outcome in (first, second)]
    for name in SHOWN:
        if all(name in side for side in sides):
            cells = [shown(side[name], side[name].value, with_interval=True) for side in sides]
            table.add_row(title_of(name), *cells)
    return table


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
        table.add_row(*numbers, f"{one.auc:.3f}", f"{one.distance:.3f}", share_of(one.relevance), mark)
    return table


def _bounds(figure: Figure) -> tuple[str, str]:
    return shown(figure, figure.floor), shown(figure, figure.ceiling)


def _bar(figure: Figure) -> str:
    if figure.likeness is None or figure.likeness != figure.likeness:
        return ""
    place = round(max(0.0, min(1.0, figure.likeness)) * _BAR)
    return "━" * place + "●" + "─" * (_BAR - place)
