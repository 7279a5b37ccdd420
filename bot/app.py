"""Assembles and runs the daemon: store, page, platforms, responder, scheduler, adapter watcher."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack, ExitStack, closing
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from random import Random
from typing import Any, TypeVar

from fastapi import FastAPI

from bot.cancellation import cancel_tasks
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
from bot.web.server import HttpServer, create_app
from doppel.adapters.versions import version_folder
from doppel.config import Config
from doppel.engine import Engine
from doppel.i18n import tr
from doppel.persona import open_persona
from doppel.plugins import PlatformPlugin, platform_settings
from doppel.system.private_folder import make_private_folder

SEND_TIMEOUT = 4.0
"""Seconds that sends in progress get to finish when the daemon stops."""

ENGINE_TIMEOUT = 2.0
"""Seconds that the engine gets to close."""

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dependencies:
    """What the daemon needs besides its configuration; tests replace all of it.

    Attributes:
        environ: environment variables, which hold the tokens.
        platforms: the installed platforms, by name.
        open_engine: loads the base model; blocks.
        clock: time.
        random: for the waits after failures.
    """

    environ: dict[str, str]
    platforms: Mapping[str, PlatformPlugin[Any]]
    open_engine: Callable[[Config], Engine]
    clock: Clock
    random: Random


class Daemon:
    """One run of the daemon, from start to stop.

    Raises:
        UserError: there is no adapter yet, a cron expression is invalid, or the port or the database cannot be used.
    """

    def __init__(self, config: Config, dependencies: Dependencies) -> None:
        version_folder(config.adapters_dir)  # fails before anything is opened or announced
        clock, random = dependencies.clock, dependencies.random
        self._config = config
        self._dependencies = dependencies
        self._engine: Engine | None = None
        self._responder = Responder(config.reply, config.zone, clock)
        platforms = _open_platforms(dependencies.platforms.values(), config, dependencies.environ)
        self._connections = {name: PlatformConnection(platform, clock, random) for name, platform in platforms.items()}
        with ExitStack() as listeners:  # closed again if the store cannot be opened
            self._pages = [
                (page, listeners.enter_context(closing(page.listen())))
                for page in platforms.values()
                if isinstance(page, PagePlatform)
            ]
            if config.store_folder is not None:
                with contextlib.suppress(OSError):  # the store says in one line why it cannot be opened
                    make_private_folder(config.store_folder)
            self._store = Store(config.store_url)
            listeners.pop_all()
        self._delivery = Delivery(self._store, self._connections, clock, random, lambda: self._responder.habits)
        services = Services(self._store, self._responder, self._delivery, config.reply, clock, random)
        access = AccessList(config.platforms, dependencies.platforms.values())
        self._router = ChatRouter(services, access, self._connections)
        self._scheduler = PostScheduler(config.posts, config.zone, services, self._router.wake)

    @property
    def port(self) -> int:
        """The page's port. Raises IndexError when no platform serves a page."""
        return int(self._pages[0][1].getsockname()[1])

    async def run(self, stop: asyncio.Event) -> dict[str, Any]:
        """Runs until `stop` is set; returns a summary of the run.

        Raises:
            UserError: there is no such base model, or the engine does not support the adapter's sampling.
            DoppelError: the base model or the adapter cannot be loaded.
        """
        started_at = self._dependencies.clock.now()
        async with AsyncExitStack() as stack:  # closed in reverse order: incoming messages first, the store last
            for _, listener in self._pages:
                stack.callback(listener.close)
            stack.callback(self._store.close)
            for page, listener in self._pages:
                server = HttpServer(self._create_app(page), listener)
                server.start()
                stack.push_async_callback(server.stop)
                log.info(tr("chat page: http://{host}:{port}", host=page.access.host, port=server.port))
            stack.push_async_callback(self._close_engine)
            stack.push_async_callback(self._close_connections)
            await self._router.resume()
            stack.push_async_callback(self._router.close, SEND_TIMEOUT)
            receiving = [
                asyncio.create_task(
                    connection.run(self._router.receive, partial(self._store.run, inbox.newest_message_ids, name))
                )
                for name, connection in self._connections.items()
            ]
            stack.push_async_callback(cancel_tasks, *receiving)
            answering = asyncio.create_task(self._start_and_watch())
            stack.push_async_callback(cancel_tasks, answering)
            stack.callback(self._scheduler.stop)
            await _wait_for_stop(stop, answering)
            log.info(tr("stopping"))
        return self._summary(started_at)

    def _create_app(self, page: PagePlatform) -> FastAPI:
        app = create_app(self._not_ready_reason, page.access, self._dependencies.clock)
        page.mount(app, PageServices(self._config, self._store, self._responder))
        return app

    def _not_ready_reason(self) -> str | None:
        return None if self._responder.is_ready() else tr("starting: loading the model")

    async def _start_and_watch(self) -> None:
        """Loads the model and the adapter, then watches for new adapters until cancelled."""
        config, clock = self._config, self._dependencies.clock
        started_at = clock.now()
        persona = await asyncio.to_thread(open_persona, config.adapters_dir)
        self._engine = await _run_in_daemon_thread(lambda: self._dependencies.open_engine(config))
        self._responder.start(self._engine, await load_adapter(self._engine, persona, config.reply))
        log.info(
            tr(
                "{persona} is ready (adapter {version}, {seconds} s)",
                persona=config.persona.name,
                version=persona.manifest.version,
                seconds=round((clock.now() - started_at).total_seconds(), 1),
            )
        )
        await self._scheduler.start()
        await AdapterWatcher(config.adapters_dir, config.reply, self._engine, self._responder, clock).run()

    async def _close_engine(self) -> None:
        if self._engine is not None:
            # Its thread finishes the current step, which may take long; the process does not wait for it.
            await asyncio.wait((_run_in_daemon_thread(self._engine.close),), timeout=ENGINE_TIMEOUT)

    async def _close_connections(self) -> None:
        await asyncio.gather(*(connection.close() for connection in self._connections.values()))

    def _summary(self, started_at: datetime) -> dict[str, Any]:
        adapter = self._responder.adapter
        return {
            "replies": self._delivery.sent["reply"],
            "posts": self._delivery.sent["post"],
            "uptime_seconds": round((self._dependencies.clock.now() - started_at).total_seconds(), 1),
            "adapter": adapter.version if adapter else None,
            "platforms": sorted(self._connections),
        }


def _open_platforms(
    plugins: Iterable[PlatformPlugin[Any]], config: Config, environ: dict[str, str]
) -> dict[str, Platform]:
    """The platforms that can run, by name; logs why the others cannot."""
    platforms: dict[str, Platform] = {}
    for plugin in plugins:
        settings = platform_settings(plugin, config.platforms)
        if reason := plugin.off_reason(settings, environ):
            log.info(reason)
        else:
            platforms[plugin.name] = plugin.open(settings, environ)
    return platforms


async def _wait_for_stop(stop: asyncio.Event, task: asyncio.Task[None]) -> None:
    """Waits for `stop`. The task never ends by itself unless it fails; then this raises its exception."""
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((stopping, task), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
    finally:
        await cancel_tasks(stopping)


def _run_in_daemon_thread(work: Callable[[], T]) -> asyncio.Future[T]:
    """Like `asyncio.to_thread`, but the process does not wait for the thread when it exits."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def deliver(set_outcome: Callable[[Any], None], value: Any) -> None:
        if not future.done():
            set_outcome(value)

    def run() -> None:
        outcome: tuple[Callable[[Any], None], Any]
        try:
            outcome = (future.set_result, work())
        except BaseException as error:  # noqa: BLE001 - the awaiting task must get every error
            outcome = (future.set_exception, error)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(deliver, *outcome)

    threading.Thread(target=run, daemon=True).start()
    return future
