"""The search of `doppel tune`: what is tried next, what is given up early, and all of it on disk.

An optuna study in a journal, a line an event, so that a search goes on after whatever ended it. Knows numbers only;
what a trial is, its caller knows.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

_JOURNAL = "journal.log"
_FIRST = 6  # trials chosen by chance, before the sampler has enough to go by
_FREE = 2  # eighths of a trial, before it may be given up
_STATES = {TrialState.COMPLETE: "done", TrialState.PRUNED: "pruned", TrialState.RUNNING: "running"}

Values = dict[str, float]


class Dimension(msgspec.Struct, frozen=True):
    """The values of one setting that may be tried.

    Attributes:
        low, high: the smallest and the largest.
        kind: `rate`, anything between on a logarithmic scale, to two digits; `power`, powers of two; `half`, steps of
            a half.
    """

    low: float
    high: float
    kind: str

    def distribution(self) -> BaseDistribution:
        """For optuna."""
        if self.kind == "rate":
            return FloatDistribution(self.low, self.high, log=True)
        if self.kind == "power":
            return IntDistribution(round(math.log2(self.low)), round(math.log2(self.high)))
        return FloatDistribution(self.low, self.high, step=0.5)

    def value(self, chosen: float) -> float:
        """The setting that a choice of optuna's stands for."""
        if self.kind == "rate":
            return float(f"{chosen:.2g}")
        return 2 ** round(chosen) if self.kind == "power" else chosen

    def choice(self, value: float) -> float:
        """What optuna calls a setting, or the nearest one there is."""
        inside = min(max(value, self.low), self.high)
        if self.kind == "power":
            return round(math.log2(inside))
        return inside if self.kind == "rate" else self.low + round((inside - self.low) * 2) / 2


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One trial, as it stands in the study.

    Attributes:
        number: from 1, in the order in which they were begun.
        values: the settings tried.
        state: `done`, `pruned`: given up as it did worse than most; `running`.
        score: the lowest it reached, also if it was pruned; None before the first check.
        seconds: it took, or None.
    """

    number: int
    values: Values
    state: str
    score: float | None
    seconds: float | None


class Study:
    """A search for the settings with the lowest score.

    Args:
        folder: where the journal lies; made if need be. Only one process at a time may use it.
        purpose: digest of what is searched for; a search for another purpose is another one in the same journal.
        seed: of the choices.

    Raises:
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path, purpose: str, seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / _JOURNAL
        _mend(path)
        self._space: dict[str, Dimension] = {}
        lock = JournalFileOpenLock(str(path))
        self._study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(path), lock)),
            study_name=purpose,
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=_FIRST // 2, n_warmup_steps=_FREE + 1),
        )
        begun = self._study.get_trials(deepcopy=False)
        # another seed each time, or a search that goes on would begin with the same choices again
        self._study.sampler = optuna.samplers.TPESampler(seed=seed + len(begun), n_startup_trials=_FIRST)
        for trial in begun:
            if trial.state == TrialState.RUNNING:  # whatever ended the search, ended it too
                self._again(trial)

    def kept(self, name: str, make: Callable[[], float]) -> float:
        """A number that stays what it was when the search began; it is made then."""
        if name not in self._study.user_attrs:
            self._study.set_user_attr(name, make())
        return float(self._study.user_attrs[name])

    def search(self, space: Mapping[str, Dimension], first: Values) -> None:
        """Says what may be tried, by setting; a new search tries `first` before all, or the nearest there is."""
        self._space = dict(space)
        if not self._study.get_trials(deepcopy=False):
            self._study.enqueue_trial({name: one.choice(first[name]) for name, one in self._space.items()})

    def begin(self) -> "RunningTrial":
        """The next trial."""
        distributions = {name: one.distribution() for name, one in self._space.items()}
        return RunningTrial(self._study, self._study.ask(distributions), self._space)

    def repeat(self, attempt: "RunningTrial") -> None:
        """Forgets a trial that was stopped; its settings are the next to be tried."""
        self._again(next(one for one in self._study.get_trials() if one.number == attempt.trial.number))

    def trials(self) -> list[Trial]:
        """All that were begun and not forgotten, in their order."""
        shown = [one for one in self._study.get_trials(deepcopy=False) if one.state in _STATES]
        return [self._trial(number, one) for number, one in enumerate(shown, 1)]

    def best(self) -> Trial | None:
        """The one with the lowest score among those that were not given up."""
        done = [trial for trial in self.trials() if trial.state == "done" and trial.score is not None]
        return min(done, key=lambda trial: (trial.score, trial.number), default=None)

    def _trial(self, number: int, frozen: FrozenTrial) -> Trial:
        return Trial(
            number=number,
            values={name: self._space[name].value(chosen) for name, chosen in frozen.params.items()},
            state=_STATES[frozen.state],
            score=min(frozen.intermediate_values.values(), default=None),
            seconds=frozen.duration.total_seconds() if frozen.duration else None,
        )

    def _again(self, trial: FrozenTrial) -> None:
        self._study.tell(trial.number, state=TrialState.FAIL)
        if trial.params:
            self._study.enqueue_trial(trial.params)


class RunningTrial:
    """A trial under way."""

    def __init__(self, study: optuna.Study, trial: optuna.Trial, space: Mapping[str, Dimension]) -> None:
        self._study = study
        self.trial = trial
        self.values: Values = {name: one.value(trial.params[name]) for name, one in space.items()}
        self._lowest = math.inf

    def report(self, score: float, eighths: int) -> bool:
        """Notes the score of a check; whether the trial should be given up.

        Args:
            score: no number at all is the worst.
            eighths: of the trial that are done. It is compared with others at the same point.
        """
        score = score if math.isfinite(score) else math.inf
        self._lowest = min(self._lowest, score)
        self.trial.report(score, eighths)
        return bool(self.trial.should_prune())

    def end(self, *, pruned: bool) -> None:
        """Notes the outcome: the lowest score reported."""
        if pruned:
            self._study.tell(self.trial, state=TrialState.PRUNED)
        else:
            self._study.tell(self.trial, self._lowest)


def _mend(path: Path) -> None:
    """Removes what a killed process left: a line cut short, and the journal's lock."""
    path.with_name(path.name + ".lock").unlink(missing_ok=True)
    if path.exists():
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            path.write_bytes(whole)
