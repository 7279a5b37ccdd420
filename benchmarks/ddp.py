"""Training speed of two processes on one CPU: is splitting a step between them faster than one process?

    python benchmarks/ddp.py [--quick] [--base bundled]

Three contenders, each in a fresh process, taking turns, three times; medians are reported:

- `one_thread`: one process with one thread.
- `two_threads`: one process with two.
- `two_processes`: two processes with one thread each, started by torchrun, their gradients summed over gloo.

All train the same steps on the sample persona's messages with the trainer of `doppel train`. Whole optimizer steps are
timed, after one for warm-up. `loss_apart` is the largest relative difference between the losses of two processes and of
one; a test holds it to 1e-3 in float32. Prints one JSON object last.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests/ and benchmarks/ are not installed

import torch

from benchmarks.doppel_command import run_doppel, run_process, write_config
from doppel.config import Config, load_config
from doppel.terminal import silence
from training.lora.distributed import join_processes
from training.lora.examples import plan_steps
from training.lora.packing import tokens_per_batch
from training.lora.threads import use_threads
from training.run.metrics import MetricsRow
from training.run.plan import TrainingPlan
from training.run.schedule import Schedule
from training.run.setup import build_model, load_base, load_setup
from training.run.timings import PhaseTimer
from training.run.trainer import PersonaTrainer

RANK, ALPHA, PER_STEP, WARM_UP = 16, 32.0, 16, 1
CONTENDERS = {"one_thread": (1, 1), "two_threads": (1, 2), "two_processes": (2, 1)}
"""Processes, and threads of each."""


def main() -> None:
    """Runs the comparison, or, inside it, one process of a contender."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one repetition with few steps")
    parser.add_argument("--base", default="bundled", help="base model, as in `model.base`")
    parser.add_argument("--config", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    steps = WARM_UP + (2 if arguments.quick else 5)
    if arguments.config:
        _worker(load_config(arguments.config), steps)
        return
    with tempfile.TemporaryDirectory() as folder:
        config = write_config(Path(folder), {"archive": "sample", "model": {"base": arguments.base}})
        run_doppel("build", config)
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in CONTENDERS}
        for repetition in range(1 if arguments.quick else 3):
            for name in CONTENDERS:
                runs[name].append(_run(name, config, quick=arguments.quick))
                print(repetition + 1, name, runs[name][-1], file=sys.stderr, flush=True)
    print(json.dumps(_report(runs)))


def _run(contender: str, config: Path, *, quick: bool) -> dict[str, Any]:
    processes, threads = CONTENDERS[contender]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(launcher if processes > 1 else []), __file__, "--config", str(config)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    return run_process(command + ["--quick"] * quick, environment=environment)


def _report(runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    speeds = {name: statistics.median(run["tokens_per_second"] for run in results) for name, results in runs.items()}
    one_process, two_processes = (runs[name][0]["losses"] for name in ("one_thread", "two_processes"))
    ratios = {name: speeds["two_processes"] / speeds[name] for name in ("one_thread", "two_threads")}
    return {
        "device": "cpu",
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "tokens_per_second": {name: round(speed, 1) for name, speed in speeds.items()},
        "loss_apart": max(abs(a / b - 1) for a, b in zip(one_process, two_processes, strict=True)),
        "checks": [
            {
                "name": f"two processes of one thread, times the speed of {name.replace('_', ' ')} in one process",
                "value": round(ratio, 3),
                "goal": ">= 1.0",
                "ok": ratio >= 1.0,
            }
            for name, ratio in ratios.items()
        ],
    }


def _worker(config: Config, steps: int) -> None:
    with join_processes("cpu") as processes:
        if not processes.is_main:
            silence()
        with processes.main_first():
            setup = load_setup(config, None, processes)
        base = load_base(setup)
        use_threads(int(os.environ["OMP_NUM_THREADS"]))
        model = build_model(setup, base, RANK, ALPHA)
        size = tokens_per_batch(model)
        rows: list[MetricsRow] = []
        trainer = PersonaTrainer(
            model,
            _plan(steps, size, model.dtype),
            Schedule(peak=5e-4, steps=steps),
            head=None,
            steps=plan_steps(setup.train, PER_STEP, size),
            held_out=[],
            folder=None,
            listeners=[rows.append],
            timer=PhaseTimer(),
            processes=processes,
        )
        trainer.train()
        if processes.is_main:
            timed = rows[WARM_UP:]
            seconds = timed[-1].seconds - rows[WARM_UP - 1].seconds
            tokens = timed[-1].tokens - rows[WARM_UP - 1].tokens
            print(json.dumps({"tokens_per_second": tokens / seconds, "losses": [row.loss for row in rows]}))


def _plan(steps: int, size: int, dtype: torch.dtype) -> TrainingPlan:
    return TrainingPlan(
        rank=RANK,
        alpha=ALPHA,
        learning_rate=5e-4,
        sessions_per_step=PER_STEP,
        tokens_per_batch=size,
        max_length=512,
        steps=steps,
        steps_between_checks=steps + 1,  # no check
        check_tokens=0,
        patience=1,
        seed=0,
        device="cpu",
        dtype=str(dtype).removeprefix("torch."),
        tokens_per_second=0.0,
        epochs=0.0,
    )


if __name__ == "__main__":
    main()
