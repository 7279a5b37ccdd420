"""`doppel train --plan` says what the training then does, and leaves nothing behind."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from typer.testing import CliRunner

from doppel.cli.app import app
from doppel.config import Config
from tests.training.runs import small_run
from training.run import run as fitting
from training.run.forecast import Forecast, make_forecast, summary_lines
from training.run.run import TrainingInterrupted, run_training
from training.run.timings import PHASES


@pytest.fixture
def config(tmp_path: Path, tiny_base: Path) -> Config:
    return small_run(tmp_path, tiny_base, sessions_per_step=None, rank=None)


def plan_of(config: Config, **options: Any) -> Forecast:
    return make_forecast(config, **{"first_run": False, "start_from": None, "restart": False, **options})


def files(config: Config) -> list[str]:
    return sorted(str(path.relative_to(config.root)) for path in config.root.rglob("*"))


def test_a_forecast_agrees_with_the_training_and_leaves_no_files(config: Config) -> None:
    before = files(config)
    made = plan_of(config)
    assert files(config) == before
    assert set(made.phases) == set(PHASES)
    assert all(made.phases[name] > 0 for name in PHASES)
    assert made.seconds == pytest.approx(sum(made.phases.values()))
    assert (made.sessions, made.messages, made.resumes_from) == (48, 96, 0)
    result = run_training(config)
    for name in ("steps", "epochs", "rank", "sessions_per_step", "steps_between_checks"):
        assert result["plan"][name] == getattr(made.plan, name)
    assert set(result["parts"]) == set(PHASES)


def test_settings_have_their_reasons(config: Config, tmp_path: Path) -> None:
    content = {"model": {"base": config.model.base, "dtype": "float32"}, "training": {"rank": 8, "max_length": 128}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    command = ["train", "--plan", "--config", str(tmp_path / "config.yaml")]
    done = CliRunner().invoke(app(), [*command, "--json"])
    printed = json.loads(done.stdout)
    assert done.exit_code == 0
    assert printed["plan"]["rank"] == 8
    assert "rank" not in printed["plan"]["reasons"]
    assert "96 messages" in printed["plan"]["reasons"]["epochs"]
    assert printed["seconds"] > 0
    assert printed["peak_memory_bytes"] > 0
    shown = CliRunner().invoke(app(), command)
    assert "set in config.yaml" in shown.stderr
    assert "training steps" in shown.stderr
    assert "Memory: about" in shown.stderr
    assert shown.stdout == ""


def test_the_forecast_of_an_interrupted_training_counts_the_rest(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    class PressCtrlC(fitting.SampleReplies):
        def __call__(self) -> list[str]:
            os.kill(os.getpid(), signal.SIGINT)
            return []

    whole = plan_of(config)
    with monkeypatch.context() as patched:
        patched.setattr(fitting, "SampleReplies", PressCtrlC)
        with pytest.raises(TrainingInterrupted):
            run_training(config)
    before = files(config)
    rest = plan_of(config)
    assert 0 < rest.resumes_from < rest.plan.steps
    assert rest.plan.steps == whole.plan.steps
    assert (rest.phases["score_before"], rest.phases["measure"]) == (0, 0)
    assert any("from step" in line for line in summary_lines(rest))
    assert plan_of(config, restart=True).resumes_from == 0
    assert files(config) == before


def test_a_training_that_needs_too_much_memory_is_reported(config: Config) -> None:
    made = plan_of(config)
    big = msgspec.structs.replace(made, peak_memory_bytes=32 * 10**9, memory_bytes=24 * 10**9)
    assert any("needs about 32.0 GB, found 24.0 GB; use a smaller base model" in line for line in summary_lines(big))
    assert not any("use a smaller base" in line for line in summary_lines(made))
    unknown = msgspec.structs.replace(made, peak_memory_bytes=None)
    assert not any("Memory" in line for line in summary_lines(unknown))


def test_a_short_run_and_replay_are_forecast_too(tmp_path: Path, tiny_base: Path) -> None:
    config = small_run(tmp_path / "short", tiny_base, first_run_minutes=1e-4, epochs=50, replay=0.2)
    short = plan_of(config, first_run=True)
    assert short.plan.epochs < 50
    assert not short.samples_replay
    long = plan_of(config)
    assert long.samples_replay
    assert long.tokens == pytest.approx(1.25 * short.tokens, rel=0.05)
