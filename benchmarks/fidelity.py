"""Measures how much an adapter of the sample persona writes like its owner, and how long the examination takes.

    python benchmarks/fidelity.py [--config config.yaml] [--minutes 4] [--quick] [--canaries] [--json]

Builds the sample persona's data set, trains the bundled base on it for a few minutes and runs `doppel evaluate`, each
in a process of its own. With `--config` it examines the adapter in use there, and writes the report into it. Nothing
else should run on the machine meanwhile; if something does, `cpu_seconds` is more meaningful than `wall_seconds`.

`figures` are the metrics of `doppel evaluate` (explained in docs/decisions/0014-fidelity.md), each with its 95 %
interval, floor and ceiling; `seconds` is the time of each stage. `--quick` runs the quick examination, without the goal
on the number of questions. `--canaries` also trains on planted codes (`canaries.py`), which takes as long again.

Prints one JSON object last. The exit code is 1 if a goal was missed.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests/ and benchmarks/ are not installed

from benchmarks.doppel_command import run_doppel, run_process, write_config
from doppel.config import load_config
from doppel.models.base import prepare_base
from doppel.reports.metrics import check_goal

MAX_MINUTES, MAX_MINUTES_QUICK = 15, 3
MIN_QUESTIONS = 500


def main() -> int:
    """Trains if no configuration is given, examines and reports; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, help="a configuration with a published adapter")
    parser.add_argument("--minutes", type=float, default=4, help="maximum minutes of training")
    parser.add_argument("--quick", action="store_true", help="the quick examination")
    parser.add_argument("--canaries", action="store_true", help="also measure exposure of planted codes")
    parser.add_argument("--json", action="store_true", help="has no effect: the last line is always the JSON object")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config, trained = arguments.config, {}
        if config is None:
            config = _make_config(Path(folder), arguments.minutes)
            run_doppel("build", config)
            trained = run_doppel("train", config)
        prepare_base(
            load_config(config).model, lambda line: print(line, file=sys.stderr)
        )  # convert the base once, outside the measurement
        wall_start, cpu_start = time.monotonic(), _cpu_seconds()
        evaluation = run_doppel("evaluate", config, *["--quick"] * arguments.quick)
        wall, cpu = time.monotonic() - wall_start, _cpu_seconds() - cpu_start
    report = summary(evaluation, wall, cpu, trained.get("plan", {}).get("steps"))
    if arguments.canaries:
        report["checks"] += run_process([sys.executable, Path(__file__).with_name("canaries.py")])["checks"]
    print(json.dumps(report))
    return 0 if all(check["ok"] for check in report["checks"]) else 1


def summary(evaluation: dict[str, Any], wall: float, cpu: float, steps: int | None = None) -> dict[str, Any]:
    """The result of the benchmark.

    Args:
        evaluation: what `doppel evaluate --json` printed.
        wall: seconds it took.
        cpu: CPU seconds of all cores together.
        steps: of the training, if there was one.
    """
    is_quick = evaluation["quick"]
    checks = list(evaluation["checks"])
    if not is_quick:
        questions = evaluation["figures"].get("choice_questions", {}).get("value", 0)
        checks.append(_check("multiple-choice questions", questions, f">= {MIN_QUESTIONS}"))
    max_minutes = MAX_MINUTES_QUICK if is_quick else MAX_MINUTES
    checks.append(_check("minutes of the whole evaluation", wall / 60, f"<= {max_minutes}"))
    return {
        "device": "cpu" if not torch.cuda.is_available() else torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "quick": is_quick,
        "steps": steps,
        "wall_seconds": round(wall, 1),
        "cpu_seconds": round(cpu, 1),
        "seconds": evaluation["seconds"],
        "floor": evaluation["floor"],
        "figures": evaluation["figures"],
        "checks": checks,
    }


def _check(name: str, value: float, goal: str) -> dict[str, Any]:
    return msgspec.structs.asdict(check_goal(name, value, goal))


def _make_config(folder: Path, minutes: float) -> Path:
    training = {"minutes": minutes, "max_length": 256, "gate": False}
    return write_config(folder, {"archive": "sample", "training": training})


def _cpu_seconds() -> float:
    """CPU seconds of all finished child processes."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    sys.exit(main())
