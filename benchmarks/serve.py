"""How fast replies come: this engine against plain `generate`, llama.cpp and vLLM, for one chat and for many at once.

    python benchmarks/serve.py [--quick] [--rounds N] [--only PART ...] [--vllm COMMAND] [--json]

The bundled base in its usual dtype with a random LoRA of rank 16 on all linear layers, 64 new tokens a reply, sampled
as by default. Everything is measured in one process, all sides in turns; medians. Nothing else should run on the
machine meanwhile. The parts, which may also be measured one by one:

- `speed`: N chats that ask at the same moment, of each side. `tokens_per_second` of all together; `first_token` is the
  median chat's wait, in seconds.
  `engine.N`: our engine `transformers`. `generate.N`: gets the chats as one padded batch, which no server gets.
  `llamacpp.N`: our engine of that name, on the 4-bit file. `raw.N`: llama.cpp with the same parameters without us.
  `vllm.N`: a vLLM, through our engine `openai`; only with `--vllm`.
  `overhead`: of the engine's time with 8 chats, the shares outside the model, and outside the model and the drawing.
- `turns`: the wait for the first token of an answer to ten words after 1,000 tokens of history, with what the first
  turn left in the engine (`reuse`) and without (`afresh`).
- `switch`: seconds from a new adapter's folder to its first token, while four chats go on with the old one.
- `memory`: bytes an idle chat of 1,000 tokens and one more adapter hold, and the whole process.
- `load`: many chats send messages at random moments, more than can be served at once at times. Every one must be
  answered or refused; half and 95 % of the answers were complete within so many seconds. It has a process of its own:
  `resident.P` is what that held after P % of the answers, in bytes, `kept.P` what of it are earlier turns, which are
  bounded, and `growth` what came after the first quarter besides those.
- `--quick`: 16 new tokens, once, a small load; its checks are shown all the same, and mean little.

Goals (two cores): alone at least as fast as `generate`; 8 chats together at least 4 times one; llama.cpp at least 1.8
times transformers, and 0.95 of itself without us; at most 3 % of the time outside model and drawing; a second turn in
at most 0.3 of the time afresh; a switch in at most a second, no reply failing; under load, memory that is flat
within 2 %. Prints one JSON object last, and ends with 1 if a goal was missed.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, aclosing
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests/ and the rivals are not installed

import msgspec
import torch

from benchmarks.chats import Bench
from benchmarks.doppel_command import run_process
from benchmarks.rivals import Generate, RawLlamaCpp, Vllm, figures
from doppel.adapters.lora_file import read_lora
from doppel.adapters.versions import Manifest, publishing
from doppel.config import Config, ModelSettings
from doppel.engine import Engine, EngineError, Request
from doppel.engine.llamacpp.engine import LlamaCppEngine, LlamaCppInstance
from doppel.engine.local import decoding
from doppel.engine.local.engine import TransformersEngine
from doppel.engine.remote.engine import OpenAIEngine
from doppel.models.base import identify, prepare_base
from doppel.terminal import print_status
from doppel.transcript import ME, Header, Turn
from tests.tiny import save_lora

PARTS = ("speed", "turns", "switch", "memory", "load")
CHATS = (1, 4, 8, 16)
_ADAPTERS = 2


def main() -> int:
    """Measures and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short replies, once")
    parser.add_argument("--rounds", type=int, default=4, help="so many of each, of which the median counts")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=[*PARTS], help="these parts")
    parser.add_argument("--vllm", help="vLLM's command, to be measured too")
    parser.add_argument("--json", action="store_true", help="has no effect: the last line is always the JSON object")
    options = parser.parse_args()
    base = prepare_base(ModelSettings(), print_status)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        adapters = [_publish(base, Path(folder), seed) for seed in range(_ADAPTERS)]
        bench = Bench(base, adapters, tokens=16 if options.quick else 64)
        vllm = None
        if options.vllm:
            vllm = stack.enter_context(Vllm(options.vllm, base, str(bench.dtype).removeprefix("torch.")))
        found = asyncio.run(_measure(bench, vllm, options))
    result = {"figures": found, "checks": _checks(found)}
    print(json.dumps(result))
    return 0 if all(check["ok"] for check in result["checks"]) else 1


def _publish(base: Path, folder: Path, seed: int) -> Path:
    place = folder / str(seed)
    with publishing(place, Manifest(persona="bench", base=identify(base, "bundled"))) as staging:
        save_lora(base, staging, seed=seed, rank=16)
    return place / (place / "current").read_text(encoding="ascii").strip()


async def _measure(bench: Bench, vllm: Vllm | None, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    parts, quick = options.only, options.quick
    rounds = 1 if quick else options.rounds
    engine = bench.engine()
    name = await engine.load_adapter(bench.adapters[0])
    runs: dict[str, list[dict[str, float]]] = {}
    if "speed" in parts:
        runs |= await _speed(bench, engine, name, vllm, rounds)
    if "turns" in parts:
        forgetful = bench.engine(prefix_cache_bytes=0)
        await forgetful.load_adapter(bench.adapters[0])
        runs["second_turn"] = [
            await _second_turn(bench, {"reuse": engine, "afresh": forgetful}, name, number) for number in range(rounds)
        ]
        forgetful.close()
    if "switch" in parts:
        runs["switch"] = [await _switch(bench, engine, name, number) for number in range(rounds)]
    if "memory" in parts:
        runs["memory"] = [await _memory(bench, engine, name)]
    if parts == ["load"]:
        runs["load"] = [await _load(bench, engine, name, *((20, 60) if quick else (200, 2_000)))]
    elif "load" in parts:
        runs["load"] = [await asyncio.to_thread(_load_elsewhere, quick)]
    runs["about"] = [{"threads": torch.get_num_threads(), "new_tokens": bench.tokens}]
    engine.close()
    medians = {what: _median(results) for what, results in runs.items()}
    return {what: {key: round(value, 4) for key, value in values.items()} for what, values in medians.items()}


async def _speed(
    bench: Bench,
    engine: TransformersEngine,
    name: str,
    vllm: Vllm | None,
    rounds: int,
) -> dict[str, list[dict[str, float]]]:
    """All sides in turns, each with as many chats; the results of every round."""
    runs: dict[str, list[dict[str, float]]] = {}
    generate = Generate(bench.model(), bench.adapters[0], bench.tokens)
    llamacpp = await asyncio.to_thread(LlamaCppEngine.open, Config(), print_status)
    there = await llamacpp.load_adapter(bench.adapters[0])
    lora = read_lora(bench.adapters[0], llamacpp.base)
    alone: LlamaCppInstance = await asyncio.to_thread(llamacpp._start_instance, llamacpp._convert(lora))
    raw = RawLlamaCpp(alone, bench.tokens)
    remote = None
    if vllm is not None:
        content = {"backend": "openai", "url": vllm.url, "model": vllm.name}
        remote = await asyncio.to_thread(OpenAIEngine.open, Config.model_validate({"engine": content}), print_status)
        await remote.load_adapter(bench.adapters[0])
    for number in range(rounds):
        for chats in CHATS:
            prompts = bench.prompts(chats, 100 * number + chats)
            timed = _Timed(engine) if chats == 8 else None
            runs.setdefault(f"engine.{chats}", []).append(await _together(bench, engine, name, prompts))
            if timed is not None:
                runs.setdefault("overhead", []).append(timed.shares())
            runs.setdefault(f"generate.{chats}", []).append(generate.together(prompts))
            for side in ("llamacpp", "raw")[:: 1 if number % 2 else -1]:  # whoever follows torch finds its threads busy
                ours = side == "llamacpp"
                asked = _together(bench, llamacpp, there, prompts) if ours else asyncio.to_thread(raw.together, prompts)
                runs.setdefault(f"{side}.{chats}", []).append(await asked)
            if remote is not None:
                runs.setdefault(f"vllm.{chats}", []).append(await _together(bench, remote, name, prompts))
            print_status(
                json.dumps({what: results[-1] for what, results in runs.items() if what.endswith(f".{chats}")})
            )
    alone.stop()
    llamacpp.close()
    return runs


class _Timed:
    """How much of the engine's time passes in the model and in drawing, from now on."""

    def __init__(self, engine: TransformersEngine) -> None:
        self._began = time.perf_counter()
        self._model = self._drawing = self._entered = 0.0
        model = engine._thread._model
        self._hooks = [model.register_forward_pre_hook(self._enter), model.register_forward_hook(self._leave)]
        self._draw = decoding.sample
        decoding.sample = self._timed_draw

    def shares(self) -> dict[str, float]:
        """Of the time until now; ends the timing."""
        seconds = time.perf_counter() - self._began
        decoding.sample = self._draw
        for hook in self._hooks:
            hook.remove()
        rest = seconds - self._model
        return {"outside_model": rest / seconds, "outside_both": (rest - self._drawing) / seconds}

    def _enter(self, *_: object) -> None:
        self._entered = time.perf_counter()

    def _leave(self, *_: object) -> None:
        self._model += time.perf_counter() - self._entered

    def _timed_draw(self, *arguments: Any) -> Any:
        began = time.perf_counter()
        try:
            return self._draw(*arguments)
        finally:
            self._drawing += time.perf_counter() - began


async def _together(bench: Bench, engine: Engine, name: str, prompts: Sequence[list[int]]) -> dict[str, float]:
    """Tokens a second of chats that ask at the same moment, and the median wait for the first."""
    began = time.perf_counter()

    async def wait(place: int, prompt: list[int]) -> tuple[float, int]:
        async with aclosing(engine.generate(bench.request(prompt, name, place))) as stream:
            await anext(stream)
            first = time.perf_counter() - began
            return first, 1 + len([token async for token in stream])

    answers = await asyncio.gather(*(wait(place, prompt) for place, prompt in enumerate(prompts)))
    seconds = time.perf_counter() - began
    tokens = sum(count for _, count in answers) / len(prompts)  # llama.cpp ends at the end of text, come what may
    return figures(len(prompts), tokens, seconds, statistics.median(first for first, _ in answers))


async def _second_turn(
    bench: Bench, engines: dict[str, TransformersEngine], name: str, number: int
) -> dict[str, float]:
    """Seconds to the first token of a second turn, with and without what the first left."""
    turns = bench.history(7_000 + number)
    waits = {}
    for what, engine in engines.items():
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


async def _switch(bench: Bench, engine: TransformersEngine, name: str, number: int) -> dict[str, float]:
    """Seconds to the first token of a new adapter, beside four chats of the old one, and how many of them failed."""
    running = [
        asyncio.create_task(_whole(engine, bench.request(prompt, name, place)))
        for place, prompt in enumerate(bench.prompts(4, 9_000 + number))
    ]
    await asyncio.sleep(0.2)
    began = time.perf_counter()
    new = await engine.load_adapter(bench.adapters[1])
    loaded = time.perf_counter() - began
    async with aclosing(engine.generate(bench.request(bench.prompts(1, 9_500)[0], new, number))) as stream:
        await anext(stream)
    seconds = time.perf_counter() - began
    complete = await asyncio.gather(*running)
    await engine.drop_adapter(new)
    return {"load": loaded, "first_token": seconds, "failed": float(complete.count(False))}


async def _whole(engine: TransformersEngine, request: Request) -> bool:
    """Whether a reply came, all of it."""
    try:
        async with aclosing(engine.generate(request)) as stream:
            return len([token async for token in stream]) == request.sampling.max_tokens
    except EngineError:
        return False


async def _memory(bench: Bench, engine: TransformersEngine, name: str) -> dict[str, float]:
    """Bytes that an idle chat and one more adapter hold."""
    before = engine.stats().prefix_cache_bytes
    prompt = bench.transcript.prompt(Header(kind="dm"), bench.history(8_000))
    await _whole(engine, bench.request(prompt, name, 0, 1))
    weights = (bench.adapters[1] / "adapter_model.safetensors").stat().st_size
    return {
        "idle_chat": float(engine.stats().prefix_cache_bytes - before),
        "adapter": float(weights),  # in float32 as in the file
        "process_at_most": float(_peak()),
    }


def _load_elsewhere(quick: bool) -> dict[str, float]:
    """`_load` in a process that holds nothing else."""
    command = [sys.executable, __file__, "--only", "load", *(["--quick"] if quick else [])]
    figures: dict[str, float] = run_process(command, check=False)["figures"]["load"]
    return figures


async def _load(bench: Bench, engine: TransformersEngine, name: str, chats: int, messages: int) -> dict[str, float]:
    """Chats that each send messages one after the other, with random pauses."""
    draw = random.Random(1)
    answered: list[float] = []
    refused = lost = 0
    held: list[tuple[float, float]] = []

    async def talk(chat: int) -> None:
        nonlocal refused, lost
        for prompt in bench.prompts(messages // chats, chat):
            await asyncio.sleep(draw.expovariate(1.0))
            began = time.perf_counter()
            try:
                request = msgspec.structs.replace(bench.request(prompt, name, chat, 8), deadline_seconds=60)
                async with aclosing(engine.generate(request)) as stream:
                    count = len([token async for token in stream])
            except EngineError:
                refused += 1
            else:
                if count:
                    answered.append(time.perf_counter() - began)
                    held.append((_resident(), float(engine.stats().prefix_cache_bytes)))
                else:
                    lost += 1  # its time ran out before it began, which it was told by an empty stream

    began = time.perf_counter()
    await asyncio.gather(*(talk(chat) for chat in range(chats)))
    seconds = time.perf_counter() - began
    ordered = sorted(answered)
    marks = {share: held[(len(held) - 1) * share // 100] for share in (25, 50, 75, 100)}
    grown, turns = (last - first for first, last in zip(marks[25], marks[100], strict=True))
    return {
        "messages": float(messages),
        "answered": float(len(answered)),
        "refused": float(refused),
        "out_of_time": float(lost),
        "p50": ordered[len(ordered) // 2],
        "p95": ordered[len(ordered) * 95 // 100],
        "seconds": seconds,
        **{f"resident.{share}": resident for share, (resident, _) in marks.items()},
        **{f"kept.{share}": kept for share, (_, kept) in marks.items()},
        "growth": grown - turns,
    }


def _resident() -> float:
    """Bytes that this process holds now."""
    with contextlib.suppress(OSError):  # Linux tells it without another process
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return float(pages * os.sysconf("SC_PAGE_SIZE"))
    return 1024.0 * int(subprocess.check_output(["ps", "-o", "rss=", "-p", str(os.getpid())]))


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _median(results: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(result[name] for result in results) for name in results[0]}


def _checks(found: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    """The goals, of what was measured."""
    at_least: list[tuple[str, float, float]] = []
    at_most: list[tuple[str, float, float]] = []
    if "engine.1" in found:
        rate = {what: values["tokens_per_second"] for what, values in found.items() if "tokens_per_second" in values}
        at_least += [
            ("one chat over plain generate", rate["engine.1"] / rate["generate.1"], 1.0),
            ("8 chats over one", rate["engine.8"] / rate["engine.1"], 4.0),
        ]
        for chats in CHATS:
            ours = rate[f"llamacpp.{chats}"]
            at_least += [
                (f"llama.cpp over transformers, {chats} chats", ours / rate[f"engine.{chats}"], 1.8),
                (f"llama.cpp over itself without us, {chats} chats", ours / rate[f"raw.{chats}"], 0.95),
            ]
        at_most.append(("share of the time outside model and drawing", found["overhead"]["outside_both"], 0.03))
    if "second_turn" in found:
        at_most.append(("a second turn's first token, share of afresh", found["second_turn"]["share"], 0.3))
    if "switch" in found:
        at_most += [
            ("seconds to a new adapter's first token", found["switch"]["first_token"], 1.0),
            ("replies that failed meanwhile", found["switch"]["failed"], 0),
        ]
    if "load" in found:
        load = found["load"]
        untold = load["messages"] - load["answered"] - load["refused"] - load["out_of_time"]
        growth = load["growth"] / load["resident.25"]
        at_most += [
            ("messages neither answered nor told", untold, 0),
            ("memory that the load added after its first quarter besides chats, share", growth, 0.02),
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
