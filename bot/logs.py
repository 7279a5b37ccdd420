"""The daemon's log: one clear line an event on stderr, in the owner's time, with no token in it."""

import logging
import sys
from collections.abc import Iterable
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from bot.redaction import Redaction
from doppel.plugins import Environment, PlatformPlugin

NOISY_LOGGERS = ("httpx", "httpcore", "apscheduler", "asyncio", "urllib3")
"""Libraries whose routine messages are of no use to the user; platforms name those of theirs."""


class HumanFormatter(logging.Formatter):
    """`09:30:12 text`; other levels than INFO are named. Secrets are blacked out last, in tracebacks too."""

    def __init__(self, zone: ZoneInfo, secrets: Iterable[str]) -> None:
        super().__init__()
        self._zone = zone
        self._redaction = Redaction(*secrets)

    def format(self, record: logging.LogRecord) -> str:
        """The whole entry, traceback included."""
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        return self._redaction.redact(f"{self.formatTime(record)} {level}{super().format(record)}")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - logging's name
        """The time of day, with the date, in the owner's zone."""
        return datetime.fromtimestamp(record.created, self._zone).strftime(datefmt or "%Y-%m-%d %H:%M:%S")


def set_up_log(zone: ZoneInfo, environ: Environment, platforms: Iterable[PlatformPlugin[Any]], *, debug: bool) -> None:
    """Sends all logs to stderr in our format, without the platforms' secrets, and removes all other handlers."""
    platforms = tuple(platforms)
    secrets = [environ.get(variable, "").strip() for platform in platforms for variable in platform.secrets]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(HumanFormatter(zone, secrets))
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, handlers=[handler], force=True)
    for name in (*NOISY_LOGGERS, *(name for platform in platforms for name in platform.noisy_loggers)):
        logging.getLogger(name).setLevel(logging.INFO if debug else logging.WARNING)
