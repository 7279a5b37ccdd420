"""Compares the forecast of `doppel train --plan` with the training that follows it.

    python benchmarks/plan.py [--epochs 0.1] [--config config.yaml] [--quick] [--json]

Forecast and training run one after the other, each in a process of its own, on the bundled base and the sample persona,
or on the data set of a configuration (its data set and adapters are not changed). It is a real training, with scoring,
validations, samples, checkpoints and report; only patience is raised, as the forecast assumes that a training does not
stop early. Nothing else should run on the machine meanwhile.

- `seconds` and `memory` are actual values divided by the forecast. **The goal: 0.7 to 1.3 each.**
- `parts` has the same ratio for every part that takes at least two seconds.

Prints one JSON object last. The exit code is 1 if a goal was missed.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests/ and benchmarks/ are not installed

from benchmarks.doppel_command import run_doppel, write_config
from doppel.config import load_config
from doppel.models.base import prepare_base

MIN_RATIO, MAX_RATIO = 0.7, 1.3
_MIN_PART_SECONDS = 2.0
_NEVER_STOP_EARLY = 10_000


def main() -> int:
    """Runs forecast and training, and compares them; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=float, default=0.1, help="length of the training")
    parser.add_argument("--config", type=Path, help="a configuration whose data set is built")
    parser.add_argument("--quick", action="store_true", help="a training of a fiftieth of an epoch")
    parser.add_argument("--json", action="store_true", help="has no effect: the last line is always the JSON object")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = _make_config(Path(folder), arguments.config, 0.02 if arguments.quick else arguments.epochs)
        prepare_base(
            load_config(config).model, lambda line: print(line, file=sys.stderr)
        )  # convert the base once, outside the measurement
        if arguments.config is None:
            run_doppel("build", config)
        forecast = run_doppel("train", config, "--plan")
        actual = run_doppel("train", config)
    report = compare(forecast, actual)
    print(json.dumps(report))
    return 0 if all(check["ok"] for check in report["checks"]) else 1


def compare(forecast: dict[str, Any], actual: dict[str, Any]) -> dict[str, Any]:
    """The ratios of actual values to the forecast, from the JSON results of the two commands."""
    ratios = {
        "seconds": actual["seconds"] / forecast["seconds"],
        "memory": actual["peak_memory_bytes"] / forecast["peak_memory_bytes"],
    }
    parts = {
        name: round(actual["parts"][name] / seconds, 3)
        for name, seconds in forecast["parts"].items()
        if seconds > 0 and max(seconds, actual["parts"][name]) >= _MIN_PART_SECONDS
    }
    return {
        **{name: round(ratio, 3) for name, ratio in ratios.items()},
        "checks": [
            {
                "name": f"{name}: actual over forecast",
                "value": round(ratio, 3),
                "goal": f"{MIN_RATIO} to {MAX_RATIO}",
                "ok": MIN_RATIO <= ratio <= MAX_RATIO,
            }
            for name, ratio in ratios.items()
        ],
        "parts": parts,
        "forecast": {"seconds": forecast["seconds"], "memory_bytes": forecast["peak_memory_bytes"]},
        "actual": {"seconds": actual["seconds"], "memory_bytes": actual["peak_memory_bytes"]},
        "steps": [forecast["plan"]["steps"], actual["plan"]["steps"]],
        "tokens_per_second": [round(forecast["plan"]["tokens_per_second"], 1), actual["tokens_per_second"]],
    }


def _make_config(folder: Path, original: Path | None, epochs: float) -> Path:
    """A configuration in `folder` that reads the data set of another one, if given, and writes only into `folder`."""
    training: dict[str, Any] = {"epochs": epochs, "patience": _NEVER_STOP_EARLY}
    content: dict[str, Any] = {"archive": "sample"}
    if original is not None:
        config = load_config(original)
        content = yaml.safe_load(original.read_text(encoding="utf-8")) or {}
        training = {**(content.get("training") or {}), **training, "trackers": []}
        training.pop("track", None)  # the former name of `trackers`
        data_dir = folder / "data" / config.persona.name
        data_dir.parent.mkdir()
        data_dir.symlink_to(config.data_dir.resolve(), target_is_directory=True)
        content |= {"data": "data", "adapters": "adapters"}
    return write_config(folder, {**content, "training": training})


if __name__ == "__main__":
    sys.exit(main())
