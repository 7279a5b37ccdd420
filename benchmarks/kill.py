"""Kills the daemon again and again while people write, and counts what was lost or said twice.

    python benchmarks/kill.py [--quick] [--json]

The real daemon (store, conversations, python-telegram-bot) in a process of its own, on a local Bot API server, with an
engine that names the messages it answers. Each life ends with SIGKILL:

- `start`: at a random moment while it starts, opens its database and takes up what was left
- `polled`: when Telegram has answered getUpdates, so before anything of the answer is stored or just after
- `asked`: when Telegram has received a message and not accepted it
- `accepted`: when Telegram has accepted a message and not answered
- `between`: right after the answer, between two bubbles
- `random`: at any other moment

In the end one life is left alone until nothing is pending. A message is **lost** if no reply that reached Telegram
names it and no reply that names it is in doubt; a reply is **doubled** if Telegram has accepted the same bubble twice.
Telegram cannot tell whether it has seen a message before, so what was being sent at a kill is in doubt and not sent
again. Two of the moments are chosen to cause that.

Prints one JSON object last.
"""

import argparse
import asyncio
import itertools
import json
import multiprocessing
import random
import re
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing, suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests/ is not installed

from aiogram import types
from aiohttp import web

from doppel.terminal import print_status
from tests.bot.fakes.telegram_server import TOKEN, TelegramServer
from tests.bot.harness import config_in, publish

MOMENTS = ("start", "polled", "asked", "accepted", "between", "random")
PEOPLE = tuple(types.User(id=7000 + number, is_bot=False, first_name=f"P{number}") for number in range(8))
READY_SECONDS = 180.0
_NAMED = re.compile(r"m-\d+")


class KillingServer(TelegramServer):
    """A Telegram that calls `kill` at the moment that was chosen."""

    moment = ""
    sends_left = 0
    """Messages that are sent before a kill at one of the moments of sending."""

    def kill(self) -> None:
        raise NotImplementedError

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        method = request.match_info["method"].lower()
        response = await super()._handle(request)
        if (
            method == "getupdates"
            and self.moment == "polled"
            and b"update_id" in (getattr(response, "body", b"") or b"")
        ):
            asyncio.get_running_loop().call_later(random.uniform(0, 0.02), self._kill_at, "polled")
        if method == "sendmessage" and self.moment == "between" and not self.sends_left:
            asyncio.get_running_loop().call_later(random.uniform(0, 0.02), self._kill_at, "between")
        return response

    async def _sendmessage(self, call: Any) -> types.Message:
        if self.sends_left:
            self.sends_left -= 1
            return await super()._sendmessage(call)
        self._kill_at("asked")
        message = await super()._sendmessage(call)
        self._kill_at("accepted")
        return message

    def _kill_at(self, moment: str) -> None:
        if self.moment == moment:
            self.moment = ""
            self.kill()


def live(folder: str, api: str) -> None:
    """One life of the daemon; runs until it is killed."""
    from collections.abc import AsyncGenerator
    from random import Random

    from bot.app import Daemon, Dependencies
    from bot.clock import SystemClock
    from bot.platforms import telegram
    from doppel.engine import Request, Token
    from tests.bot.harness import FakeEngine
    from tests.tiny import build_transcript

    class NamingEngine(FakeEngine):
        """Replies with the numbers of the messages that are not answered yet, in two bubbles."""

        async def generate(self, request: Request) -> AsyncGenerator[Token]:
            prompt = self.transcript.tokenizer.decode(request.prompt)
            waiting = prompt.rpartition("\n\nme:")[0].rpartition("\n\n")[2]
            named = " ".join(_NAMED.findall(waiting))
            await asyncio.sleep(0.005)
            for token in self._tokens([f"first {named}", f"second {named}"]):
                yield Token(token, -1.0)

    dependencies = Dependencies(
        environ={"TELEGRAM_TOKEN": TOKEN, "NO_PROXY": "127.0.0.1"},
        platforms={"telegram": telegram.PLUGIN},
        open_engine=lambda _: NamingEngine(build_transcript()),
        clock=SystemClock(),
        random=Random(),
    )
    asyncio.run(Daemon(configuration(Path(folder), api), dependencies).run(asyncio.Event()))


def configuration(folder: Path, api: str) -> Any:
    return config_in(
        folder,
        telegram={"api": api, "allow": [person.id for person in PEOPLE]},
        reply={"debounce_seconds": 0.02, "guard": False, "max_per_hour": 0, "stale_after": "36500d"},
        web={"enabled": False},
    )


class Lives:
    """Starts and kills daemons, and writes to them."""

    def __init__(self, folder: Path, server: KillingServer) -> None:
        self._folder = folder
        self._server = server
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(
            ["__main__", "bot.app", "bot.platforms.telegram.platform", "tests.tiny", "alembic"]
        )
        self._numbers = itertools.count()
        self.written = 0
        self.ready_seconds: list[float] = []
        server.kill = self.kill  # type: ignore[method-assign]
        self._process: BaseProcess | None = None

    def kill(self) -> None:
        """Kills the daemon, if it lives."""
        if self._process is not None and self._process.is_alive():
            self._process.kill()

    def write(self, count: int) -> None:
        """People write so many messages."""
        for _ in range(count):
            self._server.user_says(f"m-{next(self._numbers)}.", user=random.choice(PEOPLE))
            self.written += 1

    async def run(self, moment: str) -> None:
        """One life that ends at a moment; at the latest after a second of having nothing to do."""
        self._server.moment = moment
        polls = len(self._server.of("getUpdates"))
        began = time.monotonic()
        self.start()
        if moment == "start":
            self.write(2)
            await asyncio.sleep(random.uniform(0, 0.6))
        else:
            await self.until_ready(polls, began)
            count = random.randint(5, 40)
            self._server.sends_left = random.randint(0, count)
            self.write(count)
            await asyncio.to_thread(self._process_ends_within, random.uniform(0, 0.4) if moment == "random" else 1.0)
        self._server.moment, self._server.sends_left = "", 0
        self.kill()
        await asyncio.to_thread(self._join)

    def start(self) -> None:
        self._process = self._context.Process(target=live, args=(str(self._folder), self._server.url), daemon=True)
        self._process.start()

    async def until_ready(self, polls: int, began: float) -> None:
        """Waits for the first poll of this life."""
        async with asyncio.timeout(READY_SECONDS):
            while len(self._server.of("getUpdates")) == polls:  # noqa: ASYNC110 - a process has no event
                await asyncio.sleep(0.005)
        self.ready_seconds.append(time.monotonic() - began)

    def _process_ends_within(self, seconds: float) -> None:
        assert self._process is not None
        self._process.join(seconds)

    def _join(self) -> None:
        assert self._process is not None
        self._process.join()


def database(folder: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(folder / "data" / "doppel.db", timeout=10)) as connection:
        return connection.execute(query).fetchall()


async def until_done(folder: Path, server: KillingServer) -> None:
    """Waits until no message and no bubble is pending."""
    unfinished = (
        "select (select count(*) from inbox where state in ('new', 'replying')), "
        "(select count(*) from outbox where state in ('pending', 'sending'))"
    )
    quiet = 0
    async with asyncio.timeout(300):
        while quiet < 10:
            is_done = not server.pending and database(folder, unfinished) == [(0, 0)]
            quiet = quiet + 1 if is_done else 0
            await asyncio.sleep(0.1)


async def measure(kills: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with KillingServer() as server:
            publish(configuration(folder, server.url), habits=_instant())
            lives = Lives(folder, server)
            for number in range(kills):
                await lives.run(MOMENTS[number % len(MOMENTS)])
                if number % 50 == 49:
                    print_status(f"{number + 1} kills, {lives.written} messages")
            polls, began = len(server.of("getUpdates")), time.monotonic()
            lives.start()
            await lives.until_ready(polls, began)
            await until_done(folder, server)
            lives.kill()
            lives._join()
            sent = [message.text or "" for message in server.sent]
        bubbles = database(folder, "select text, state, error from outbox")
        integrity = database(folder, "pragma integrity_check")
    named = set(itertools.chain.from_iterable(_NAMED.findall(text) for text in sent))
    in_doubt = {text for text, state, _ in bubbles if state == "unknown"}
    doubtful = set(itertools.chain.from_iterable(_NAMED.findall(text) for text in in_doubt))
    everything = {f"m-{number}" for number in range(lives.written)}
    return {
        "kills": kills,
        "messages": lives.written,
        "bubbles": len(bubbles),
        "lost": sorted(everything - named - doubtful),
        "unanswered_in_doubt": len(everything - named),
        "doubled": sum(count - 1 for count in Counter(sent).values()),
        "in_doubt": len(in_doubt),
        "in_doubt_and_not_received": len(in_doubt - set(sent)),
        "integrity": integrity == [("ok",)],
        "slowest_start": round(max(lives.ready_seconds), 2),
    }


def _instant() -> Any:
    from doppel.adapters.habits import Habits

    return Habits(seconds_per_character=0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="60 kills instead of 1,000")
    parser.add_argument("--json", action="store_true", help="for scripts; the last line is always a JSON object")
    parser.add_argument("--kills", type=int, default=None, help="how many")
    arguments = parser.parse_args()
    with suppress(KeyboardInterrupt):
        result = asyncio.run(measure(arguments.kills or (60 if arguments.quick else 1000)))
        share = result["unanswered_in_doubt"] / result["messages"]
        checks = [
            {"name": "messages lost", "value": len(result["lost"]), "goal": "0", "ok": not result["lost"]},
            {"name": "bubbles doubled", "value": result["doubled"], "goal": "0", "ok": result["doubled"] == 0},
            {
                "name": "share of messages whose reply is in doubt",
                "value": round(share, 4),
                "goal": "<= 0.005",
                "ok": share <= 0.005,
            },
            {"name": "database is whole", "value": result["integrity"], "goal": "true", "ok": result["integrity"]},
            {
                "name": "seconds until it polls again, slowest",
                "value": result["slowest_start"],
                "goal": "<= 20",
                "ok": result["slowest_start"] <= 20,
            },
        ]
        print(json.dumps({**result, "checks": checks}))


if __name__ == "__main__":
    main()
