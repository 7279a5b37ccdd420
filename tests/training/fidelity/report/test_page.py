"""The page and the table of an examination: every part is there, and says what it should."""

from io import StringIO
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from doppel.i18n import set_language
from doppel.reports.metrics import Interval, Metric
from doppel.transcript import ME, Turn
from tests.training.fidelity.cases import casual, formal
from training.fidelity.examine import ExaminationResult
from training.fidelity.goals import check_gate, check_goals
from training.fidelity.measures.habits import habit_metrics
from training.fidelity.report.page import fidelity_sections
from training.fidelity.report.table import report_table
from training.fidelity.report.titles import title_of_goal
from training.fidelity.stored import FidelityReport


@pytest.fixture(scope="module")
def examination() -> ExaminationResult:
    written, prompted, actual, past = casual(30, 1), formal(30), casual(30, 2), casual(30, 3)
    context = (Turn(ME, ("are you there",)), Turn("Ramito", ("<b>yes</b>",)))
    written = [
        msgspec.structs.replace(reply, exchange=msgspec.structs.replace(reply.exchange, context=context))
        for reply in written
    ]
    bits = Metric(
        name="bits_per_byte",
        estimate=Interval(1.2, 1.1, 1.25),
        floor=Interval(1.3, 1.2, 1.4),
        ceiling=Interval(1.1, 1.0, 1.2),
        lower_is_better=True,
        unit="bits",
    )
    figures = [bits, *habit_metrics(written, prompted, actual, past, formal(30, 1))]
    return ExaminationResult(figures, written, prompted, actual, formal(30, 1), {})


def test_the_page_has_every_part(examination: ExaminationResult) -> None:
    bars, distributions, best, worst, every, _ = fidelity_sections(examination, [])
    assert "30 replies of one other person" in bars.body
    assert 'style="left:50%"' in bars.body  # half way from floor to ceiling
    assert 'style="left:25%;width:75%"' in bars.body  # its interval, cut at the ceiling
    assert distributions.body.count("<svg") == 3
    for section in (best, worst):
        assert section.body.count('class="chat"') == 10
        assert "<b>you</b> are you there" in section.body
        assert "<b>Ramito</b> &lt;b&gt;yes" in section.body
    assert "1.300 [1.200, 1.400]" in every.body  # floors have intervals, too


def test_an_adapter_that_wrote_nothing_has_a_page(examination: ExaminationResult) -> None:
    silent = [msgspec.structs.replace(reply, bubbles=()) for reply in examination.adapter]
    sections = fidelity_sections(msgspec.structs.replace(examination, adapter=silent), [])
    assert "It wrote nothing." in sections[1].body


def test_the_table_says_who_is_the_floor_and_fits_a_narrow_terminal(examination: ExaminationResult) -> None:
    outcome = FidelityReport("0001", Path(), False, examination, [], [], "now")
    for width in (120, 80):
        console = Console(width=width, record=True, file=StringIO())
        console.print(report_table(outcome, width))
        text = console.export_text()
        assert max(map(len, text.splitlines())) <= width
        assert "1.200 [1.100, 1.250]" in text
        assert ("●" in text) == (width == 120)
        assert "one other person" in text
    alone = msgspec.structs.replace(outcome, examination=msgspec.structs.replace(examination, other=[]))
    assert "base model with a prompt" in str(report_table(alone).caption)


def test_every_check_has_a_chinese_name() -> None:
    some = Interval(0.5, 0.4, 0.6)
    names = ("bits_change", "bits_change_prompted", "choice", "choice_others", "specificity", "recited")
    figures = [
        Metric(name=name, estimate=some, floor=some, ceiling=some)
        for name in (*names, "habits_distance", "habits_distance_prompted")
    ]
    checks = [*check_goals(figures), *check_gate(figures)]
    assert all(title_of_goal(check.name) != check.name for check in checks)  # every one has a title
    set_language("zh")
    assert all(any("\u4e00" <= sign <= "\u9fff" for sign in title_of_goal(check.name)) for check in checks)
