"""Training speed on a GPU as a user sees it: random weights in the shapes of real bases, short chats end to end.

    python benchmarks/train_gpu.py [--quick] [--shape llama-3-8b] [--device cuda]

The sessions are 60 to 500 random tokens long, four tenths of them supervised, about as in real chats. Everything is as
`doppel train` chooses it: micro-batches by free memory, the head over the words that occur, fused kernels if
liger-kernel is installed (`pip install 'doppel[gpu]'`), steps of 16,384 tokens; the LoRA has rank 32. Each timing is a
whole optimizer step; medians are reported. `peak_share` is the share of the GPU's published rate in bfloat16, or, for
a GPU that is not in the list, of a large matrix product's. `--device cpu --shape tiny` only shows that the script
works. Prints one JSON object last; without a CUDA device its checks are skipped.
"""

import argparse
import json
import random
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedConfig, Qwen3Config

from doppel.models.known_bases import matrix_rate
from training.lora.cpu_kernels.install import accelerate
from training.lora.examples import Example, collate, micro_batches
from training.lora.gpu_kernels import use_fused_kernels
from training.lora.memory import fit_batch
from training.lora.model import add_lora, token_losses
from training.lora.optimizer import MasterAdamW
from training.lora.reduced_head import reduce_head
from training.run.speed import DeviceTimer, compute_cost

SHAPES: dict[str, PreTrainedConfig] = {
    "llama-3-8b": LlamaConfig(
        vocab_size=128_256,
        hidden_size=4096,
        intermediate_size=14_336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=8192,
    ),
    "qwen3-4b": Qwen3Config(
        vocab_size=151_936,
        hidden_size=2560,
        intermediate_size=9728,
        num_hidden_layers=36,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
    ),
    "qwen3-8b": Qwen3Config(
        vocab_size=151_936,
        hidden_size=4096,
        intermediate_size=12_288,
        num_hidden_layers=36,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=8192,
    ),
    "tiny": LlamaConfig(
        vocab_size=1000, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4
    ),
}
GOALS = {"llama-3-8b": 18_000}
"""Tokens a second on one H100."""
PEAK_SHARE = 0.4
"""Goal for bases of 4 billion parameters and more."""
STEP_TOKENS = 16_384
RANK = 32
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12, "3090": 71e12}
"""Published dense bfloat16 rates by a part of the GPU's name."""


def main() -> None:
    """Measures every chosen shape and prints the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three steps instead of ten")
    parser.add_argument("--json", action="store_true", help="has no effect: the last line is always the JSON object")
    parser.add_argument("--shape", choices=SHAPES, action="append")
    parser.add_argument("--device", default="cuda")
    arguments = parser.parse_args()
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        print("no CUDA device here; the checks are skipped", file=sys.stderr)
        print(json.dumps({"device": None, "torch": torch.__version__, "figures": {}, "checks": []}))
        return
    shapes = arguments.shape or ["qwen3-4b", "llama-3-8b", "qwen3-8b"]
    figures = {shape: _measure(shape, arguments.device, 3 if arguments.quick else 10) for shape in shapes}
    checks = [
        *((shape, "tokens_per_second", GOALS[shape]) for shape in shapes if shape in GOALS),
        *((shape, "peak_share", PEAK_SHARE) for shape in shapes if shape != "tiny"),
    ]
    report = {
        "device": torch.cuda.get_device_name() if arguments.device.startswith("cuda") else "cpu",
        "torch": torch.__version__,
        "figures": figures,
        "checks": [
            {
                "name": f"{shape}, {figure.replace('_', ' ')}",
                "value": round(figures[shape][figure], 3),
                "goal": f">= {goal}",
                "ok": figures[shape][figure] >= goal,
            }
            for shape, figure, goal in checks
        ],
    }
    print(json.dumps(report))


def _measure(shape: str, device: str, steps: int) -> dict[str, float]:
    torch.manual_seed(0)
    with torch.device(device):
        base = AutoModelForCausalLM.from_config(SHAPES[shape], dtype=torch.bfloat16, attn_implementation="sdpa")
    use_fused_kernels(base)
    model = add_lora(base, RANK, 32).train()
    accelerate(model)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = MasterAdamW(trained, lr=1e-4)
    timer = DeviceTimer(device, time.perf_counter)
    planned = [_step_examples(SHAPES[shape].vocab_size, seed=number) for number in range(steps + 2)]
    everything = [example for step in planned for example in step]
    head = reduce_head(model, everything, seed=0)
    batch = fit_batch(model, everything, head)
    seconds = []
    for step in planned:  # the first two are warm-up: they select kernels and allocate memory
        supervised = sum(example.supervised for example in step)
        groups = micro_batches(step, batch.tokens)

        def train(groups: list[list[Example]] = groups, supervised: int = supervised) -> None:
            for group in groups:
                losses, _ = token_losses(model, collate(group), head)
                (losses.sum() / supervised).backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()

        seconds.append(timer.time(train) / sum(len(example.ids) for example in step))
    on_gpu = device.startswith("cuda")
    speed = 1 / statistics.median(seconds[2:])
    operations = 4 * compute_cost(model, head).of(everything) / sum(len(example.ids) for example in everything)
    name = torch.cuda.get_device_name() if on_gpu else ""
    peak = next((rate for part, rate in PEAKS.items() if part in name), None) or matrix_rate(device, torch.bfloat16)
    return {
        "tokens_per_second": speed,
        "peak_share": speed * operations / peak,
        "tokens_per_batch": batch.tokens,
        "checkpointing": batch.checkpointing,
        "peak_memory_bytes": torch.cuda.max_memory_allocated() if on_gpu else 0,
    }


def _step_examples(vocabulary: int, seed: int) -> list[Example]:
    """Made-up sessions of a step: `STEP_TOKENS` tokens or a little more."""
    rng = random.Random(seed)
    examples: list[Example] = []
    while sum(len(example.ids) for example in examples) < STEP_TOKENS:
        length = rng.randint(60, 500)
        ids = rng.choices(range(vocabulary), k=length)
        examples.append(Example(ids, rng.choices((0, 1), (6, 4), k=length), length))
    return examples


if __name__ == "__main__":
    main()
