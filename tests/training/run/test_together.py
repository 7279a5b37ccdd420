"""Two processes that train together learn what one does, stop together, and go on exactly."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load

from doppel.adapters.versions import list_versions
from tests.processes import Child, together
from tests.training.runs import FAST, metrics_of, small_config, small_run, weights_of
from training.__main__ import main as start
from training.run import run as fitting
from training.run.checkpoints import list_checkpoints
from training.run.folders import run_folder
from training.run.run import TrainingInterrupted, run_training
from training.run.trainer import PersonaTrainer


def _train(root: Path, base: Path, training: dict[str, Any]) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "SampleReplies", lambda *_: list)  # they take the longest, and test_fit has them
        return run_training(small_config(root, base, **training))


def _losses(root: Path, base: Path, **training: Any) -> list[float]:
    return [row.loss for row in metrics_of(small_config(root, base, **training)) if row.loss is not None]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    """The folder of a run of one process."""
    root = tmp_path_factory.mktemp("alone")
    small_run(root, tiny_base)
    Child(_train, (root, tiny_base, {})).result()
    return root


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> tuple[Path, list[dict[str, Any]]]:
    """The folder of a run of two processes, and what they returned."""
    root = tmp_path_factory.mktemp("both")
    small_run(root, tiny_base)
    return root, together(2, _train, root, tiny_base, {})


def test_two_processes_train_like_one(alone: Path, both: tuple[Path, list[dict[str, Any]]], tiny_base: Path) -> None:
    root, (first, second) = both
    losses = _losses(root, tiny_base)
    assert len(losses) == 12
    assert losses == pytest.approx(_losses(alone, tiny_base), rel=1e-3)
    alone_weights, weights = (load(weights_of(small_config(folder, tiny_base))) for folder in (alone, root))
    assert all(torch.allclose(alone_weights[name], weights[name], atol=2e-3) for name in alone_weights)
    assert second == {}
    assert first["version"] == "0001"
    assert list_versions(small_config(root, tiny_base).adapters_dir) == ["0001"]


def _train_until_told(root: Path, base: Path) -> tuple[int, str]:
    """The second process alone hears a SIGTERM, at its sixth step; returns how many steps, and what was said."""
    steps = [0]
    with pytest.MonkeyPatch.context() as patch:
        whole = PersonaTrainer._take

        def step(trainer: PersonaTrainer, *arguments: Any, **named: Any) -> None:
            steps[0] += 1
            if steps[0] == 6 and not trainer.processes.is_main:
                os.kill(os.getpid(), signal.SIGTERM)
            whole(trainer, *arguments, **named)

        patch.setattr(PersonaTrainer, "_take", step)
        try:
            _train(root, base, {})
        except TrainingInterrupted as interrupted:
            return steps[0], str(interrupted)
    return steps[0], ""


def test_two_stopped_processes_resume_exactly(
    tmp_path: Path, both: tuple[Path, list[dict[str, Any]]], tiny_base: Path
) -> None:
    config = small_run(tmp_path, tiny_base)
    (steps, printed), follower = together(2, _train_until_told, tmp_path, tiny_base)
    assert steps == 6
    assert "stopped at step 6 of 12" in printed
    assert follower == (6, "")
    assert 6 in list_checkpoints(run_folder(config.data_dir))
    together(2, _train, tmp_path, tiny_base, {})
    assert weights_of(config) == weights_of(small_config(both[0], tiny_base))


def test_one_process_resumes_what_two_began(tmp_path: Path, alone: Path, tiny_base: Path) -> None:
    config = small_run(tmp_path, tiny_base)
    together(2, _train_until_told, tmp_path, tiny_base)
    Child(_train, (tmp_path, tiny_base, {})).result()
    assert _losses(tmp_path, tiny_base) == pytest.approx(_losses(alone, tiny_base), rel=1e-3)
    assert not run_folder(config.data_dir).exists()


def test_a_sharded_base_is_trained_alike(tmp_path: Path, alone: Path, tiny_base: Path) -> None:
    small_run(tmp_path, tiny_base, split=True)
    together(2, _train, tmp_path, tiny_base, {"split": True})
    assert _losses(tmp_path, tiny_base, split=True) == pytest.approx(_losses(alone, tiny_base), rel=1e-3)


def test_a_step_of_one_example_leaves_the_other_process_without_work(tmp_path: Path, tiny_base: Path) -> None:
    lonely = {"sessions_per_step": 1, "epochs": 0.25}
    for number, split in enumerate((False, True)):
        root = tmp_path / str(number)
        small_run(root, tiny_base, **lonely, split=split)
        together(2, _train, root, tiny_base, {**lonely, "split": split})
        assert len(_losses(root, tiny_base, **lonely, split=split)) == 12
    root = tmp_path / "alone"
    small_run(root, tiny_base, **lonely)
    Child(_train, (root, tiny_base, lonely)).result()
    for number in range(2):
        assert _losses(tmp_path / str(number), tiny_base) == pytest.approx(_losses(root, tiny_base), rel=1e-3)


@pytest.mark.parametrize("word", [[], ["train"]])
def test_the_entry_point_for_torchrun_has_the_options_of_doppel_train(
    word: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["training", *word, "--help"])
    with pytest.raises(SystemExit) as caught:
        start()
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert all(option in shown for option in ("--config", "--first-run", "--from", "--restart", "--json"))


def test_under_torchrun_only_the_main_process_prints_the_result(tmp_path: Path, tiny_base: Path) -> None:
    content = {"model": {"base": str(tiny_base), "dtype": "float32"}, "training": {**FAST, "epochs": 0.25}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    config = small_run(tmp_path, tiny_base)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = ["-m", "training", "train", "--config", str(tmp_path / "config.yaml"), "--json"]
    done = subprocess.run([*launcher, *command], capture_output=True, text=True, timeout=270, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["version"] == "0001"
    assert list_versions(config.adapters_dir) == ["0001"]
    assert done.stderr.count("Published") == 1
