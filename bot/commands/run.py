"""`doppel run`: runs the daemon in the foreground until a signal stops it."""

import asyncio
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bot.logs import LogFormat, set_up_log
from doppel.cli.app import Run
from doppel.errors import DoppelError, ExitCode, UserError
from doppel.i18n import tr
from doppel.plugins import installed_platforms, secret_variables
from doppel.secrets import resolve_secrets
from doppel.terminal import print_status

if TYPE_CHECKING:
    from doppel.config import Config
    from doppel.engine import Engine

log = logging.getLogger(__name__)

STOP_SECONDS = 9.0
"""A shutdown takes about half of this. After that the process exits anyway, since everything important is stored."""


def run(
    run: Run,
    *,
    log_format: Annotated[
        LogFormat, typer.Option("--log-format", help="Write the log as text, or as one JSON object a line.")
    ] = LogFormat.TEXT,
) -> dict[str, Any]:
    """The daemon: replies on every platform that is set up, until Ctrl-C."""
    stop = StopSignal()
    config = run.config

    from doppel.config.scheduled_posts import check_scheduled_posts

    installed = installed_platforms()
    set_up_log(config.zone, os.environ, installed.plugins.values(), debug=run.debug, log_format=log_format)
    report: Callable[[str], None] = print_status
    if log_format is LogFormat.JSON:
        report, run.show_error = log.info, _log_error
    environ, problems = resolve_secrets(os.environ, secret_variables(installed.plugins.values()))
    if problems:
        raise UserError(problems[0])
    for name, error in installed.failures.items():
        report(tr("{platform} is off: it cannot be loaded: {error}", platform=name, error=error))
    check_scheduled_posts(config, run.config_path, environ, installed)

    from random import Random

    from bot.app import Daemon, Dependencies
    from bot.clock import SystemClock

    async def serve() -> dict[str, Any]:
        dependencies = Dependencies(
            environ, installed.plugins, lambda config: open_engine(config, report), SystemClock(), Random()
        )
        return await Daemon(config, dependencies).run(stop.listen())

    result = asyncio.run(serve())
    sys.stdout.flush()
    return result


class StopSignal:
    """Handles SIGTERM and Ctrl-C: the first one shuts down in order, a Ctrl-C after it exits at once.

    A second SIGTERM is ignored: a process started by make gets each one twice, from the process group and from make.
    Create it before slow imports, so that signals are handled during them.
    """

    def __init__(self) -> None:
        self._is_stopping = False
        self._event: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.exit_timer = threading.Timer(STOP_SECONDS, os._exit, (ExitCode.OK,))
        self.exit_timer.daemon = True
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)

    def listen(self) -> asyncio.Event:
        """An event of the running loop that the first signal sets; set already if it has come."""
        self._event = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        if self._is_stopping:
            self._event.set()
        return self._event

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self._is_stopping:
            if number == signal.SIGINT:
                os._exit(128 + number)
            return
        self._is_stopping = True
        self.exit_timer.start()
        if self._loop is not None and self._event is not None:
            self._loop.call_soon_threadsafe(self._event.set)


def open_engine(config: "Config", report: Callable[[str], None] = print_status) -> "Engine":
    """The configured engine for the configured model; `report` is told of slow steps. Blocks; raises DoppelError."""
    from doppel.engine.registry import open_engine as open_configured

    gc.unfreeze()  # what an engine that has failed left behind is collected after all
    engine = open_configured(config, report)
    gc.freeze()  # libraries and model stay: to search them for garbage again and again delays replies
    return engine


def _log_error(error: DoppelError) -> None:
    """Shows the error that ends the daemon as the log's last line."""
    log.critical("%s", error)
