"""How fast replies come: this engine against plain `generate`, for one chat and for many at once.

    python benchmarks/serve.py [--quick] [--json]

The bundled base in its usual dtype with a random LoRA of rank 16 on all linear layers, 64 new tokens a reply, sampled
as by default. Everything is measured in one process on the same weights, the two sides taking turns; medians. Nothing
else should run on the machine meanwhile.

- `engine.N`, `generate.N`: N chats that ask at the same moment. `generate` gets them as one padded batch, which no
  server gets. `tokens_per_second` of all together; `first_token` is the median chat's wait, in seconds.
- `second_turn`: the wait for the first token of an answer to ten words after 1,000 tokens of history, with what the
  first turn left in the engine (`reuse`) and without (`afresh`).
- `switch`: seconds from a new adapter's folder to its first token, while four chats go on with the old one.
- `memory`: bytes an idle chat of 1,000 tokens and one more adapter hold.
- `load`: many chats send messages at random moments, more than can be served at once at times. Every one must be
  answered or refused; half and 95 % of the answers were complete within so many seconds; `growth` is how much memory
  the second half of it added.
- `--quick`: 16 new tokens, once, a small load; its checks are shown all the same, and mean little.

Goals (two cores): alone at least as fast as `generate`; 8 chats together at least 4 times one; a second turn in at
most 0.3 of the time afresh; a switch in at most a second, no reply failing. Prints one JSON object last, and ends
with 1 if a goal was missed.
"""

import argparse
import asyncio
import json
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests/ is not installed

import msgspec
import torch
from peft import PeftModel
from transformers.generation.streamers import BaseStreamer

from doppel.adapter import Manifest, publishing
from doppel.base import choose_device, choose_dtype, identify, load_model, load_tokenizer, prepare_base
from doppel.config import Model
from doppel.engine import EngineError, Request, Sampling
from doppel.engine.transformers import TransformersEngine
from doppel.terminal import say
from doppel.transcript import ME, Header, Transcript, Turn
from tests.tiny import save_lora

CHATS = (1, 4, 8, 16)
_OPENINGS = (
    "hey, how was your day?",
    "did you see the game last night, it was something else",
    "what are you having for dinner",
    "are you coming on saturday? we could take the early train, and be back before it gets dark",
    "my cat threw up on the carpet again",
    "so what did she say",
    "do you know a good book",
    "I can't believe it's already november",
)
_HISTORY = 1_000
_ADAPTERS = 2


def main() -> int:
    """Measures and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short replies, once")
    parser.add_argument("--json", action="store_true", help="as ever: the last line is the JSON object")
    quick = parser.parse_args().quick
    base = prepare_base(Model(), say)
    with tempfile.TemporaryDirectory() as folder:
        adapters = [_publish(base, Path(folder), seed) for seed in range(_ADAPTERS)]
        figures = asyncio.run(_measure(Bench(base, adapters, tokens=16 if quick else 64), quick))
    result = {"figures": figures, "checks": _checks(figures)}
    print(json.dumps(result))
    return 0 if all(check["ok"] for check in result["checks"]) else 1


def _publish(base: Path, folder: Path, seed: int) -> Path:
    place = folder / str(seed)
    with publishing(place, Manifest(persona="bench", base=identify(base, "bundled"))) as staging:
        save_lora(base, staging, seed=seed, rank=16)
    return place / (place / "current").read_text(encoding="ascii").strip()


class Bench:
    """Two engines, one of which keeps nothing between turns, and the model as PEFT loads it.

    Args:
        base: the prepared base.
        adapters: folders of published adapters; the first is used unless told otherwise.
        tokens: of each reply.
    """

    def __init__(self, base: Path, adapters: Sequence[Path], tokens: int) -> None:
        self.base = base
        self.adapters = adapters
        self.tokens = tokens
        self.device = choose_device("auto")
        self.dtype = choose_dtype("auto", self.device)
        tokenizer = load_tokenizer(base)
        self.transcript = Transcript(tokenizer)
        identity = identify(base, "bundled")
        self.engine = TransformersEngine(self._model(), tokenizer, identity)
        self.forgetful = TransformersEngine(self._model(), tokenizer, identity, keep_bytes=0)
        self.plain = PeftModel.from_pretrained(self._model(), adapters[0]).eval()

    def prompts(self, count: int, seed: int) -> list[list[int]]:
        """Prompts of so many chats, none of which was asked before."""
        draw = random.Random(seed)
        return [
            self.transcript.prompt(Header(kind="dm", language="en"), self._turns(draw, 1 + place % 5))
            for place in range(count)
        ]

    def history(self, seed: int) -> list[Turn]:
        """Turns of about 1,000 tokens, the last of them somebody else's."""
        draw = random.Random(seed)
        turns = self._turns(draw, 1)
        while len(self.transcript.prompt(Header(kind="dm"), turns)) < _HISTORY:
            turns = [*turns, *self._turns(draw, 2)[::-1]]
        return turns

    def request(self, prompt: list[int], adapter: str, seed: int, tokens: int | None = None) -> Request:
        """A reply of fixed length."""
        sampling = Sampling(max_tokens=tokens or self.tokens, seed=seed)
        return Request(prompt=prompt, sampling=sampling, stop_ids=frozenset(), adapter=adapter, deadline_seconds=600)

    def _turns(self, draw: random.Random, count: int) -> list[Turn]:
        said = [f"{draw.choice(_OPENINGS)} {draw.randrange(1000)}" for _ in range(count)]
        return [Turn("Tom" if (count - place) % 2 else ME, (text,)) for place, text in enumerate(said)]

    def _model(self) -> Any:
        return load_model(self.base, self.dtype, self.device)


async def _measure(bench: Bench, quick: bool) -> dict[str, dict[str, float]]:
    name = await bench.engine.load_adapter(bench.adapters[0])
    assert await bench.forgetful.load_adapter(bench.adapters[0]) == name
    runs: dict[str, list[dict[str, float]]] = {}
    for number in range(1 if quick else 5):
        for chats in CHATS:
            prompts = bench.prompts(chats, 100 * number + chats)
            runs.setdefault(f"engine.{chats}", []).append(await _together(bench, bench.engine, name, prompts))
            runs.setdefault(f"generate.{chats}", []).append(_generated(bench, prompts))
        runs.setdefault("second_turn", []).append(await _second_turn(bench, name, number))
        runs.setdefault("switch", []).append(await _switch(bench, name, number))
    figures = {what: _median(results) for what, results in runs.items()}
    figures["memory"] = await _memory(bench, name)
    figures["load"] = await _load(bench, name, *((20, 60) if quick else (200, 2_000)))
    figures["about"] = {"threads": torch.get_num_threads(), "new_tokens": bench.tokens}
    bench.engine.close()
    bench.forgetful.close()
    return {what: {key: round(value, 4) for key, value in values.items()} for what, values in figures.items()}


async def _together(
    bench: Bench, engine: TransformersEngine, name: str, prompts: Sequence[list[int]]
) -> dict[str, float]:
    """Tokens a second of chats that ask at the same moment, and the median wait for the first."""
    began = time.perf_counter()

    async def wait(place: int, prompt: list[int]) -> float:
        async with aclosing(engine.generate(bench.request(prompt, name, place))) as stream:
            await anext(stream)
            first = time.perf_counter() - began
            async for _ in stream:
                pass
        return first

    waits = await asyncio.gather(*(wait(place, prompt) for place, prompt in enumerate(prompts)))
    seconds = time.perf_counter() - began
    return {
        "tokens_per_second": len(prompts) * bench.tokens / seconds,
        "first_token": statistics.median(waits),
    }


class _FirstToken(BaseStreamer):
    """When the first new tokens came."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: torch.Tensor) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        """Nothing is left to tell."""


def _generated(bench: Bench, prompts: Sequence[list[int]]) -> dict[str, float]:
    """The same of `generate`, given the chats as one batch."""
    began = time.perf_counter()
    longest = max(map(len, prompts))
    rows = [[0] * (longest - len(prompt)) + prompt for prompt in prompts]
    seen = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    streamer = _FirstToken()
    sampling = Sampling()
    with torch.inference_mode():
        bench.plain.generate(
            input_ids=torch.tensor(rows, device=bench.device),
            attention_mask=torch.tensor(seen, device=bench.device),
            do_sample=True,
            temperature=sampling.temperature,
            top_k=sampling.top_k,
            top_p=sampling.top_p,
            min_p=sampling.min_p,
            max_new_tokens=bench.tokens,
            eos_token_id=-1,
            pad_token_id=0,
            streamer=streamer,
        )
    seconds = time.perf_counter() - began
    return {
        "tokens_per_second": len(prompts) * bench.tokens / seconds,
        "first_token": streamer.times[1] - began,  # the prompt is put first
    }


async def _second_turn(bench: Bench, name: str, number: int) -> dict[str, float]:
    """Seconds to the first token of a second turn, with and without what the first left."""
    turns = bench.history(7_000 + number)
    waits = {}
    for what, engine in (("reuse", bench.engine), ("afresh", bench.forgetful)):
        header = Header(kind="dm")
        prompt = bench.transcript.prompt(header, turns)
        async with aclosing(engine.generate(bench.request(prompt, name, number))) as stream:
            reply = [token.id async for token in stream]
        bubbles = bench.transcript.reply(reply) or ["ok"]
        heard = Turn("Tom", ("and what did you say when they asked you about it",))
        prompt = bench.transcript.prompt(header, [*turns, Turn(ME, tuple(bubbles)), heard])
        began = time.perf_counter()
        async with aclosing(engine.generate(bench.request(prompt, name, number, 1))) as stream:
            await anext(stream)
        waits[what] = time.perf_counter() - began
    return {**waits, "share": waits["reuse"] / waits["afresh"]}


async def _switch(bench: Bench, name: str, number: int) -> dict[str, float]:
    """Seconds to the first token of a new adapter, beside four chats of the old one, and how many of them failed."""
    running = [
        asyncio.create_task(_whole(bench, bench.request(prompt, name, place)))
        for place, prompt in enumerate(bench.prompts(4, 9_000 + number))
    ]
    await asyncio.sleep(0.2)
    began = time.perf_counter()
    new = await bench.engine.load_adapter(bench.adapters[1])
    loaded = time.perf_counter() - began
    async with aclosing(bench.engine.generate(bench.request(bench.prompts(1, 9_500)[0], new, number))) as stream:
        await anext(stream)
    seconds = time.perf_counter() - began
    complete = await asyncio.gather(*running)
    await bench.engine.drop_adapter(new)
    return {"load": loaded, "first_token": seconds, "failed": float(complete.count(False))}


async def _whole(bench: Bench, request: Request) -> bool:
    """Whether a reply came, all of it."""
    try:
        async with aclosing(bench.engine.generate(request)) as stream:
            return len([token async for token in stream]) == request.sampling.max_tokens
    except EngineError:
        return False


async def _memory(bench: Bench, name: str) -> dict[str, float]:
    """Bytes that an idle chat and one more adapter hold."""
    before = bench.engine.load().kept_bytes
    prompt = bench.transcript.prompt(Header(kind="dm"), bench.history(8_000))
    await _whole(bench, bench.request(prompt, name, 0, 1))
    weights = (bench.adapters[1] / "adapter_model.safetensors").stat().st_size
    return {"idle_chat": float(bench.engine.load().kept_bytes - before), "adapter_file": float(weights)}


async def _load(bench: Bench, name: str, chats: int, messages: int) -> dict[str, float]:
    """Chats that each send messages one after the other, with random pauses."""
    draw = random.Random(1)
    answered: list[float] = []
    refused = lost = 0
    peaks: list[int] = []

    async def talk(chat: int) -> None:
        nonlocal refused, lost
        for prompt in bench.prompts(messages // chats, chat):
            await asyncio.sleep(draw.expovariate(1.0))
            began = time.perf_counter()
            try:
                request = msgspec.structs.replace(bench.request(prompt, name, chat, 8), deadline_seconds=60)
                async with aclosing(bench.engine.generate(request)) as stream:
                    count = len([token async for token in stream])
            except EngineError:
                refused += 1
                continue
            if count:
                answered.append(time.perf_counter() - began)
            else:
                lost += 1  # its time ran out before it began, which it was told by an empty stream
            if len(answered) in (messages // 2, messages):
                peaks.append(_peak())

    began = time.perf_counter()
    await asyncio.gather(*(talk(chat) for chat in range(chats)))
    seconds = time.perf_counter() - began
    peaks.append(_peak())
    ordered = sorted(answered)
    return {
        "messages": float(messages),
        "answered": float(len(answered)),
        "refused": float(refused),
        "out_of_time": float(lost),
        "p50": ordered[len(ordered) // 2],
        "p95": ordered[len(ordered) * 95 // 100],
        "seconds": seconds,
        "growth": float(peaks[-1] - peaks[0]),
    }


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _median(results: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(result[name] for result in results) for name in results[0]}


def _checks(figures: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    load = figures["load"]
    one = figures["engine.1"]["tokens_per_second"]
    at_least: list[tuple[str, float, float]] = [
        ("one chat over plain generate", one / figures["generate.1"]["tokens_per_second"], 1.0),
        ("8 chats over one", figures["engine.8"]["tokens_per_second"] / one, 4.0),
    ]
    at_most: list[tuple[str, float, float]] = [
        ("a second turn's first token, share of afresh", figures["second_turn"]["share"], 0.3),
        ("seconds to a new adapter's first token", figures["switch"]["first_token"], 1.0),
        ("replies that failed meanwhile", figures["switch"]["failed"], 0),
        (
            "messages neither answered nor told",
            load["messages"] - load["answered"] - load["refused"] - load["out_of_time"],
            0,
        ),
    ]
    tests: list[tuple[str, float, float, Callable[[float, float], bool], str]] = [
        *((*one, float.__ge__, ">=") for one in at_least),
        *((*one, float.__le__, "<=") for one in at_most),
    ]
    return [
        {"name": name, "value": round(value, 3), "goal": f"{sign} {goal:g}", "ok": holds(float(value), float(goal))}
        for name, value, goal, holds, sign in tests
    ]


if __name__ == "__main__":
    sys.exit(main())
