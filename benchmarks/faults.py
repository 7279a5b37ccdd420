"""Breaks what the daemon depends on while people write, one thing at a time and for minutes, and mends it again.

    python benchmarks/faults.py [--quick] [--json]

The real daemon (store, conversations, python-telegram-bot, page) in a process of its own, on a local Bot API server,
with an engine that names the messages it answers. Each fault has a daemon of its own, and lasts two minutes:

- `too many requests`: Telegram answers 429 and says how long that lasts
- `internal error`, `bad gateway`: it answers 500, or what is in front of it answers 502
- `cut`: it closes connections, half of them after it has done what it was asked
- `slow`: it does so at once and answers after 10 to 40 seconds
- `conflict`: another program polls with the same token
- `engine away`, `engine busy`, `engine failed`: no reply can be written; the last is reopened, which takes as long
- `full disk`: nothing can be stored. The database lies on a small file system that is filled up; where none may be
  mounted, the process may not make its files larger instead (`disk` in the result says which)

Nothing is started again. Every message has to be answered exactly once, or be in doubt where Telegram did not confirm
what it may have accepted; the first reply must come within ten seconds after the fault; `/healthz` and `/readyz` must
say meanwhile what is so. Telegram's faults leave the daemon ready, as the page and other platforms work.

Prints one JSON object last.
"""

import argparse
import asyncio
import itertools
import json
import math
import random
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests/ is not installed

import aiohttp
from aiogram import types
from aiohttp import web
from daemon_process import ENGINE_FAULT, NAMED, Child, ForkServer, publish_in, read_rows

from doppel.terminal import print_status
from tests.bot.fakes.telegram_server import TOKEN, Fault, TelegramServer

PEOPLE = tuple(types.User(id=7000 + number, is_bot=False, first_name=f"P{number}") for number in range(20))
PAUSE_SECONDS = 1.0
"""Between somebody who writes one to three messages and the next, on average."""
SIDE_BY_SIDE = 4
FIRST_REPLY_SECONDS = 10.0
DONE_SECONDS = 120.0
SLOW_SECONDS = (10.0, 40.0)
TMPFS = "8m"


@dataclass(frozen=True)
class Trouble:
    """A fault.

    Attributes:
        name: of the fault.
        answer: what Telegram does to a request, from its method and the seconds that the fault still lasts.
        is_slow: whether Telegram's answers are late.
        engine: what is wrong with the engine; see `daemon_process`.
        fills_disk: whether the database's disk is full.
        is_ready: what `/readyz` should say meanwhile.
        leaves_doubt: whether Telegram may accept a message without confirming it.
    """

    name: str
    answer: Callable[[str, float], Fault | None] = lambda method, left: None
    is_slow: bool = False
    engine: str = ""
    fills_disk: bool = False
    is_ready: bool = True
    leaves_doubt: bool = False


def _too_many(_method: str, left: float) -> Fault:
    seconds = max(1, math.ceil(left))
    return Fault(429, f"Too Many Requests: retry after {seconds}", retry_after=seconds)


def _conflict(method: str, _left: float) -> Fault | None:
    text = "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running"
    return Fault(409, text) if method == "getupdates" else None


TROUBLES = (
    Trouble("too many requests", answer=_too_many),
    Trouble("internal error", answer=lambda method, left: Fault(500, "Internal Server Error")),
    Trouble("bad gateway", answer=lambda method, left: Fault(502, body=b"<html>Bad Gateway</html>"), leaves_doubt=True),
    Trouble("cut", answer=lambda method, left: Fault(cut=random.choice(("before", "after"))), leaves_doubt=True),
    Trouble("slow", is_slow=True),
    Trouble("conflict", answer=_conflict),
    Trouble("engine away", engine="away", is_ready=False),
    Trouble("engine busy", engine="busy"),
    Trouble("engine failed", engine="failed", is_ready=False),
    Trouble("full disk", fills_disk=True, is_ready=False),
)


class TroubledServer(TelegramServer):
    """A Telegram with a fault, while `trouble` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.trouble: Trouble | None = None
        self.polled = asyncio.Event()
        self.replied = asyncio.Event()
        self._is_over = asyncio.Event()
        self._ends_at = 0.0

    def begin(self, trouble: Trouble, seconds: float) -> None:
        self._is_over.clear()
        self.trouble, self._ends_at = trouble, time.monotonic() + seconds

    def end(self) -> None:
        """The fault is over; answers that are late come now."""
        self.trouble = None
        self._is_over.set()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        method, trouble = request.match_info["method"].lower(), self.trouble
        if method == "getupdates":
            self.polled.set()
        if trouble is not None and (fault := trouble.answer(method, self._ends_at - time.monotonic())) is not None:
            self.fail(method, fault)
        response = await super()._handle(request)
        if trouble is not None and trouble.is_slow:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._is_over.wait(), random.uniform(*SLOW_SECONDS))
        if method == "sendmessage" and response.status == 200:
            self.replied.set()
        return response


class Trial:
    """A daemon that meets one fault."""

    def __init__(self, trouble: Trouble, folder: Path, server: TroubledServer, seconds: float) -> None:
        self._trouble = trouble
        self._folder = folder
        self._database = folder / "data" / "doppel.db"
        self._server = server
        self._seconds = seconds
        self._numbers = itertools.count()
        self._written = 0
        self._port = _free_port()

    async def run(self, forks: ForkServer) -> dict[str, Any]:
        publish_in(self._folder)
        self._database.parent.mkdir()
        disk = _mount(self._database.parent) if self._trouble.fills_disk else None
        child = await forks.start(
            "daemon",
            folder=str(self._folder),
            settings=_settings(self._server.url, self._port),
            token=TOKEN,
            log=str(self._folder / "daemon.log"),
        )
        try:
            return {**await self._break_and_mend(child, disk), **({"disk": disk} if disk else {})}
        finally:
            child.kill()
            await child.ended
            if disk == "tmpfs":
                await asyncio.to_thread(subprocess.run, ("umount", self._database.parent), check=True)

    async def _break_and_mend(self, child: Child, disk: str | None) -> dict[str, Any]:
        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as tasks:
            async with asyncio.timeout(180):
                await self._server.polled.wait()
                while (await self._page(session, "readyz"))[0] != 200:  # noqa: ASYNC110 - another process
                    await asyncio.sleep(0.1)
            writing = tasks.create_task(self._write_on())
            await self._server.replied.wait()
            await asyncio.sleep(2)
            with self._broken(child, disk):
                answers = await self._watch(session)
            ended = time.monotonic()
            self._server.replied.clear()
            first = await _seconds_until(self._server.replied, ended)
            await asyncio.sleep(3)
            writing.cancel()
            done = await self._until_done(ended)
            after = await self._page(session, "readyz")
        return {
            "first_reply_seconds": first,
            "all_answered_seconds": done,
            "healthz": sorted({health[0] for health, _ in answers}),
            # The first seconds are left out: it has to notice.
            "readyz": [list(pair) for pair in sorted({ready for _, ready in answers[len(answers) // 2 :]})],
            "readyz_after": after[0],
            "still_running": not child.ended.done(),
            **self._account(),
        }

    @contextmanager
    def _broken(self, child: Child, disk: str | None) -> Iterator[None]:
        """The fault lasts while the block runs."""
        engine, filler = self._folder / ENGINE_FAULT, self._database.with_name("filler")
        limits = resource.prlimit(child.pid, resource.RLIMIT_FSIZE)
        self._server.begin(self._trouble, self._seconds)
        if self._trouble.engine:
            engine.write_text(self._trouble.engine)
        if disk == "tmpfs":
            _fill(filler)
        elif disk is not None:
            largest = max(path.stat().st_size for path in self._database.parent.iterdir())
            resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (largest, limits[1]))
        try:
            yield
        finally:
            engine.unlink(missing_ok=True)
            filler.unlink(missing_ok=True)
            resource.prlimit(child.pid, resource.RLIMIT_FSIZE, limits)
            self._server.end()

    async def _watch(self, session: aiohttp.ClientSession) -> list[tuple[tuple[int, str], tuple[int, str]]]:
        """What the page says of the daemon during the fault."""
        answers, until = [], time.monotonic() + self._seconds
        while time.monotonic() < until:
            answers.append((await self._page(session, "healthz"), await self._page(session, "readyz")))
            await asyncio.sleep(0.2)
        return answers

    async def _page(self, session: aiohttp.ClientSession, path: str) -> tuple[int, str]:
        try:
            async with session.get(
                f"http://127.0.0.1:{self._port}/{path}", timeout=aiohttp.ClientTimeout(total=5)
            ) as answer:
                return answer.status, (await answer.text()).strip()
        except (aiohttp.ClientError, TimeoutError) as error:
            return 0, type(error).__name__

    async def _write_on(self) -> None:
        """People write."""
        while True:
            user = random.choice(PEOPLE)
            for _ in range(random.randint(1, 3)):
                self._server.user_says(f"m-{next(self._numbers)}.", user=user)
                self._written += 1
            await asyncio.sleep(random.expovariate(1 / PAUSE_SECONDS))

    async def _until_done(self, ended: float) -> float | None:
        """Seconds from the end of the fault until everything is answered; None if that takes too long."""
        unfinished = (
            "select (select count(*) from inbox where state in ('new', 'replying')), "
            "(select count(*) from outbox where state in ('pending', 'sending'))"
        )
        quiet, began = 0, time.monotonic()
        while time.monotonic() < began + DONE_SECONDS:
            is_done = not self._server.pending and read_rows(self._database, unfinished) == [(0, 0)]
            quiet = quiet + 1 if is_done else 0
            if quiet == 10:
                return round(time.monotonic() - ended - 1.0, 1)
            await asyncio.sleep(0.1)
        return None

    def _account(self) -> dict[str, Any]:
        """What became of every message."""
        sent = [message.text or "" for message in self._server.sent]
        firsts = NAMED.findall(" ".join(text for text in sent if text.startswith("first")))
        bubbles = read_rows(self._database, "select text, state from outbox")
        in_doubt = {text for text, state in bubbles if state == "unknown"}
        received, doubtful = set(NAMED.findall(" ".join(sent))), set(NAMED.findall(" ".join(in_doubt)))
        everything = {f"m-{number}" for number in range(self._written)}
        return {
            "messages": self._written,
            "bubbles": len(bubbles),
            "lost": sorted(everything - received - doubtful),
            "doubled": sum(count - 1 for count in Counter(sent).values()),
            "answered_twice": sum(count - 1 for count in Counter(firsts).values()),
            "bubbles_in_doubt": len(in_doubt),
            "bubbles_in_doubt_not_received": len(in_doubt - set(sent)),
            "integrity": read_rows(self._database, "pragma integrity_check") == [("ok",)],
        }


def _settings(api: str, port: int) -> dict[str, Any]:
    return {
        "telegram": {"api": api, "allow": [person.id for person in PEOPLE]},
        "reply": {"debounce_seconds": 0.1, "guard": False, "max_per_hour": 0, "stale_after": "36500d"},
        "web": {"port": port},
    }


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


async def _seconds_until(event: asyncio.Event, began: float) -> float | None:
    try:
        await asyncio.wait_for(event.wait(), DONE_SECONDS)
    except TimeoutError:
        return None
    return round(time.monotonic() - began, 1)


def _mount(folder: Path) -> str:
    """Mounts a small file system; returns how a full disk is made then."""
    mounting = subprocess.run(
        ("mount", "-t", "tmpfs", "-o", f"size={TMPFS}", "tmpfs", folder), check=False, stderr=subprocess.DEVNULL
    )
    return "limited file size" if mounting.returncode else "tmpfs"


def _fill(path: Path) -> None:
    """Writes a file until its disk is full."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        for size in (65536, 4096, 1):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))


async def measure(names: Sequence[str], seconds: float, side_by_side: int) -> dict[str, Any]:
    results: dict[str, dict[str, Any]] = {}
    turns = asyncio.Semaphore(side_by_side)

    async def meet(trouble: Trouble, parent: Path, forks: ForkServer) -> None:
        folder = parent / trouble.name.replace(" ", "_")
        await asyncio.to_thread(folder.mkdir)
        async with turns, TroubledServer() as server:
            results[trouble.name] = await Trial(trouble, folder, server, seconds).run(forks)
        print_status(f"{trouble.name}: {json.dumps(results[trouble.name])}")

    troubles = [trouble for trouble in TROUBLES if trouble.name in names]
    with tempfile.TemporaryDirectory() as name:
        async with ForkServer() as forks, asyncio.TaskGroup() as tasks:
            for trouble in troubles:
                tasks.create_task(meet(trouble, Path(name), forks))
    ordered = {trouble.name: results[trouble.name] for trouble in troubles}
    return {"seconds": seconds, "faults": ordered, "checks": [_check(one, ordered[one.name]) for one in troubles]}


def _check(trouble: Trouble, result: dict[str, Any]) -> dict[str, Any]:
    """Whether a daemon met a fault as it should, and what it did not."""
    first, status = result["first_reply_seconds"], 200 if trouble.is_ready else 503
    wrong = {
        f"{len(result['lost'])} messages lost": result["lost"],
        f"{result['doubled']} bubbles doubled": result["doubled"],
        f"{result['answered_twice']} messages answered twice": result["answered_twice"],
        f"{result['bubbles_in_doubt']} bubbles in doubt": result["bubbles_in_doubt"] and not trouble.leaves_doubt,
        "the database is damaged": not result["integrity"],
        "it ended": not result["still_running"],
        f"the first reply came after {first} s": first is None or first > FIRST_REPLY_SECONDS,
        "not all messages were answered": result["all_answered_seconds"] is None,
        f"/healthz said {result['healthz']}": result["healthz"] != [200],
        f"/readyz said {result['readyz']}": {code for code, _ in result["readyz"]} != {status},
        f"/readyz said {result['readyz_after']} afterwards": result["readyz_after"] != 200,
    }
    found = [text for text, is_wrong in wrong.items() if is_wrong]
    return {
        "name": trouble.name,
        "value": "; ".join(found) or f"first reply after {first} s",
        "goal": f"all answered once, first reply <= {FIRST_REPLY_SECONDS:.0f} s, page says {status}",
        "ok": not found,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="each fault lasts 8 s instead of 120")
    parser.add_argument("--json", action="store_true", help="for scripts; the last line is always a JSON object")
    parser.add_argument("--seconds", type=float, default=None, help="how long each fault lasts")
    parser.add_argument("--faults", nargs="+", choices=[trouble.name for trouble in TROUBLES], help="only these")
    parser.add_argument("--side-by-side", type=int, default=SIDE_BY_SIDE, help="faults at a time")
    arguments = parser.parse_args()
    names = arguments.faults or [trouble.name for trouble in TROUBLES]
    with suppress(KeyboardInterrupt):
        seconds = arguments.seconds or (8.0 if arguments.quick else 120.0)
        print(json.dumps(asyncio.run(measure(names, seconds, arguments.side_by_side))))


if __name__ == "__main__":
    main()
