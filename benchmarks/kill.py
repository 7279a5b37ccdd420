"""Kills the daemon again and again while people write, and counts what was lost or said twice.

    python benchmarks/kill.py [--quick] [--json]

The real daemon (store, conversations, python-telegram-bot) in a process of its own, on a local Bot API server, with an
engine that names the messages it answers. Several such daemons run side by side, each with its own Telegram. Each life
ends with SIGKILL:

- `start`: at a random moment while it starts, opens its database and takes up what was left
- `polled`: when Telegram has answered getUpdates, so before anything of the answer is stored or just after
- `asked`: when Telegram has received a message and not accepted it; it never does
- `accepted`: when Telegram has accepted a message and not answered
- `between`: right after the answer, between two bubbles
- `random`: at any moment, drawn uniformly
- `publishing`: not the daemon but whoever publishes an adapter for it, before or after one of the calls that change the
  disk, or at any moment; then the daemon, once it uses the adapter that `current` names
- `migrating`: while it migrates a database of version 0.1, before one of its statements or at any moment

In the end each daemon is left alone until nothing is pending.

A message is **lost** if no reply that reached Telegram names it and no reply that names it is in doubt. A reply is
**doubled** if Telegram has accepted the same bubble twice, or two replies to the same message. Telegram cannot tell
whether it has seen a message before, so what was being sent at a kill is **in doubt** and not sent again: one bubble if
one was on its way, however many were sent before. So two figures are given, and neither says all:

- `bubbles_in_doubt_per_kill`, by moment: `asked` and `accepted` are there to cause one, and there is another for each
  send that is on its way in the same instant.
- Shares of the messages. A message is in doubt if no bubble of its reply is confirmed; it is without a reply if none
  arrived. At random moments the share in doubt is the time that a send takes by the time between two kills, whatever
  people write; over all moments it is above that, as most kills here are aimed at something. Daemons live for
  `LIFE_SECONDS` on average, and every `PAUSE_SECONDS` one of a daemon's people writes some messages: more than a
  private bot hears, and as much as two cores bear for all daemons without making the sends slow.

Prints one JSON object last.
"""

import argparse
import asyncio
import itertools
import json
import random
import statistics
import sys
import tempfile
import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests/ is not installed

from aiogram import types
from aiohttp import web
from daemon_process import ADAPTER, NAMED, Child, ForkServer, import_seconds, publish_in, read_rows
from kill_files import Migrations, Publications

from doppel.terminal import print_status
from tests.bot.fakes.telegram_server import TOKEN, Refused, TelegramServer

MOMENTS = ("start", "polled", "asked", "accepted", "between", "random", "publishing", "migrating")
PEOPLE = tuple(types.User(id=7000 + number, is_bot=False, first_name=f"P{number}") for number in range(60))
DAEMONS = 6
LIFE_SECONDS = 10.0
MESSAGES_AT_ONCE = (1, 7)
"""What somebody writes in one go, before the persona replies."""
PAUSE_SECONDS = 0.6
"""Between somebody who writes and the next, on average."""
READY_SECONDS = 180.0


class KillingServer(TelegramServer):
    """A Telegram that kills the daemon at the next moment of the kind that is in `armed`."""

    def __init__(self) -> None:
        super().__init__()
        self.armed = ""
        self.child: Child | None = None
        self.polled = asyncio.Event()
        self.version = ""
        """Of the adapter that wrote the last bubble."""

    def kill_at(self, moment: str) -> None:
        if self.armed == moment and self.child is not None:
            self.armed = ""
            self.child.kill()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        method = request.match_info["method"].lower()
        if method == "getupdates":
            self.polled.set()
        if method == "sendchataction":  # most requests; checking them would take the time of those that matter
            return web.json_response({"ok": True, "result": True})
        response = await super()._handle(request)
        loop, soon = asyncio.get_running_loop(), random.uniform(0, 0.02)
        if method == "getupdates" and b"update_id" in (getattr(response, "body", b"") or b""):
            loop.call_later(soon, self.kill_at, "polled")
        if method == "sendmessage":
            loop.call_later(soon, self.kill_at, "between")
        return response

    async def _sendmessage(self, call: Any) -> types.Message:
        if self.armed == "asked":
            self.kill_at("asked")
            raise Refused(500, "killed before this was accepted")
        message = await super()._sendmessage(call)
        self.version = "".join(ADAPTER.findall(call.text))
        self.kill_at("accepted")
        return message


class Kill(NamedTuple):
    at: datetime
    moment: str
    written: int
    """Messages that were written in the life that it ended."""


class Lives:
    """The lives of one daemon, and those who write to it."""

    def __init__(
        self,
        folder: Path,
        server: KillingServer,
        forks: ForkServer,
        files: tuple[Migrations, Publications],
        life_seconds: float,
    ) -> None:
        self._life_seconds = life_seconds
        self.folder = folder
        self.server = server
        self._forks = forks
        self._migrations, self._publications = files
        self._numbers = itertools.count()
        self._settings = settings(server.url)
        self.written = 0
        self.kills: list[Kill] = []
        self.ready_seconds: list[float] = []

    async def run(self, moment: str) -> None:
        """One life that ends at a moment of this kind."""
        written = self.written
        if moment == "migrating":
            await self._migrations.kill_one(self.folder / "migrations")
        else:
            child = await self.start()
            if moment == "start":
                self.write()
                self.write()
                await asyncio.sleep(random.uniform(0, 1.2 * random.choice(self.ready_seconds or [0.5])))
            else:
                await self.until_ready()
                async with self._people_writing():
                    await self._until(moment, child)
            child.kill()
            await child.ended
            self.server.armed = ""
        self.kills.append(Kill(datetime.now(UTC).replace(tzinfo=None), moment, self.written - written))

    async def _until(self, moment: str, child: Child) -> None:
        """Waits for a random time and then for the moment."""
        if not await child.ends_within(random.uniform(0, 2 * self._life_seconds)):
            if moment == "publishing":
                await self._publications.kill_one(self.folder)
                await self._adapter_in_use()
            elif moment != "random":
                self.server.armed = moment
                await child.ends_within(10)

    async def _adapter_in_use(self) -> None:
        """Waits until the daemon replies with the adapter that `current` names: it polls once a second."""
        current = self._publications.current(self.folder)
        async with asyncio.timeout(30):
            while self.server.version != current:  # noqa: ASYNC110 - what is sent has no event of its own
                await asyncio.sleep(0.02)

    async def start(self) -> Child:
        self.server.requests.clear()
        self.server.polled.clear()
        self._began = time.monotonic()
        child = await self._forks.start("daemon", folder=str(self.folder), settings=self._settings, token=TOKEN)
        self.server.child = child
        return child

    async def until_ready(self) -> None:
        """Waits for the first poll of this life."""
        async with asyncio.timeout(READY_SECONDS):
            await self.server.polled.wait()
        self.ready_seconds.append(time.monotonic() - self._began)

    def write(self) -> None:
        """Somebody writes some messages."""
        user = random.choice(PEOPLE)
        for _ in range(random.randint(*MESSAGES_AT_ONCE)):
            self.server.user_says(f"m-{next(self._numbers)}.", user=user)
            self.written += 1

    @asynccontextmanager
    async def _people_writing(self) -> AsyncGenerator[None]:
        async def write_on() -> None:
            while True:
                self.write()
                await asyncio.sleep(random.expovariate(1 / PAUSE_SECONDS))

        writing = asyncio.create_task(write_on())
        try:
            yield
        finally:
            writing.cancel()

    async def finish(self) -> None:
        """A last life, until no message and no bubble is pending."""
        child = await self.start()
        await self.until_ready()
        unfinished = (
            "select (select count(*) from inbox where state in ('new', 'replying')), "
            "(select count(*) from outbox where state in ('pending', 'sending'))"
        )
        quiet = 0
        async with asyncio.timeout(300):
            while quiet < 10:
                is_done = not self.server.pending and self.query(unfinished) == [(0, 0)]
                quiet = quiet + 1 if is_done else 0
                await asyncio.sleep(0.1)
        child.kill()
        await child.ended

    def query(self, query: str) -> list[tuple[Any, ...]]:
        return read_rows(self.folder / "data" / "doppel.db", query)

    def account(self) -> dict[str, Any]:
        """What became of every message, and what was in doubt after which kill."""
        sent = [message.text or "" for message in self.server.sent]
        firsts = [text for text in sent if text.startswith("first")]
        received = set(NAMED.findall(" ".join(sent)))
        bubbles = self.query("select text, state, changed_at from outbox")
        confirmed = set(
            itertools.chain.from_iterable(NAMED.findall(text) for text, state, _ in bubbles if state == "sent")
        )
        doubtful = [(text, datetime.fromisoformat(at)) for text, state, at in bubbles if state == "unknown"]
        named = [set(NAMED.findall(text)) for text, _ in doubtful]
        everything = {f"m-{number}" for number in range(self.written)}
        in_doubt = set[str]().union(*named)
        # A bubble's time is that of the beginning of its sending: the kill is the first one after it.
        kill_times = [kill.at for kill in self.kills]
        by_kill: dict[int, list[set[str]]] = defaultdict(list)
        for (_, at), numbers in zip(doubtful, named, strict=True):
            by_kill[bisect_left(kill_times, at)].append(numbers)
        moments: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
        for number, kill in enumerate(self.kills):
            messages = len(set[str]().union(*by_kill[number]) - confirmed)
            moments[kill.moment].append((len(by_kill[number]), messages, kill.written))
        return {
            "messages": self.written,
            "bubbles": len(bubbles),
            "sent": len(sent),
            "lost": sorted(everything - received - in_doubt),
            "doubled": sum(count - 1 for count in Counter(sent).values()),
            "answered_twice": sum(count - 1 for count in Counter(NAMED.findall(" ".join(firsts))).values()),
            "bubbles_in_doubt": len(doubtful),
            "bubbles_in_doubt_not_received": sum(text not in set(sent) for text, _ in doubtful),
            "messages_in_doubt": len(in_doubt - confirmed),
            "messages_without_reply": len(everything - received),
            "not_of_a_kill": len(by_kill[len(self.kills)]),
            "integrity": self.query("pragma integrity_check") == [("ok",)],
            "moments": moments,
        }


def settings(api: str) -> dict[str, Any]:
    """The configuration of a daemon."""
    return {
        "telegram": {"api": api, "allow": [person.id for person in PEOPLE]},
        "reply": {"debounce_seconds": 0.02, "guard": False, "max_per_hour": 0, "stale_after": "36500d"},
        "web": {"enabled": False},
    }


async def measure(kills: int, daemons: int, life_seconds: float) -> dict[str, Any]:
    schedule = iter([MOMENTS[number % len(MOMENTS)] for number in range(kills)])
    done = itertools.count(1)
    began = time.monotonic()

    async def run_all(lives: Lives) -> None:
        for moment in schedule:
            await lives.run(moment)
            if (number := next(done)) % 50 == 0:
                print_status(f"{number} kills, {time.monotonic() - began:.0f} s")
        await lives.finish()

    importing = await import_seconds()
    with tempfile.TemporaryDirectory() as name:
        async with AsyncExitStack() as stack:
            forks = await stack.enter_async_context(ForkServer())
            migrations, publications = Migrations(Path(name), forks), Publications(forks)
            await migrations.prepare()
            all_lives = []
            for number in range(daemons):
                folder = Path(name) / f"daemon{number}"
                folder.mkdir()
                publish_in(folder)
                server = await stack.enter_async_context(KillingServer())
                all_lives.append(Lives(folder, server, forks, (migrations, publications), life_seconds))
            await publications.prepare(Path(name) / "publish")
            await asyncio.gather(*map(run_all, all_lives))
            for lives in all_lives:
                await publications.clean_up(lives.folder)
        accounts = [lives.account() for lives in all_lives]
    ready = sorted(itertools.chain.from_iterable(lives.ready_seconds for lives in all_lives))
    total = {key: sum((account[key] for account in accounts[1:]), start=accounts[0][key]) for key in _SUMMED}
    return {
        "kills": kills,
        "seconds": round(time.monotonic() - began),
        **total,
        "share_in_doubt": round(total["messages_in_doubt"] / total["messages"], 5),
        "share_without_reply": round(total["messages_without_reply"] / total["messages"], 5),
        "integrity": all(account["integrity"] for account in accounts),
        "moments": {moment: _of_moment(moment, accounts) for moment in MOMENTS},
        "import_seconds": round(importing, 2),
        "start_seconds": {"median": round(ready[len(ready) // 2], 2), "slowest": round(ready[-1], 2)},
        "migrations": migrations.result,
        "publications": publications.result,
    }


_SUMMED = (
    "messages",
    "bubbles",
    "sent",
    "lost",
    "doubled",
    "answered_twice",
    "bubbles_in_doubt",
    "bubbles_in_doubt_not_received",
    "messages_in_doubt",
    "messages_without_reply",
    "not_of_a_kill",
)


def _of_moment(moment: str, accounts: list[dict[str, Any]]) -> dict[str, Any]:
    kills = list(itertools.chain.from_iterable(account["moments"].get(moment, []) for account in accounts))
    messages = sum(written for _, _, written in kills)
    in_doubt = sum(numbers for _, numbers, _ in kills)
    bubbles = [count for count, _, _ in kills]
    return {
        "kills": len(kills),
        "messages": messages,
        "bubbles_in_doubt_per_kill": {
            "median": statistics.median(bubbles or [0]),
            "mean": round(statistics.fmean(bubbles or [0]), 3),
            "kills": {str(count): bubbles.count(count) for count in sorted(set(bubbles))},
        },
        "share_in_doubt": round(in_doubt / messages, 5) if messages else 0.0,
    }


def checks(result: dict[str, Any]) -> list[dict[str, Any]]:
    """What has to hold."""
    worst = max(result["moments"][moment]["bubbles_in_doubt_per_kill"]["median"] for moment in MOMENTS)
    slowest = round(result["import_seconds"] + result["start_seconds"]["slowest"], 2)
    at_random = result["moments"]["random"]["share_in_doubt"]
    unanswered = result["share_without_reply"]
    publications, migrations = result["publications"], result["migrations"]
    rows = [
        ("messages lost", len(result["lost"]), "0", not result["lost"]),
        ("bubbles doubled", result["doubled"], "0", result["doubled"] == 0),
        ("messages answered twice", result["answered_twice"], "0", result["answered_twice"] == 0),
        ("share of messages without a reply", unanswered, "<= 0.005", unanswered <= 0.005),
        ("share of messages in doubt, kills at random moments", at_random, "<= 0.005", at_random <= 0.005),
        ("bubbles in doubt for each kill, median of the worst moment", worst, "<= 1", worst <= 1),
        ("databases are whole", result["integrity"], "true", result["integrity"]),
        ("migrations that lost or changed a row", migrations["wrong"], "0", migrations["wrong"] == 0),
        ("adapters damaged by a kill", publications["damaged"], "0", publications["damaged"] == 0),
        ("leftovers of killed publications", publications["left"], "0", publications["left"] == 0),
        ("seconds until it polls again, slowest, with imports", slowest, "<= 20", slowest <= 20),
    ]
    return [{"name": name, "value": value, "goal": goal, "ok": is_ok} for name, value, goal, is_ok in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="64 kills instead of 1,000")
    parser.add_argument("--json", action="store_true", help="for scripts; the last line is always a JSON object")
    parser.add_argument("--kills", type=int, default=None, help="how many")
    parser.add_argument("--daemons", type=int, default=DAEMONS, help="how many are killed side by side")
    parser.add_argument("--life", type=float, default=LIFE_SECONDS, help="seconds that a daemon lives on average")
    arguments = parser.parse_args()
    with suppress(KeyboardInterrupt):
        kills = arguments.kills or (64 if arguments.quick else 1000)
        result = asyncio.run(measure(kills, arguments.daemons, arguments.life))
        print(json.dumps({**result, "checks": checks(result)}))


if __name__ == "__main__":
    main()
