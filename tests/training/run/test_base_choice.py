"""`doppel train --plan --bases` compares base models without any of them."""

import json
from pathlib import Path

import yaml
from typer.testing import CliRunner

from doppel.cli.app import app
from doppel.models.known_bases import KNOWN_BASES
from tests.training.runs import small_run


def run(tmp_path: Path, tiny_base: Path, *options: str) -> tuple[int, str, str]:
    content = {"model": {"base": str(tiny_base), "dtype": "float32"}, "training": {"max_length": 128}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    done = CliRunner().invoke(app(), ["train", *options, "--config", str(tmp_path / "config.yaml")])
    return done.exit_code, done.stdout, done.stderr


def test_every_base_has_its_time_and_memory(tmp_path: Path, tiny_base: Path) -> None:
    small_run(tmp_path, tiny_base)
    code, printed, _ = run(tmp_path, tiny_base, "--plan", "--bases", "--json")
    assert code == 0
    result = json.loads(printed)
    assert [base["base"] for base in result["bases"]] == [base.name for base in KNOWN_BASES]
    assert 1_000 < result["tokens"] < 10_000
    for base in result["bases"]:
        least, most = base["training_bytes_range"]
        assert base["epoch_seconds"] > 0
        assert 0 < least < most
    assert result["affordable"].keys() == {"3", "8", "24"}
    assert not (tmp_path / "data" / "sample.training").exists()


def test_people_read_a_table_and_what_a_night_affords(tmp_path: Path, tiny_base: Path) -> None:
    small_run(tmp_path, tiny_base)
    code, printed, shown = run(tmp_path, tiny_base, "--plan", "--bases")
    assert (code, printed) == (0, "")
    assert "Qwen/Qwen3-4B-Base" in shown
    assert "a night (8 h): " in shown


def test_without_a_plan_or_a_data_set_it_says_so(tmp_path: Path, tiny_base: Path) -> None:
    code, _, shown = run(tmp_path, tiny_base, "--bases")
    assert code == 2
    assert "use it with --plan" in shown
    code, _, shown = run(tmp_path, tiny_base, "--plan", "--bases")
    assert code == 2
    assert "run `doppel build` first" in shown
