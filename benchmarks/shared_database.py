"""Kills daemons that share a PostgreSQL database, again and again, while people write.

    python benchmarks/shared_database.py [--quick] [--json]

Three real daemons (conversations, schedules, python-telegram-bot) in processes of their own, on one local Bot API
server and one database. One of them polls Telegram, all of them write and send replies, and a schedule is due every two
seconds. Now and then one is killed with SIGKILL or stopped (SIGSTOP) for longer than its leases last, at a random
moment or, every second time, while it sends; it is started again a while later. Never all of them at once. In the end
all run until nothing is pending.

A message is **lost** if no reply that reached Telegram names it and no reply that names it is in doubt; **answered
twice** if two replies do. What was being sent is in doubt and not sent again, so some get no reply. A slot is posted by
one daemon; one whose daemon was killed is written by another.

Prints one JSON object last.
"""

import argparse
import asyncio
import json
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests/ is not installed

from aiogram import types
from daemon_process import NAMED, Child, ForkServer, publish_in
from sqlalchemy import Connection, Engine, select

from bot.store.connect import open_engine
from bot.store.leases import LEASE
from bot.store.schema import InboxState, OutboxState, inbox, outbox, slots
from doppel.terminal import print_status
from tests.bot.fakes.telegram_server import TOKEN, TelegramServer
from tests.bot.postgres import running_postgres

DAEMONS = 3
PEOPLE = tuple(types.User(id=7000 + number, is_bot=False, first_name=f"P{number}") for number in range(30))
PAUSE_SECONDS = 0.25
"""Between somebody who writes some messages and the next, on average."""
STOPPED_SECONDS = LEASE.total_seconds() + 5
POST_TO = 7100


class SharedServer(TelegramServer):
    """A Telegram that calls `on_send` when it has received a message, before it accepts it."""

    on_send: asyncio.Event

    async def _sendmessage(self, call: Any) -> types.Message:
        self.on_send.set()
        return await super()._sendmessage(call)


class Daemons:
    """Three daemons, and who breaks them."""

    def __init__(self, folder: Path, server: SharedServer, forks: ForkServer, url: str, *, kills_only: bool) -> None:
        self._folder = folder
        self._server = server
        self._forks = forks
        self._settings = {
            "store": url,
            "telegram": {"api": server.url, "allow": [person.id for person in PEOPLE]},
            "reply": {"debounce_seconds": 0.05, "guard": False, "max_per_hour": 0, "stale_after": "36500d"},
            "posts": [{"name": "often", "to": f"telegram:{POST_TO}", "every": "2s"}],
            "web": {"enabled": False},
        }
        self._children: dict[int, Child] = {}
        self._kills_only = kills_only
        self.kills = self.stops = self.deaths = 0

    async def start(self, number: int) -> None:
        log = str(self._folder / f"daemon{number}.log")
        self._children[number] = await self._forks.start(
            "daemon", folder=str(self._folder), settings=self._settings, token=TOKEN, log=log
        )

    async def break_one(self) -> None:
        """Kills or stops one of those that run, and starts it again after a while."""
        number = random.choice(list(self._children))
        child = self._children.pop(number)
        if child.ended.done():
            self.deaths += 1
            print_status(f"daemon {number} has ended by itself")
            await self.start(number)
            return
        if random.random() < 0.5:
            self._server.on_send.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._server.on_send.wait(), 1)
        if self._kills_only or random.random() < 0.8:
            self.kills += 1
            child.kill()
            await child.ended
            await asyncio.sleep(random.uniform(0, 5))
            await self.start(number)
        else:
            self.stops += 1
            os.kill(child.pid, signal.SIGSTOP)
            await asyncio.sleep(STOPPED_SECONDS)
            os.kill(child.pid, signal.SIGCONT)
            self._children[number] = child

    async def break_on(self, count: int) -> None:
        """Breaks them one after another, and two at a time now and then."""
        breaking: set[asyncio.Task[None]] = set()
        for done in range(count):
            await asyncio.sleep(random.uniform(0.5, 4))
            while len(self._children) < DAEMONS - (random.random() < 0.3):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
            breaking.add(asyncio.create_task(self.break_one()))
            if done % 20 == 19:
                print_status(f"{done + 1} of {count}")
        await asyncio.gather(*breaking)


async def write_on(server: SharedServer, written: list[str], times: dict[str, float]) -> None:
    """People write until cancelled."""
    while True:
        user = random.choice(PEOPLE)
        for _ in range(random.randint(1, 3)):
            name = f"m-{len(written)}"
            written.append(name)
            times[name] = time.monotonic()
            server.user_says(f"{name}.", user=user)
        await asyncio.sleep(random.expovariate(1 / PAUSE_SECONDS))


def count_unfinished(connection: Connection) -> int:
    new = select(inbox.c.id).where(inbox.c.state.in_((InboxState.NEW, InboxState.REPLYING)))
    pending = select(outbox.c.id).where(outbox.c.state.in_((OutboxState.PENDING, OutboxState.SENDING)))
    return len(connection.execute(new).all()) + len(connection.execute(pending).all())


async def until_done(server: SharedServer, engine: Engine) -> None:
    """Waits until no message is waiting and no bubble but the next post's."""
    quiet = 0
    async with asyncio.timeout(300):
        while quiet < 3:
            with engine.connect() as connection:
                is_done = not server.pending and count_unfinished(connection) <= 1
            quiet = quiet + 1 if is_done else 0
            await asyncio.sleep(0.3)


async def measure(count: int, *, kills_only: bool) -> dict[str, Any]:
    written: list[str] = []
    times: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name, running_postgres() as postgres:
        folder, url = Path(name), postgres.create_database()
        publish_in(folder)
        began = datetime.now(UTC)
        async with ForkServer() as forks, SharedServer() as server:
            server.on_send = asyncio.Event()
            daemons = Daemons(folder, server, forks, url, kills_only=kills_only)
            for number in range(DAEMONS):  # at once: they also create the tables at once
                await daemons.start(number)
            writing = asyncio.create_task(write_on(server, written, times))
            await daemons.break_on(count)
            writing.cancel()
            engine = open_engine(url)
            await until_done(server, engine)
            sent = [message.text or "" for message in server.sent if message.chat.id != POST_TO]
        with engine.connect() as connection:
            doubtful = connection.execute(select(outbox.c.text).where(outbox.c.state == OutboxState.UNKNOWN)).scalars()
            in_doubt = set(NAMED.findall(" ".join(doubtful)))
            claimed = connection.execute(select(slots.c.due, slots.c.state).order_by(slots.c.due)).all()
            turns = connection.execute(select(outbox.c.slot_id).where(outbox.c.position == 0, outbox.c.kind == "post"))
            posts = Counter(turns.scalars())
        engine.dispose()
        logs = "".join((folder / f"daemon{n}.log").read_text(errors="replace") for n in range(DAEMONS))
    received = set(NAMED.findall(" ".join(sent)))
    firsts = Counter(NAMED.findall(" ".join(text for text in sent if text.startswith("first"))))
    seconds = (datetime.now(UTC) - began).total_seconds()
    return {
        "kills": daemons.kills,
        "stops": daemons.stops,
        "ended_by_themselves": daemons.deaths,
        "seconds": round(seconds),
        "messages": len(written),
        "lost": sorted(set(written) - received - in_doubt),
        "doubled": sum(number - 1 for number in Counter(sent).values()),
        "answered_twice": sum(number - 1 for number in firsts.values()),
        "without_reply": len(set(written) - received),
        "slots": len(claimed),
        "slots_posted": sum(row.state == "posted" for row in claimed),
        "slots_posted_twice": sum(number - 1 for number in posts.values()),
        "errors": sorted(Counter(re.findall(r"^[\w.]*(?:Error|Exception|Lost|Later)\b.*", logs, re.MULTILINE)))[:5],
    }


def checks(result: dict[str, Any]) -> list[dict[str, Any]]:
    per_break = round(result["without_reply"] / (result["kills"] + result["stops"]), 3)
    rows = [
        ("messages lost", len(result["lost"]), "0", not result["lost"]),
        ("bubbles doubled", result["doubled"], "0", result["doubled"] == 0),
        ("messages answered twice", result["answered_twice"], "0", result["answered_twice"] == 0),
        ("slots posted twice", result["slots_posted_twice"], "0", result["slots_posted_twice"] == 0),
        ("messages without a reply, for each kill or stop", per_break, "<= 1", per_break <= 1),
        ("daemons that ended by themselves", result["ended_by_themselves"], "0", not result["ended_by_themselves"]),
        ("unexpected errors", len(result["errors"]), "0", not result["errors"]),
    ]
    return [{"name": name, "value": value, "goal": goal, "ok": is_ok} for name, value, goal, is_ok in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="break 12 times instead of 200")
    parser.add_argument("--json", action="store_true", help="for scripts; the last line is always a JSON object")
    parser.add_argument("--count", type=int, default=None, help="how often a daemon is broken")
    parser.add_argument(
        "--kills-only", action="store_true", help="stop no daemon, which takes twenty seconds each time"
    )
    arguments = parser.parse_args()
    count = arguments.count or (12 if arguments.quick else 200)
    result = asyncio.run(measure(count, kills_only=arguments.kills_only))
    print(json.dumps({**result, "checks": checks(result)}))


if __name__ == "__main__":
    main()
