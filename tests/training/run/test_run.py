"""Training end to end on a tiny random base: it learns, publishes, stops when asked and goes on exactly."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import torch
from safetensors.torch import load_file

from doppel.adapters.habits import read_habits
from doppel.adapters.versions import WEIGHTS, current_version, list_versions, read_manifest
from doppel.config import Config, parse_config
from doppel.errors import UserError
from tests.training.runs import FAST, small_run
from training.dataset.files import SESSIONS_FILE
from training.run import run as fitting
from training.run.completion_marker import mark_complete
from training.run.metrics import read_metrics
from training.run.run import TrainingInterrupted, run_training
from training.run.run_state import RunFolder


@pytest.fixture(autouse=True)
def _restored_signals() -> Iterator[None]:
    before = {signal_number: signal.getsignal(signal_number) for signal_number in (signal.SIGINT, signal.SIGTERM)}
    yield
    assert before == {
        signal_number: signal.getsignal(signal_number) for signal_number in (signal.SIGINT, signal.SIGTERM)
    }


@pytest.fixture
def config(tmp_path: Path, tiny_base: Path) -> Config:
    return small_run(tmp_path, tiny_base)


def test_learns_and_publishes_a_verified_adapter(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    result = run_training(config)
    assert result["bits_per_byte_after"] < 0.8 * result["bits_per_byte_before"]
    assert result["tokens_per_second"] > 0
    folder = current_version(config.adapters_dir)
    assert folder is not None
    assert str(folder) == result["adapter"]
    manifest = read_manifest(folder)
    assert manifest.fidelity["after"]["bits_per_byte"] == result["bits_per_byte_after"]
    assert manifest.header_vocabulary["contact"] == ["Ramito"]
    assert manifest.header_vocabulary["weekday"] == []
    assert manifest.dataset["sessions"] == 48
    assert manifest.dataset["messages"] == 96
    assert read_habits(folder).seconds_per_character == 0.3
    assert {path.name for path in folder.iterdir()} == {*manifest.files, "manifest.json"}
    assert "README.md" not in manifest.files
    settings = msgspec.json.decode((folder / "adapter_config.json").read_bytes())
    assert settings["base_model_name_or_path"] == config.model.base
    assert not config.data_dir.with_name("sample.training").exists()
    shown = capsys.readouterr().err
    metrics = list(read_metrics(folder / "metrics.jsonl"))
    assert [row.step for row in metrics if row.loss is not None] == list(range(1, result["plan"]["steps"] + 1))
    assert metrics[-1].bits_per_byte is not None
    assert metrics[-1].epoch == pytest.approx(1)
    assert metrics[-1].tokens > 1000
    assert (folder / "report.html").read_text(encoding="utf-8").count("<svg") == 4
    assert sum(result["parts"].values()) == pytest.approx(result["seconds"], abs=0.2)
    assert result["peak_memory_bytes"] > 2**20
    assert "bits per byte on the validation messages" in shown
    assert "me: " in shown


def test_a_stopped_training_resumes_exactly(tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = small_run(tmp_path / "whole", tiny_base)
    run_training(whole)
    stopped = small_run(tmp_path / "stopped", tiny_base)

    class PressCtrlC(fitting.SampleReplies):
        def __call__(self) -> list[str]:
            os.kill(os.getpid(), signal.SIGINT)
            return []

    with monkeypatch.context() as patched:
        patched.setattr(fitting, "SampleReplies", PressCtrlC)
        with pytest.raises(TrainingInterrupted, match="run `doppel train` again to resume") as caught:
            run_training(stopped)
    assert caught.value.exit_code == 130
    assert list_versions(stopped.adapters_dir) == []
    run_training(stopped)
    whole_version, resumed_version = current_version(whole.adapters_dir), current_version(stopped.adapters_dir)
    assert whole_version is not None
    assert resumed_version is not None
    lines = [read_metrics(folder / "metrics.jsonl") for folder in (whole_version, resumed_version)]
    whole_steps, resumed_steps = (
        [(line.step, line.loss, line.bits_per_byte) for line in run_lines] for run_lines in lines
    )
    assert whole_steps == resumed_steps
    weights, resumed = load_file(whole_version / WEIGHTS), load_file(resumed_version / WEIGHTS)
    assert weights.keys() == resumed.keys()
    assert all(bool((weights[name] == resumed[name]).all()) for name in weights)


def test_no_data_set_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run `doppel build` first"):
        run_training(parse_config({}, tmp_path / "config.yaml"))


def test_a_damaged_data_set_names_its_line(config: Config) -> None:
    path = config.data_dir / SESSIONS_FILE
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b'{"id": 3}\n', *lines[3:]]))
    with pytest.raises(UserError, match="line 3"):
        run_training(config)


def test_the_time_limit_limits_the_steps(tmp_path: Path, tiny_base: Path) -> None:
    config = small_run(tmp_path / "short", tiny_base, first_run_minutes=1e-4, epochs=50)
    result = run_training(config, first_run=True)
    assert result["plan"]["epochs"] < 50
    assert result["plan"]["rank"] == 4


def test_a_run_for_other_data_is_not_resumed_and_an_incomplete_checkpoint_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "sample.training"
    good, cut = folder / "checkpoint-9", folder / "checkpoint-10"
    for path in (good, cut):
        path.mkdir(parents=True)
    (good / "state.json").write_text("{}")
    mark_complete(good)
    (cut / "state.json").write_text('{"st')
    work = RunFolder(folder, "purpose")
    assert work.latest_checkpoint() == good
    assert not cut.exists()
    assert work.read_state() is None
    (folder / "plan.json").write_text('{"purpose": "other"}')
    assert work.read_state() is None


def test_without_held_out_messages_nothing_is_measured_and_the_adapter_still_published(
    tmp_path: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = small_run(tmp_path, tiny_base)
    path = config.data_dir / SESSIONS_FILE
    path.write_bytes(
        path.read_bytes().replace(b'"split":"validation"', b'"split":"train"').replace(b'"test"', b'"train"')
    )
    result = run_training(config)
    assert (result["bits_per_byte_before"], result["bits_per_byte_after"], result["change"]) == (None, None, None)
    folder = current_version(config.adapters_dir)
    assert folder is not None
    assert read_manifest(folder).fidelity == {}
    assert all(row.bits_per_byte is None for row in read_metrics(folder / "metrics.jsonl"))
    assert "not measured" in (folder / "report.html").read_text(encoding="utf-8")
    assert "Not measured: the archive is too small" in capsys.readouterr().err


def test_the_test_messages_never_choose_between_checkpoints(tmp_path: Path, tiny_base: Path) -> None:
    config = small_run(tmp_path, tiny_base)
    path = config.data_dir / SESSIONS_FILE
    path.write_bytes(path.read_bytes().replace(b'"split":"validation"', b'"split":"train"'))
    result = run_training(config)
    assert result["bits_per_byte_after"] < result["bits_per_byte_before"]
    folder = current_version(config.adapters_dir)
    assert folder is not None
    assert all(row.bits_per_byte is None for row in read_metrics(folder / "metrics.jsonl"))


def test_exact_weights_are_published_in_the_smallest_dtype_that_holds_them(tmp_path: Path, tiny_base: Path) -> None:
    content = {"model": {"base": str(tiny_base), "dtype": "bfloat16"}, "training": FAST}
    config = parse_config(content, tmp_path / "config.yaml")
    small_run(tmp_path, tiny_base)
    run_training(config)
    folder = current_version(config.adapters_dir)
    assert folder is not None
    weights = load_file(folder / WEIGHTS)
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    assert any(not torch.equal(weight, weight.bfloat16().float()) for weight in weights.values())
