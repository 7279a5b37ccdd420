"""`doppel doctor`: a table or JSON, and an exit code that says whether `doppel up` can work."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from doppel.cli.app import app


@pytest.fixture
def folder(tmp_path: Path, tiny_base: Path) -> Path:
    (tmp_path / "config.yaml").write_text(f"model: {{base: {tiny_base}, dtype: float32}}\nweb: {{port: 0}}")
    return tmp_path


def invoke(folder: Path, *options: str) -> Result:
    return CliRunner().invoke(app(), ["doctor", "--config", str(folder / "config.yaml"), *options])


def test_on_a_fresh_machine_the_exit_code_is_0(folder: Path) -> None:
    result = invoke(folder, "--json")
    assert result.exit_code == 0
    checks = json.loads(result.stdout)["checks"]
    assert all(set(check) == {"name", "ok", "hint", "level"} for check in checks)
    assert [check["name"] for check in checks if not check["ok"]] == ["data", "adapter", "discord", "telegram"]


def test_the_table_marks_failed_checks(folder: Path) -> None:
    result = invoke(folder)
    assert result.exit_code == 0
    lines = {line.split()[1]: line for line in result.stderr.splitlines() if line[:1] in "✓✗–"}
    assert lines["python"].startswith("✓")
    assert lines["adapter"].startswith("–")
    assert "Everything that `doppel up` needs is there." in result.stderr


def test_a_failed_check_that_is_needed_is_exit_code_1(folder: Path) -> None:
    (folder / "config.yaml").write_text("archive: nowhere\nweb: {prot: 0}")
    result = invoke(folder, "--json")
    assert result.exit_code == 1
    config = json.loads(result.stdout)["checks"][-1]
    assert (config["name"], config["ok"]) == ("config", False)
    assert "unknown key `web.prot`" in config["hint"]
    assert "needs fixing: config" in result.stderr
    assert "✗" in invoke(folder).stderr
