"""`doppel train` as a command: what it refuses before anything is loaded."""

import json
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from doppel.cli.app import Run, app
from doppel.config import load_config
from doppel.errors import UserError
from training.commands.train import train


def test_a_data_set_of_other_archives_is_not_trained_on(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("persona: {name: ann}\narchive: sample\n")
    folder = load_config(path).data_dir
    folder.mkdir(parents=True)
    (folder / "report.json").write_bytes(msgspec.json.encode({"archive_digest": load_config(path).archive_digest}))
    path.write_text("persona: {name: ann}\narchive: mine.zip\n")
    with pytest.raises(UserError, match=r"built from other archives .* run `doppel build` first"):
        train(Run(path))


def test_the_adapter_to_start_from_is_an_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "training.run.run.run_training", lambda config, **options: {"start_from": options["start_from"]}
    )
    (tmp_path / "config.yaml").write_text("training: {gate: false}\n")
    command = ["train", "--from", "0003", "--json", "--config", str(tmp_path / "config.yaml")]
    result = CliRunner().invoke(app(), command, catch_exceptions=False)
    assert json.loads(result.stdout) == {"start_from": "0003"}
