"""Opens the engine, keeps it and its adapter in use, and reopens an engine that has failed."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from bot.cancellation import cancel_tasks
from bot.chat.adapter_watcher import AdapterWatcher, load_adapter
from bot.chat.responder import Responder
from bot.clock import Clock
from doppel.config import Config
from doppel.engine import Engine, PrefixCaching
from doppel.errors import DoppelError, TryAgainLater
from doppel.i18n import tr
from doppel.persona import open_persona

POLL_SECONDS = 1.0

MAX_RESTARTS = 3
"""An engine that fails this often within `RESTART_WINDOW` is not reopened: the process ends, and systemd, a container
or a person starts it again.
"""

RESTART_WINDOW = 600.0

CLOSE_TIMEOUT = 2.0
"""Seconds that the engine gets to close."""

T = TypeVar("T")

log = logging.getLogger(__name__)


class EngineSupervisor:
    """The engine's life, from loading to closing.

    Args:
        config: the model, the adapters, sampling overrides.
        open_engine: loads the base model; blocks.
        responder: started with each engine, stopped when one fails.
        clock: time.
    """

    def __init__(
        self, config: Config, open_engine: Callable[[Config], Engine], responder: Responder, clock: Clock
    ) -> None:
        self._config = config
        self._open_engine = open_engine
        self._responder = responder
        self._clock = clock
        self._engine: Engine | None = None
        self._failures: list[float] = []
        self.failure: str | None = None
        """Why the engine is being reopened; None while it works or is loaded for the first time."""
        self.ready = asyncio.Event()
        """Set once the first reply is possible."""

    async def run(self) -> None:
        """Runs until cancelled.

        Raises:
            UserError: there is no such base model, or the engine does not support the adapter's sampling.
            DoppelError: the base model or the adapter cannot be loaded.
            TryAgainLater: the engine keeps failing or hangs.
        """
        while True:
            await self._start()
            watcher = AdapterWatcher(
                self._config.adapters_dir, self._config.reply, self._running_engine(), self._responder, self._clock
            )
            watching = asyncio.create_task(watcher.run())
            try:
                failure = await self._wait_for_failure(watching)
            finally:
                await cancel_tasks(watching)
            self.failure = failure
            self._responder.stop()
            log.error(tr("the engine failed and is reopened: {reason}", reason=failure))
            await self.close()
            self._count_failure(failure)

    async def close(self) -> None:
        """Closes the engine; gives up after some seconds, since its thread may be in a long step."""
        if self._engine is not None:
            engine, self._engine = self._engine, None
            await asyncio.wait((_run_in_daemon_thread(engine.close),), timeout=CLOSE_TIMEOUT)

    async def clear_prefix_cache(self) -> bool:
        """Drops what the engine keeps of earlier prompts; False if it offers no way to. Raises EngineUnavailable."""
        if isinstance(self._engine, PrefixCaching):
            await self._engine.clear_prefix_cache()
        return self._engine is None or isinstance(self._engine, PrefixCaching)

    async def _start(self) -> None:
        """Loads the model and the adapter in use."""
        config, started_at = self._config, self._clock.monotonic()
        persona = await asyncio.to_thread(open_persona, config.adapters_dir)
        self._engine = await _run_in_daemon_thread(lambda: self._open_engine(config))
        self._responder.start(self._engine, await load_adapter(self._engine, persona, config.reply))
        self.failure = None
        self.ready.set()
        log.info(
            tr(
                "{persona} is ready (adapter {version}, {seconds} s)",
                persona=config.persona.name,
                version=persona.manifest.version,
                seconds=round(self._clock.monotonic() - started_at, 1),
            )
        )

    async def _wait_for_failure(self, watching: asyncio.Task[None]) -> str:
        """Returns why the engine has to be reopened. Raises what ended the watching of adapters."""
        while True:
            if watching.done():
                watching.result()
                raise DoppelError(tr("{task} has ended unexpectedly", task="adapter watcher"))
            failure = self._running_engine().health().failure
            if failure is not None:
                return failure
            if self._responder.hangs:
                # Its thread cannot be ended, and would keep the model's memory.
                raise TryAgainLater(tr("the engine does not respond; restart doppel"))
            await self._clock.sleep(POLL_SECONDS)

    def _count_failure(self, failure: str) -> None:
        """Raises TryAgainLater when the engine fails again and again."""
        now = self._clock.monotonic()
        self._failures = [at for at in self._failures if at > now - RESTART_WINDOW] + [now]
        if len(self._failures) > MAX_RESTARTS:
            raise TryAgainLater(tr("the engine keeps failing: {reason}", reason=failure))

    def _running_engine(self) -> Engine:
        assert self._engine is not None
        return self._engine


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
