"""Assembles and runs the daemon: store, page, platforms, responder, engine, scheduler."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack, ExitStack, closing
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from random import Random
from typing import Any

from fastapi import FastAPI

from bot.cancellation import cancel_tasks
from bot.chat.access import AccessList
from bot.chat.conversation import Services
from bot.chat.delivery import Delivery
from bot.chat.engine_supervisor import EngineSupervisor
from bot.chat.inbound import ChatRouter
from bot.chat.responder import Responder
from bot.clock import Clock
from bot.metrics import Metrics
from bot.platforms import Platform
from bot.platforms.connection import PlatformConnection, Receiving
from bot.posts.scheduler import PostScheduler
from bot.store import Store, inbox
from bot.store.forget_requests import ForgetRequests
from bot.store.leases import Leases
from bot.store.retention import Retention
from bot.systemd import ServiceManager
from bot.web.platform import PagePlatform, PageServices
from bot.web.server import HttpServer, create_app
from doppel.adapters.versions import version_folder
from doppel.config import Config
from doppel.engine import Engine
from doppel.errors import DoppelError
from doppel.i18n import tr
from doppel.plugins import PlatformPlugin, platform_settings

SEND_TIMEOUT = 4.0
"""Seconds that sends in progress get to finish when the daemon stops."""

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
        UserError: there is no adapter yet, or the port or the database cannot be used.
    """

    def __init__(self, config: Config, dependencies: Dependencies) -> None:
        version_folder(config.adapters_dir)  # fails before anything is opened or announced
        clock, random = dependencies.clock, dependencies.random
        self._config = config
        self._dependencies = dependencies
        self._responder = Responder(config.reply, config.zone, clock)
        self._supervisor = EngineSupervisor(config, dependencies.open_engine, self._responder, clock)
        platforms = _open_platforms(dependencies.platforms.values(), config, dependencies.environ)
        with ExitStack() as listeners:  # closed again if the store cannot be opened
            self._pages = [
                (page, listeners.enter_context(closing(page.listen())))
                for page in platforms.values()
                if isinstance(page, PagePlatform)
            ]
            self._store = Store(config.store_url, config.persona.name)
            listeners.pop_all()
        self._leases = Leases(self._store, clock)
        self._connections = {
            name: PlatformConnection(platform, clock, random, self._receiving(name))
            for name, platform in platforms.items()
        }
        self._delivery = Delivery(
            self._leases,
            self._connections,
            clock,
            random,
            lambda: self._responder.habits,
            max_age=config.reply.max_age,
        )
        access = AccessList(config.platforms, dependencies.platforms.values())
        services = Services(
            self._store, self._leases, self._responder, self._delivery, access, config.reply, clock, random
        )
        self._router = ChatRouter(services, self._connections)
        self._forget_requests = ForgetRequests(
            self._store, self._router.drop, self._supervisor.clear_prefix_cache, clock
        )
        self._scheduler = PostScheduler(config.posts, config.zone, services, self._router.wake)
        self._metrics = Metrics(
            config.persona.name, self._store, self._responder, self._connections, self._not_ready_reason
        )
        self._service_manager = ServiceManager(dependencies.environ, clock)

    @property
    def port(self) -> int:
        """The page's port. Raises IndexError when no platform serves a page."""
        return int(self._pages[0][1].getsockname()[1])

    async def run(self, stop: asyncio.Event) -> dict[str, Any]:
        """Runs until `stop` is set; returns a summary of the run.

        Raises:
            UserError: there is no such base model, or the engine does not support the adapter's sampling.
            DoppelError: the base model or the adapter cannot be loaded.
            TryAgainLater: the engine keeps failing or hangs.
        """
        started_at = self._dependencies.clock.now()
        async with AsyncExitStack() as stack:  # closed in reverse order: incoming messages first, the store last
            for _, listener in self._pages:
                stack.callback(listener.close)
            stack.callback(self._store.close)
            stack.push_async_callback(self._leases.close)
            for page, listener in self._pages:
                server = HttpServer(self._create_app(page), listener)
                server.start()
                stack.push_async_callback(server.stop)
                log.info(tr("chat page: http://{host}:{port}", host=page.access.host, port=server.port))
            stack.push_async_callback(self._supervisor.close)
            stack.push_async_callback(self._close_connections)
            await self._router.resume()
            stack.push_async_callback(self._router.close, SEND_TIMEOUT)
            background = {
                name: asyncio.create_task(
                    connection.run(
                        self._router.receive,
                        partial(self._store.run, inbox.newest_message_ids, self._store.persona, name),
                    )
                )
                for name, connection in self._connections.items()
            }
            background["forget requests"] = asyncio.create_task(self._forget_requests.run())
            background["leases"] = asyncio.create_task(self._leases.run())
            if (keep := self._config.store.max_age) is not None:
                retention = Retention(self._store, keep, self._dependencies.clock)
                background["retention"] = asyncio.create_task(retention.run())
            background["sweep"] = asyncio.create_task(self._router.run_sweeps())
            stack.push_async_callback(self._scheduler.stop)  # after the task that starts it
            background["schedules"] = asyncio.create_task(self._post_on_schedule())
            background["engine"] = asyncio.create_task(self._supervisor.run())
            background["systemd"] = asyncio.create_task(
                self._service_manager.run(self._supervisor.ready, self._not_ready_reason, lambda: self._responder.hangs)
            )
            stack.push_async_callback(cancel_tasks, *background.values())
            try:
                await _wait_for_stop(stop, background)
            finally:
                self._service_manager.stopping()
            log.info(tr("stopping"))
        return self._summary(started_at)

    def _receiving(self, platform: str) -> Receiving | None:
        """What lets this daemon alone receive from a platform; None if no other daemon shares the database."""
        if not self._store.is_shared:
            return None
        return partial(self._leases.holding, f"receive:{self._store.persona}:{platform}")

    def _create_app(self, page: PagePlatform) -> FastAPI:
        app = create_app(self._not_ready_reason, page.access, self._dependencies.clock, self._metrics.render)
        page.mount(app, PageServices(self._config, self._store, self._responder))
        return app

    def _not_ready_reason(self) -> str | None:
        """Why no reply is possible now, or None."""
        if self._store.failure is not None:
            return self._store.failure
        if self._supervisor.failure is not None:
            return tr("the engine failed and is reopened: {reason}", reason=self._supervisor.failure)
        if not self._supervisor.ready.is_set():
            return tr("starting: loading the model")
        return None if self._responder.is_ready() else tr("the engine does not respond")

    async def _post_on_schedule(self) -> None:
        """Starts the schedules once replies are possible; then waits until cancelled."""
        await self._supervisor.ready.wait()
        await self._scheduler.start()
        await asyncio.Event().wait()

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


async def _wait_for_stop(stop: asyncio.Event, background: Mapping[str, asyncio.Task[None]]) -> None:
    """Waits for `stop`. No background task ends by itself unless it fails; then this raises its exception.

    Raises:
        DoppelError: one has ended without an exception.
    """
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((stopping, *background.values()), return_when=asyncio.FIRST_COMPLETED)
        for name, task in background.items():
            if task.done():
                task.result()
                raise DoppelError(tr("{task} has ended unexpectedly", task=name))
    finally:
        await cancel_tasks(stopping)
