"""A checkpoint of a real training can be talked with while that training is not finished."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from doppel.adapters.checkpoint import open_adapter
from doppel.adapters.habits import Habits, write_habits
from doppel.cli.app import app
from doppel.config import load_config
from doppel.models.base import identify
from doppel.persona import read_persona
from doppel.transcript import ME, Header, Turn
from training.dataset.files import SESSIONS_FILE, Session, write_sessions
from training.run import run as fitting
from training.run.run import run_training


class PowerCut(Exception):
    """What happens before anything is published."""


def test_a_checkpoint_can_be_chatted_with(tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.yaml").write_text(
        f"model: {{base: {tiny_base}, dtype: float32}}\n"
        "training: {sessions_per_step: 4, epochs: 1, max_length: 128, rank: 4}\n"
        "reply: {max_tokens: 20}\n"
    )
    config = load_config(tmp_path / "config.yaml")
    config.data_dir.mkdir(parents=True)
    start = datetime(2020, 1, 1, tzinfo=UTC)
    write_sessions(
        config.data_dir / SESSIONS_FILE,
        (
            Session(
                id=str(number),
                split="validation" if number > 25 else "train",
                chat="Ramito",
                started_at=start + timedelta(days=number),
                header=Header(kind="dm", platform="telegram", year="2020"),
                turns=(Turn("Ramito", ("what is it", "说吧")), Turn(ME, ("no idea",))),
            )
            for number in range(30)
        ),
    )
    write_habits(config.data_dir, Habits(bubbles_per_turn=2.5))

    def cut(*_: object, **__: object) -> None:
        raise PowerCut

    monkeypatch.setattr(fitting, "publish_adapter", cut)
    with pytest.raises(PowerCut):
        run_training(config)
    checkpoints = sorted((tmp_path / "data" / "sample.training").glob("checkpoint-*"))
    assert checkpoints
    with open_adapter(checkpoints[0], config) as opened:
        persona = read_persona(opened.folder, opened.version)
        assert persona.manifest.header_vocabulary["year"] == ["2020"]
        assert persona.manifest.base.digest == identify(tiny_base, "").digest
        assert persona.habits.bubbles_per_turn == 2.5
    arguments = ["chat", "--adapter", str(checkpoints[0]), "--json", "--config", str(tmp_path / "config.yaml")]
    result = CliRunner().invoke(app(), arguments, input="hello\n\n")
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed["adapter"] == checkpoints[0].name
    assert [turn["speaker"] for turn in printed["turns"]][:2] == ["you", "me"]
    assert f"sample, adapter {checkpoints[0].name}." in result.stderr
