"""`doppel run` as a process of its own, with the tiny model: signals and exit codes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import pytest

from bot.web.server import listen
from tests.conftest import PublishAdapter

# The name of the config file can be given as an argument.
PROGRAM = """
import sys
from pathlib import Path
from bot.commands.run import run
from doppel.cli.app import Run, execute
given = Run(Path(*sys.argv[1:] or ["config.yaml"]), as_json=True)
sys.exit(execute(given, lambda: run(given)))
"""


@contextmanager
def daemon(folder: Path, *arguments: str, program: str = PROGRAM) -> Iterator["subprocess.Popen[str]"]:
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        cwd=folder,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def port() -> int:
    with listen("127.0.0.1", 0) as free:
        return int(free.getsockname()[1])


@pytest.fixture
def folder(tmp_path: Path, tiny_base: Path, publish_tiny_adapter: PublishAdapter, port: int) -> Path:
    publish_tiny_adapter(tmp_path / "adapters" / "sample")
    (tmp_path / "config.yaml").write_text(f"model: {{base: {tiny_base}}}\nweb: {{port: {port}}}\n")
    return tmp_path


def read_until(process: "subprocess.Popen[str]", wanted: str) -> None:
    """Reads the log up to a line; the daemon says what it does, so nothing has to be polled."""
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if wanted in line:
            return
    raise AssertionError("".join(seen))


def status(port: int, path: str) -> int:
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
            f"http://127.0.0.1:{port}{path}"
        ) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_it_with_0_within_ten_seconds(folder: Path, port: int, number: signal.Signals) -> None:
    with daemon(folder) as process:
        read_until(process, "sample is ready (adapter 0001")
        assert status(port, "/readyz") == 200
        asked = monotonic()
        process.send_signal(number)
        output, errors = process.communicate(timeout=20)
        assert monotonic() - asked < 10
    assert process.returncode == 0, errors
    report = json.loads(output)
    assert report["adapter"] == "0001"
    assert (report["replies"], report["posts"]) == (0, 0)
    assert "Traceback" not in errors


def test_signal_while_the_model_loads(folder: Path, port: int) -> None:
    with daemon(folder) as process:
        read_until(process, "chat page: ")
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert json.loads(output)["uptime_seconds"] < 60


def test_mistake_is_one_line_and_exit_2(folder: Path, port: int) -> None:
    with listen("127.0.0.1", port), daemon(folder) as process:
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert output == ""
    assert errors.splitlines()[-1].startswith(f"doppel: cannot listen on 127.0.0.1:{port}: the port is in use")
    assert "Traceback" not in errors


def test_json_logs_are_json_from_the_first_line_to_the_error_that_ends_it(folder: Path, port: int) -> None:
    program = "from bot.logs import LogFormat" + PROGRAM.replace(
        "run(given))", "run(given, log_format=LogFormat.JSON))"
    )
    with listen("127.0.0.1", port), daemon(folder, program=program) as process:
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (2, "")
    events = [json.loads(line) for line in errors.splitlines()]
    assert len(events) > 1
    assert events[-1]["level"] == "critical"
    assert events[-1]["message"].startswith(f"cannot listen on 127.0.0.1:{port}: the port is in use")


def test_invalid_cron_is_refused_with_the_name_of_the_file(folder: Path) -> None:
    config = (folder / "config.yaml").read_text()
    (folder / "mine.yaml").write_text(f"{config}posts: [{{name: daily, to: 'web:1', cron: '0 25 * * *'}}]\n")
    with daemon(folder, "mine.yaml") as process:
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (2, "")
    (line,) = errors.splitlines()
    assert line.startswith("doppel: mine.yaml: post `daily`: cron: `25` is not a valid hour")


def test_without_an_adapter_it_says_what_to_do_before_it_announces_anything(folder: Path, tiny_base: Path) -> None:
    shutil.rmtree(folder / "adapters")
    with daemon(folder) as process:
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert output == ""
    (line,) = errors.splitlines()
    assert line.startswith("doppel: ")
    assert "no adapter yet; run `doppel train` (or `doppel up`) first" in line
    assert not (folder / "data").exists()


@pytest.mark.parametrize(
    ("web", "variable", "problem"),
    [
        ("host: 0.0.0.0", "OTHER", "web.host is 0.0.0.0, so others could use the page; set a password in"),
        ("port: 0", "TELEGRAM_TOKEN_FILE", "TELEGRAM_TOKEN_FILE: other users can read"),
    ],
)
def test_what_would_be_open_to_others_is_one_line_and_exit_2(
    folder: Path, monkeypatch: pytest.MonkeyPatch, web: str, variable: str, problem: str
) -> None:
    config = folder / "config.yaml"
    config.write_text(config.read_text().partition("web:")[0] + f"web: {{{web}}}\n")
    (folder / "token").write_text("123456:made-up")
    (folder / "token").chmod(0o644)
    monkeypatch.setenv(variable, str(folder / "token"))
    with daemon(folder) as process:
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert output == ""
    assert errors.splitlines()[-1].startswith(f"doppel: {problem}")
    assert "made-up" not in errors
    assert "Traceback" not in errors
    assert not (folder / "data").exists()


def test_ctrl_c_after_a_signal_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from bot.commands.run import StopSignal

    ended: list[int] = []
    monkeypatch.setattr("bot.commands.run.os._exit", ended.append)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    stop = StopSignal()
    handler = signal.getsignal(signal.SIGTERM)
    for number, other in before.items():
        signal.signal(number, other)
    assert callable(handler)
    handler(signal.SIGTERM, None)
    handler(signal.SIGTERM, None)
    assert ended == []
    handler(signal.SIGINT, None)
    assert ended == [128 + signal.SIGINT]
    stop.exit_timer.cancel()
