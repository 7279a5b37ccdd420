"""Training speed on this machine's CPU against TRL, on the same base, LoRA, and messages.

    pip install --constraint constraints.txt -e '.[bench]'
    python benchmarks/train.py [--quick]

Three contenders, each in a process of its own, taking turns, three times; medians are reported:

- `doppel`: what `doppel train` does, without validations, checkpoints and samples: pieces of up to 1,024 tokens.
- `trl_packed`: TRL's SFTTrainer on the same token sequences and labels, packed into rows of the same length.
- `trl_pairs`: SFTTrainer as it is usually used: each of the owner's turns is an example, with the turn it answers as
  the prompt, padded, loss on the answer.

All three use the bundled base, in the dtype that doppel chooses for this machine (a CPU without bfloat16 units is many
times slower in bfloat16), a LoRA of rank 16 on all linear layers without dropout, and the sample persona's messages.
Whole optimizer steps are timed, after one for warm-up. `seconds_per_1000` is the time for an epoch of 1,000 of the
owner's messages: seconds per token, times the tokens that the contender feeds for them. `gemm_share` is the speed
relative to a single matrix product of typical shape, measured in the same minute, counting only the multiplications
that a step with the whole head cannot avoid (no gradient of frozen weights; the head at supervised positions only);
doppel avoids some of these too, as its head has the words that occur and a sample of the others.
Prints one JSON object last.
"""

import argparse
import contextlib
import json
import random
import statistics
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests/ and benchmarks/ are not installed

import msgspec
import torch

from benchmarks.doppel_command import run_doppel, run_process, write_config
from doppel.config import Config, load_config
from doppel.models.base import choose_dtype
from doppel.reports.metrics import check_goal
from doppel.system.memory import peak_memory
from doppel.transcript import render
from training.lora.examples import Example, collate, plan_steps
from training.lora.model import token_losses
from training.lora.optimizer import MasterAdamW
from training.lora.packing import tokens_per_batch
from training.lora.reduced_head import reduce_head
from training.run.setup import TrainingSetup, build_model, load_base, load_setup
from training.run.speed import compute_cost

RANK, ALPHA, PER_STEP, LEARNING_RATE = 16, 32, 16, 5e-4
WARM_UP = 1
CONTENDERS = ("doppel", "trl_packed", "trl_pairs")
GEMM = (2048, 640, 2048)


def main() -> None:
    """Runs the comparison, or, inside it, one contender."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one repetition with few steps")
    parser.add_argument("--json", action="store_true", help="has no effect: the last line is always the JSON object")
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--config", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        print(json.dumps(_run(arguments.contender, load_config(arguments.config), steps=2 if arguments.quick else 3)))
        return
    with tempfile.TemporaryDirectory() as folder:
        config = write_config(Path(folder), {"archive": "sample"})
        run_doppel("build", config)
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
        for repetition in range(1 if arguments.quick else 3):
            for name in CONTENDERS:
                command = [sys.executable, __file__, "--contender", name, "--config", str(config)]
                command += ["--quick"] * arguments.quick
                runs[name].append(run_process(command))
                print(repetition + 1, name, runs[name][-1], file=sys.stderr, flush=True)
    print(json.dumps(_report(runs)))


def _report(runs: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    figures = {
        name: {key: round(statistics.median(run[key] for run in results), 4) for key in results[0]}
        for name, results in runs.items()
    }
    ours, packed, pairs = (figures[name] for name in CONTENDERS)
    ratios = {
        "speed_against_trl_packed": ours["tokens_per_second"] / packed["tokens_per_second"],
        "speed_against_trl_pairs": ours["tokens_per_second"] / pairs["tokens_per_second"],
        "epoch_against_trl_packed": packed["seconds_per_1000"] / ours["seconds_per_1000"],
        "epoch_against_trl_pairs": pairs["seconds_per_1000"] / ours["seconds_per_1000"],
        "memory_against_trl_packed": ours["peak_memory_bytes"] / packed["peak_memory_bytes"],
    }
    checks = [
        ("tokens per second, times those of TRL packed", ratios["speed_against_trl_packed"], ">= 8"),
        ("tokens per second, times those of TRL on pairs", ratios["speed_against_trl_pairs"], ">= 7"),
        ("epoch of the same messages, times faster than TRL packed", ratios["epoch_against_trl_packed"], ">= 6"),
        ("epoch of the same messages, times faster than TRL on pairs", ratios["epoch_against_trl_pairs"], ">= 10"),
        ("peak memory, share of TRL packed", ratios["memory_against_trl_packed"], "< 1"),
        ("tokens per second", ours["tokens_per_second"], ">= 150"),
    ]
    return {
        "device": "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "figures": figures,
        "ratios": {name: round(value, 3) for name, value in ratios.items()},
        "checks": [msgspec.structs.asdict(check_goal(name, value, goal)) for name, value, goal in checks],
    }


def _run(contender: str, config: Config, steps: int) -> dict[str, float]:
    setup = load_setup(config, None)
    dtype = choose_dtype(config.model.dtype, "cpu")
    base = load_base(setup) if contender == "doppel" else _plain_base(setup, dtype)
    cost = compute_cost(base)
    run = {"doppel": _doppel, "trl_packed": _trl_packed, "trl_pairs": _trl_pairs}[contender]
    all_examples, timed, seconds = run(config, setup, base, steps)
    peak = _gemm_rate(dtype)  # in the same minute: the machine is not always equally fast
    tokens, supervised = (sum(count(example) for example in timed) for count in (_tokens, _supervised))
    operations = 2 * 2 * cost.of(timed)  # a multiplication and an addition, forward and back to the input
    return {
        "tokens_per_second": tokens / seconds,
        "supervised_per_second": supervised / seconds,
        "seconds_per_1000": seconds / tokens * sum(map(_tokens, all_examples)) / setup.messages * 1000,
        "tokens_per_1000": sum(map(_tokens, all_examples)) / setup.messages * 1000,
        "peak_memory_bytes": peak_memory("cpu"),
        "gemm_share": operations / seconds / peak,
        "gemm_gflops": peak / 1e9,
        "bits_of_a_weight": dtype.itemsize * 8,
    }


def _doppel(config: Config, setup: TrainingSetup, base: Any, steps: int) -> tuple[list[Example], list[Example], float]:
    model = build_model(setup, base, RANK, ALPHA)
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = MasterAdamW(trained, lr=LEARNING_RATE)
    head = reduce_head(model, setup.train, seed=0)
    planned = list(islice(plan_steps(setup.train, PER_STEP, tokens_per_batch(model)), WARM_UP + steps))
    seconds = 0.0
    for number, step in enumerate(planned):
        started = time.perf_counter()
        supervised = sum(example.supervised for group in step for example in group)
        for group in step:
            losses, _ = token_losses(model, collate(group), head)
            (losses.sum() / supervised).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        seconds += (time.perf_counter() - started) * (number >= WARM_UP)
    return setup.train, [example for step in planned[WARM_UP:] for group in step for example in group], seconds


def _plain_base(setup: TrainingSetup, dtype: torch.dtype) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(setup.base_folder, dtype=dtype)


def _trl_packed(
    config: Config, setup: TrainingSetup, base: Any, steps: int
) -> tuple[list[Example], list[Example], float]:
    length = max(_tokens(example) for example in setup.train)
    return _trl(setup.train, base, steps, setup, packing=True, max_length=length)


def _trl_pairs(
    config: Config, setup: TrainingSetup, base: Any, steps: int
) -> tuple[list[Example], list[Example], float]:
    """Pairs of question and answer as text; the answer ends with the base's end token."""
    tokenizer = setup.transcript.tokenizer
    pairs = []
    for session in setup.sessions["train"]:
        for number, turn in enumerate(session.turns):
            if turn.is_mine:
                before = session.turns[number - 1 : number] if number else []
                prompt = tokenizer(render(session.header, before) + "\n\nme:")["input_ids"]
                answer = [*tokenizer(" " + "\n ".join(turn.bubbles), add_special_tokens=False)["input_ids"]]
                answer.append(tokenizer.eos_token_id)
                pairs.append(Example(prompt + answer, [0] * len(prompt) + [1] * len(answer), 1))
    return _trl(pairs, base, steps, setup, packing=False, max_length=1024)


def _trl(
    items: list[Example], base: Any, steps: int, setup: TrainingSetup, *, packing: bool, max_length: int
) -> tuple[list[Example], list[Example], float]:
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    chosen = list(items)
    random.Random(0).shuffle(chosen)
    per_batch, accumulation = 4, 4
    example_count = (WARM_UP + steps) * per_batch * accumulation
    chosen = chosen[: example_count * (4 if packing else 1)]  # a packed row holds several
    rows = {
        "input_ids": [example.ids for example in chosen],
        "labels": [
            [token if role else -100 for token, role in zip(example.ids, example.loss_mask, strict=True)]
            for example in chosen
        ],
    }
    clock: dict[str, float] = {"seconds": 0.0, "tokens": 0.0, "supervised": 0.0}

    class StepTimer(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            clock["began"] = time.perf_counter()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step > WARM_UP:
                clock["seconds"] += time.perf_counter() - clock["began"]

    class CountingTrainer(SFTTrainer):
        def compute_loss(self, model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
            if self.state.global_step >= WARM_UP:
                mask = inputs.get("attention_mask")
                clock["tokens"] += float(inputs["input_ids"].numel() if mask is None else mask.sum())
                clock["supervised"] += float((inputs["labels"] != -100).sum())
            return super().compute_loss(model, inputs, *rest, **named)

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        trainer = CountingTrainer(
            model=base,
            args=SFTConfig(
                output_dir=folder,
                max_length=max_length,
                packing=packing,
                per_device_train_batch_size=1 if packing else per_batch,
                gradient_accumulation_steps=accumulation,
                max_steps=WARM_UP + steps,
                learning_rate=LEARNING_RATE,
                bf16=base.dtype == torch.bfloat16,
                use_cpu=True,
                gradient_checkpointing=False,
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
                dataloader_pin_memory=False,
                pad_token=setup.transcript.tokenizer.pad_token,
            ),
            train_dataset=Dataset.from_dict(rows),
            processing_class=setup.transcript.tokenizer,
            peft_config=LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules="all-linear"),
            callbacks=[StepTimer()],
        )
        trainer.train()
    tokens, supervised = int(clock["tokens"]), int(clock["supervised"])
    timed = [Example([0] * tokens, [0] * (tokens - supervised) + [1] * supervised, 1)]
    return items, timed, clock["seconds"]


def _tokens(example: Example) -> int:
    return len(example.ids)


def _supervised(example: Example) -> int:
    return example.supervised


def _gemm_rate(dtype: torch.dtype) -> float:
    """Floating-point operations a second of one matrix product, the best of ten."""
    rows, inner, columns = GEMM
    left, right = torch.ones(rows, inner, dtype=dtype), torch.ones(inner, columns, dtype=dtype)
    best = float("inf")
    for _ in range(10):
        started = time.perf_counter()
        torch.mm(left, right)
        best = min(best, time.perf_counter() - started)
    return 2 * rows * inner * columns / best


if __name__ == "__main__":
    main()
