"""`doppel tune`: trains with different settings on the same data, and finds those that predict held-out messages best.

The data set is read and the base loaded once. Each trial adds a new LoRA to the base, trains it as `doppel train`
would for a limited time, and removes it. Trials are scored on the validation split, never on the test split.
"""

import math
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import torch
from rich.progress import Progress
from transformers import PreTrainedModel

from doppel.config import Config, TrainingSettings
from doppel.errors import DoppelError, UserError
from doppel.i18n import tr
from doppel.system.file_lock import acquire_lock
from doppel.system.write_errors import translate_write_errors
from doppel.terminal import print_status, progress
from training.lora.bits_per_byte import score_examples
from training.lora.distributed import SINGLE_PROCESS
from training.lora.examples import count_tokens, spread_sample
from training.lora.memory import BatchLimit
from training.lora.packing import tokens_per_batch
from training.lora.reduced_head import reduce_head
from training.lora.settings import ChosenValue, Hyperparameters, recommend
from training.run.folders import tuning_folder
from training.run.metrics import MetricsRow
from training.run.plan import TrainingPlan, make_plan, optimizer_steps, token_budget
from training.run.progress import StopRequest, stop_on_signals
from training.run.schedule import Schedule
from training.run.setup import (
    TrainingSetup,
    build_model,
    choose_hyperparameters,
    load_base,
    load_setup,
    measure_and_plan,
    run_digest,
    training_size,
    with_replay,
)
from training.run.timings import PhaseTimer
from training.run.trainer import PersonaTrainer
from training.tuning.study import Dimension, RunningTrial, Scale, Study, Trial, TrialStatus, Values

_MINUTES_ON_CPU = 10.0
_MAX_EPOCHS = 4.0
_CHECKS = 8
_SEARCHED = ("learning_rate", "rank", "epochs", "sessions_per_step")
_IGNORED = {*_SEARCHED, "trackers", "gate", "minutes", "first_run_minutes"}  # trials stay comparable if these change


class SearchLimits(msgspec.Struct, frozen=True):
    """When to stop.

    Attributes:
        trials: number in all, those of earlier calls included.
        minutes: after which no further trial starts; None: no limit.
        trial_minutes: of training in one trial; None: ten on a CPU, whole epochs on a GPU.
    """

    trials: int
    minutes: float | None = None
    trial_minutes: float | None = None


class SearchResult(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a search.

    Attributes:
        trials: all of them.
        best: the best that ran to the end, or None.
        base_bits: bits per byte of the base model on the same messages.
        stopped: whether a signal ended the search.
        trial_tokens: the most that a trial trains on.
        epoch_tokens: in one epoch.
    """

    trials: list[Trial]
    best: Trial | None
    base_bits: float = msgspec.field(name="base")
    stopped: bool
    trial_tokens: float
    epoch_tokens: int


def search_settings(config: Config, limits: SearchLimits) -> SearchResult:
    """Starts a search for this data and base, or resumes it.

    Raises:
        UserError: there is no data set, or it has no validation messages.
        DoppelError: the folder cannot be written, or another process searches there.
    """
    folder = tuning_folder(config.data_dir)
    with translate_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = acquire_lock(folder / "lock")
    if lock is None:
        raise DoppelError(tr("{path}: in use by another `doppel tune`", path=folder))
    with lock:
        return _search(config, limits, folder)


def _search(config: Config, limits: SearchLimits, folder: Path) -> SearchResult:
    began = time.monotonic()
    setup = load_setup(config, None)
    if not setup.sessions["validation"]:
        raise UserError(
            tr("{path}: has no validation messages; give `doppel build` a larger archive", path=config.data_dir)
        )
    base = load_base(setup)
    with translate_write_errors(folder):
        runner = _TrialRunner(with_replay(setup, base), base, limits, folder)
    base_bits = runner.base_bits()
    with stop_on_signals() as stop:
        while not stop.requested and runner.finished_trials() < limits.trials:
            if limits.minutes is not None and time.monotonic() - began > limits.minutes * 60:
                print_status(tr("The time limit of {minutes:g} min is reached.", minutes=limits.minutes))
                break
            with translate_write_errors(folder):
                runner.run_trial(stop, limits.trials)
    return SearchResult(
        trials=runner.study.trials(),
        best=runner.study.best(),
        base_bits=base_bits,
        stopped=stop.requested,
        trial_tokens=runner.trial_tokens,
        epoch_tokens=runner.epoch_tokens,
    )


class _TrialRunner:
    """Runs trials with the same data, base and study."""

    def __init__(self, setup: TrainingSetup, base: PreTrainedModel, limits: SearchLimits, folder: Path) -> None:
        self._setup, self._base = setup, base
        self._hyperparameters = choose_hyperparameters(setup, base)
        self._head = reduce_head(base, setup.train, setup.settings.seed)
        self._batch = BatchLimit(tokens_per_batch(base))
        minutes = limits.trial_minutes
        if minutes is None and not setup.device.startswith("cuda"):
            minutes = _MINUTES_ON_CPU
        self._is_short = minutes is not None
        self.study = Study(folder, run_digest(setup, minutes, ignore=_IGNORED), setup.settings.seed)
        # speed and tokens are stored, so that a resumed search stays comparable on a busier machine
        self._speed = self.study.constant("tokens_per_second", self._measure_speed)
        self.epoch_tokens = count_tokens(setup.train)
        max_tokens = self.epoch_tokens * _MAX_EPOCHS
        self.trial_tokens = self.study.constant("tokens", lambda: min(max_tokens, token_budget(minutes, self._speed)))
        current = self._plan({})
        first = {name: getattr(self._hyperparameters, name).value for name in _SEARCHED}
        self.study.set_space(self._space(), {**first, "sessions_per_step": current.sessions_per_step})
        self._held_out = spread_sample(setup.validation, current.check_tokens)

    def finished_trials(self) -> int:
        """The number of trials that have ended."""
        return sum(trial.status is not TrialStatus.RUNNING for trial in self.study.trials())

    def base_bits(self) -> float:
        """Bits per byte of the base model on the messages that trials are scored on."""
        batch_tokens = tokens_per_batch(self._base)
        return self.study.constant(
            "base", lambda: score_examples(self._base, self._held_out, batch_tokens).bits_per_byte
        )

    def run_trial(self, stop: StopRequest, count: int) -> None:
        """Runs one trial until it ends, is pruned or interrupted; an interrupted one is tried again later."""
        trial = self.study.start_trial()
        plan = self._plan(trial.values)
        number = self.finished_trials() + 1
        print_status(tr("Trial {number} of {count}: {values}", number=number, count=count, values=plan_text(plan)))
        torch.manual_seed(plan.seed)
        model = build_model(self._setup, self._base, plan.rank, plan.alpha)
        with progress() as bar:
            progress_bar = _TrialProgress(bar, tr("Trial {number}", number=number), trial, plan)
            trainer = PersonaTrainer(
                model,
                plan,
                Schedule(plan.learning_rate, plan.steps),
                head=self._head,
                steps=optimizer_steps(plan, self._setup.epochs),
                held_out=self._held_out,
                folder=None,
                listeners=[progress_bar.log],
                timer=PhaseTimer(),
                processes=SINGLE_PROCESS,
                should_stop=lambda: stop.requested or progress_bar.is_pruned,
            )
            try:
                trainer.train()
            except torch.OutOfMemoryError:
                print_status(tr("Trial {number} ran out of memory and was stopped.", number=number))
                progress_bar.is_pruned = True
            finally:
                model.unload()
        if trainer.stopped and not progress_bar.is_pruned:
            self.study.requeue(trial)
        else:
            trial.finish(pruned=progress_bar.is_pruned)

    def _measure_speed(self) -> float:
        """Training speed with the current settings, tokens per second."""
        hyperparameters = self._hyperparameters
        model = build_model(self._setup, self._base, hyperparameters.rank.value, hyperparameters.alpha.value)
        try:
            return measure_and_plan(self._setup, hyperparameters, model, self._head).tokens_per_second
        finally:
            model.unload()

    def _space(self) -> dict[str, Dimension]:
        """Ranges around the recommended settings, whatever config.yaml sets, so that a resumed search has the same."""
        center = recommend(TrainingSettings(), training_size(self._setup, self._base), self._setup.max_length)
        rate, rank = center.learning_rate.value, center.rank.value
        space = {
            "learning_rate": Dimension(rate / 4, rate * 4, Scale.LOGARITHMIC),
            "rank": Dimension(rank // 4, min(256, rank * 4), Scale.POWERS_OF_TWO),
            "sessions_per_step": Dimension(4, 32, Scale.POWERS_OF_TWO),
        }
        epochs = math.floor(2 * self.trial_tokens / self.epoch_tokens) / 2
        if epochs >= 1.5:  # shorter trials cannot compare numbers of epochs
            space["epochs"] = Dimension(1, epochs, Scale.HALVES)
        return space

    def _plan(self, values: Values) -> TrainingPlan:
        chosen = {name: ChosenValue(value, None) for name, value in values.items()}
        hyperparameters: Hyperparameters = msgspec.structs.replace(self._hyperparameters, **chosen)
        plan = make_plan(
            self._setup.settings,
            hyperparameters,
            examples=self._setup.train,
            max_tokens=self.trial_tokens,
            is_short=self._is_short,
            tokens_per_second=self._speed,
            batch=self._batch,
            device=self._setup.device,
            dtype=self._base.dtype,
            now=datetime.now(UTC),
        )
        # the same number of checks in each trial, so that trials can be compared before their end
        return msgspec.structs.replace(plan, steps_between_checks=math.ceil(plan.steps / _CHECKS))


class _TrialProgress:
    """Shows a trial's progress, reports its validations to the study, and knows whether the study gave it up."""

    def __init__(self, bar: Progress, title: str, trial: RunningTrial, plan: TrainingPlan) -> None:
        self._bar, self._trial, self._steps = bar, trial, plan.steps
        self._task = bar.add_task(title, total=plan.steps, rate="")
        self._bits = ""
        self.is_pruned = False

    def log(self, row: MetricsRow) -> None:
        """Draws a step, or reports a validation."""
        if row.bits_per_byte is not None:
            self._bits = tr("{bits:.3f} bits per byte", bits=row.bits_per_byte)
            self.is_pruned = self._trial.report(row.bits_per_byte, round(_CHECKS * row.step / self._steps))
        self._bar.update(self._task, completed=row.step, rate=self._bits)


def plan_text(plan: TrainingPlan) -> str:
    """The searched settings of a trial in one line."""
    return tr(
        "rank {rank}, learning rate {rate:g}, {epochs:.2g} epochs, {sessions} conversations per step",
        rank=plan.rank,
        rate=plan.learning_rate,
        epochs=plan.epochs,
        sessions=plan.sessions_per_step,
    )
