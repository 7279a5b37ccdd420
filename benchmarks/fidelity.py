"""How much an adapter of the sample persona on the bundled base is like its owner, and how long finding out takes.

    python benchmarks/fidelity.py [--config config.yaml] [--minutes 4] [--quick] [--canaries] [--json]

Builds the sample persona's data set, trains on it for so many minutes and runs `doppel evaluate`, each a process of its
own; with `--config` it examines the adapter in use there, whose report is then the new one. Nothing else should run on
the machine meanwhile, or `wall_seconds` says more about that: `cpu_seconds` stands beside it.

`figures` are those of `doppel evaluate` (docs/decisions/0014-fidelity.md says what they mean), each with its 95 %
interval, floor and ceiling; `seconds` is how long each stage took. `--quick` runs the rough examination. `--canaries`
also trains on planted codes (`canaries.py`), which takes as long again. Of the goals each has a check; a rough
examination asks too few questions for that on their number.

Prints one JSON object last, and ends with 1 if a goal was missed.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml

from doppel.config import load_config
from doppel.models.base import prepare_base
from doppel.reports.metrics import check_goal

MOST_MINUTES, MOST_MINUTES_QUICK = 15, 3
LEAST_QUESTIONS = 500


def main() -> int:
    """Trains if need be, examines and reports; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, help="a configuration with a published adapter")
    parser.add_argument("--minutes", type=float, default=4, help="most minutes of training")
    parser.add_argument("--quick", action="store_true", help="the rough examination")
    parser.add_argument("--canaries", action="store_true", help="also ask for planted codes")
    parser.add_argument("--json", action="store_true", help="as ever: the last line is the JSON object")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config, trained = arguments.config, {}
        if config is None:
            config = _config(Path(folder), arguments.minutes)
            _doppel("build", config)
            trained = _doppel("train", config)
        prepare_base(load_config(config).model, lambda line: print(line, file=sys.stderr))  # it converts but once
        began, spent = time.monotonic(), _cpu_seconds()
        examined = _doppel("evaluate", config, *["--quick"] * arguments.quick)
        wall, cpu = time.monotonic() - began, _cpu_seconds() - spent
    report = summary(examined, wall, cpu, trained.get("plan", {}).get("steps"))
    if arguments.canaries:
        script = Path(__file__).with_name("canaries.py")
        planted = subprocess.run([sys.executable, script], check=True, stdout=subprocess.PIPE, text=True)
        report["checks"] += _last_line(planted)["checks"]
    print(json.dumps(report))
    return 0 if all(one["ok"] for one in report["checks"]) else 1


def summary(examined: dict[str, Any], wall: float, cpu: float, steps: int | None = None) -> dict[str, Any]:
    """The report on what `doppel evaluate --json` printed.

    Args:
        examined: what it printed.
        wall: seconds it took.
        cpu: seconds of all cores together.
        steps: of the training, if there was one.
    """
    is_quick = examined["quick"]
    checks = list(examined["checks"])
    if not is_quick:
        asked = examined["figures"].get("choice_questions", {}).get("value", 0)
        checks.append(_check("questions of choice", asked, f">= {LEAST_QUESTIONS}"))
    most = MOST_MINUTES_QUICK if is_quick else MOST_MINUTES
    checks.append(_check("minutes of the whole evaluation", wall / 60, f"<= {most}"))
    return {
        "device": "cpu" if not torch.cuda.is_available() else torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "quick": is_quick,
        "steps": steps,
        "wall_seconds": round(wall, 1),
        "cpu_seconds": round(cpu, 1),
        "seconds": examined["seconds"],
        "floor": examined["floor"],
        "figures": examined["figures"],
        "checks": checks,
    }


def _check(name: str, value: float, goal: str) -> dict[str, Any]:
    found = check_goal(name, value, goal)
    return {"name": found.name, "value": found.value, "goal": found.goal, "ok": found.ok}


def _config(folder: Path, minutes: float) -> Path:
    path = folder / "config.yaml"
    content = {"archive": "sample", "training": {"minutes": minutes, "max_length": 256, "gate": False}}
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def _doppel(command: str, config: Path, *options: str) -> dict[str, Any]:
    doppel = Path(sys.executable).with_name("doppel")
    arguments = [str(doppel), command, *options, "--config", str(config), "--json"]
    return _last_line(subprocess.run(arguments, check=True, stdout=subprocess.PIPE, text=True))


def _last_line(done: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    printed: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return printed


def _cpu_seconds() -> float:
    """Of all processes that were waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    sys.exit(main())
