"""The real daemon in processes that start within a fraction of a second and can be killed: for kill.py and faults.py.

A server process (this file, run as a script) imports everything once, builds what the fake engine needs, and forks for
each job while it has a single thread. What a child does is what the daemon does from there on: opening the database,
recovering, connecting. Only the imports are missing from its start; `import_seconds` measures those.
"""

import asyncio
import gc
import json
import os
import re
import signal
import sqlite3
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, Self

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests/ is not installed

NAMED = re.compile(r"m-\d+")
"""The number of a message, in it and in the replies to it."""

ADAPTER = re.compile(r"@(\d+)")
"""The version of the adapter that wrote a reply, in the reply."""

ENGINE_FAULT = "engine_fault"
"""A file in the daemon's folder that says what is wrong with the engine: `away`, `busy` or `failed`."""

WEIGHTS_BYTES = 1_000_000
"""Size of the adapters that are published: writing and syncing them takes some time, too."""

_CHANGING_CALLS = ("mkdir", "rename", "replace", "fsync", "chmod", "unlink", "rmdir")
"""The functions of `os` that publishing goes through to change the disk, beside writing itself."""


class Child:
    """A process that does one job."""

    def __init__(self, pid: int, ended: "asyncio.Future[int]") -> None:
        self.pid = pid
        self.ended = ended
        """Its exit code once it has ended, negative for a signal."""

    def kill(self) -> None:
        """Sends SIGKILL, unless it has ended."""
        if not self.ended.done():
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    async def ends_within(self, seconds: float) -> bool:
        """Waits until it has ended, at most so long."""
        await asyncio.wait((self.ended,), timeout=seconds)
        return self.ended.done()


class ForkServer:
    """Starts jobs: `async with ForkServer() as forks: child = await forks.start("daemon", folder=…, api=…)`.

    All that is still running ends with it.
    """

    async def __aenter__(self) -> Self:
        # The tokenizer would start threads, and a process with threads must not fork.
        environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
        self._process: Process = await asyncio.create_subprocess_exec(
            sys.executable, __file__, stdin=PIPE, stdout=PIPE, env=environment
        )
        self._numbers = 0
        self._started: dict[int, asyncio.Future[Child]] = {}
        self._ended: dict[int, asyncio.Future[int]] = {}
        assert self._process.stdout is not None
        if not await self._process.stdout.readline():
            raise RuntimeError("the process that forks could not start")
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()
        await self._reading

    async def start(self, job: str, **arguments: Any) -> Child:
        """Forks a process for one of `JOBS`."""
        self._numbers += 1
        number, loop = self._numbers, asyncio.get_running_loop()
        self._started[number] = loop.create_future()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"number": number, "job": job, "arguments": arguments}).encode() + b"\n")
        return await self._started[number]

    async def _read(self) -> None:
        """Notes which children have started and ended."""
        assert self._process.stdout is not None
        loop = asyncio.get_running_loop()
        async for line in self._process.stdout:
            event = json.loads(line)
            if "number" in event:
                ended = self._ended[event["pid"]] = loop.create_future()
                self._started.pop(event["number"]).set_result(Child(event["pid"], ended))
            else:
                self._ended.pop(event["pid"]).set_result(event["code"])


async def import_seconds() -> float:
    """How long a fresh process needs to import the daemon: what a forked one is spared."""
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "import bot.app, bot.platforms.telegram.platform", cwd=Path(__file__).parents[1]
    )
    await process.wait()
    return time.monotonic() - began


def read_rows(database: Path, query: str) -> list[tuple[Any, ...]]:
    """The rows of a query on a SQLite file, which may be in use."""
    with closing(sqlite3.connect(database, timeout=10)) as connection:
        return connection.execute(query).fetchall()


# In the children -----------------------------------------------------------------------------------------


def run_daemon(folder: str, settings: dict[str, Any], token: str, log: str | None = None) -> None:
    """One life of the daemon, on the configuration `settings`; ends when it is killed."""
    from random import Random

    from bot import web
    from bot.app import Daemon, Dependencies
    from bot.clock import SystemClock
    from bot.platforms import telegram
    from tests.bot.harness import config_in

    if log is not None:
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2)
    config = config_in(Path(folder), **settings)
    dependencies = Dependencies(
        environ={"TELEGRAM_TOKEN": token, "NO_PROXY": "127.0.0.1"},
        platforms={"telegram": telegram.PLUGIN, "web": web.PLUGIN},
        open_engine=lambda _: _naming_engine(Path(folder) / ENGINE_FAULT),
        clock=SystemClock(),
        random=Random(),
    )
    asyncio.run(Daemon(config, dependencies).run(asyncio.Event()))


def open_store(url: str, persona: str, kill_at: int = 0) -> None:
    """Opens the database and closes it; killed before its statement or commit number `kill_at`, from 1.

    Prints how many there are.
    """
    from bot.store import Store

    count = _kill_at_statement(kill_at)
    Store(url, persona).close()
    Path(f"{url.removeprefix('sqlite:///')}.statements").write_text(str(count()))


def run_daemon_until(kill_at: int, **arguments: Any) -> None:
    """Like `run_daemon`, but killed before statement or commit number `kill_at` of its database."""
    _kill_at_statement(kill_at)
    run_daemon(**arguments)


def publish_adapter(folder: str, kill_at: int = 0) -> None:
    """Publishes an adapter; killed at change number `kill_at` of the disk: 1 is before the first call, 2 after it."""
    calls = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == kill_at:
                _die()
            result = function(*args, **kwargs)
            calls += 1
            if calls == kill_at:
                _die()
            return result

        return call

    for name in _CHANGING_CALLS:
        setattr(os, name, counted(getattr(os, name)))
    publish_in(Path(folder))
    Path(folder, "calls").write_text(str(calls))


def publish_in(folder: Path, weights: int = WEIGHTS_BYTES) -> None:
    """Publishes the next adapter of the daemon in a folder, with so many bytes of weights."""
    from doppel.adapters.habits import Habits, write_habits
    from doppel.adapters.versions import PEFT_CONFIG, WEIGHTS, Manifest, publishing
    from tests.bot.harness import BASE, config_in

    config = config_in(folder)
    manifest = Manifest(persona=config.persona.name, base=BASE, header_vocabulary={"kind": ["dm", "group", "post"]})
    with publishing(config.adapters_dir, manifest) as staging:
        (staging / WEIGHTS).write_bytes(os.urandom(weights))
        (staging / PEFT_CONFIG).write_text('{"peft_type": "LORA", "r": 4}')
        write_habits(staging, Habits(seconds_per_character=0.0))


def _kill_at_statement(kill_at: int) -> Callable[[], int]:
    """Kills this process before a statement or commit of any database; returns what counts them."""
    from sqlalchemy import Engine, event

    statements = 0

    def count(*_: object) -> None:
        nonlocal statements
        statements += 1
        if statements == kill_at:
            _die()

    event.listen(Engine, "before_cursor_execute", count)
    event.listen(Engine, "commit", count)
    return lambda: statements


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def _naming_engine(fault_file: Path) -> Any:
    """An engine that replies with the numbers of the messages that are not answered yet, in two bubbles, and with the
    version of its adapter.
    """
    from collections.abc import AsyncGenerator

    from doppel.engine import EngineBusy, EngineUnavailable, Health, Request, Token
    from tests.bot.harness import FakeEngine
    from tests.tiny_tokenizer import build_transcript

    def fault() -> str:
        return fault_file.read_text() if fault_file.exists() else ""

    class NamingEngine(FakeEngine):
        async def generate(self, request: Request) -> AsyncGenerator[Token]:
            if (kind := fault()) == "busy":
                raise EngineBusy("too many requests")
            if kind:
                raise EngineUnavailable("the engine is away")
            prompt = self.transcript.tokenizer.decode(request.prompt)
            waiting = prompt.rpartition("\n\nme:")[0].rpartition("\n\n")[2]
            named = " ".join(NAMED.findall(waiting))
            version = (request.adapter or "").partition("#")[0]
            await asyncio.sleep(0.005)
            for token in self._tokens([f"first {named} @{version}", f"second {named} @{version}"]):
                yield Token(token, -1.0)

        def health(self) -> Health:
            if fault() == "failed":
                return Health(ready=False, adapters=(), failure="out of memory")
            return Health(ready=fault() != "away", adapters=tuple(self.loaded))

    while fault() == "failed":
        time.sleep(0.1)  # blocks its thread, as loading a model does
    return NamingEngine(_transcript or build_transcript())


_transcript: Any = None

JOBS: dict[str, Callable[..., None]] = {
    "daemon": run_daemon,
    "daemon until": run_daemon_until,
    "store": open_store,
    "publish": publish_adapter,
}


# In the process that forks -------------------------------------------------------------------------------


def serve() -> None:
    """Forks for each line of JSON on stdin; writes a line for each child that starts or ends."""
    _preload()
    out, running = os.dup(1), set[int]()
    os.dup2(2, 1)  # what a child prints must not look like an event

    def tell(**event: Any) -> None:
        os.write(out, json.dumps(event).encode() + b"\n")

    def reap(_number: int, _frame: FrameType | None) -> None:
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                running.discard(ended[0])
                tell(pid=ended[0], code=os.waitstatus_to_exitcode(ended[1]))

    signal.signal(signal.SIGCHLD, reap)
    tell(ready=True)
    for line in sys.stdin:
        order = json.loads(line)
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGCHLD,))  # a start is told before the end
        pid = os.fork()
        if not pid:
            _run_job(order["job"], order["arguments"], out)
        running.add(pid)
        tell(number=order["number"], pid=pid)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGCHLD,))
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for pid in running:
        os.kill(pid, signal.SIGKILL)


def _preload() -> None:
    """Imports what the jobs need, and what they import on their way."""
    global _transcript  # noqa: PLW0603 - built once for all children

    import alembic.migration
    import alembic.operations

    import bot.app
    import bot.platforms.telegram.platform
    import bot.web.platform
    import tests.bot.harness
    from tests.tiny_tokenizer import build_transcript

    _ = (alembic, bot, tests)
    _transcript = build_transcript()
    gc.collect()
    gc.freeze()  # or the collector of every child would copy all pages
    task = Path("/proc/self/task")
    if task.exists() and len(list(task.iterdir())) > 1:
        raise RuntimeError("this process has threads and cannot fork safely")


def _run_job(job: str, arguments: dict[str, Any], out: int) -> NoReturn:
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGCHLD,))
        os.close(out)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        JOBS[job](**arguments)
        code = 0
    except BaseException:  # noqa: BLE001 - the parent is told by the exit code
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


if __name__ == "__main__":
    serve()
