"""Writes down how a training goes, while it goes: into metrics.jsonl, and into the trackers that config.yaml names."""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from doppel.adapters.versions import Manifest
from doppel.config import Config
from doppel.i18n import tr
from doppel.reports.html import FILE as REPORT
from doppel.reports.html import Section, page
from training.run.metrics import FILE, MetricsRow, append_metric, truncate_metrics
from training.run.plan import TrainingPlan
from training.run.trackers import Tracker, tracking
from training.run.trainer import METRIC, PersonaTrainer


@contextmanager
def recording(config: Config, plan: TrainingPlan, folder: Path, step: int) -> Iterator["MetricsRecorder"]:
    """A record of a run: metrics.jsonl in `folder`, and the trackers of config.yaml in `data/<persona>.tracking/`.

    Args:
        config: the configuration.
        plan: of the run.
        folder: of the unfinished training.
        step: it goes on from; 0 for a new one.

    Raises:
        DoppelError: a tracker cannot start.
    """
    run = plan.began_at.replace(":", "-").partition("+")[0]
    with tracking(config.training.track, tracking_folder(config), run, plan, step) as trackers:
        yield MetricsRecorder(folder, plan, trackers)


def tracking_folder(config: Config) -> Path:
    """Where trackers that write files write them."""
    return config.data_dir.with_name(config.data_dir.name + ".tracking")


def publish_record(staging: Path, folder: Path, manifest: Manifest, sections: Sequence[Section]) -> None:
    """Puts metrics.jsonl, which lies in `folder`, and report.html into an adapter that is being published."""
    if (folder / FILE).exists():
        shutil.copyfile(folder / FILE, staging / FILE)
    title = tr("{persona}: how the training went", persona=manifest.persona)
    subtitle = f"{manifest.base.id} · {manifest.training.get('began_at', '')[:16].replace('T', ' ')}"
    (staging / REPORT).write_text(page(title, subtitle, sections), encoding="utf-8")


class MetricsRecorder(TrainerCallback):
    """Turns what the trainer reports into metrics.

    Args:
        folder: where metrics.jsonl lies.
        plan: says how many epochs the steps amount to.
        trackers: get the same numbers.
        now: gives seconds.
    """

    def __init__(
        self,
        folder: Path,
        plan: TrainingPlan,
        trackers: Sequence[Tracker] = (),
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = folder / FILE
        self._plan = plan
        self._trackers = trackers
        self._now = now
        self._began = self._step_began = self._step_seconds = 0.0
        self._before = self._last = MetricsRow(step=0, epoch=0, tokens=0, seconds=0)
        self.trainer: PersonaTrainer | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Goes on from the step the run starts at."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._before = self._last = truncate_metrics(self._path, state.global_step) or self._before
        self._began = self._now()
        return control

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Starts the clock of a step."""
        self._step_began = self._now()
        return control

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Stops the clock of a step."""
        self._step_seconds = self._now() - self._step_began
        return control

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> TrainerControl:
        """Notes a step."""
        if logs and "loss" in logs:
            metric = self._now_at(state)
            tokens = metric.tokens - self._last.tokens
            self._note(
                msgspec.structs.replace(
                    metric,
                    loss=logs["loss"],
                    learning_rate=logs.get("learning_rate"),
                    grad_norm=logs.get("grad_norm"),
                    tokens_per_second=tokens / self._step_seconds if self._step_seconds else None,
                )
            )
        return control

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **_: Any,
    ) -> TrainerControl:
        """Notes a validation."""
        if metrics and METRIC in metrics:
            self._note(
                msgspec.structs.replace(
                    self._now_at(state), bits_per_byte=metrics[METRIC], end_nats=metrics.get("eval_end_nats")
                )
            )
        return control

    def _now_at(self, state: TrainerState) -> MetricsRow:
        assert self.trainer is not None
        return MetricsRow(
            step=state.global_step,
            epoch=round(self._plan.epochs * state.global_step / self._plan.steps, 4),
            tokens=self._before.tokens + self.trainer.tokens_seen,
            seconds=round(self._before.seconds + self._now() - self._began, 3),
        )

    def _note(self, metric: MetricsRow) -> None:
        append_metric(self._path, metric)
        for tracker in self._trackers:
            tracker.log(metric)
        self._last = metric
