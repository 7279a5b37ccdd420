"""The command line: help, the shared options, exit codes, and one line for a mistake."""

import json
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner, Result

from doppel.cli.app import ORDER, Run, app, as_command, execute
from doppel.errors import DoppelError, TryAgainLater, UserError

GROUPS = {"adapters": ["list"], "service": ["status"], "store": ["check"]}
"""Commands with commands of their own, and one of those; help shows them last."""


def work(
    run: Run, *, how: Annotated[str, typer.Option(help="How it ends.")] = "well", times: int = 1
) -> dict[str, Any] | None:
    """Do something for a test."""
    endings: dict[str, Exception] = {
        "badly": DoppelError("no disk"),
        "wrongly": UserError("file.json: is no export"),
        "unwell": DoppelError("ill"),
        "for now": TryAgainLater("the engine hangs"),
        "interrupted": KeyboardInterrupt(),  # type: ignore[dict-item]
        "broken": ZeroDivisionError("a bug"),
        "telling": DoppelError("no answer from https://example.org/bot123%3Aa-canary/x with 123:a-canary"),
    }
    endings["unwell"].result = {"checks": []}  # type: ignore[attr-defined]
    if how in endings:
        raise endings[how]
    return {"persona": run.config.persona.name, "times": times} if how == "well" else None


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text("persona: {name: ann}")
    return path


def invoke(*arguments: str | Path) -> Result:
    cli = typer.Typer()
    cli.command("work")(as_command(work))
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def test_a_command_gets_its_options_and_the_config(config: Path) -> None:
    result = invoke("--config", config, "--times", "3", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"persona": "ann", "times": 3}


def test_without_json_nothing_is_printed_on_stdout(config: Path) -> None:
    result = invoke("--config", config)
    assert (result.exit_code, result.stdout) == (0, "")


@pytest.mark.parametrize(
    ("how", "code", "line"),
    [
        ("badly", 1, "doppel: no disk\n"),
        ("wrongly", 2, "doppel: file.json: is no export\n"),
        ("for now", 75, "doppel: the engine hangs\n"),
        ("interrupted", 130, "\nInterrupted.\n"),
    ],
)
def test_a_failure_is_one_line_and_an_exit_code(config: Path, how: str, code: int, line: str) -> None:
    result = invoke("--config", config, "--how", how, "--json")
    assert result.exit_code == code
    assert result.stderr == line
    assert result.stdout == ""


def test_the_result_of_a_failed_command_is_printed(config: Path) -> None:
    result = invoke("--config", config, "--how", "unwell", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == {"checks": []}


def test_debug_shows_the_traceback_of_an_error(config: Path) -> None:
    assert isinstance(invoke("--config", config, "--how", "wrongly", "--debug").exception, UserError)


def test_a_bug_keeps_its_traceback(config: Path) -> None:
    assert isinstance(invoke("--config", config, "--how", "broken").exception, ZeroDivisionError)


def test_a_secret_is_not_printed(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TELEGRAM_TOKEN", " 123:a-canary\n")
    run = Run(config)
    assert execute(run, lambda: work(run, how="telling")) == 1
    assert capsys.readouterr().err == "doppel: no answer from https://example.org/bot…/x with …\n"


def test_a_missing_or_wrong_config_is_one_line(tmp_path: Path) -> None:
    result = invoke("--config", tmp_path / "none.yaml")
    assert result.exit_code == 2
    assert "none.yaml: no such file" in result.stderr
    assert "Traceback" not in result.stderr
    (tmp_path / "config.yaml").write_text("perrsona: {}")
    result = invoke("--config", tmp_path / "config.yaml")
    assert result.exit_code == 2
    assert "unknown key `perrsona`" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_wrong_option_is_exit_code_2() -> None:
    result = invoke("--tims", "3")
    assert result.exit_code == 2
    assert "--tims" in result.stderr


def test_the_language_is_that_of_the_config(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("language: zh")
    invoke("--config", tmp_path / "config.yaml")
    (tmp_path / "config.yaml").write_text("perrsona: {}")
    assert "不认识的键" in invoke("--config", tmp_path / "config.yaml").stderr


class TestInstalled:
    def test_help_names_every_command_in_order(self) -> None:
        result = CliRunner().invoke(app(), [])
        names = [line.split()[0] for line in result.output.partition("Commands:")[2].splitlines() if line.strip()]
        assert set(names) >= set(ORDER)
        assert [name for name in names if name in ORDER and name not in GROUPS] == [
            name for name in ORDER if name not in GROUPS
        ]

    @pytest.mark.parametrize("name", [point.name for point in entry_points(group="doppel.commands")])
    def test_every_command_has_help_with_the_shared_options(self, name: str) -> None:
        arguments = [name, *GROUPS.get(name, ()), "--help"]
        result = CliRunner().invoke(app(), arguments)
        assert result.exit_code == 0
        for option in ("--config", "--json", "--debug"):
            assert option in result.output

    def test_an_unknown_command_is_exit_code_2(self) -> None:
        assert CliRunner().invoke(app(), ["dance"]).exit_code == 2
