"""The example plug-ins, installed as anybody's would be and used through the command line."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import PublishAdapter

SOURCE = Path(__file__).parent
DIARY = "# diary of ann\n" + "".join(
    f"2024-05-{1 + number // 40:02}T10:{number % 40:02}:00+00:00 {('bob', 'ann')[number % 2]}: line number {number}\n"
    for number in range(400)
)
KEY = "key-4711-of-the-folder"


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package installed, for PYTHONPATH."""
    source, site = tmp_path_factory.mktemp("source") / "plugins", tmp_path_factory.mktemp("site")
    shutil.copytree(SOURCE, source, ignore=shutil.ignore_patterns("__pycache__", "test_*.py"))  # setuptools writes here
    options = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--no-cache-dir", "--target", str(site)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(source)], check=True)
    return site


class CommandLine:
    """A folder with a configuration, and `doppel` with the plug-ins installed."""

    def __init__(self, folder: Path, site: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}

    def arguments(self, command: str, *options: str) -> list[str]:
        return [sys.executable, "-P", "-m", "doppel", command, "--config", str(self.folder / "config.yaml"), *options]

    def run(
        self, command: str, *options: str, text: str = "", environment: dict[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            self.arguments(command, *options),
            input=text,
            capture_output=True,
            text=True,
            cwd=self.folder,
            env={**self.environment, **(environment or {})},
            check=False,
        )


@pytest.fixture
def doppel(tmp_path: Path, site: Path, tiny_base: Path) -> CommandLine:
    config = f"""
model: {{base: {tiny_base}, dtype: float32}}
archive: friend.diary
web: {{port: 0}}
engine: {{backend: parrot}}
reply: {{debounce_seconds: 0}}
folder: {{path: post, allow: [ann]}}
"""
    (tmp_path / "config.yaml").write_text(config, encoding="utf-8")
    (tmp_path / "friend.diary").write_text(DIARY, encoding="utf-8")
    for name in ("inbox", "outbox"):
        (tmp_path / "post" / name).mkdir(parents=True)
    return CommandLine(tmp_path, site)


def test_the_reader_reads_an_archive_and_the_command_counts_its_sessions(doppel: CommandLine) -> None:
    refused = doppel.run("sessions")
    assert (refused.returncode, "run `doppel build` first" in refused.stderr) == (2, True)
    built = doppel.run("build", "--json")
    assert built.returncode == 0, built.stderr
    counted = doppel.run("sessions", "--json")
    assert counted.returncode == 0, counted.stderr
    assert json.loads(counted.stdout)["sessions"] > 0
    sessions = (doppel.folder / "data" / "sample" / "sessions.jsonl").read_text(encoding="utf-8")
    assert "line number 1" in sessions
    assert "Count the sessions of the data set." in doppel.run("sessions", "--help").stdout


def test_the_platforms_section_is_read_and_its_mistakes_are_named(doppel: CommandLine) -> None:
    path = doppel.folder / "config.yaml"
    path.write_text(path.read_text().replace("path: post", "paht: post"), encoding="utf-8")
    refused = doppel.run("sessions")
    assert refused.returncode == 2
    assert "unknown key `folder.paht`" in refused.stderr


@pytest.mark.parametrize(
    ("environment", "ok", "hint"),
    [({}, False, "folder is off: no token; set FOLDER_KEY"), ({"FOLDER_KEY": KEY}, True, "ready, 1 allowed")],
)
def test_doctor_prints_the_platforms_checks(
    doppel: CommandLine, environment: dict[str, str], ok: bool, hint: str
) -> None:
    checks = json.loads(doppel.run("doctor", "--json", environment=environment).stdout)["checks"]
    named = {check["name"]: check for check in checks}
    assert (named["folder"]["ok"], named["folder"]["hint"]) == (ok, hint)
    assert (named["folder path"]["ok"], named["folder path"]["hint"]) == (True, "inbox and outbox in post")
    assert named["engine"] == {"name": "engine", "ok": True, "hint": "parrot", "level": "needed"}


def test_the_engine_answers_in_the_chat(doppel: CommandLine, publish_tiny_adapter: PublishAdapter) -> None:
    publish_tiny_adapter(doppel.folder / "adapters" / "sample")
    talked = doppel.run("chat", text="hello\n")
    assert talked.returncode == 0, talked.stderr
    assert "sample: polly wants a cracker" in talked.stdout


@contextmanager
def daemon(doppel: CommandLine, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    environment = {**doppel.environment, "FOLDER_KEY": KEY}
    with log.open("wb") as file:
        process = subprocess.Popen(doppel.arguments("run"), cwd=doppel.folder, env=environment, stderr=file)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(30)


def wait_for(file: Path, text: str) -> None:
    """Waits until another process has written something."""
    deadline = time.monotonic() + 120
    while not (file.exists() and text in file.read_text(encoding="utf-8")):
        assert time.monotonic() < deadline, f"{text} is not in {file}"
        time.sleep(0.1)


def test_the_platform_replies_to_whom_it_allows_and_its_secret_stays_out_of_the_log(
    doppel: CommandLine, publish_tiny_adapter: PublishAdapter
) -> None:
    publish_tiny_adapter(doppel.folder / "adapters" / "sample")
    inbox, outbox, log = doppel.folder / "post" / "inbox", doppel.folder / "post" / "outbox", doppel.folder / "log"
    with daemon(doppel, log):
        wait_for(log, "folder: connected")
        for sender in ("ann", "stranger", KEY):
            (inbox / f"{sender}.txt").write_text("hello", encoding="utf-8")
        wait_for(outbox / "ann.txt", "polly wants a cracker\n")
        wait_for(log, "add stranger to folder.allow in config.yaml")
        wait_for(log, "folder: message from … (…), who is not allowed")
    assert [file.name for file in outbox.iterdir()] == ["ann.txt"]
    assert KEY not in log.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted(SOURCE.glob("doppel_example_plugins/*.py")), ids=lambda path: path.stem)
def test_an_example_is_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < 60
