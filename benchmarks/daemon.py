"""How much the daemon itself adds to a reply: from a message received to a reply sent, without model and service.

    python benchmarks/daemon.py [--quick] [--json]

The real daemon, store (SQLite, synced to disk) and conversations run with an engine that answers at once and a platform
that takes every message at once; nobody types and nobody is waited for.

- `throughput`: messages from inbox through reply to outbox per second, with 100 chats that write again as soon as they
  are answered.
- `cpu_ms_per_message`: processor time of this process, all threads, for each of these messages.
- `p99_ms`: what the daemon adds to a reply, at the 99th percentile, while messages arrive at a quarter of that rate.
- `memory`: growth of resident memory over the last four fifths of the messages.
- `crowd`: 200 people who write in the same moment to an engine that takes 16; how many get no reply.

Prints one JSON object last.
"""

import argparse
import asyncio
import gc
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests/ is not installed

from bot.app import Daemon, Dependencies
from bot.clock import SystemClock
from bot.platforms import Incoming, Newest, Outgoing, Receive
from doppel.adapters.habits import Habits
from doppel.engine import EngineBusy, EngineStats, Request, Token
from doppel.terminal import print_status
from doppel.transcript import Transcript
from tests.bot.harness import FakeEngine, config_in, plugin, publish
from tests.tiny import build_transcript

CHATS = 100
GOALS = {"throughput": 400.0, "p99_ms": 100.0, "memory": 0.05, "crowd": 0}


class InstantEngine(FakeEngine):
    """Answers at once, or after `seconds`; refuses more than `max_active` requests at a time."""

    def __init__(self, transcript: Transcript, max_active: int = 16) -> None:
        super().__init__(transcript)
        self._reply = self._tokens(["ok"])
        self._max_active = max_active
        self._active = 0
        self.seconds = 0.0

    async def generate(self, request: Request) -> AsyncGenerator[Token]:
        if self._active >= self._max_active:
            raise EngineBusy("too many requests")
        self._active += 1
        try:
            if self.seconds:
                await asyncio.sleep(self.seconds)
            for token in self._reply:
                yield Token(token, -1.0)
        finally:
            self._active -= 1

    def stats(self) -> EngineStats:
        return EngineStats(active=self._active, max_active=self._max_active, waiting=0)


class InstantPlatform:
    """Takes every message at once and tells who waits for the chat's reply."""

    name = "telegram"
    limit = 4096
    resend_is_safe = False

    def __init__(self) -> None:
        self.receive: Receive | None = None
        self.is_connected = asyncio.Event()
        self._replies: dict[str, asyncio.Future[None]] = {}

    def length(self, text: str) -> int:
        return len(text)

    async def run(self, receive: Receive, connected: Callable[[], None], newest: Newest) -> None:
        self.receive = receive
        connected()
        self.is_connected.set()
        await asyncio.Event().wait()

    async def send(self, outgoing: Outgoing) -> str:
        if (reply := self._replies.pop(outgoing.chat, None)) is not None and not reply.done():
            reply.set_result(None)
        return str(outgoing.id)

    async def typing(self, chat: str) -> None:
        """Nobody sees it."""

    async def close(self) -> None:
        """Nothing is open."""

    async def ask(self, chat: int, number: int) -> float:
        """Delivers a message and waits for its reply; returns the seconds between them."""
        assert self.receive is not None
        reply = self._replies[str(chat)] = asyncio.get_running_loop().create_future()
        began = time.perf_counter()
        await self.receive(
            Incoming(
                platform=self.name,
                event_id=f"{chat}-{number}",
                chat=str(chat),
                kind="dm",
                sender=str(chat),
                sender_name="somebody",
                text=f"message number {number}",
                sent_at=datetime.now(UTC),
                message_id=str(number),
                mentions_bot=True,
                allow_ids=(str(chat),),
            )
        )
        await reply
        return time.perf_counter() - began


@asynccontextmanager
async def running(folder: Path) -> AsyncGenerator[tuple[InstantPlatform, InstantEngine]]:
    """The daemon on an empty store."""
    config = config_in(
        folder,
        telegram={"allow": list(range(1, 1001))},
        reply={"debounce_seconds": 0, "history": 40, "guard": False, "max_per_hour": 0},
        web={"port": 0},
    )
    publish(config, habits=Habits(seconds_per_character=0.0))
    platform, engine = InstantPlatform(), InstantEngine(build_transcript())
    dependencies = Dependencies(
        environ={},
        platforms={"telegram": plugin(platform)},
        open_engine=lambda _: engine,
        clock=SystemClock(),
        random=Random(1),
    )
    stop = asyncio.Event()
    daemon = asyncio.create_task(Daemon(config, dependencies).run(stop))
    await platform.is_connected.wait()
    gc.freeze()  # as `doppel run` does once the engine is open
    try:
        yield platform, engine
    finally:
        stop.set()
        await daemon


async def chat_all(platform: InstantPlatform, rounds: int, first: int = 0) -> float:
    """All chats write again as soon as they are answered; returns messages per second."""

    async def chat(number: int) -> None:
        for message in range(first, first + rounds):
            await platform.ask(number, message)

    began = time.perf_counter()
    await asyncio.gather(*(chat(number) for number in range(1, CHATS + 1)))
    return CHATS * rounds / (time.perf_counter() - began)


async def latencies(platform: InstantPlatform, rate: float, count: int, first: int) -> list[float]:
    """Messages arrive at a steady rate, whatever becomes of them; the seconds that each took."""
    pending = []
    began = time.perf_counter()
    for number in range(count):
        await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
        pending.append(asyncio.create_task(platform.ask(1 + number % CHATS, first + number)))
    return await asyncio.gather(*pending)


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


async def measure(messages: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        async with running(Path(name)) as (platform, engine):
            await chat_all(platform, 3)  # warm
            rates, memory, rounds = [], [], max(1, messages // 10 // CHATS)
            cpu_seconds = 0.0
            for part in range(10):
                cpu_before = time.process_time()
                rates.append(await chat_all(platform, rounds, first=1000 + part * rounds))
                cpu_seconds += time.process_time() - cpu_before
                gc.collect()
                memory.append(resident_bytes())
                print_status(f"{rates[-1]:.0f} messages/s, {memory[-1] / 1e6:.0f} MB")
            throughput = statistics.median(rates)
            delays = sorted(await latencies(platform, throughput / 4, min(messages, 2000), first=1_000_000))
            engine.seconds = 1.0
            crowd = await asyncio.gather(
                *(asyncio.wait_for(platform.ask(person, 9_000_000), 60) for person in range(301, 501)),
                return_exceptions=True,
            )
    return {
        "throughput": round(throughput, 1),
        "cpu_ms_per_message": round(1000 * cpu_seconds / (10 * rounds * CHATS), 3),
        "p99_ms": round(1000 * delays[int(0.99 * len(delays))], 1),
        "median_ms": round(1000 * statistics.median(delays), 1),
        "memory": round(memory[-1] / memory[1] - 1, 4),
        "crowd": sum(isinstance(reply, BaseException) for reply in crowd),
        "messages": messages,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="5,000 messages instead of 100,000")
    parser.add_argument(
        "--json", action="store_true", help="only the JSON object on stdout (it is always the last line)"
    )
    arguments = parser.parse_args()
    Habits.typing_seconds = lambda self, text: 0.0  # type: ignore[method-assign] # people type for at least 0.4 s
    result = asyncio.run(measure(5_000 if arguments.quick else 100_000))
    checks = [
        {
            "name": "messages per second, inbox to outbox",
            "value": result["throughput"],
            "goal": ">= 400",
            "ok": result["throughput"] >= GOALS["throughput"],
        },
        {
            "name": "added milliseconds, 99th percentile",
            "value": result["p99_ms"],
            "goal": "<= 100",
            "ok": result["p99_ms"] <= GOALS["p99_ms"],
        },
        {
            "name": "growth of memory",
            "value": result["memory"],
            "goal": "within 0.05",
            "ok": abs(result["memory"]) <= GOALS["memory"],
        },
        {
            "name": "of 200 people at once, without a reply",
            "value": result["crowd"],
            "goal": "0",
            "ok": result["crowd"] == GOALS["crowd"],
        },
    ]
    print(json.dumps({**result, "checks": checks}))


if __name__ == "__main__":
    main()
