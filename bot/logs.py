"""The daemon's log: one clear line an event on stderr, in the owner's time, with no token in it."""

import logging
import sys
from collections.abc import Iterable
from datetime import datetime
from zoneinfo import ZoneInfo

from bot.redaction import Redaction

SECRETS = ("TELEGRAM_TOKEN", "DISCORD_TOKEN")
"""Environment variables whose values never reach the log."""

CHATTY = ("httpx", "httpcore", "apscheduler", "uvicorn", "gradio", "discord", "telegram", "asyncio", "urllib3")
"""Libraries whose everyday lines mean nothing to the user; httpx even prints addresses that hold the token."""


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


def set_up_log(zone: ZoneInfo, environ: dict[str, str], *, debug: bool) -> None:
    """Sends all logs to stderr in our form, instead of whatever handlers there were."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(HumanFormatter(zone, [environ.get(name, "") for name in SECRETS]))
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, handlers=[handler], force=True)
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.INFO if debug else logging.WARNING)
