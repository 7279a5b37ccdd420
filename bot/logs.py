"""The daemon's log on stderr: one line per event, in the owner's time zone, without secrets."""

import logging
import sys
from collections.abc import Iterable
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from doppel.plugins import Environment, PlatformPlugin

NOISY_LOGGERS = ("httpx", "httpcore", "asyncio", "urllib3")
"""Libraries whose routine messages are of no use to the user; platforms name those of theirs."""


def set_up_log(zone: ZoneInfo, environ: Environment, platforms: Iterable[PlatformPlugin[Any]], *, debug: bool) -> None:
    """Sends all logs to stderr in our format, without the platforms' secrets, and removes all other handlers."""
    platforms = tuple(platforms)
    secrets = [environ.get(variable, "").strip() for platform in platforms for variable in platform.secrets]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter(zone, secrets))
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, handlers=[handler], force=True)
    for name in (*NOISY_LOGGERS, *(name for platform in platforms for name in platform.noisy_loggers)):
        logging.getLogger(name).setLevel(logging.INFO if debug else logging.WARNING)


class LineFormatter(logging.Formatter):
    """Formats `2026-03-02 09:30:12 text`; names levels other than INFO. Removes secrets, also from tracebacks."""

    def __init__(self, zone: ZoneInfo, secrets: Iterable[str]) -> None:
        super().__init__()
        self._zone = zone
        self._redactor = Redactor(*secrets)

    def format(self, record: logging.LogRecord) -> str:
        """The line, and a traceback if there is one."""
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        return self._redactor.redact(f"{self.formatTime(record)} {level}{super().format(record)}")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - logging's name
        """Date and time in the owner's zone."""
        return datetime.fromtimestamp(record.created, self._zone).strftime(datefmt or "%Y-%m-%d %H:%M:%S")


class Redactor(logging.Filter):
    """A filter that removes secrets from messages and tracebacks.

    On a handler it covers all records; on a logger only the records logged through that logger itself.
    """

    def __init__(self, *secrets: str) -> None:
        super().__init__()
        self._secrets = tuple(secret for secret in secrets if secret)

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrites a record that contains a secret; never drops it."""
        message = record.getMessage()
        if (clean := self.redact(message)) != message:
            record.msg, record.args = clean, None
        if record.exc_info and not record.exc_text:
            # Formatted here and not later: exceptions often contain a URL with a token.
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = self.redact(record.exc_text)
        return True

    def redact(self, text: str) -> str:
        """Replaces every secret in the text by an ellipsis."""
        for secret in self._secrets:
            text = text.replace(secret, "…")
        return text
