"""The daemon as a whole with a fake engine: real store, real page server, start to stop."""

import asyncio
import logging
import os
import socket
import sqlite3
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from bot.app import Daemon, Dependencies
from bot.clock import SystemClock
from bot.platforms import Platform
from bot.store import Store, inbox
from bot.store.personal_data import LiveMessages
from bot.store.schema import NewMessage
from bot.store.schema import inbox as messages
from bot.web import PLUGIN
from bot.web.platform import WebPlatform
from bot.web.server import listen
from bot.web.settings import WebSettings
from doppel.adapters.habits import Habits
from doppel.config import Config
from doppel.errors import DoppelError, UserError
from doppel.personal_data import Account, Person
from doppel.plugins import PlatformPlugin
from doppel.transcript import Transcript
from tests.bot.harness import FakeEngine, FakePlatform, config_in, plugin, publish

QUICK = Habits(seconds_per_character=0.0)


class SlowEngine:
    """Opens the fake engine, but not before `may_load` is set: a model that takes long to load."""

    def __init__(self, transcript: Transcript) -> None:
        self.may_load = threading.Event()
        self.engine = FakeEngine(transcript)

    def __call__(self, config: Config) -> FakeEngine:
        assert self.may_load.wait(20)
        return self.engine


@pytest.fixture
def config(tmp_path: Path) -> Config:
    config = config_in(tmp_path, web={"port": 0}, reply={"debounce_seconds": 0})
    publish(config, habits=QUICK)
    return config


@pytest.fixture
def slow_engine(tiny_transcript: Transcript) -> SlowEngine:
    return SlowEngine(tiny_transcript)


def dependencies(slow_engine: Any, *platforms: PlatformPlugin[Any]) -> Dependencies:
    plugins = (replace(PLUGIN, open=Watched), *platforms)
    return Dependencies({}, {plugin.name: plugin for plugin in plugins}, slow_engine, SystemClock(), Random(1))


class Watched(WebPlatform):
    """Reports every change of a chat."""

    def __init__(self, settings: WebSettings, environ: Mapping[str, str]) -> None:
        super().__init__(settings, environ)
        self.changes: asyncio.Queue[str] = asyncio.Queue()

    def _mark_changed(self, chat: str) -> None:
        super()._mark_changed(chat)
        self.changes.put_nowait(chat)


class Running:
    """A running daemon and an HTTP client of its page."""

    def __init__(self, daemon: Daemon, client: httpx.AsyncClient) -> None:
        self.daemon = daemon
        self.client = client
        self._stop = asyncio.Event()
        self._task = asyncio.create_task(daemon.run(self._stop))

    @property
    def web(self) -> Watched:
        platform: Platform = self.daemon._connections["web"].platform
        assert isinstance(platform, Watched)
        return platform

    async def wait_until_ready(self) -> None:
        await self.daemon._responder.wait_until_ready()
        assert (await self.client.get("/readyz")).status_code == 200

    async def changes(self, count: int) -> None:
        for _ in range(count):
            await self.web.changes.get()

    async def stop(self) -> dict[str, Any]:
        self._stop.set()
        return await self._task


@asynccontextmanager
async def running(daemon: Daemon) -> AsyncIterator[Running]:
    url = f"http://127.0.0.1:{daemon.port}"
    async with asyncio.timeout(60), httpx.AsyncClient(base_url=url, trust_env=False, timeout=20) as client:
        run = Running(daemon, client)
        try:
            yield run
        finally:
            await asyncio.gather(run.stop(), return_exceptions=True)


async def test_alive_before_ready_and_early_messages_are_answered(config: Config, slow_engine: SlowEngine) -> None:
    slow_engine.engine.turns = [["good morning", "slept well?"]]
    daemon = Daemon(config, dependencies(slow_engine))
    async with running(daemon) as run:
        assert (await run.client.get("/healthz")).status_code == 200
        answer = await run.client.get("/readyz")
        assert (answer.status_code, answer.text) == (503, "starting: loading the model\n")
        await run.web.submit("a" * 32, "hello?", "1")
        slow_engine.may_load.set()
        await run.wait_until_ready()
        await run.changes(3)
        report = await run.stop()
    assert report["replies"] == 1
    assert report["posts"] == 0
    assert report["adapter"] == "0001"
    assert report["platforms"] == ["web"]
    assert report["uptime_seconds"] > 0


async def test_systemd_hears_when_it_is_ready_and_when_it_stops(
    config: Config, slow_engine: SlowEngine, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(f"\0{tmp_path.name}-{os.getpid()}")
        channel.setblocking(False)
        environ = {"NOTIFY_SOCKET": f"@{tmp_path.name}-{os.getpid()}", "WATCHDOG_USEC": "60000000"}
        needs = replace(dependencies(slow_engine), environ=environ)
        loop = asyncio.get_running_loop()
        async with running(Daemon(config, needs)) as run:
            assert await loop.sock_recv(channel, 4096) == b"STATUS=starting: loading the model\nWATCHDOG=1"
            slow_engine.may_load.set()
            assert await loop.sock_recv(channel, 4096) == b"READY=1\nSTATUS=ready\nWATCHDOG=1"
            await run.stop()
            assert await loop.sock_recv(channel, 4096) == b"STOPPING=1"


async def test_metrics_follow_a_conversation(config: Config, slow_engine: SlowEngine) -> None:
    slow_engine.engine.turns = [["good morning"]]
    slow_engine.may_load.set()
    async with running(Daemon(config, dependencies(slow_engine))) as run:
        await run.wait_until_ready()
        await run.web.submit("a" * 32, "hello?", "1")
        await run.changes(2)
        metrics = (await run.client.get("/metrics")).text
        assert 'doppel_messages{platform="web",state="new"} 0.0' in metrics
        assert "doppel_generation_seconds_count 1.0" in metrics
        assert "doppel_ready 1.0" in metrics
        assert (await run.client.get("/metrics", headers={"X-Forwarded-For": "192.0.2.1"})).status_code == 404
        assert (await run.client.get("/metrics", headers={"Origin": "https://evil.example"})).status_code == 403


async def test_doppel_forget_reaches_the_running_daemon(
    config: Config, slow_engine: SlowEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.store.forget_requests.POLL_SECONDS", 0.01)
    slow_engine.may_load.set()
    slow_engine.engine.turns = [["good morning"]]
    account = Account("web", "a" * 32)
    person = Person(name="web", accounts=frozenset({account}), names=frozenset())
    live = LiveMessages(config)
    async with running(Daemon(config, dependencies(slow_engine))) as run:
        await run.web.submit(account.id, "a zebra", "1")
        await run.changes(2)
        exported = await asyncio.to_thread(live.export, person)
        assert [record["text"] for record in exported] == ["a zebra", "good morning"]
        erased = await asyncio.to_thread(live.erase, person)
        assert erased.details == {"messages": 1, "bubbles": 1, "chats": 1}
        assert any("Restart it" in line for line in erased.lines)  # this engine has no cache that can be cleared
        assert await asyncio.to_thread(live.export, person) == []
        for path in (config.root / "data").iterdir():
            assert b"zebra" not in path.read_bytes()


async def test_what_is_older_than_store_keep_is_deleted_at_the_start(tmp_path: Path, slow_engine: SlowEngine) -> None:
    config = config_in(tmp_path, web={"port": 0}, store={"keep": "365d"})
    publish(config, habits=QUICK)
    with closing(Store(config.store_url, config.persona.name)) as store:
        for number, sent_at in enumerate([datetime(2020, 1, 1, tzinfo=UTC), datetime.now(UTC)]):
            values = {name: str(number) for name in ("event_id", "message_id", "text", "sender", "chat")}
            message = NewMessage(**values, platform="telegram", kind="group", mentions_bot=False, sent_at=sent_at)
            await store.run(inbox.receive, config.persona.name, message, sent_at)
    daemon = Daemon(config, dependencies(slow_engine))
    async with running(daemon) as run:
        texts = ["0", "1"]
        while len(texts) > 1:
            texts = await daemon._store.run(
                lambda connection: list(connection.execute(select(messages.c.text)).scalars())
            )
        await run.stop()
    assert texts == ["1"]


async def test_page_is_served_at_the_root(config: Config, slow_engine: SlowEngine) -> None:
    slow_engine.may_load.set()
    async with running(Daemon(config, dependencies(slow_engine))) as run:
        page = await run.client.get("/")
        assert page.status_code == 200
        assert '"title":"sample"' in page.text
        assert "googleapis" not in page.text


async def test_stop_while_the_model_loads_does_not_wait_for_it(config: Config, slow_engine: SlowEngine) -> None:
    async with running(Daemon(config, dependencies(slow_engine))) as run:
        assert (await run.client.get("/healthz")).status_code == 200
        async with asyncio.timeout(10):
            assert (await run.stop())["adapter"] is None
    slow_engine.may_load.set()


async def test_platform_without_token_is_off_and_says_why(
    config: Config, slow_engine: SlowEngine, caplog: pytest.LogCaptureFixture
) -> None:
    slow_engine.may_load.set()
    with caplog.at_level(logging.INFO):
        async with running(
            Daemon(config, dependencies(slow_engine, plugin(FakePlatform(), off="telegram is off: no token")))
        ) as run:
            await run.wait_until_ready()
    assert "telegram is off: no token" in caplog.text


async def test_failing_platform_stops_no_other(config: Config, slow_engine: SlowEngine) -> None:
    class Broken(FakePlatform):
        async def run(self, *_: Any) -> None:
            raise DoppelError("bad token")

    slow_engine.may_load.set()
    slow_engine.engine.turns = [["hi"]]
    daemon = Daemon(config, dependencies(slow_engine, plugin(Broken())))
    async with running(daemon) as run:
        await run.wait_until_ready()
        await run.web.submit("a" * 32, "hello?", "1")
        await run.changes(2)


async def test_new_adapter_is_used_without_a_restart(config: Config, slow_engine: SlowEngine) -> None:
    slow_engine.may_load.set()
    slow_engine.engine.turns = [["one"], ["two"]]
    daemon = Daemon(config, dependencies(slow_engine))
    async with running(daemon) as run:
        await run.wait_until_ready()
        await run.web.submit("a" * 32, "hello?", "1")
        await run.changes(2)
        publish(config, habits=QUICK)
        await slow_engine.engine.dropped.wait()
        await run.web.submit("a" * 32, "and now?", "2")
        await run.changes(2)
    with sqlite3.connect(config.root / "data" / "doppel.db") as database:
        rows = database.execute("select text, state, adapter from outbox order by id").fetchall()
    database.close()
    assert rows == [("one", "sent", "0001"), ("two", "sent", "0002")]


async def test_page_can_be_switched_off(
    tmp_path: Path, slow_engine: SlowEngine, caplog: pytest.LogCaptureFixture
) -> None:
    config = config_in(tmp_path, web={"enabled": False, "host": "0.0.0.0"})
    publish(config)
    with caplog.at_level(logging.INFO):
        daemon = Daemon(config, dependencies(slow_engine))
    assert [record.message for record in caplog.records if record.name == "bot.app"] == [
        "web is off: web.enabled is false"
    ]
    stop = asyncio.Event()
    stop.set()
    assert (await daemon.run(stop))["platforms"] == []
    assert "chat page" not in caplog.text


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
async def test_folder_of_the_database_is_for_the_user_alone(tmp_path: Path, slow_engine: SlowEngine) -> None:
    config = config_in(tmp_path, web={"port": 0}, store="chats/inner/doppel.db")
    publish(config)
    stop = asyncio.Event()
    stop.set()
    await Daemon(config, dependencies(slow_engine)).run(stop)
    for name in ("chats", "chats/inner", "adapters", "adapters/sample"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o700


def test_without_an_adapter_it_says_what_to_do_before_it_opens_anything(
    tmp_path: Path, slow_engine: SlowEngine, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO), pytest.raises(UserError, match=r"no adapter yet; run `doppel train`"):
        Daemon(config_in(tmp_path, web={"port": 0}), dependencies(slow_engine, plugin(FakePlatform(), off="no token")))
    assert caplog.messages == []
    assert list(tmp_path.iterdir()) == []


async def test_model_that_does_not_load_ends_the_daemon(config: Config) -> None:
    def broken(config: Config) -> FakeEngine:
        raise DoppelError("out of memory")

    with pytest.raises(DoppelError, match="out of memory"):
        await Daemon(config, dependencies(broken)).run(asyncio.Event())


def test_port_in_use_leaves_nothing_open(config: Config, slow_engine: SlowEngine) -> None:
    with listen("127.0.0.1", 0) as taken:
        web = WebSettings(port=taken.getsockname()[1])
        with pytest.raises(UserError, match="the port is in use"):
            Daemon(config.model_copy(update={"platforms": {"web": web}}), dependencies(slow_engine))


def test_newer_database_leaves_the_port_free(config: Config, slow_engine: SlowEngine) -> None:
    (config.root / "data").mkdir()
    (config.root / "data" / "doppel.db").write_text("no database" * 100)
    with pytest.raises(UserError, match="cannot be used as a database"):
        Daemon(config, dependencies(slow_engine))
