"""A training with instruction data and replay mixed in, and one that goes on from another adapter, end to end."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from doppel.adapters.peft_format import read_peft_adapter
from doppel.adapters.versions import WEIGHTS, current_version, list_versions, read_manifest
from doppel.config import Config
from doppel.errors import UserError
from tests.tiny import publish_adapter, save_lora
from tests.training.runs import small_run
from training.run import run as fitting
from training.run.run import TrainingInterrupted, run_training


def folder_of(config: Config) -> Path:
    folder = current_version(config.adapters_dir)
    assert folder is not None
    return folder


@pytest.fixture
def alpaca(tmp_path: Path) -> Path:
    records = [{"instruction": f"say {one}", "input": "", "output": f"{one}"} for one in range(100)]
    (tmp_path / "alpaca.json").write_text(json.dumps(records))
    return tmp_path / "alpaca.json"


def test_mixed_data_and_replay_are_trained_on_and_recorded(tmp_path: Path, tiny_base: Path, alpaca: Path) -> None:
    plain = run_training(small_run(tmp_path / "plain", tiny_base))
    config = small_run(tmp_path / "mixed", tiny_base, mix=[{"path": str(alpaca), "share": 0.2}], replay=0.1)
    result = run_training(config)
    assert result["plan"]["steps"] > plain["plan"]["steps"]
    assert result["bits_per_byte_before"] == plain["bits_per_byte_before"]  # scored on the owner's words alone
    assert result["bits_per_byte_after"] < result["bits_per_byte_before"]
    dataset = read_manifest(folder_of(config)).dataset
    assert dataset["replay"] == 0.1
    (source,) = dataset["mix"]
    assert source["file"] == "alpaca.json"
    assert source["share"] == pytest.approx(0.2, abs=0.02)
    assert "instruction" not in read_manifest(folder_of(config)).header_vocabulary["kind"]


def test_a_first_run_replays_nothing(tmp_path: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = small_run(tmp_path / "first", tiny_base, replay=0.1)
    run_training(config, first_run=True)
    assert "replay" not in read_manifest(folder_of(config)).dataset
    assert "for replay (only once)" not in capsys.readouterr().err


def test_a_stopped_training_with_other_mixed_data_starts_over(
    tmp_path: Path, tiny_base: Path, alpaca: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_run(tmp_path / "mixed", tiny_base, mix=[{"path": str(alpaca), "share": 0.2}])
    _stop(config, monkeypatch)
    alpaca.write_text(alpaca.read_text().replace("say 1", "write 1"))
    run_training(config)
    assert "Resuming from step" not in capsys.readouterr().err


def test_broken_mixed_data_is_one_clear_line(tmp_path: Path, tiny_base: Path, alpaca: Path) -> None:
    alpaca.write_text(alpaca.read_text()[:-20])
    with pytest.raises(UserError, match=r"alpaca\.json, record 100: ends unexpectedly"):
        run_training(small_run(tmp_path / "mixed", tiny_base, mix=[{"path": str(alpaca), "share": 0.2}]))


@pytest.mark.parametrize("kind", ["version", "folder"])
def test_a_training_starts_from_an_adapter(tmp_path: Path, tiny_base: Path, kind: str) -> None:
    config = small_run(tmp_path / "next", tiny_base, rank=8, learning_rate=1e-9)
    if kind == "version":
        parent = publish_adapter(tiny_base, config.adapters_dir)
        result = run_training(config, start_from="1")
    else:
        parent = tmp_path / "theirs"
        parent.mkdir()
        save_lora(tiny_base, parent, seed=3)
        result = run_training(config, start_from=str(parent))
    assert result["plan"]["rank"] == 4
    assert result["plan"]["alpha"] == 8
    assert result["bits_per_byte_after"] == pytest.approx(result["bits_per_byte_start"], rel=1e-4)
    assert result["bits_per_byte_start"] != result["bits_per_byte_before"]
    before, after = load_file(parent / WEIGHTS), load_file(folder_of(config) / WEIGHTS)
    assert before.keys() == after.keys()
    assert all(torch.allclose(before[name], after[name], atol=1e-5) for name in before)
    recorded = read_manifest(folder_of(config)).training["parent"]
    assert recorded == {"name": parent.name, "weights": read_peft_adapter(parent, pickled=False).digest}
    assert read_manifest(folder_of(config)).version == ("0002" if kind == "version" else "0001")


def test_a_training_from_an_adapter_reports_both_scores(
    tmp_path: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = small_run(tmp_path / "next", tiny_base)
    first = run_training(config)
    second = run_training(config, start_from="0001")
    assert second["bits_per_byte_start"] == pytest.approx(first["bits_per_byte_after"], rel=1e-6)
    assert second["bits_per_byte_after"] < first["bits_per_byte_after"]
    assert list_versions(config.adapters_dir) == ["0001", "0002"]
    assert f"The adapter it started from: {first['bits_per_byte_after']:.3f}." in capsys.readouterr().err


def test_a_stopped_training_from_an_adapter_resumes_with_that_adapter(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = []
    for name in ("whole", "stopped"):
        config = small_run(tmp_path / name, tiny_base)
        publish_adapter(tiny_base, config.adapters_dir)
        if name == "stopped":
            _stop(config, monkeypatch, start_from="1")
            run_training(config)
        else:
            run_training(config, start_from="1")
        weights.append(load_file(folder_of(config) / WEIGHTS))
        assert read_manifest(folder_of(config)).training["parent"]["name"] == "0001"
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def _stop(config: Config, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    """Trains until the first check, where Ctrl-C is pressed."""

    class PressCtrlC(fitting.SampleReplies):
        def __call__(self) -> list[str]:
            os.kill(os.getpid(), signal.SIGINT)
            return []

    with monkeypatch.context() as patched:
        patched.setattr(fitting, "SampleReplies", PressCtrlC)
        with pytest.raises(TrainingInterrupted):
            run_training(config, **options)
