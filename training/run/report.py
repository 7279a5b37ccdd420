"""What report.html says of a training: its outcome, its curves, its settings, and where the time went."""

from collections.abc import Sequence
from pathlib import Path

from doppel.i18n import tr
from doppel.reports.charts import line_chart
from doppel.reports.html import Section, charts, figures, table
from training.lora.bits_per_byte import HeldOutScore
from training.run.checkpoints import RunState
from training.run.metrics import FILE, MetricsRow, read_metrics
from training.run.plan import TrainingPlan
from training.run.timings import PhaseTimer, phase_title

SETTINGS = ("rank", "alpha", "learning_rate", "epochs", "sessions_per_step", "max_length")


def report_sections(started: RunState, after: HeldOutScore, folder: Path, parts: PhaseTimer) -> list[Section]:
    """The sections of one training.

    Args:
        started: its plan, and the score of the untrained base.
        after: the score of the adapter.
        folder: where its metrics.jsonl lies.
        parts: where the time went in this process.
    """
    lines = list(read_metrics(folder / FILE))
    sections = [Section(tr("Outcome"), figures(_outcome(started.before, after, lines)))]
    if drawn := [chart for chart in _curves(lines) if chart]:
        sections.append(Section(tr("Curves"), charts(drawn)))
    titles = (tr("setting"), tr("value"), tr("from"))
    sections.append(Section(tr("Settings"), table(titles, setting_rows(started.plan))))
    spent = [(phase_title(name), duration(seconds)) for name, seconds in parts.seconds.items() if seconds >= 0.05]
    sections.append(Section(tr("Where the time went"), table((tr("part"), tr("time")), spent)))
    return sections


def setting_rows(plan: TrainingPlan) -> list[tuple[str, str, str]]:
    """Name, value and origin of every setting that config.yaml may leave open."""
    return [
        (name, f"{getattr(plan, name):.4g}", plan.reasons.get(name) or tr("set in config.yaml")) for name in SETTINGS
    ]


def duration(seconds: float) -> str:
    """A time for people: seconds, minutes or hours."""
    if seconds < 100:
        return tr("{seconds:.1f} s", seconds=seconds)
    if seconds < 6000:
        return tr("{minutes:.1f} min", minutes=seconds / 60)
    return tr("{hours:.1f} h", hours=seconds / 3600)


def _outcome(before: HeldOutScore, after: HeldOutScore, lines: Sequence[MetricsRow]) -> list[tuple[str, str]]:
    told = [
        (tr("bits per byte, untrained base"), f"{before.bits_per_byte:.3f}"),
        (tr("bits per byte, adapter"), f"{after.bits_per_byte:.3f}"),
        (tr("change"), f"{after.bits_per_byte / before.bits_per_byte - 1:+.1%}"),
    ]
    if lines:
        last = lines[-1]
        told.append((tr("tokens trained on"), f"{last.tokens:,}"))
        told.append((tr("epochs"), f"{last.epoch:.2f}"))
        told.append((tr("time"), duration(last.seconds)))
    return told


def _curves(lines: Sequence[MetricsRow]) -> list[str]:
    step = tr("step")

    def points(name: str) -> list[tuple[float, float]]:
        return [(line.step, value) for line in lines if (value := getattr(line, name)) is not None]

    return [
        line_chart(tr("Loss in training, nats a token"), step, points("loss"), is_noisy=True),
        line_chart(tr("Bits per byte of messages it has not seen"), step, points("bits_per_byte"), show_values=True),
        line_chart(tr("Learning rate"), step, points("learning_rate")),
        line_chart(tr("Tokens a second"), step, points("tokens_per_second"), is_noisy=True),
    ]
