"""The daemon's log on stderr, without secrets: a line of text or a JSON object for each event."""

import json
import logging
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfo

from doppel.plugins import Environment, PlatformPlugin, secret_variables
from doppel.redaction import Redactor, redactor_for

NOISY_LOGGERS = ("alembic", "asyncio", "httpcore", "httpx", "urllib3")
"""Libraries whose routine messages are of no use to the user; platforms name those of theirs."""


class LogFormat(StrEnum):
    """For people, or for programs that collect logs."""

    TEXT = "text"
    JSON = "json"


def set_up_log(
    zone: ZoneInfo,
    environ: Environment,
    platforms: Iterable[PlatformPlugin[Any]],
    *,
    debug: bool,
    log_format: LogFormat = LogFormat.TEXT,
) -> None:
    """Sends all logs and warnings to stderr in our format, without secrets, and removes the root's other handlers."""
    platforms = tuple(platforms)
    redactor = redactor_for(environ, secret_variables(platforms))
    logging.setLogRecordFactory(redactor.create_record)  # libraries bring handlers of their own
    logging.captureWarnings(True)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(redactor) if log_format is LogFormat.JSON else LineFormatter(zone, redactor))
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, handlers=[handler], force=True)
    for name in (*NOISY_LOGGERS, *(name for platform in platforms for name in platform.noisy_loggers)):
        logging.getLogger(name).setLevel(logging.INFO if debug else logging.WARNING)


class LineFormatter(logging.Formatter):
    """Formats `2026-03-02 09:30:12 text`; names levels other than INFO. Removes secrets, also from tracebacks."""

    def __init__(self, zone: ZoneInfo, redactor: Redactor) -> None:
        super().__init__()
        self._zone = zone
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        """The line, and a traceback if there is one."""
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        return self._redactor.redact(f"{self.formatTime(record)} {level}{super().format(record)}")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - logging's name
        """Date and time in the owner's zone."""
        return datetime.fromtimestamp(record.created, self._zone).strftime(datefmt or "%Y-%m-%d %H:%M:%S")


class JsonFormatter(logging.Formatter):
    """Formats each record as one line of JSON, without secrets.

    Keys: `time` (ISO 8601, UTC), `level` (in lower case), `logger`, `message`; where there are, `exception`, `stack`.
    """

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        """The object on one line."""
        fields = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if exception := record.exc_text or (record.exc_info and self.formatException(record.exc_info)):
            fields["exception"] = exception
        if record.stack_info:
            fields["stack"] = record.stack_info
        # Before they are encoded: a secret with a quotation mark looks different afterwards.
        return json.dumps({key: self._redactor.redact(text) for key, text in fields.items()}, ensure_ascii=False)
