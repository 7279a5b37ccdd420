"""Whether `doppel train --plan` says what then happens: the same training forecast, and done.

    python benchmarks/plan.py [--epochs 0.1] [--config config.yaml] [--quick] [--json]

Plan and training are processes of their own, one after the other, on the bundled base and the sample persona, or on
the data set of a configuration (which is not changed, and whose adapters are left alone). The training is a real one,
with its scoring, validations, samples, checkpoints and its report; only patience is raised, as a forecast is of a
training that does not stop early. Nothing else should run on the machine meanwhile.

- `seconds` and `memory` are what happened divided by what was forecast. **The goal: 0.7 to 1.3 each.**
- `parts` has the same for every part that takes at least two seconds, for whoever looks for the cause.

Prints one JSON object last, and ends with 1 if the goal was missed.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from doppel.config import load_config
from doppel.models.base import prepare_base

LEAST, MOST = 0.7, 1.3
_WORTH_LOOKING_AT = 2.0
_MANY_CHECKS = 10_000


def main() -> int:
    """Runs both and compares; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=float, default=0.1, help="length of the training")
    parser.add_argument("--config", type=Path, help="a configuration whose data set is built")
    parser.add_argument("--quick", action="store_true", help="a training of a fiftieth of an epoch")
    parser.add_argument("--json", action="store_true", help="as ever: the last line is the JSON object")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = _write_config(Path(folder), arguments.config, 0.02 if arguments.quick else arguments.epochs)
        prepare_base(load_config(config).model, lambda line: print(line, file=sys.stderr))  # a plan converts once
        if arguments.config is None:
            _doppel("build", config)
        plan = _doppel("train", config, "--plan")
        done = _doppel("train", config)
    report = compare(plan, done)
    print(json.dumps(report))
    return 0 if all(check["ok"] for check in report["checks"]) else 1


def compare(plan: dict[str, Any], done: dict[str, Any]) -> dict[str, Any]:
    """What happened over what was forecast, from what the two commands print with `--json`."""
    ratios = {
        "seconds": done["seconds"] / plan["seconds"],
        "memory": done["peak_memory_bytes"] / plan["peak_memory_bytes"],
    }
    parts = {
        name: round(done["parts"][name] / seconds, 3)
        for name, seconds in plan["parts"].items()
        if seconds > 0 and max(seconds, done["parts"][name]) >= _WORTH_LOOKING_AT
    }
    return {
        **{name: round(ratio, 3) for name, ratio in ratios.items()},
        "checks": [
            {
                "name": f"{name}: what happened over what was forecast",
                "value": round(ratio, 3),
                "goal": f"{LEAST} to {MOST}",
                "ok": LEAST <= ratio <= MOST,
            }
            for name, ratio in ratios.items()
        ],
        "parts": parts,
        "forecast": {"seconds": plan["seconds"], "memory_bytes": plan["peak_memory_bytes"]},
        "happened": {"seconds": done["seconds"], "memory_bytes": done["peak_memory_bytes"]},
        "steps": [plan["plan"]["steps"], done["plan"]["steps"]],
        "tokens_per_second": [round(plan["plan"]["tokens_per_second"], 1), done["tokens_per_second"]],
    }


def _write_config(folder: Path, like: Path | None, epochs: float) -> Path:
    """A configuration in `folder` that reads the data set of another, if given, and writes nothing into its folders."""
    training: dict[str, Any] = {"epochs": epochs, "patience": _MANY_CHECKS}
    content: dict[str, Any] = {"archive": "sample"}
    if like is not None:
        config = load_config(like)
        content = yaml.safe_load(like.read_text(encoding="utf-8")) or {}
        training = {**(content.get("training") or {}), **training, "trackers": []}
        training.pop("track", None)  # the former name of `trackers`
        copied = folder / "data" / config.persona.name
        copied.parent.mkdir()
        copied.symlink_to(config.data_dir.resolve(), target_is_directory=True)
        content |= {"data": "data", "adapters": "adapters"}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({**content, "training": training}, allow_unicode=True), encoding="utf-8")
    return path


def _doppel(command: str, config: Path, *options: str) -> dict[str, Any]:
    arguments = [sys.executable, "-m", "doppel", command, "--config", str(config), "--json", *options]
    done = subprocess.run(arguments, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


if __name__ == "__main__":
    sys.exit(main())
