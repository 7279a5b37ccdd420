"""The page and the table of an examination."""

from io import StringIO
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from doppel.reports.metrics import Interval, Metric
from doppel.transcript import ME, Turn
from tests.training.fidelity.cases import casual, formal
from training.fidelity.examine import ExaminationResult
from training.fidelity.measures.habits import habit_metrics
from training.fidelity.report.page import fidelity_sections
from training.fidelity.report.table import report_table
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
    metrics = [bits, *habit_metrics(written, prompted, actual, past, formal(30, 1))]
    return ExaminationResult(metrics, written, prompted, actual, formal(30, 1), {})


def test_the_page_has_every_part(examination: ExaminationResult) -> None:
    bars, distributions, best, worst, all_metrics, _ = fidelity_sections(examination, [])
    assert "30 replies of one other person" in bars.body
    assert 'style="left:50%"' in bars.body  # half way from floor to ceiling
    assert 'style="left:25%;width:75%"' in bars.body  # its interval, cut at the ceiling
    assert distributions.body.count("<svg") == 3
    for section in (best, worst):
        assert section.body.count('class="chat"') == 10
        assert "<b>you</b> are you there" in section.body
        assert "<b>Ramito</b> &lt;b&gt;yes" in section.body
    assert "1.300 [1.200, 1.400]" in all_metrics.body  # floors have intervals, too


def test_empty_replies_are_shown_as_such(examination: ExaminationResult) -> None:
    empty = [msgspec.structs.replace(reply, bubbles=()) for reply in examination.adapter]
    sections = fidelity_sections(msgspec.structs.replace(examination, adapter=empty), [])
    assert "It wrote nothing." in sections[1].body


def test_the_table_names_the_floor_and_fits_a_narrow_terminal(examination: ExaminationResult) -> None:
    report = FidelityReport("0001", Path(), False, examination, [], [], "now")
    for width in (120, 80):
        console = Console(width=width, record=True, file=StringIO())
        console.print(report_table(report, width))
        text = console.export_text()
        assert max(map(len, text.splitlines())) <= width
        assert "1.200 [1.100, 1.250]" in text
        assert ("●" in text) == (width == 120)
        assert "one other person" in text
    without_other = msgspec.structs.replace(report, examination=msgspec.structs.replace(examination, other=[]))
    assert "base model with a prompt" in str(report_table(without_other).caption)
