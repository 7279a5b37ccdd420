"""`doppel adapters`: list, use, rollback, for people and for programs."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from doppel.adapters.versions import PEFT_CONFIG, WEIGHTS, Manifest, current_version, publishing
from doppel.cli.app import app
from doppel.models.base import BaseIdentity
from tests.conftest import PublishAdapter


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
    assert current_version(adapters) == adapters / "0002"
    result = invoke(folder, "rollback", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (0, {"current": "0001"})
    result = invoke(folder, "rollback")
    assert result.exit_code == 2
    assert "no earlier adapter" in result.stderr
    assert current_version(adapters) == adapters / "0001"


def test_an_unknown_version_is_a_user_error(folder: Path) -> None:
    publish(folder, 1.9)
    result = invoke(folder, "use", "7")
    assert result.exit_code == 2
    assert "no adapter version 0007; published: 0001" in result.stderr


class TestExport:
    @pytest.fixture
    def ready(self, tmp_path: Path, tiny_base: Path, publish_tiny_adapter: PublishAdapter) -> Path:
        (tmp_path / "config.yaml").write_text(f"persona: {{name: ann}}\nmodel: {{base: {tiny_base}, dtype: float32}}\n")
        for seed in range(2):
            publish_tiny_adapter(tmp_path / "adapters" / "ann", persona="ann", seed=seed)
        return tmp_path

    def test_a_merged_model_of_a_version(self, ready: Path) -> None:
        result = invoke(ready, "export", "--merged", str(ready / "out" / "model"), "1", "--json")
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout) == {"version": "0001", "merged": str(ready / "out" / "model")}
        assert (ready / "out" / "model" / "model.safetensors").is_file()
        again = invoke(ready, "export", "--merged", str(ready / "out" / "model"))
        assert again.exit_code == 2
        assert "is not empty; name a new or an empty folder" in again.stderr

    def test_a_gguf_of_the_current_version(self, ready: Path) -> None:
        result = invoke(ready, "export", "--gguf", str(ready / "ann.gguf"), "--json")
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout) == {"version": "0002", "gguf": str(ready / "ann.gguf")}
        assert (ready / "ann.gguf").read_bytes()[:4] == b"GGUF"
        assert f"llama-server -m BASE.gguf --lora {ready / 'ann.gguf'}" in result.stderr

    @pytest.mark.parametrize(
        "options", [(), ("--merged", "a", "--gguf", "b"), ("--base-gguf", "b"), ("--merged", "a", "--base-gguf", "b")]
    )
    def test_exactly_one_kind_of_export_must_be_chosen(self, ready: Path, options: tuple[str, ...]) -> None:
        result = invoke(ready, "export", *options)
        assert result.exit_code == 2
        assert "say what to write: --merged DIR, or --gguf FILE [--base-gguf FILE]" in result.stderr

    def test_only_the_bundled_base_can_be_exported_too(self, ready: Path) -> None:
        result = invoke(ready, "export", "--gguf", str(ready / "a.gguf"), "--base-gguf", str(ready / "b.gguf"))
        assert result.exit_code == 2
        assert "only the bundled base comes as GGUF" in result.stderr
        assert list(ready.glob("*.gguf")) == []

    def test_user_errors_are_one_line(self, ready: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
        unknown = invoke(ready, "export", "--gguf", str(ready / "a.gguf"), "7")
        assert unknown.exit_code == 2
        assert unknown.stderr == "doppel: no adapter version 0007; published: 0001, 0002\n"
        (ready / "adapters" / "ann" / "0002" / WEIGHTS).write_bytes(b"broken")
        damaged = invoke(ready, "export", "--gguf", str(ready / "a.gguf"))
        assert damaged.exit_code == 1
        assert damaged.stderr.endswith("is damaged (its digest differs)\n")
        assert not (ready / "a.gguf").exists()
        nowhere = tmp_path_factory.mktemp("empty")
        (nowhere / "config.yaml").write_text("persona: {name: ann}")
        none = invoke(nowhere, "export", "--merged", "there")
        assert none.exit_code == 2
        assert "no adapter yet" in none.stderr
