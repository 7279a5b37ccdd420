"""`doppel service`: the unit and the file for tokens, with a stand-in for systemctl that records what it is told."""

import json
import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from doppel.cli import service
from doppel.cli.app import app

SYSTEMCTL = """#!/bin/sh
echo "$@" >> "$CALLS"
echo ActiveState=active
echo SubState=running
echo "StatusText=the engine = reopened"
echo NRestarts=2
echo UnitFileState=enabled
"""

Invoke = Callable[..., Result]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / 'my "50%" $bot'
    folder.mkdir()
    (folder / "mine.yaml").write_text("persona: {name: ann}\n")
    return folder


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with systemd; the file that will hold the calls of systemctl."""
    program = tmp_path / "bin" / "systemctl"
    program.parent.mkdir()
    program.write_text(SYSTEMCTL)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(service, "SYSTEMD_RUNS", tmp_path)
    return tmp_path / "calls"


@pytest.fixture
def invoke(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    monkeypatch.chdir(folder)  # the path of the configuration is relative
    return lambda *arguments: CliRunner().invoke(app(), ["service", *arguments, "--config", "mine.yaml"])


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    return tmp_path / "xdg" / "systemd" / "user" / "doppel-ann.service"


def test_install_writes_a_unit_and_says_what_to_type(invoke: Invoke, calls: Path, unit: Path) -> None:
    result = invoke("install")
    assert result.exit_code == 0, result.stderr
    lines = unit.read_text().splitlines()
    assert "Type=notify" in lines
    assert "RestartPreventExitStatus=2" in lines
    assert f"WatchdogSec={service.WATCHDOG_SECONDS}" in lines
    for typed in ("daemon-reload", "enable --now doppel-ann", "loginctl enable-linger"):
        assert typed in result.stderr
    assert not calls.exists()  # nothing runs yet


def test_paths_are_absolute_and_escaped(invoke: Invoke, calls: Path, unit: Path, folder: Path) -> None:
    invoke("install")
    settings = dict(line.split("=", 1) for line in unit.read_text().splitlines() if "=" in line)
    parent = str(folder.parent)
    assert settings["WorkingDirectory"] == f'{parent}/my "50%%" $bot'
    assert settings["EnvironmentFile"] == f'-{parent}/my "50%%" $bot/doppel.env'
    assert settings["ExecStart"].endswith(f'"run" "--config" "{parent}/my \\"50%%\\" $$bot/mine.yaml"')


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_accepts_the_unit(invoke: Invoke, calls: Path, unit: Path, tmp_path: Path) -> None:
    invoke("install")
    done = subprocess.run(
        ["systemd-analyze", "--user", "--man=no", "verify", str(unit)],
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "doppel-ann" not in done.stderr  # unknown or wrong settings are only mentioned


def test_the_file_for_tokens_is_for_this_user_alone_and_stays(invoke: Invoke, calls: Path, folder: Path) -> None:
    invoke("install")
    secrets = folder / "doppel.env"
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o600
    assert "# TELEGRAM_TOKEN=\n" in secrets.read_text()
    secrets.write_text("TELEGRAM_TOKEN=1:made-up\n")
    assert invoke("install").exit_code == 0
    assert secrets.read_text() == "TELEGRAM_TOKEN=1:made-up\n"


def test_a_file_for_tokens_that_others_can_read_is_refused(
    invoke: Invoke, calls: Path, folder: Path, unit: Path
) -> None:
    (folder / "doppel.env").touch(0o644)
    (folder / "doppel.env").chmod(0o644)
    result = invoke("install")
    assert result.exit_code == 2
    assert "chmod 600" in result.stderr
    assert not unit.exists()


def test_a_unit_of_somebody_else_is_left_alone(invoke: Invoke, calls: Path, unit: Path) -> None:
    unit.parent.mkdir(parents=True)
    unit.write_text("[Unit]\n")
    result = invoke("install")
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert unit.read_text() == "[Unit]\n"


def test_uninstall_stops_the_service_and_keeps_the_tokens(
    invoke: Invoke, calls: Path, unit: Path, folder: Path
) -> None:
    invoke("install")
    assert invoke("uninstall").exit_code == 0
    assert calls.read_text() == "--user disable --now doppel-ann.service\n--user daemon-reload\n"
    assert not unit.exists()
    assert (folder / "doppel.env").exists()
    assert invoke("uninstall").exit_code == 2


def test_a_unit_that_cannot_be_stopped_stays(invoke: Invoke, calls: Path, unit: Path, tmp_path: Path) -> None:
    invoke("install")
    (tmp_path / "bin" / "systemctl").write_text("#!/bin/sh\necho 'Failed to connect to bus' >&2\nexit 1\n")
    result = invoke("uninstall")
    assert (result.exit_code, result.stderr) == (1, "doppel: systemctl --user disable: Failed to connect to bus\n")
    assert unit.exists()


def test_status(invoke: Invoke, calls: Path, unit: Path) -> None:
    assert json.loads(invoke("status", "--json").stdout) == {"unit": str(unit), "installed": False}
    invoke("install")
    result = invoke("status", "--json")
    assert json.loads(result.stdout) == {
        "unit": str(unit),
        "installed": True,
        "active": "active",
        "state": "running",
        "status": "the engine = reopened",
        "restarts": 2,
        "enabled": "enabled",
    }
    assert "doppel-ann: active (running), the engine = reopened; restarts: 2; at login: enabled" in result.stderr


@pytest.mark.parametrize("name", ["install", "uninstall", "status"])
def test_without_systemd_it_is_one_line(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, folder: Path
) -> None:
    monkeypatch.setattr(service, "SYSTEMD_RUNS", tmp_path / "none")
    result = invoke(name)
    assert result.exit_code == 2
    assert result.stderr.startswith("doppel: systemd does not run on this machine")
    assert result.stderr.count("\n") == 1
    assert [path.name for path in folder.iterdir()] == ["mine.yaml"]
