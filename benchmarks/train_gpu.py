"""Training speed on a GPU: randomly initialised Llama-3-8B and Qwen3-8B shapes, short chats end to end, bfloat16.

    python benchmarks/train_gpu.py [--quick] [--shape llama-3-8b] [--device cuda]

The sessions are 60 to 500 random tokens long, four tenths of them supervised, about as in real chats. The LoRA has rank
16 on all linear layers. Each timing is a whole optimizer step of 16,384 tokens; medians are reported. `--device cpu
--shape tiny` only shows that the script works. Prints one JSON object last.
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

from training.lora.examples import Example, collate, micro_batches
from training.lora.model import add_lora, token_losses
from training.lora.optimizer import MasterAdamW
from training.lora.packing import tokens_per_batch
from training.run.speed import DeviceTimer

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
GOAL = 18_000
STEP_TOKENS = 16_384


def main() -> None:
    """Measures every chosen shape and prints the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three steps instead of ten")
    parser.add_argument("--json", action="store_true", help="has no effect: the last line is always the JSON object")
    parser.add_argument("--shape", choices=SHAPES, action="append")
    parser.add_argument("--device", default="cuda")
    arguments = parser.parse_args()
    shapes = arguments.shape or ["llama-3-8b", "qwen3-8b"]
    figures = {shape: _measure(shape, arguments.device, 3 if arguments.quick else 10) for shape in shapes}
    on_gpu = arguments.device.startswith("cuda")
    report = {
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "torch": torch.__version__,
        "figures": figures,
        "checks": [
            {
                "name": f"{shape}, tokens per second",
                "value": round(measured["tokens_per_second"]),
                "goal": f">= {GOAL}",
                "ok": measured["tokens_per_second"] >= GOAL,
            }
            for shape, measured in figures.items()
        ],
    }
    print(json.dumps(report))


def _measure(shape: str, device: str, steps: int) -> dict[str, float]:
    torch.manual_seed(0)
    with torch.device(device):
        base = AutoModelForCausalLM.from_config(SHAPES[shape], dtype=torch.bfloat16, attn_implementation="sdpa")
    model = add_lora(base, 16, 32).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = MasterAdamW(trained, lr=1e-4)
    timer = DeviceTimer(device, time.perf_counter)
    seconds = []
    for number in range(steps + 2):  # the first two are warm-up: they select kernels and allocate memory
        step = _step_examples(SHAPES[shape].vocab_size, seed=number)
        supervised = sum(example.supervised for example in step)
        groups = micro_batches(step, tokens_per_batch(model))

        def train(groups: list[list[Example]] = groups, supervised: int = supervised) -> None:
            for group in groups:
                losses, _ = token_losses(model, collate(group))
                (losses.sum() / supervised).backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()

        seconds.append(timer.time(train) / sum(len(example.ids) for example in step))
    peak = torch.cuda.max_memory_allocated() if device.startswith("cuda") else 0
    return {"tokens_per_second": 1 / statistics.median(seconds[2:]), "peak_memory_bytes": peak}


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
