"""`doppel adapters`: list, use, rollback, for people and for programs."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from doppel.adapter import PEFT_CONFIG, WEIGHTS, BaseIdentity, Manifest, current, publishing
from doppel.cli import app


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text("persona: {name: ann}")
    return tmp_path


def publish(folder: Path, after: float | None) -> None:
    fidelity = {} if after is None else {"before": {"bits_per_byte": 2.5}, "after": {"bits_per_byte": after}}
    manifest = Manifest(persona="ann", base=BaseIdentity("Qwen/Qwen3-4B-Base", "00"), fidelity=fidelity)
    with publishing(folder / "adapters" / "ann", manifest) as staging:
        (staging / WEIGHTS).write_bytes(b"weights")
        (staging / PEFT_CONFIG).write_text(json.dumps({"peft_type": "LORA", "r": 16}))


def invoke(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app(), ["adapters", *arguments, "--config", str(folder / "config.yaml")])


def test_list_shows_every_version_and_marks_the_current_one(folder: Path) -> None:
    publish(folder, 1.9)
    publish(folder, None)
    publish(folder, 1.8)
    (folder / "adapters" / "ann" / "0002" / WEIGHTS).write_bytes(b"broken")
    result = invoke(folder, "list", "--json")
    assert result.exit_code == 0
    first, second, third = json.loads(result.stdout)["adapters"]
    assert (first["version"], first["current"], first["base"]) == ("0001", False, "Qwen/Qwen3-4B-Base")
    assert (first["bits_per_byte_before"], first["bits_per_byte_after"]) == (2.5, 1.9)
    assert "damaged" in second["refused"]
    assert (third["version"], third["current"]) == ("0003", True)


def test_list_draws_a_table(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    publish(folder, 1.9)
    publish(folder, None)
    monkeypatch.setattr("doppel.terminal.console.width", 200)
    result = invoke(folder, "list")
    assert result.exit_code == 0
    assert "2.500 → 1.900" in result.stderr
    assert "? → ?" in result.stderr
    assert result.stderr.count("●") == 1


def test_list_without_adapters_says_what_to_do(folder: Path) -> None:
    result = invoke(folder, "list")
    assert result.exit_code == 0
    assert "run `doppel train`" in result.stderr


def test_use_and_rollback_change_the_current_version(folder: Path) -> None:
    adapters = folder / "adapters" / "ann"
    for after in (1.9, 1.8, 1.7):
        publish(folder, after)
    result = invoke(folder, "use", "2", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (0, {"current": "0002"})
    assert current(adapters) == adapters / "0002"
    result = invoke(folder, "rollback", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (0, {"current": "0001"})
    result = invoke(folder, "rollback")
    assert result.exit_code == 2
    assert "no earlier adapter" in result.stderr
    assert current(adapters) == adapters / "0001"


def test_an_unknown_version_is_a_mistake_of_the_user(folder: Path) -> None:
    publish(folder, 1.9)
    result = invoke(folder, "use", "7")
    assert result.exit_code == 2
    assert "no adapter version 0007; published: 0001" in result.stderr
