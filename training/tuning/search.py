"""`doppel tune`: trainings of different settings on the same data, judged on held-out messages, to find the best.

The data set is read and the base loaded once; each trial puts a new LoRA on the base, trains it as `doppel train`
would, for a limited time, and takes it off again. Judged is on the validation split and never on the test split.
"""

import math
import time
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import torch
from rich.progress import Progress
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from doppel.config import Config, TrainingSettings
from doppel.errors import DoppelError, UserError
from doppel.i18n import tr
from doppel.system.file_lock import acquire_lock
from doppel.system.write_errors import translate_write_errors
from doppel.terminal import print_status, progress
from training.lora.bits_per_byte import score
from training.lora.distributed import SINGLE_PROCESS
from training.lora.examples import spread_sample
from training.lora.packing import tokens_per_batch
from training.lora.settings import Choice, Settings, recommend
from training.run.plan import TrainingPlan, make_plan, optimizer_steps, token_budget
from training.run.progress import StopRequest, stop_on_signals
from training.run.setup import (
    TrainingSetup,
    build_model,
    load_base,
    load_setup,
    measure_and_plan,
    purpose,
    settings_for,
    size_of,
    with_replay,
)
from training.run.timings import PhaseTimer
from training.run.trainer import METRIC, PersonaTrainer
from training.tuning.study import Dimension, RunningTrial, Study, Trial, Values

_MINUTES_ON_CPU = 10.0
_MOST_EPOCHS = 4.0
_SEARCHED = ("learning_rate", "rank", "epochs", "sessions_per_step")
_NO_MATTER = {*_SEARCHED, "track", "gate", "minutes", "first_run_minutes"}  # trials can be compared all the same


class SearchLimits(msgspec.Struct, frozen=True):
    """When to stop.

    Attributes:
        trials: how many there are to be in all, those of earlier calls included.
        minutes: no trial begins after so many; None: no limit.
        trial_minutes: of training in one trial; None: ten without a GPU, and whole epochs on one.
    """

    trials: int
    minutes: float | None = None
    trial_minutes: float | None = None


class Tuned(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it.

    Attributes:
        trials: all of them.
        best: the best that was not given up, or None.
        base: bits per byte of the untrained base on the same messages.
        stopped: whether a signal ended it.
        trial_tokens: a trial trains on at most.
        epoch_tokens: what an epoch has.
    """

    trials: list[Trial]
    best: Trial | None
    base: float
    stopped: bool
    trial_tokens: float
    epoch_tokens: int


def tune(config: Config, limits: SearchLimits) -> Tuned:
    """Goes on with the search for this data and base, or begins it.

    Raises:
        UserError: no data set, or nothing to judge by in it.
        DoppelError: the folder cannot be written, or another process searches there.
    """
    folder = tuning_folder(config)
    with translate_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = acquire_lock(folder / "lock")
    if lock is None:
        raise DoppelError(tr("{path}: another `doppel tune` is at work there", path=folder))
    with lock:
        return _search(config, limits, folder)


def tuning_folder(config: Config) -> Path:
    """Where the searches of the persona lie."""
    return config.data_dir.with_name(config.data_dir.name + ".tuning")


def _search(config: Config, limits: SearchLimits, folder: Path) -> Tuned:
    began = time.monotonic()
    material = load_setup(config, None)
    if not material.sessions["validation"]:
        raise UserError(
            tr("{path}: holds no messages to judge by; give `doppel build` a larger archive", path=config.data_dir)
        )
    base = load_base(config, material)
    with translate_write_errors(folder):
        bench = _Bench(config, with_replay(config, material, base), base, limits, folder)
    score_of_base = bench.score_base()
    with stop_on_signals() as stop:
        while not stop.asked and bench.count() < limits.trials:
            if limits.minutes is not None and time.monotonic() - began > limits.minutes * 60:
                print_status(tr("{minutes:g} minutes are over.", minutes=limits.minutes))
                break
            with translate_write_errors(folder):
                bench.try_next(stop, limits.trials)
    return Tuned(
        trials=bench.study.trials(),
        best=bench.study.best(),
        base=score_of_base,
        stopped=stop.asked,
        trial_tokens=bench.most_tokens,
        epoch_tokens=bench.epoch_tokens,
    )


class _Bench:
    """Data, base and study, set up once for all trials."""

    def __init__(
        self, config: Config, material: TrainingSetup, base: PreTrainedModel, limits: SearchLimits, folder: Path
    ) -> None:
        self._config, self._material, self._base = config, material, base
        self._settings = settings_for(config, material, base)
        minutes = limits.trial_minutes
        if minutes is None and not material.device.startswith("cuda"):
            minutes = _MINUTES_ON_CPU
        self._is_short = minutes is not None
        self.study = Study(folder, purpose(config, material, minutes, regardless_of=_NO_MATTER), config.training.seed)
        # both stay as they are, however busy the machine is when the search goes on
        self._speed = self.study.kept("tokens_per_second", self._measured)
        self.epoch_tokens = sum(len(example.ids) for example in material.train)
        whole = self.epoch_tokens * _MOST_EPOCHS
        self.most_tokens = self.study.kept("tokens", lambda: min(whole, token_budget(minutes, self._speed)))
        present = self._plan({})
        first = {name: getattr(self._settings, name).value for name in _SEARCHED}
        self.study.search(self._space(), {**first, "sessions_per_step": present.sessions_per_step})
        self._held_out = spread_sample(material.validation, present.check_tokens)

    def count(self) -> int:
        """Trials that have ended."""
        return sum(trial.state != "running" for trial in self.study.trials())

    def score_base(self) -> float:
        """Bits per byte of the untrained base on what trials are judged by."""
        size = tokens_per_batch(self._base)
        return self.study.kept("base", lambda: score(self._base, self._held_out, size).bits_per_byte)

    def try_next(self, stop: StopRequest, count: int) -> None:
        """One trial, to its end, until it is given up, or until somebody asks to stop; then it is tried again later."""
        attempt = self.study.begin()
        plan = self._plan(attempt.values)
        number = self.count() + 1
        print_status(tr("Trial {number} of {count}: {values}", number=number, count=count, values=shown(plan)))
        torch.manual_seed(plan.seed)
        model = build_model(self._config, self._base, plan.rank, plan.alpha)
        try:
            with TemporaryDirectory() as scratch, progress() as bar:
                judge = _Judge(bar, tr("Trial {number}", number=number), attempt, stop)
                trainer = PersonaTrainer(
                    model,
                    plan,
                    steps=optimizer_steps(plan, self._material.train),
                    held_out=self._held_out,
                    folder=Path(scratch),
                    callbacks=[judge],
                    parts=PhaseTimer(),
                    ranks=SINGLE_PROCESS,
                    keeps_checkpoints=False,
                )
                judge.trainer = trainer
                trainer.train()
        except torch.OutOfMemoryError:
            print_status(tr("Trial {number} needs more memory than there is, and is given up.", number=number))
            judge.is_pruned = True
        finally:
            model.unload()
        if judge.is_stopped:
            self.study.repeat(attempt)
        else:
            attempt.end(pruned=judge.is_pruned)

    def _measured(self) -> float:
        """Training speed with the present settings, tokens a second."""
        model = build_model(self._config, self._base, self._settings.rank.value, self._settings.alpha.value)
        try:
            return measure_and_plan(self._config, self._settings, self._material, model).tokens_per_second
        finally:
            model.unload()

    def _space(self) -> dict[str, Dimension]:
        """Around what is recommended, whatever config.yaml says, so that the search stays the same one."""
        middle = recommend(TrainingSettings(), size_of(self._material, self._base), self._material.max_length)
        rate, rank = middle.learning_rate.value, middle.rank.value
        space = {
            "learning_rate": Dimension(rate / 4, rate * 4, "rate"),
            "rank": Dimension(rank // 4, min(256, rank * 4), "power"),
            "sessions_per_step": Dimension(4, 32, "power"),
        }
        epochs = math.floor(2 * self.most_tokens / self.epoch_tokens) / 2
        if epochs >= 1.5:  # else no trial could tell one epoch from two
            space["epochs"] = Dimension(1, epochs, "half")
        return space

    def _plan(self, values: Values) -> TrainingPlan:
        chosen = {name: Choice(value, None) for name, value in values.items()}
        settings: Settings = msgspec.structs.replace(self._settings, **chosen)
        plan = make_plan(
            self._config.training,
            settings,
            items=self._material.train,
            most_tokens=self.most_tokens,
            is_short=self._is_short,
            tokens_per_second=self._speed,
            tokens_per_batch=tokens_per_batch(self._base),
            device=self._material.device,
            dtype=self._base.dtype,
            now=datetime.now(UTC),
        )
        # a check each eighth of it, however long it is, so that trials can be compared on the way
        return msgspec.structs.replace(plan, steps_between_checks=math.ceil(plan.steps / 8))


class _Judge(TrainerCallback):
    """Shows a trial's progress, and ends it when the study gives it up or somebody asks to stop."""

    def __init__(self, bar: Progress, title: str, attempt: RunningTrial, stop: StopRequest) -> None:
        self._bar, self._attempt, self._stop = bar, attempt, stop
        self._task = bar.add_task(title, total=None, rate="")
        self._bits = ""
        self.trainer: PersonaTrainer | None = None
        self.is_pruned = self.is_stopped = False

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Counts the step."""
        self._bar.update(self._task, total=state.max_steps, completed=state.global_step, rate=self._bits)
        if self._stop.asked:
            self.is_stopped = True
            control.should_training_stop = True
            control.should_evaluate = False
        return control

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **_: Any,
    ) -> TrainerControl:
        """Tells the study the score of a validation."""
        bits = (metrics or {}).get(METRIC, math.nan)
        self._bits = tr("{bits:.3f} bits per byte", bits=bits)
        self._bar.update(self._task, rate=self._bits)
        if self._attempt.report(bits, round(8 * state.global_step / state.max_steps)):
            self.is_pruned = True
            control.should_training_stop = True
        return control


def shown(plan: TrainingPlan) -> str:
    """The settings of a trial, in a line."""
    return tr(
        "rank {rank}, learning rate {rate:g}, {epochs:.2g} epochs, {sessions} a step",
        rank=plan.rank,
        rate=plan.learning_rate,
        epochs=plan.epochs,
        sessions=plan.sessions_per_step,
    )
