"""`doppel tune` end to end on a tiny base: trials that train, a search that goes on, and config.yaml at the end."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from doppel.cli.app import app
from doppel.config import Config, load_config
from doppel.errors import DoppelError, UserError
from doppel.system.file_lock import acquire_lock
from tests.training.runs import small_run
from training.dataset.files import SESSIONS_FILE, read_sessions, write_sessions
from training.run.folders import tuning_folder
from training.tuning import search as tuning
from training.tuning.search import SearchLimits, search_settings

LIMITS = SearchLimits(trials=2, trial_minutes=0.02)


@pytest.fixture(autouse=True)
def _restored_signals() -> Iterator[None]:
    before = {signal_number: signal.getsignal(signal_number) for signal_number in (signal.SIGINT, signal.SIGTERM)}
    yield
    assert before == {
        signal_number: signal.getsignal(signal_number) for signal_number in (signal.SIGINT, signal.SIGTERM)
    }


@pytest.fixture
def config(tmp_path: Path, tiny_base: Path) -> Config:
    small_run(tmp_path, tiny_base)
    training = {"max_length": 128, "learning_rate": 0.002, "rank": 8, "sessions_per_step": 4, "epochs": 1}
    content = {"model": {"base": str(tiny_base), "dtype": "float32"}, "training": training}
    path = tmp_path / "config.yaml"
    path.write_text("# mine\n" + yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return load_config(path)


@pytest.fixture(autouse=True)
def _known_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials of the same length however busy the machine is: a little over an epoch."""
    monkeypatch.setattr(tuning._TrialRunner, "_measure_speed", lambda runner: 5000.0)


def command(config: Config, *options: str) -> tuple[int, dict[str, Any], str]:
    done = CliRunner().invoke(app(), ["tune", "--config", str(config.root / "config.yaml"), "--json", *options])
    return done.exit_code, json.loads(done.stdout) if done.stdout else {}, done.stderr


def test_trials_train_are_judged_and_kept_and_the_search_goes_on(config: Config) -> None:
    first = search_settings(config, LIMITS)
    assert [trial.status for trial in first.trials] == ["done", "done"]
    assert first.trials[0].values["learning_rate"] == 0.002
    assert first.trials[0].values["rank"] == 8
    scores = [trial.score for trial in first.trials]
    assert all(score is not None and score < first.base_bits for score in scores)
    assert first.best is not None
    assert first.best.score == min(score for score in scores if score is not None)
    second = search_settings(config, SearchLimits(trials=3, trial_minutes=0.02))
    assert second.trials[:2] == first.trials
    assert len(second.trials) == 3
    assert second.base_bits == first.base_bits
    assert second.trial_tokens == first.trial_tokens
    assert sorted(path.name for path in tuning_folder(config.data_dir).iterdir()) == ["journal.log", "lock"]


def test_a_stopped_trial_is_done_again_by_the_same_command(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    real = tuning.RunningTrial.report

    def press_ctrl_c(trial: tuning.RunningTrial, score: float, eighths: int) -> bool:
        os.kill(os.getpid(), signal.SIGINT)
        return real(trial, score, eighths)

    with monkeypatch.context() as patched:
        patched.setattr(tuning.RunningTrial, "report", press_ctrl_c)
        stopped = search_settings(config, LIMITS)
    assert stopped.stopped
    assert stopped.trials == []
    after = search_settings(config, SearchLimits(trials=1, trial_minutes=0.02))
    assert [trial.values["learning_rate"] for trial in after.trials] == [0.002]


def test_the_command_shows_a_table_and_writes_only_when_told(config: Config) -> None:
    path = config.root / "config.yaml"
    before = path.read_text(encoding="utf-8")
    code, result, output = command(config, "--trials", "4", "--trial-minutes", "0.02")
    assert code == 0
    assert len(result["trials"]) == 4
    assert path.read_text(encoding="utf-8") == before
    assert not result["written"]
    best = result["best"]
    code, result, output = command(config, "--trials", "4", "--trial-minutes", "0.02", "--write")
    assert code == 0
    assert result["best"] == best
    training = load_config(path).training
    if best["number"] == 1:
        assert "No better settings found than the current ones" in output
        assert path.read_text(encoding="utf-8") == before
    else:
        assert result["written"]
        assert {name: getattr(training, name) for name in best["values"]} == best["values"]
        assert path.read_text(encoding="utf-8").startswith("# mine\n")
    assert training.max_length == 128


def test_a_trial_is_as_long_as_the_time_for_it(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    found = search_settings(config, SearchLimits(trials=0, trial_minutes=0.02))
    assert 0 < found.trial_tokens <= 4 * found.epoch_tokens
    assert search_settings(config, SearchLimits(trials=0, trial_minutes=1e9)).trial_tokens == 4 * found.epoch_tokens


def test_minutes_end_it_between_trials(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    assert search_settings(config, SearchLimits(trials=5, minutes=0, trial_minutes=0.02)).trials == []
    assert "The time limit of 0 min is reached." in capsys.readouterr().err


def test_trials_are_compared_at_the_same_points(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    real = tuning.RunningTrial.report

    def note(trial: tuning.RunningTrial, score: float, eighths: int) -> bool:
        seen.append(eighths)
        return real(trial, score, eighths)

    monkeypatch.setattr(tuning.RunningTrial, "report", note)
    search_settings(config, SearchLimits(trials=1, trial_minutes=0.02))
    assert seen == sorted(set(seen))
    assert len(seen) >= 4
    assert seen[-1] == 8


def test_what_stands_in_the_way_is_one_line(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tuning_folder(config.data_dir)
    folder.mkdir()
    held = acquire_lock(folder / "lock")
    assert held is not None
    with held, pytest.raises(DoppelError, match="in use by another `doppel tune`"):
        search_settings(config, LIMITS)
    train = [session for session in read_sessions(config.data_dir) if session.split == "train"]
    write_sessions(config.data_dir / SESSIONS_FILE, train)
    with pytest.raises(UserError, match="has no validation messages"):
        search_settings(config, LIMITS)
    monkeypatch.setattr("training.commands.tune.find_spec", lambda name: None)
    code, _, output = command(config)
    assert code == 2
    assert "`doppel tune` needs optuna; run `pip install 'doppel[tune]'`" in output
    assert "Traceback" not in output
