"""Runs `doppel` commands and measured processes for the benchmarks, and reads the JSON object that they print last."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml


def write_config(folder: Path, settings: Mapping[str, Any]) -> Path:
    """Writes a config.yaml into a folder and returns its path."""
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(dict(settings), allow_unicode=True), encoding="utf-8")
    return path


def run_doppel(command: str, config: Path, *options: str) -> dict[str, Any]:
    """Runs `doppel COMMAND --json` in a process of its own and returns its result. Progress goes to stderr.

    Raises:
        CalledProcessError: the command failed.
    """
    return run_process([sys.executable, "-m", "doppel", command, *options, "--config", str(config), "--json"])


def run_process(
    arguments: Sequence[str | Path], *, environment: Mapping[str, str] | None = None, check: bool = True
) -> dict[str, Any]:
    """Runs a process and returns the JSON object in the last line of its stdout.

    Args:
        arguments: the command line.
        environment: of the process; None for this one's.
        check: whether a non-zero exit code raises CalledProcessError.
    """
    done = subprocess.run(arguments, check=check, stdout=subprocess.PIPE, text=True, env=environment)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result
