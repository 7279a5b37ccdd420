"""`doppel up`: does what is missing and nothing else, and hands signals and exit codes on."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from doppel.cli.app import Run
from doppel.cli.up import Processes, StageFailed, bring_up, run_to_end
from doppel.config import Config, load_config
from tests.conftest import PublishAdapter
from tests.tiny import build_base


class FakeCommands:
    """Commands that leave behind what the real ones do, or fail with a code."""

    def __init__(self, config: Config, publish: PublishAdapter, codes: dict[str, int] | None = None) -> None:
        self._config = config
        self._publish = publish
        self._codes = codes or {}
        self.started: list[str] = []

    def call(self, name: str, *options: str) -> int:
        self.started.append(" ".join([name, *options]))
        code = self._codes.get(name, 0)
        if name == "build" and not code:
            self._config.data_dir.mkdir(parents=True, exist_ok=True)
            report = {"archive_digest": self._config.archive_digest}
            (self._config.data_dir / "report.json").write_text(json.dumps(report))
        if name == "train" and not code:
            publish_for(self._config, self._publish)
        return code

    def become(self, name: str) -> None:
        self.started.append(name)


def publish_for(config: Config, publish: PublishAdapter) -> None:
    """Publishes an adapter that knows which archives it was made from, as training does."""
    folder = publish(config.adapters_dir)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["dataset"]["archive"] = config.archive_digest
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture
def config(tmp_path: Path, tiny_base: Path) -> Config:
    return configure(tmp_path, f"model: {{base: {tiny_base}}}")


def configure(folder: Path, text: str) -> Config:
    (folder / "config.yaml").write_text(text)
    return load_config(folder / "config.yaml")


def bring_up_all(config: Config, publish: PublishAdapter) -> list[str]:
    commands = FakeCommands(config, publish)
    bring_up(config, commands)
    return commands.started


def test_the_first_start_runs_every_stage_and_the_second_none(
    config: Config, publish_tiny_adapter: PublishAdapter, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bring_up_all(config, publish_tiny_adapter) == ["build", "train --first-run", "run"]
    output = capsys.readouterr().err
    assert [line[:3] for line in output.splitlines() if line[1:3] == "/4"] == ["1/4", "2/4", "2/4", "3/4", "3/4", "4/4"]
    assert "There is no adapter yet." in output
    assert bring_up_all(config, publish_tiny_adapter) == ["run"]
    output = capsys.readouterr().err
    assert output.count("ready") == 3


def test_an_existing_data_set_is_not_built_again(config: Config, publish_tiny_adapter: PublishAdapter) -> None:
    failing = FakeCommands(config, publish_tiny_adapter, {"train": 1})
    with pytest.raises(StageFailed):
        bring_up(config, failing)
    assert bring_up_all(config, publish_tiny_adapter) == ["train --first-run", "run"]


def test_with_other_archives_data_set_and_adapter_are_made_again(
    config: Config, publish_tiny_adapter: PublishAdapter, tmp_path: Path, tiny_base: Path
) -> None:
    bring_up_all(config, publish_tiny_adapter)
    changed = configure(tmp_path, f"model: {{base: {tiny_base}}}\narchive: mine")
    interrupted = FakeCommands(changed, publish_tiny_adapter, {"train": 130})
    with pytest.raises(StageFailed):
        bring_up(changed, interrupted)
    assert interrupted.started == ["build", "train --first-run"]
    assert bring_up_all(changed, publish_tiny_adapter) == ["train --first-run", "run"]
    assert bring_up_all(changed, publish_tiny_adapter) == ["run"]


def test_an_adapter_copied_from_another_machine_is_used(
    config: Config, publish_tiny_adapter: PublishAdapter, tmp_path: Path, tiny_base: Path
) -> None:
    publish_for(config, publish_tiny_adapter)
    elsewhere = configure(tmp_path, f"model: {{base: {tiny_base}}}\narchive: not/copied")
    assert bring_up_all(elsewhere, publish_tiny_adapter) == ["run"]


def test_with_another_transcript_a_new_adapter_is_trained(
    config: Config, publish_tiny_adapter: PublishAdapter, tmp_path: Path, tiny_base: Path
) -> None:
    bring_up_all(config, publish_tiny_adapter)
    chat = configure(tmp_path, f"model: {{base: {tiny_base}}}\ntranscript: chat")
    interrupted = FakeCommands(chat, publish_tiny_adapter, {"train": 130})
    with pytest.raises(StageFailed):
        bring_up(chat, interrupted)
    assert interrupted.started == ["train --first-run"]


def test_with_another_base_or_a_damaged_adapter_a_new_one_is_trained(
    config: Config, publish_tiny_adapter: PublishAdapter, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bring_up_all(config, publish_tiny_adapter)
    (config.adapters_dir / "0001" / "habits.json").write_text("{ }")
    assert bring_up_all(config, publish_tiny_adapter) == ["train --first-run", "run"]
    assert "habits.json is damaged" in capsys.readouterr().err
    other_base_config = configure(tmp_path, f"model: {{base: {build_base(tmp_path / 'other', seed=1)}}}")
    commands = FakeCommands(other_base_config, publish_tiny_adapter)
    bring_up(other_base_config, commands)
    assert commands.started == ["train --first-run", "run"]
    assert "trained on another base model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "code", "says"),
    [("build", 2, "`doppel build` has failed"), ("train", 1, "`doppel train` has failed"), ("train", 143, "stopped")],
)
def test_a_failed_command_ends_doppel_up_with_its_exit_code_and_one_line(
    config: Config, publish_tiny_adapter: PublishAdapter, name: str, code: int, says: str
) -> None:
    commands = FakeCommands(config, publish_tiny_adapter, {name: code})
    with pytest.raises(StageFailed) as caught:
        bring_up(config, commands)
    assert caught.value.exit_code == code
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "run" not in commands.started


class TestProcesses:
    def test_a_real_command_is_started_with_the_same_config(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "config.yaml").write_text("archive: nowhere")
        run = Run(tmp_path / "config.yaml", as_json=True)
        assert Processes(run).call("build") == 2
        printed = capfd.readouterr()
        assert "nowhere: no such file or folder" in printed.err
        assert printed.out == ""

    @pytest.mark.skipif(os.name == "nt", reason="Windows cannot replace a process")
    def test_the_last_command_takes_the_place_of_this_process(self, tmp_path: Path) -> None:
        (tmp_path / "config.yaml").write_text("archiv: nowhere")
        arguments = f"Path({str(tmp_path / 'config.yaml')!r}), as_json=True"
        code = (
            "from pathlib import Path; from doppel.cli.app import Run; from doppel.cli.up import Processes\n"
            f"Processes(Run({arguments})).become('doctor')"
        )
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            checks = json.loads(process.stdout.read())["checks"]
        assert process.returncode == 1
        assert "unknown key `archiv`" in checks[-1]["hint"]

    def test_stdout_of_a_child_goes_to_stderr(self, capfd: pytest.CaptureFixture[str]) -> None:
        assert run_to_end([sys.executable, "-c", "print('result')"], stdout=sys.stderr) == 0
        printed = capfd.readouterr()
        assert (printed.out, printed.err) == ("", "result\n")

    def test_the_exit_code_of_a_child_is_returned(self) -> None:
        assert run_to_end([sys.executable, "-c", "raise SystemExit(7)"]) == 7

    @pytest.mark.skipif(os.name == "nt", reason="signals are POSIX")
    @pytest.mark.parametrize(
        ("handler", "expected"),
        [("signal.SIG_DFL", 143), ("lambda *_: sys.exit(130)", 130), ("lambda *_: sys.exit(0)", 143)],
    )
    def test_sigterm_reaches_the_child_and_ends_both(self, handler: str, expected: int) -> None:
        child = f"import signal, sys; signal.signal(signal.SIGTERM, {handler}); print('up', flush=True); signal.pause()"
        parent = (
            f"import sys; from doppel.cli.up import run_to_end; sys.exit(run_to_end([sys.executable, '-c', {child!r}]))"
        )
        with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == expected

    @pytest.mark.skipif(os.name == "nt", reason="signals are POSIX")
    def test_ctrl_c_is_left_to_the_child(self) -> None:
        child = (
            "import signal, sys\n"
            "signal.signal(signal.SIGINT, lambda *_: sys.exit(3))\n"
            "print('up', flush=True)\n"
            "signal.pause()"
        )
        parent = (
            f"import sys; from doppel.cli.up import run_to_end; sys.exit(run_to_end([sys.executable, '-c', {child!r}]))"
        )
        with subprocess.Popen(
            [sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True, start_new_session=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does
            assert process.wait(timeout=30) == 3
