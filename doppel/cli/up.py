"""`doppel up`: whatever is missing (base model, data set, adapter), then the daemon.

`doppel build` and `doppel train` run as child processes, so that their memory is free afterwards, and `doppel run`
replaces this process.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol, TextIO

from doppel.adapters.versions import AdapterRefused, check_base, current_version, read_manifest
from doppel.cli.app import Run
from doppel.config import Config
from doppel.config.dataset_digest import dataset_archive_digest
from doppel.errors import DoppelError
from doppel.i18n import tr
from doppel.models.base import BaseIdentity, identify, is_prepared, prepare_base
from doppel.terminal import print_status
from doppel.transcript import FORMATS

STAGES = 4


class Commands(Protocol):
    """Starts other `doppel` commands; replaced in tests."""

    def call(self, name: str, *options: str) -> int:
        """Runs a command to its end and returns its exit code."""
        ...

    def become(self, name: str) -> None:
        """Runs a command in place of this process; returns only on systems that cannot replace a process."""
        ...


class StageFailed(DoppelError):
    """A command that `doppel up` started has failed; the exit code is the command's."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


def up(run: Run) -> None:
    """Do whatever is missing (build, train, publish), then run the daemon."""
    bring_up(run.config, Processes(run))


def bring_up(config: Config, commands: Commands) -> None:
    """Runs the stages in order, skipping those whose result exists.

    Raises:
        StageFailed: a command failed. UserError, DoppelError: the base model cannot be prepared.
    """
    with _stage(1, tr("base model {base}", base=config.model.base), _if(not is_prepared(config.model), tr("2 min"))):
        base = identify(prepare_base(config.model, print_status), config.model.base)
    reason = why_train(config, base)
    stale = reason is not None and dataset_archive_digest(config) != config.archive_digest
    with _stage(2, tr("your messages"), _if(stale, tr("10 s; a large archive takes minutes"))):
        if stale:
            _call(commands, "build")
    minutes = config.training.first_run_minutes
    expected = (
        tr("until it has learned all") if minutes is None else tr("{minutes:g} min and a little", minutes=minutes)
    )
    with _stage(3, tr("training"), _if(reason is not None, expected)):
        if reason is not None:
            print_status(reason)
            _call(commands, "train", "--first-run")
            print_status(tr("This was a short first training. `doppel train` takes its time and gets closer to you."))
    print_status(tr("{number}/{stages} Starting your doppelgänger …", number=4, stages=STAGES))
    commands.become("run")


def why_train(config: Config, base: BaseIdentity) -> str | None:
    """Why an adapter has to be trained, in one line; None if the current one is used.

    An adapter copied from another machine, without its data set, is used whatever archives it was trained on.
    """
    folder = current_version(config.adapters_dir)
    if folder is None:
        return tr("There is no adapter yet.")
    try:
        manifest = read_manifest(folder)
        check_base(folder, manifest, base)
    except AdapterRefused as error:
        return str(error)
    has_data = dataset_archive_digest(config) is not None
    if has_data and manifest.dataset.get("archive", config.archive_digest) != config.archive_digest:
        return tr("The adapter was trained on other archives than config.yaml names now.")
    if has_data and manifest.transcript != FORMATS[config.transcript]:
        return tr("The adapter was trained with another `transcript` than config.yaml names now.")
    return None


class Processes:
    """Runs each command as a process, with this command's options, and passes signals on."""

    def __init__(self, run: Run) -> None:
        self._json = ["--json"] if run.as_json else []
        self._options = ["--config", str(run.config_path), *(["--debug"] if run.debug else [])]

    def call(self, name: str, *options: str) -> int:
        """Runs a command to its end and returns its exit code; its stdout goes to stderr."""
        return run_to_end([*self._command(name), *options], stdout=sys.stderr)

    def become(self, name: str) -> None:
        """Runs a command in place of this process; on Windows, as a child process."""
        command = self._command(name) + self._json
        if os.name != "nt":
            os.execv(command[0], command)  # noqa: S606 - this Python with our own arguments
        code = run_to_end(command)
        if code:
            raise StageFailed(tr("`doppel {command}` has failed", command=name), code)

    def _command(self, name: str) -> list[str]:
        return [sys.executable, "-P", "-m", "doppel", name, *self._options]


def run_to_end(command: list[str], stdout: TextIO | None = None) -> int:
    """Runs a process to its end and returns its exit code: 128 + the signal's number if a signal ended it.

    A child that exits with 0 after this process got SIGINT or SIGTERM counts as ended by that signal. SIGTERM is passed
    on to the child. SIGINT is not, because on Ctrl-C the terminal sends it to both.
    """
    received: list[int] = []
    children: list[subprocess.Popen[bytes]] = []

    def handle(number: int, _: FrameType | None) -> None:
        received.append(number)
        if number == signal.SIGTERM:
            for child in children:
                child.terminate()

    before = {signal_number: signal.signal(signal_number, handle) for signal_number in (signal.SIGINT, signal.SIGTERM)}
    try:
        child = subprocess.Popen(command, stdout=stdout)  # noqa: S603 - as above
        children.append(child)
        if signal.SIGTERM in received:
            child.terminate()
        code = child.wait()
    finally:
        for signal_number, handler in before.items():
            signal.signal(signal_number, handler)
    if code == 0 and received:
        return 128 + received[0]
    return code if code >= 0 else 128 - code


def _call(commands: Commands, name: str, *options: str) -> None:
    code = commands.call(name, *options)
    if code in (128 + signal.SIGINT, 128 + signal.SIGTERM):
        raise StageFailed(tr("stopped during `doppel {command}`; the next `doppel up` goes on", command=name), code)
    if code:
        text = tr("`doppel {command}` has failed, see above; then start `doppel up` again", command=name)
        raise StageFailed(text, code)


@contextmanager
def _stage(number: int, what: str, expected: str | None) -> Iterator[None]:
    """Prints when a stage begins, with its expected duration, and when it ends; None: the stage is already done."""
    if expected is None:
        print_status(tr("{number}/{stages} {what}: ready", number=number, stages=STAGES, what=what))
        yield
        return
    print_status(
        tr("{number}/{stages} {what}: about {expected} …", number=number, stages=STAGES, what=what, expected=expected)
    )
    began = time.monotonic()
    yield
    seconds = time.monotonic() - began
    print_status(tr("{number}/{stages} done after {seconds:.0f} s", number=number, stages=STAGES, seconds=seconds))


def _if(is_needed: bool, expected: str) -> str | None:
    return expected if is_needed else None
