"""The sections of report.html about a training: outcome, curves, settings, and time by phase."""

from collections.abc import Sequence
from pathlib import Path

from doppel.i18n import tr
from doppel.reports.charts import line_chart
from doppel.reports.html import Section, charts, figures, table
from training.lora.bits_per_byte import HeldOutScore
from training.run.metrics import FILE, MetricsRow, read_metrics
from training.run.plan import TrainingPlan
from training.run.run_state import RunState
from training.run.timings import PhaseTimer, phase_title

SETTINGS = ("rank", "alpha", "learning_rate", "epochs", "sessions_per_step", "max_length")


def report_sections(state: RunState, score: HeldOutScore | None, folder: Path, timer: PhaseTimer) -> list[Section]:
    """The sections of one training.

    Args:
        state: its plan, and the score of the base model.
        score: of the adapter; None if it could not be measured.
        folder: of metrics.jsonl.
        timer: seconds by phase in this process.
    """
    rows = list(read_metrics(folder / FILE))
    sections = [Section(tr("Outcome"), figures(_outcome(state.base_score, score, rows)))]
    if drawn := [chart for chart in _curves(rows) if chart]:
        sections.append(Section(tr("Curves"), charts(drawn)))
    titles = (tr("setting"), tr("value"), tr("chosen because"))
    sections.append(Section(tr("Settings"), table(titles, setting_rows(state.plan))))
    phases = [(phase_title(name), duration(seconds)) for name, seconds in timer.seconds.items() if seconds >= 0.05]
    sections.append(Section(tr("Time"), table((tr("phase"), tr("time")), phases)))
    return sections


def setting_rows(plan: TrainingPlan) -> list[tuple[str, str, str]]:
    """Name, value and reason of each setting that config.yaml may leave open."""
    return [
        (name, f"{getattr(plan, name):.4g}", plan.reasons.get(name) or tr("set in config.yaml")) for name in SETTINGS
    ]


def duration(seconds: float) -> str:
    """A duration for people, in seconds, minutes or hours."""
    if seconds < 100:
        return tr("{seconds:.1f} s", seconds=seconds)
    if seconds < 6000:
        return tr("{minutes:.1f} min", minutes=seconds / 60)
    return tr("{hours:.1f} h", hours=seconds / 3600)


def _outcome(
    base: HeldOutScore | None, adapter: HeldOutScore | None, rows: Sequence[MetricsRow]
) -> list[tuple[str, str]]:
    if base is None or adapter is None:
        outcome = [(tr("bits per byte on test messages"), tr("not measured: no messages were held back"))]
    else:
        outcome = [
            (tr("base model, bits per byte on test messages"), f"{base.bits_per_byte:.3f}"),
            (tr("adapter, bits per byte on test messages"), f"{adapter.bits_per_byte:.3f}"),
            (tr("change"), f"{adapter.bits_per_byte / base.bits_per_byte - 1:+.1%}"),
        ]
    if rows:
        last = rows[-1]
        outcome.append((tr("tokens trained on"), f"{last.tokens:,}"))
        outcome.append((tr("epochs"), f"{last.epoch:.2f}"))
        outcome.append((tr("time"), duration(last.seconds)))
    return outcome


def _curves(rows: Sequence[MetricsRow]) -> list[str]:
    step = tr("step")

    def points(name: str) -> list[tuple[float, float]]:
        return [(row.step, value) for row in rows if (value := getattr(row, name)) is not None]

    return [
        line_chart(tr("Training loss, nats per token"), step, points("loss"), is_noisy=True),
        line_chart(tr("Bits per byte on validation messages"), step, points("bits_per_byte"), show_values=True),
        line_chart(tr("Learning rate"), step, points("learning_rate")),
        line_chart(tr("Tokens per second"), step, points("tokens_per_second"), is_noisy=True),
    ]
