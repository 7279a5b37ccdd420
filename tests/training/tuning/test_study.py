"""The search: it begins with what is set, gives up what does badly, and goes on after whatever ended it."""

import math
from pathlib import Path

import pytest

from training.tuning.study import Dimension, Scale, Study, Values

SPACE = {
    "learning_rate": Dimension(1e-4, 2e-3, Scale.LOGARITHMIC),
    "rank": Dimension(8, 64, Scale.POWERS_OF_TWO),
    "epochs": Dimension(1, 3, Scale.HALVES),
}
FIRST: Values = {"learning_rate": 5e-4, "rank": 16, "epochs": 2}


def open_study(folder: Path, digest: str = "one", first: Values = FIRST) -> Study:
    study = Study(folder, digest, seed=0)
    study.set_space(SPACE, first)
    return study


def score_of(values: Values) -> float:
    """Best at rank 32 and a rate of 1e-3."""
    return 1 + abs(values["rank"] - 32) / 100 + abs(values["learning_rate"] - 1e-3) * 100


def run(study: Study, count: int) -> None:
    for _ in range(count):
        attempt = study.start_trial()
        attempt.report(score_of(attempt.values) + 1, 4)
        attempt.report(score_of(attempt.values), 8)
        attempt.finish(pruned=False)


def test_the_first_trial_is_what_is_set_and_the_best_is_the_lowest(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    run(study, 12)
    trials = study.trials()
    assert trials[0].values == FIRST
    best = study.best()
    assert best is not None
    assert best.score == min(trial.score for trial in trials if trial.score is not None)
    assert best.score < score_of(FIRST)
    for trial in trials:
        assert 1e-4 <= trial.values["learning_rate"] <= 2e-3
        assert trial.values["learning_rate"] == float(f"{trial.values['learning_rate']:.2g}")
        assert trial.values["rank"] in (8, 16, 32, 64)
        assert trial.values["epochs"] in (1, 1.5, 2, 2.5, 3)


def test_what_is_out_of_range_or_between_becomes_the_nearest(tmp_path: Path) -> None:
    study = open_study(tmp_path, first={"learning_rate": 0.5, "rank": 100, "epochs": 1.4})
    assert study.start_trial().values == {"learning_rate": 2e-3, "rank": 64, "epochs": 1.5}


def test_a_search_goes_on_after_a_kill_with_the_trial_that_was_running(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    run(study, 2)
    killed = study.start_trial()
    killed.report(9.0, 1)
    journal = tmp_path / "journal.log"
    journal.write_bytes(journal.read_bytes() + b'{"op_code": 5, "wor')
    (tmp_path / "journal.log.lock").touch()

    again = open_study(tmp_path)
    assert [trial.status for trial in again.trials()] == ["done", "done"]
    attempt = again.start_trial()
    assert attempt.values == killed.values
    attempt.report(5.0, 8)
    attempt.finish(pruned=False)
    fresh = again.start_trial().values
    assert fresh not in [trial.values for trial in again.trials()[:3]]
    assert [trial.number for trial in again.trials()] == [1, 2, 3, 4]


def test_a_stopped_trial_is_tried_again_next(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    attempt = study.start_trial()
    study.requeue(attempt)
    assert study.trials() == []
    assert open_study(tmp_path).start_trial().values == attempt.values


def test_what_does_worse_than_most_is_given_up(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    for _ in range(4):
        attempt = study.start_trial()
        assert [attempt.report(value, at) for at, value in ((2, 2.0), (4, 1.5), (8, 1.2))] == [False] * 3
        attempt.finish(pruned=False)
    bad = study.start_trial()
    assert [bad.report(9.0, at) for at in (1, 2, 4)] == [False, False, True]
    bad.finish(pruned=True)
    last = study.trials()[-1]
    assert (last.status, last.score) == ("pruned", 9.0)
    best = study.best()
    assert best is not None
    assert best.score == pytest.approx(1.2)


def test_a_trial_that_diverged_is_the_worst(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    attempt = study.start_trial()
    attempt.report(math.nan, 8)
    attempt.finish(pruned=False)
    run(study, 1)
    best = open_study(tmp_path).best()
    assert best is not None
    assert best.number == 2


def test_what_is_kept_stays_what_it_was(tmp_path: Path) -> None:
    assert open_study(tmp_path).constant("tokens", lambda: 1000.0) == 1000
    assert open_study(tmp_path).constant("tokens", lambda: 1 / 0) == 1000


def test_other_data_is_another_search(tmp_path: Path) -> None:
    run(open_study(tmp_path, "one"), 2)
    assert open_study(tmp_path, "other").trials() == []
    assert open_study(tmp_path, "other").best() is None
    assert len(open_study(tmp_path, "one").trials()) == 2
