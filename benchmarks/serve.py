"""Serving speed: doppel's engines against plain `generate`, llama.cpp and vLLM, for one chat and for many at once.

    python benchmarks/serve.py [--quick] [--rounds N] [--only PART ...] [--vllm COMMAND] [--json]

The bundled base in its default dtype with a random LoRA of rank 16 on all linear layers, 64 new tokens a reply,
default sampling. Everything is measured in one process, the contenders taking turns; medians are reported. Nothing else
should run on the machine meanwhile. The parts, which can also be measured one by one with `--only`:

- `speed`: N chats that send a request at the same moment. `tokens_per_second` is that of all chats together;
  `first_token` is the median time to the first token, in seconds.
  `engine.N`: the engine `transformers`. `generate.N`: transformers' `generate` on one padded batch of all chats, which
  a server never gets. `llamacpp.N`: the engine `llamacpp`, on the 4-bit file. `raw.N`: llama.cpp with the same
  parameters, called directly. `vllm.N`: a vLLM server, through the engine `openai`; only with `--vllm`.
  `overhead`: of the engine's time with 8 chats, the shares outside the model, and outside both model and sampling.
- `turns`: time to the first token of a reply to ten words after 1,000 tokens of history, with the first turn in the
  prefix cache (`reuse`) and without a cache (`afresh`).
- `switch`: seconds from a new adapter's folder to its first token, while four chats go on with the old adapter.
- `memory`: bytes that an idle chat of 1,000 tokens, one more adapter, and the whole process take.
- `load`: many chats send messages at random moments, at times more than can be served at once. Every message must be
  answered or refused; `p50` and `p95` are seconds to a complete answer. It runs in a process of its own: `resident.P`
  is that process's memory after P % of the answers, in bytes, `kept.P` the part of it in the prefix cache, which is
  bounded, and `growth` the growth of the rest after the first quarter.

`--quick`: 16 new tokens, once, a small load; the checks are made all the same, but mean little.

Goals (two cores): one chat at least as fast as `generate`; 8 chats at least 4 times as fast as one; the engine
`llamacpp` at least 1.8 times as fast as `transformers`, and at least 0.95 times as fast as llama.cpp called directly;
at most 3 % of the time outside model and sampling; a second turn in at most 0.3 of the time without a cache; a switch
in at most a second without a failed reply; under load, memory that grows by at most 2 %. Prints one JSON object last.
The exit code is 1 if a goal was missed.
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
from collections.abc import Sequence
from contextlib import ExitStack, aclosing
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests/ and benchmarks/ are not installed

import msgspec
import torch

from benchmarks.chats import Bench
from benchmarks.doppel_command import run_process
from benchmarks.rivals import Generate, RawLlamaCpp, Vllm, speed_figures
from doppel.adapters.lora_file import read_lora
from doppel.adapters.versions import Manifest, publishing
from doppel.config import Config, ModelSettings
from doppel.engine import Engine, EngineError, Request
from doppel.engine.llamacpp.engine import LlamaCppEngine, LlamaCppInstance
from doppel.engine.local import decoding
from doppel.engine.local.engine import TransformersEngine
from doppel.engine.remote.engine import OpenAIEngine
from doppel.models.base import identify, prepare_base
from doppel.reports.metrics import check_goal
from doppel.terminal import print_status
from doppel.transcript import ME, Header, Turn
from tests.tiny import save_lora

PARTS = ("speed", "turns", "switch", "memory", "load")
CHAT_COUNTS = (1, 4, 8, 16)
_ADAPTERS = 2


def main() -> int:
    """Measures and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short replies, once")
    parser.add_argument("--rounds", type=int, default=4, help="repetitions, of which the median is reported")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=[*PARTS], help="only these parts")
    parser.add_argument("--vllm", help="command that starts vLLM, to measure it too")
    parser.add_argument("--json", action="store_true", help="has no effect: the last line is always the JSON object")
    options = parser.parse_args()
    base = prepare_base(ModelSettings(), print_status)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        adapters = [_publish(base, Path(folder), seed) for seed in range(_ADAPTERS)]
        bench = Bench(base, adapters, tokens=16 if options.quick else 64)
        vllm = None
        if options.vllm:
            vllm = stack.enter_context(Vllm(options.vllm, base, str(bench.dtype).removeprefix("torch.")))
        figures = asyncio.run(_measure(bench, vllm, options))
    result = {"figures": figures, "checks": _checks(figures)}
    print(json.dumps(result))
    return 0 if all(check["ok"] for check in result["checks"]) else 1


def _publish(base: Path, folder: Path, seed: int) -> Path:
    adapters_dir = folder / str(seed)
    with publishing(adapters_dir, Manifest(persona="bench", base=identify(base, "bundled"))) as staging:
        save_lora(base, staging, seed=seed, rank=16)
    return adapters_dir / (adapters_dir / "current").read_text(encoding="ascii").strip()


async def _measure(bench: Bench, vllm: Vllm | None, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    parts, quick = options.only, options.quick
    rounds = 1 if quick else options.rounds
    engine = bench.engine()
    name = await engine.load_adapter(bench.adapters[0])
    runs: dict[str, list[dict[str, float]]] = {}
    if "speed" in parts:
        runs |= await _speed(bench, engine, name, vllm, rounds)
    if "turns" in parts:
        without_cache = bench.engine(prefix_cache_bytes=0)
        await without_cache.load_adapter(bench.adapters[0])
        runs["second_turn"] = [
            await _second_turn(bench, {"reuse": engine, "afresh": without_cache}, name, number)
            for number in range(rounds)
        ]
        without_cache.close()
    if "switch" in parts:
        runs["switch"] = [await _switch(bench, engine, name, number) for number in range(rounds)]
    if "memory" in parts:
        runs["memory"] = [await _memory(bench, engine, name)]
    if parts == ["load"]:
        runs["load"] = [await _load(bench, engine, name, *((20, 60) if quick else (200, 2_000)))]
    elif "load" in parts:
        runs["load"] = [await asyncio.to_thread(_load_in_subprocess, quick)]
    runs["about"] = [{"threads": torch.get_num_threads(), "new_tokens": bench.tokens}]
    engine.close()
    medians = {name: _median(results) for name, results in runs.items()}
    return {name: {key: round(value, 4) for key, value in values.items()} for name, values in medians.items()}


async def _speed(
    bench: Bench,
    engine: TransformersEngine,
    name: str,
    vllm: Vllm | None,
    rounds: int,
) -> dict[str, list[dict[str, float]]]:
    """Measures all contenders in turns, with every number of chats; returns the results of every round."""
    runs: dict[str, list[dict[str, float]]] = {}
    generate = Generate(bench.model(), bench.adapters[0], bench.tokens)
    llamacpp = await asyncio.to_thread(LlamaCppEngine.open, Config(), print_status)
    llamacpp_name = await llamacpp.load_adapter(bench.adapters[0])
    lora = read_lora(bench.adapters[0], llamacpp.base)
    instance: LlamaCppInstance = await asyncio.to_thread(llamacpp._start_instance, llamacpp._convert(lora))
    raw = RawLlamaCpp(instance, bench.tokens)
    remote = None
    if vllm is not None:
        content = {"backend": "openai", "url": vllm.url, "model": vllm.name}
        remote = await asyncio.to_thread(OpenAIEngine.open, Config.model_validate({"engine": content}), print_status)
        await remote.load_adapter(bench.adapters[0])
    for number in range(rounds):
        for chats in CHAT_COUNTS:
            prompts = bench.prompts(chats, 100 * number + chats)
            timer = _EngineTimer(engine) if chats == 8 else None
            runs.setdefault(f"engine.{chats}", []).append(await _reply_to_all(bench, engine, name, prompts))
            if timer is not None:
                runs.setdefault("overhead", []).append(timer.shares())
            runs.setdefault(f"generate.{chats}", []).append(generate.reply_to_all(prompts))
            for contender in ("llamacpp", "raw")[:: 1 if number % 2 else -1]:  # the first is slowed by torch's threads
                if contender == "raw":
                    result = await asyncio.to_thread(raw.reply_to_all, prompts)
                else:
                    result = await _reply_to_all(bench, llamacpp, llamacpp_name, prompts)
                runs.setdefault(f"{contender}.{chats}", []).append(result)
            if remote is not None:
                runs.setdefault(f"vllm.{chats}", []).append(await _reply_to_all(bench, remote, name, prompts))
            print_status(
                json.dumps({name: results[-1] for name, results in runs.items() if name.endswith(f".{chats}")})
            )
    instance.stop()
    llamacpp.close()
    return runs


class _EngineTimer:
    """Measures how much of the engine's time is spent in the model and in sampling, from its creation on."""

    def __init__(self, engine: TransformersEngine) -> None:
        self._started = time.perf_counter()
        self._model_seconds = self._sampling_seconds = self._entered = 0.0
        model = engine._thread._model
        self._hooks = [model.register_forward_pre_hook(self._enter), model.register_forward_hook(self._leave)]
        self._sample = decoding.sample
        decoding.sample = self._timed_sample

    def shares(self) -> dict[str, float]:
        """Ends the measurement and returns the shares of the time outside the model, and outside model and sampling."""
        seconds = time.perf_counter() - self._started
        decoding.sample = self._sample
        for hook in self._hooks:
            hook.remove()
        rest = seconds - self._model_seconds
        return {"outside_model": rest / seconds, "outside_both": (rest - self._sampling_seconds) / seconds}

    def _enter(self, *_: object) -> None:
        self._entered = time.perf_counter()

    def _leave(self, *_: object) -> None:
        self._model_seconds += time.perf_counter() - self._entered

    def _timed_sample(self, *arguments: Any) -> Any:
        started = time.perf_counter()
        try:
            return self._sample(*arguments)
        finally:
            self._sampling_seconds += time.perf_counter() - started


async def _reply_to_all(bench: Bench, engine: Engine, name: str, prompts: Sequence[list[int]]) -> dict[str, float]:
    """Tokens per second of requests sent at the same moment, and the median time to the first token."""
    began = time.perf_counter()

    async def time_reply(seed: int, prompt: list[int]) -> tuple[float, int]:
        async with aclosing(engine.generate(bench.request(prompt, name, seed))) as stream:
            await anext(stream)
            first = time.perf_counter() - began
            return first, 1 + len([token async for token in stream])

    replies = await asyncio.gather(*(time_reply(seed, prompt) for seed, prompt in enumerate(prompts)))
    seconds = time.perf_counter() - began
    tokens = sum(count for _, count in replies) / len(prompts)  # llama.cpp always stops at its end token
    return speed_figures(len(prompts), tokens, seconds, statistics.median(first for first, _ in replies))


async def _second_turn(
    bench: Bench, engines: dict[str, TransformersEngine], name: str, number: int
) -> dict[str, float]:
    """Seconds to the first token of a second turn, with and without the first turn in the prefix cache."""
    turns = bench.history(7_000 + number)
    waits = {}
    for variant, engine in engines.items():
        header = Header(kind="dm")
        prompt = bench.transcript.prompt(header, turns)
        async with aclosing(engine.generate(bench.request(prompt, name, number))) as stream:
            reply = [token.id async for token in stream]
        bubbles = bench.transcript.reply(reply) or ["ok"]
        question = Turn("Tom", ("and what did you say when they asked you about it",))
        prompt = bench.transcript.prompt(header, [*turns, Turn(ME, tuple(bubbles)), question])
        began = time.perf_counter()
        async with aclosing(engine.generate(bench.request(prompt, name, number, 1))) as stream:
            await anext(stream)
        waits[variant] = time.perf_counter() - began
    return {**waits, "share": waits["reuse"] / waits["afresh"]}


async def _switch(bench: Bench, engine: TransformersEngine, name: str, number: int) -> dict[str, float]:
    """Seconds to the first token of a new adapter, while four chats use the old one, and how many of these failed."""
    running = [
        asyncio.create_task(_is_complete(engine, bench.request(prompt, name, seed)))
        for seed, prompt in enumerate(bench.prompts(4, 9_000 + number))
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


async def _is_complete(engine: TransformersEngine, request: Request) -> bool:
    """Whether a reply has all its tokens."""
    try:
        async with aclosing(engine.generate(request)) as stream:
            return len([token async for token in stream]) == request.sampling.max_tokens
    except EngineError:
        return False


async def _memory(bench: Bench, engine: TransformersEngine, name: str) -> dict[str, float]:
    """Bytes that an idle chat, one more adapter and the whole process take."""
    before = engine.stats().prefix_cache_bytes
    prompt = bench.transcript.prompt(Header(kind="dm"), bench.history(8_000))
    await _is_complete(engine, bench.request(prompt, name, 0, 1))
    weights = (bench.adapters[1] / "adapter_model.safetensors").stat().st_size
    return {
        "idle_chat": float(engine.stats().prefix_cache_bytes - before),
        "adapter": float(weights),  # stored in float32, as it is held
        "process_at_most": float(_peak()),
    }


def _load_in_subprocess(quick: bool) -> dict[str, float]:
    """Runs `_load` in a process that holds nothing else."""
    command = [sys.executable, __file__, "--only", "load", *(["--quick"] if quick else [])]
    figures: dict[str, float] = run_process(command, check=False)["figures"]["load"]
    return figures


async def _load(bench: Bench, engine: TransformersEngine, name: str, chats: int, messages: int) -> dict[str, float]:
    """Has chats send messages one after the other, with random pauses."""
    rng = random.Random(1)
    latencies: list[float] = []
    refused = expired = 0
    memory: list[tuple[float, float]] = []  # of the process and of its prefix cache, after each answer

    async def send_messages(chat: int) -> None:
        nonlocal refused, expired
        for prompt in bench.prompts(messages // chats, chat):
            await asyncio.sleep(rng.expovariate(1.0))
            sent = time.perf_counter()
            try:
                request = msgspec.structs.replace(bench.request(prompt, name, chat, 8), deadline_seconds=60)
                async with aclosing(engine.generate(request)) as stream:
                    count = len([token async for token in stream])
            except EngineError:
                refused += 1
            else:
                if count:
                    latencies.append(time.perf_counter() - sent)
                    memory.append((_resident_memory(), float(engine.stats().prefix_cache_bytes)))
                else:
                    expired += 1  # at its deadline a waiting request gets an empty stream

    began = time.perf_counter()
    await asyncio.gather(*(send_messages(chat) for chat in range(chats)))
    seconds = time.perf_counter() - began
    latencies.sort()
    marks = {percent: memory[(len(memory) - 1) * percent // 100] for percent in (25, 50, 75, 100)}
    process_growth, cache_growth = (last - first for first, last in zip(marks[25], marks[100], strict=True))
    return {
        "messages": float(messages),
        "answered": float(len(latencies)),
        "refused": float(refused),
        "out_of_time": float(expired),
        "p50": latencies[len(latencies) // 2],
        "p95": latencies[len(latencies) * 95 // 100],
        "seconds": seconds,
        **{f"resident.{percent}": resident for percent, (resident, _) in marks.items()},
        **{f"kept.{percent}": cached for percent, (_, cached) in marks.items()},
        "growth": process_growth - cache_growth,
    }


def _resident_memory() -> float:
    """Memory of this process, in bytes."""
    with contextlib.suppress(OSError):  # on Linux, no other process is needed
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return float(pages * os.sysconf("SC_PAGE_SIZE"))
    return 1024.0 * int(subprocess.check_output(["ps", "-o", "rss=", "-p", str(os.getpid())]))


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _median(results: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(result[name] for result in results) for name in results[0]}


def _checks(figures: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    """The goals of the parts that were measured."""
    at_least: list[tuple[str, float, float]] = []
    at_most: list[tuple[str, float, float]] = []
    if "engine.1" in figures:
        rate = {name: values["tokens_per_second"] for name, values in figures.items() if "tokens_per_second" in values}
        at_least += [
            ("one chat over plain generate", rate["engine.1"] / rate["generate.1"], 1.0),
            ("8 chats over one", rate["engine.8"] / rate["engine.1"], 4.0),
        ]
        for chats in CHAT_COUNTS:
            llamacpp = rate[f"llamacpp.{chats}"]
            at_least += [
                (f"llama.cpp over transformers, {chats} chats", llamacpp / rate[f"engine.{chats}"], 1.8),
                (f"llama.cpp over itself called directly, {chats} chats", llamacpp / rate[f"raw.{chats}"], 0.95),
            ]
        at_most.append(("share of the time outside model and sampling", figures["overhead"]["outside_both"], 0.03))
    if "second_turn" in figures:
        at_most.append(
            ("time to a second turn's first token, share of that without a cache", figures["second_turn"]["share"], 0.3)
        )
    if "switch" in figures:
        at_most += [
            ("seconds to a new adapter's first token", figures["switch"]["first_token"], 1.0),
            ("replies that failed meanwhile", figures["switch"]["failed"], 0),
        ]
    if "load" in figures:
        load = figures["load"]
        unanswered = load["messages"] - load["answered"] - load["refused"] - load["out_of_time"]
        growth = load["growth"] / load["resident.25"]
        at_most += [
            ("messages neither answered nor refused", unanswered, 0),
            ("growth of memory after the first quarter of the load, without the prefix cache, share", growth, 0.02),
        ]
    goals = [
        *((name, value, f">= {goal:g}") for name, value, goal in at_least),
        *((name, value, f"<= {goal:g}") for name, value, goal in at_most),
    ]
    return [msgspec.structs.asdict(check_goal(*goal)) for goal in goals]


if __name__ == "__main__":
    sys.exit(main())
