"""Puts the daemon together and takes it apart again: store, page, platforms, voice, schedule, pick-up.

The only place that knows all of them. What each does is theirs.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, closing
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from random import Random
from typing import Any, TypeVar

from fastapi import FastAPI

from bot.chat.access import AccessList
from bot.chat.adapter_watcher import AdapterWatcher, load_adapter
from bot.chat.conversation import Services
from bot.chat.delivery import Delivery
from bot.chat.inbound import ChatRouter
from bot.chat.responder import Responder
from bot.clock import Clock
from bot.platforms import Platform
from bot.platforms.connection import PlatformConnection
from bot.posts.scheduler import PostScheduler
from bot.store import Store, inbox
from bot.web.platform import PagePlatform, PageServices
from bot.web.server import HttpServer, application
from doppel.config import Config
from doppel.engine import Engine
from doppel.i18n import tr
from doppel.persona import open_persona
from doppel.plugins import PlatformPlugin, platform_settings

SENDING_SECONDS = 4.0
"""At the end, bubbles on their way get so long to arrive."""

ENGINE_SECONDS = 2.0

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dependencies:
    """What the daemon is given besides its configuration.

    Attributes:
        environ: the environment, for tokens.
        platforms: what is installed, by name.
        open_engine: loads the base model; blocks.
        clock: time.
        random: for waits after failures.
    """

    environ: dict[str, str]
    platforms: Mapping[str, PlatformPlugin[Any]]
    open_engine: Callable[[Config], Engine]
    clock: Clock
    random: Random


class Daemon:
    """One run, from start to stop.

    Raises:
        UserError: a post's rhythm, the port or the database is the user's to mend.
    """

    def __init__(self, config: Config, dependencies: Dependencies) -> None:
        self._config = config
        self._dependencies = dependencies
        self._engine: Engine | None = None
        self._responder = Responder(config.reply, config.zone, dependencies.clock)
        platforms = _open_platforms(dependencies.platforms.values(), config, dependencies.environ)
        self._connections = {
            name: PlatformConnection(one, dependencies.clock, dependencies.random) for name, one in platforms.items()
        }
        with ExitStack() as opened:  # closed again if the store cannot be opened
            self._pages = [
                (page, opened.enter_context(closing(page.listen())))
                for page in platforms.values()
                if isinstance(page, PagePlatform)
            ]
            self._store = Store(config.store_url)
            opened.pop_all()
        self._delivery = Delivery(
            self._store, self._connections, dependencies.clock, dependencies.random, lambda: self._responder.habits
        )
        services = Services(
            self._store, self._responder, self._delivery, config.reply, dependencies.clock, dependencies.random
        )
        self._router = ChatRouter(
            services, AccessList(config.platforms, dependencies.platforms.values()), self._connections
        )
        self._scheduler = PostScheduler(config.posts, config.zone, services, self._router.wake)

    @property
    def port(self) -> int:
        """The page's port. Raises IndexError when no platform serves a page."""
        return int(self._pages[0][1].getsockname()[1])

    async def run(self, stop: asyncio.Event) -> dict[str, Any]:
        """Serves until `stop` is set; returns what was done.

        Raises:
            UserError: there is no adapter yet, or no such model.
            DoppelError: the model or the adapter cannot be loaded.
        """
        started_at = self._dependencies.clock.now()
        async with AsyncExitStack() as leaving:  # undone in reverse: intake ends first, the store last
            for _, listener in self._pages:
                leaving.callback(listener.close)
            leaving.callback(self._store.close)
            for page, listener in self._pages:
                server = HttpServer(self._application(page), listener)
                server.start()
                leaving.push_async_callback(server.stop)
                log.info(tr("chat page: http://{host}:{port}", host=page.host, port=server.port))
            leaving.push_async_callback(self._close_engine)
            leaving.push_async_callback(self._close_connections)
            await self._router.resume()
            leaving.push_async_callback(self._router.close, SENDING_SECONDS)
            listening = [
                asyncio.create_task(
                    connection.run(self._router.receive, partial(self._store.run, inbox.newest_message_ids, name))
                )
                for name, connection in self._connections.items()
            ]
            leaving.push_async_callback(_cancel, listening)
            working = asyncio.create_task(self._work())
            leaving.push_async_callback(_cancel, [working])
            leaving.callback(self._scheduler.stop)
            await _until(stop, working)
            log.info(tr("stopping"))
        return self._report(started_at)

    def _application(self, page: PagePlatform) -> FastAPI:
        app = application(self._not_ready, page.host)
        page.mount(app, PageServices(self._config, self._store, self._responder))
        return app

    def _not_ready(self) -> str | None:
        return None if self._responder.is_ready() else tr("waking up: the model is loading")

    async def _work(self) -> None:
        """Wakes the persona, then watches for new adapters until cancelled."""
        started_at = self._dependencies.clock.now()
        persona = await asyncio.to_thread(open_persona, self._config)
        self._engine = await _in_thread(lambda: self._dependencies.open_engine(self._config))
        self._responder.start(self._engine, await load_adapter(self._engine, persona, self._config.reply))
        seconds = (self._dependencies.clock.now() - started_at).total_seconds()
        log.info(
            tr(
                "{persona} is awake (adapter {version}, {seconds} s)",
                persona=self._config.persona.name,
                version=persona.manifest.version,
                seconds=round(seconds, 1),
            )
        )
        await self._scheduler.start()
        watcher = AdapterWatcher(
            self._config.adapters_dir, self._config.reply, self._engine, self._responder, self._dependencies.clock
        )
        await watcher.run()

    async def _close_engine(self) -> None:
        if self._engine is not None:
            # Its thread ends with the step it is at; the process need not wait for a long one.
            await asyncio.wait((_in_thread(self._engine.close),), timeout=ENGINE_SECONDS)

    async def _close_connections(self) -> None:
        await asyncio.gather(*(connection.close() for connection in self._connections.values()))

    def _report(self, started_at: datetime) -> dict[str, Any]:
        loaded = self._responder.adapter
        return {
            "replies": self._delivery.sent["reply"],
            "posts": self._delivery.sent["post"],
            "uptime_seconds": round((self._dependencies.clock.now() - started_at).total_seconds(), 1),
            "adapter": loaded.version if loaded else None,
            "platforms": sorted(self._connections),
        }


def _open_platforms(
    plugins: Iterable[PlatformPlugin[Any]], config: Config, environ: dict[str, str]
) -> dict[str, Platform]:
    """The platforms that can run, by name; the log says why the others cannot."""
    platforms: dict[str, Platform] = {}
    for plugin in plugins:
        settings = platform_settings(plugin, config.platforms)
        if reason := plugin.off_reason(settings, environ):
            log.info(reason)
        else:
            platforms[plugin.name] = plugin.open(settings, environ)
    return platforms


async def _until(stop: asyncio.Event, working: asyncio.Task[None]) -> None:
    """Waits for the stop; work that ends before has failed, and raises."""
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((stopping, working), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        await _cancel([stopping])


async def _cancel(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _in_thread(work: Callable[[], T]) -> asyncio.Future[T]:
    """Runs work on a thread that the process does not wait for when it ends, unlike `asyncio.to_thread`."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def deliver(set_outcome: Callable[[Any], None], value: Any) -> None:
        if not result.done():
            set_outcome(value)

    def run() -> None:
        outcome: tuple[Callable[[Any], None], Any]
        try:
            outcome = (result.set_result, work())
        except BaseException as error:  # noqa: BLE001 - whatever it is, the one who waits must hear of it
            outcome = (result.set_exception, error)
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits
            loop.call_soon_threadsafe(deliver, *outcome)

    threading.Thread(target=run, daemon=True).start()
    return result
