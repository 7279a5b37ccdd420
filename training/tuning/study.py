"""The search of `doppel tune`: which settings to try next, and which trials to stop early.

An optuna study in a journal file with one event per line, so that a search can be resumed however it ended.
"""

import math
from collections.abc import Callable, Mapping
from enum import Enum, StrEnum, auto
from pathlib import Path

import msgspec
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

_JOURNAL = "journal.log"
_RANDOM_TRIALS = 6  # before the sampler has enough to learn from
_UNPRUNED_EIGHTHS = 2  # of a trial, before it may be stopped early

Values = dict[str, float]


class TrialStatus(StrEnum):
    """How far a trial got."""

    DONE = "done"
    PRUNED = "pruned"
    RUNNING = "running"


_STATUSES = {
    TrialState.COMPLETE: TrialStatus.DONE,
    TrialState.PRUNED: TrialStatus.PRUNED,
    TrialState.RUNNING: TrialStatus.RUNNING,
}


class Scale(Enum):
    """Which values of a setting may be tried."""

    LOGARITHMIC = auto()  # to two significant digits
    POWERS_OF_TWO = auto()
    HALVES = auto()


class Dimension(msgspec.Struct, frozen=True):
    """The range of one setting, from `low` to `high`."""

    low: float
    high: float
    scale: Scale

    def distribution(self) -> BaseDistribution:
        """The range as an optuna distribution, in optuna's own values."""
        if self.scale is Scale.LOGARITHMIC:
            return FloatDistribution(self.low, self.high, log=True)
        if self.scale is Scale.POWERS_OF_TWO:
            return IntDistribution(round(math.log2(self.low)), round(math.log2(self.high)))
        return FloatDistribution(self.low, self.high, step=0.5)

    def from_optuna(self, number: float) -> float:
        """The setting for one of optuna's values."""
        if self.scale is Scale.LOGARITHMIC:
            return float(f"{number:.2g}")
        return 2 ** round(number) if self.scale is Scale.POWERS_OF_TWO else number

    def to_optuna(self, value: float) -> float:
        """Optuna's value for a setting, or for the nearest one in range."""
        inside = min(max(value, self.low), self.high)
        if self.scale is Scale.POWERS_OF_TWO:
            return round(math.log2(inside))
        return inside if self.scale is Scale.LOGARITHMIC else self.low + round((inside - self.low) * 2) / 2


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One trial as the study has it.

    Attributes:
        number: from 1, in the order they were started.
        values: the settings tried.
        status: `PRUNED` means stopped early because it did worse than most.
        score: the lowest it reached, also if it was pruned; None before the first check.
        seconds: duration, or None.
    """

    number: int
    values: Values
    status: TrialStatus = msgspec.field(name="state")
    score: float | None
    seconds: float | None


class Study:
    """A search for the settings with the lowest score.

    Args:
        folder: of the journal; created if missing. Only one process at a time may use it.
        digest: of everything the search depends on; each digest has its own study in the journal.
        seed: of the sampler.

    Raises:
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path, digest: str, seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / _JOURNAL
        _repair(path)
        self._space: dict[str, Dimension] = {}
        lock = JournalFileOpenLock(str(path))
        self._study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(path), lock)),
            study_name=digest,
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(
                n_startup_trials=_RANDOM_TRIALS // 2, n_warmup_steps=_UNPRUNED_EIGHTHS + 1
            ),
        )
        earlier = self._study.get_trials(deepcopy=False)
        # another seed each time, or a resumed search would repeat its first choices
        self._study.sampler = optuna.samplers.TPESampler(seed=seed + len(earlier), n_startup_trials=_RANDOM_TRIALS)
        for trial in earlier:
            if trial.state == TrialState.RUNNING:  # the search ended during it
                self._requeue(trial)

    def constant(self, name: str, measure: Callable[[], float]) -> float:
        """A number that is measured once, when the search begins, and stored."""
        if name not in self._study.user_attrs:
            self._study.set_user_attr(name, measure())
        return float(self._study.user_attrs[name])

    def set_space(self, space: Mapping[str, Dimension], first: Values) -> None:
        """Sets the range of each setting. A new search tries `first`, or the nearest values in range, before others."""
        self._space = dict(space)
        if not self._study.get_trials(deepcopy=False):
            self._study.enqueue_trial(
                {name: dimension.to_optuna(first[name]) for name, dimension in self._space.items()}
            )

    def start_trial(self) -> "RunningTrial":
        """Starts the next trial."""
        distributions = {name: dimension.distribution() for name, dimension in self._space.items()}
        return RunningTrial(self._study, self._study.ask(distributions), self._space)

    def requeue(self, trial: "RunningTrial") -> None:
        """Discards an interrupted trial; its settings are tried next."""
        self._requeue(next(frozen for frozen in self._study.get_trials() if frozen.number == trial.number))

    def trials(self) -> list[Trial]:
        """All started trials but the discarded ones, in order."""
        shown = [frozen for frozen in self._study.get_trials(deepcopy=False) if frozen.state in _STATUSES]
        return [self._trial(number, frozen) for number, frozen in enumerate(shown, 1)]

    def best(self) -> Trial | None:
        """The trial with the lowest score among those that ran to the end."""
        done = [trial for trial in self.trials() if trial.status is TrialStatus.DONE and trial.score is not None]
        return min(done, key=lambda trial: (trial.score, trial.number), default=None)

    def _trial(self, number: int, frozen: FrozenTrial) -> Trial:
        return Trial(
            number=number,
            values={name: self._space[name].from_optuna(number) for name, number in frozen.params.items()},
            status=_STATUSES[frozen.state],
            score=min(frozen.intermediate_values.values(), default=None),
            seconds=frozen.duration.total_seconds() if frozen.duration else None,
        )

    def _requeue(self, trial: FrozenTrial) -> None:
        self._study.tell(trial.number, state=TrialState.FAIL)
        if trial.params:
            self._study.enqueue_trial(trial.params)


class RunningTrial:
    """A trial in progress."""

    def __init__(self, study: optuna.Study, trial: optuna.Trial, space: Mapping[str, Dimension]) -> None:
        self._study = study
        self._trial = trial
        self.number = trial.number
        self.values: Values = {name: space[name].from_optuna(trial.params[name]) for name in space}
        self._lowest = math.inf

    def report(self, score: float, eighths: int) -> bool:
        """Records the score of a check, and returns whether the trial should be stopped early.

        Args:
            score: bits per byte; NaN counts as the worst.
            eighths: of the trial that are done; trials are compared at the same point.
        """
        score = score if math.isfinite(score) else math.inf
        self._lowest = min(self._lowest, score)
        self._trial.report(score, eighths)
        return bool(self._trial.should_prune())

    def finish(self, *, pruned: bool) -> None:
        """Records the outcome: the lowest score reported."""
        if pruned:
            self._study.tell(self._trial, state=TrialState.PRUNED)
        else:
            self._study.tell(self._trial, self._lowest)


def _repair(path: Path) -> None:
    """Removes what a killed process left behind: an incomplete last line, and the journal's lock."""
    path.with_name(path.name + ".lock").unlink(missing_ok=True)
    if path.exists():
        content = path.read_bytes()
        complete = content[: content.rfind(b"\n") + 1]
        if complete != content:
            path.write_bytes(complete)
